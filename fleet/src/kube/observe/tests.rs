use super::*;

fn pod(rest: &str) -> Pod {
    let yaml = format!(
        "
metadata:
  name: hello-0123456789-0
  namespace: shop
  uid: u-1
  creationTimestamp: 2026-03-01T10:00:00Z
  labels: {{lambent.dev/function: hello, lambent.dev/revision: hello-0123456789}}
spec:
  nodeName: node-1
  containers:
  - {{name: istio-proxy, ports: [{{containerPort: 15001}}]}}
  - {{name: function, ports: [{{containerPort: 8080}}]}}
{rest}"
    );
    serde_yaml::from_str(&yaml).unwrap()
}

fn seen(rest: &str) -> Instance {
    instance(&pod(rest)).unwrap()
}

fn waiting(reason: &str) -> String {
    format!(
        "status: {{containerStatuses: [{{name: function, restartCount: 3, ready: false, image: a, imageID: b,
          state: {{waiting: {{reason: {reason}, message: words}}}},
          lastState: {{terminated: {{exitCode: 137, reason: OOMKilled}}}}}}]}}"
    )
}

fn probed(rest: &str) -> Instance {
    let mut pod = pod(rest);
    pod.spec.as_mut().unwrap().containers[1].readiness_probe = Some(Default::default());
    instance(&pod).unwrap()
}

const RUNNING: &str = "
status:
  phase: Running
  podIP: 10.244.0.7
  containerStatuses:
  - {name: function, restartCount: 2, ready: true, image: a, imageID: b, state: {running: {}}}
";

#[test]
fn a_running_pod_is_found_at_the_port_of_its_function() {
    let instance = seen(RUNNING);
    assert_eq!(instance.phase, Phase::Running);
    assert_eq!(instance.address, Some("10.244.0.7:8080".parse().unwrap()));
    assert_eq!(instance.node.as_deref(), Some("node-1"));
    assert_eq!(instance.id, InstanceRef { name: "hello-0123456789-0".into(), uid: "u-1".into() });
    assert_eq!((instance.function.as_str(), instance.revision.as_str()), ("hello", "hello-0123456789"));
    assert_eq!((instance.namespace.as_str(), instance.restarts), ("shop", 2));
    assert_eq!(instance.created.to_string(), "2026-03-01T10:00:00Z");
}

#[test]
fn an_address_may_be_known_before_the_container_runs() {
    let instance = seen("status: {phase: Pending, podIP: 'fd00::7'}");
    assert_eq!(instance.phase, Phase::Starting);
    assert_eq!(instance.connectable(), Some("[fd00::7]:8080".parse().unwrap()));
}

#[test]
fn deletion_goes_before_everything_else() {
    let mut pod = pod("status: {phase: Failed}");
    pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
    assert_eq!(instance(&pod).unwrap().phase, Phase::Stopping);
}

#[test]
fn failed_pods_have_ended_with_their_reason() {
    let evicted = seen("status: {phase: Failed, reason: Evicted, message: The node was low on resource}");
    assert_eq!(evicted.phase, Phase::Ended(Reason::new("Evicted", "The node was low on resource")));
    let bare = seen("status: {phase: Succeeded}");
    assert_eq!(bare.phase, Phase::Ended(Reason::new("Succeeded", "")));
    let exited = seen(
        "status: {phase: Failed, containerStatuses: [{name: function, restartCount: 0, ready: false, image: a,
           imageID: b, state: {terminated: {exitCode: 3, reason: Error}}}]}",
    );
    assert_eq!(exited.phase, Phase::Ended(Reason::new("Error", "exit code 3")));
}

#[test]
fn each_failure_to_start_is_told_in_the_kubelets_words() {
    for reason in FAILURES {
        match seen(&waiting(reason)).phase {
            Phase::Failing(why) => {
                assert_eq!(why.reason, reason);
                assert!(why.message.contains("words"), "{why:?}");
            }
            other => panic!("{reason}: {other:?}"),
        }
    }
    assert_eq!(seen(&waiting("ContainerCreating")).phase, Phase::Starting);
}

#[test]
fn a_crash_loop_says_what_the_process_died_of() {
    let Phase::Failing(why) = seen(&waiting("CrashLoopBackOff")).phase else { panic!() };
    assert_eq!(why.message, "OOMKilled (exit code 137); words");
}

#[test]
fn a_first_exit_is_no_failure_but_a_process_that_never_ran_is() {
    let terminated = |reason: &str| {
        seen(&format!(
            "status: {{containerStatuses: [{{name: function, restartCount: 0, ready: false, image: a, imageID: b,
               state: {{terminated: {{exitCode: 128, reason: {reason}, message: no such file}}}}}}]}}"
        ))
        .phase
    };
    assert_eq!(terminated("Error"), Phase::Starting);
    let why = Reason::new("StartError", "StartError (exit code 128): no such file");
    assert_eq!(terminated("StartError"), Phase::Failing(why));
}

#[test]
fn a_process_that_exits_soon_after_a_restart_is_in_a_crash_loop_before_the_kubelet_says_so() {
    let exited = |restarts: u32, finished: &str| {
        seen(&format!(
            "status: {{containerStatuses: [{{name: function, restartCount: {restarts}, ready: false, image: a,
               imageID: b, state: {{terminated: {{exitCode: 3, reason: Error, startedAt: '2026-03-01T10:00:00Z',
               finishedAt: '{finished}'}}}}}}]}}"
        ))
        .phase
    };
    assert_eq!(exited(0, "2026-03-01T10:00:01Z"), Phase::Starting);
    assert_eq!(exited(1, "2026-03-01T10:00:01Z"), Phase::Failing(Reason::new("CrashLoopBackOff", "exit code 3")));
    assert_eq!(exited(1, "2026-03-01T10:05:00Z"), Phase::Starting);
}

#[test]
fn an_unschedulable_pod_has_the_schedulers_words() {
    let condition = "status: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: REASON,
        message: 0/1 nodes are available}]}";
    let phase = seen(&condition.replace("REASON", "Unschedulable")).phase;
    assert_eq!(phase, Phase::Failing(Reason::new("Unschedulable", "0/1 nodes are available")));
    assert_eq!(seen(&condition.replace("REASON", "SchedulingGated")).phase, Phase::Starting);
}

#[test]
fn what_a_readiness_probe_says_goes_before_a_connection() {
    assert_eq!(probed(RUNNING).phase, Phase::Unready);
    let ready = RUNNING.replace("podIP", "conditions: [{type: Ready, status: 'True'}]\n  podIP");
    assert_eq!(probed(&ready).phase, Phase::Running);
    assert_eq!(probed("status: {phase: Pending, podIP: 10.0.0.1}").phase, Phase::Unready);
    assert_eq!(probed("status: {phase: Pending}").phase, Phase::Starting);
}

#[test]
fn pods_of_others_are_no_instances() {
    assert_eq!(instance(&Pod::default()), None);
}
