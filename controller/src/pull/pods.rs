//! Pods that pull an image and nothing else: what one looks like, and what one that was seen means.
//! Its command can't exist, so the kubelet pulls the image and then fails to start the container: none of
//! the function's own code ever runs there, and an image without a shell does as well.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, Container, ContainerState, ContainerStatus, NodeAffinity, NodeSelector,
        NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSecurityContext, PodSpec, PodStatus, ResourceRequirements,
        SeccompProfile, SecurityContext,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::Resource;
use lambent_api::{
    FunctionKey, Reason, Revision, RevisionKey,
    meta::{ANNOTATION_NODE, LABEL_PULL},
};
use sha2::{Digest, Sha256};

/// How long a pull may take at most. The kubelet ends the pod then, also if nobody is there to delete it.
pub(super) const DEADLINE_SECONDS: i64 = 600;
/// Nothing can be below a device, whatever an image has in it; the rest tells who finds it in an Event.
const NO_COMMAND: &str = "/dev/null/only-the-image-is-pulled-here";
/// Numeric, as `restricted` wants one. Nothing runs as it.
const NOBODY: i64 = 65532;
const CONTAINER: &str = "image";
/// The Function's name is in it, as it is on instances.
const LABEL_NAME: &str = "app.kubernetes.io/name";
/// The container was made, or could not be made of an image that is there.
const AFTER_THE_PULL: [&str; 7] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "PreCreateHookError",
    "PreStartHookError",
    "PostStartHookError",
    "RunContainerError",
    "CrashLoopBackOff",
];
const BEFORE_THE_PULL: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// The kubelet has lost sight of the container, or never had it.
const UNKNOWN: &str = "ContainerStatusUnknown";

/// A pod that pulls an image to a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PullPod {
    /// Whose image.
    pub(crate) revision: RevisionKey,
    /// That Revision's uid.
    pub(crate) revision_uid: String,
    /// The Function's name.
    pub(crate) function: String,
    /// Its own name.
    pub(crate) name: String,
    /// Its own uid.
    pub(crate) uid: String,
    /// Where to.
    pub(crate) node: String,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// How far it is.
    pub(crate) state: State,
}

impl PullPod {
    /// Whose image it is.
    pub(crate) fn function(&self) -> FunctionKey {
        FunctionKey::new(self.revision.namespace.clone(), &self.function)
    }
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// On its way.
    Pulling,
    /// The image is there.
    Pulled,
    /// It did not work; the kubelet will try again.
    Failing(Reason),
    /// It did not work and won't.
    Failed(Reason),
    /// The scheduler does not place it there.
    NotPlaced,
    /// The pod is being deleted.
    Stopping,
}

/// The pod that pulls a Revision's image to a node.
pub(crate) fn pod(revision: &Revision, node: &str) -> Pod {
    Pod { metadata: metadata(revision, node), spec: Some(spec(revision, node)), status: None }
}

fn metadata(revision: &Revision, node: &str) -> ObjectMeta {
    let name = revision.metadata.name.clone().unwrap_or_default();
    let labels = [
        (LABEL_PULL, name.as_str()),
        (LABEL_NAME, revision.spec.function.as_str()),
        ("app.kubernetes.io/component", "image-pull"),
        ("app.kubernetes.io/part-of", "lambent"),
    ];
    ObjectMeta {
        name: Some(pod_name(&name, node)),
        namespace: revision.metadata.namespace.clone(),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        annotations: Some([(ANNOTATION_NODE.to_owned(), node.to_owned())].into()),
        owner_references: revision.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// The same for the same node, so that an order that is repeated is carried out once. As long as a host name may be
/// at most; two nodes with one name are served one after the other.
fn pod_name(revision: &str, node: &str) -> String {
    let hash = Sha256::digest(node);
    format!("{revision}-pull-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2])
}

fn spec(revision: &Revision, node: &str) -> PodSpec {
    let template = &revision.spec.template;
    let fields = &template.pod;
    PodSpec {
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(template.image.clone()),
            command: Some(vec![NO_COMMAND.to_owned()]),
            image_pull_policy: Some(template.image_pull_policy.clone().unwrap_or_else(|| "IfNotPresent".to_owned())),
            resources: Some(nothing()),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                read_only_root_filesystem: Some(true),
                ..SecurityContext::default()
            }),
            ..Container::default()
        }],
        affinity: Some(only(node)),
        tolerations: Some(fields.tolerations.clone()).filter(|list| !list.is_empty()),
        restart_policy: Some("Never".to_owned()),
        active_deadline_seconds: Some(DEADLINE_SECONDS),
        termination_grace_period_seconds: Some(1),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // Whose pull secrets are used, if the Function names none.
        service_account_name: fields.service_account_name.clone(),
        image_pull_secrets: Some(fields.image_pull_secrets.clone()).filter(|list| !list.is_empty()),
        // Another runtime may keep images apart from others.
        runtime_class_name: fields.runtime_class_name.clone(),
        security_context: Some(PodSecurityContext {
            run_as_user: Some(NOBODY),
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

/// As a DaemonSet has it: the scheduler still heeds taints, cordons and room, which `nodeName` would pass over.
fn only(node: &str) -> Affinity {
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None };
    let required = NodeSelector { node_selector_terms: vec![term] };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(required),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Said, as a quota may want it said: nothing is asked for, and no limit is meant by zero.
fn nothing() -> ResourceRequirements {
    let zero = |name: &str| (name.to_owned(), Quantity("0".to_owned()));
    let zero = || Some(BTreeMap::from(["cpu", "memory"].map(zero)));
    ResourceRequirements { requests: zero(), limits: zero(), ..ResourceRequirements::default() }
}

/// What a pod means; none if it pulls nothing for us.
pub(crate) fn pull_pod(pod: &Pod) -> Option<PullPod> {
    let metadata = &pod.metadata;
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.kind == Revision::kind(&()))?;
    let labels = metadata.labels.as_ref().filter(|labels| labels.contains_key(LABEL_PULL))?;
    Some(PullPod {
        revision: RevisionKey::new(metadata.namespace.clone()?, &owner.name),
        revision_uid: owner.uid.clone(),
        function: labels.get(LABEL_NAME)?.clone(),
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
        node: metadata.annotations.as_ref()?.get(ANNOTATION_NODE)?.clone(),
        created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        state: state(pod),
    })
}

/// | the pod                                            | state             |
/// | -------------------------------------------------- | ----------------- |
/// | is being deleted                                   | Stopping          |
/// | its container ran, ended, could not be made of it  | Pulled            |
/// | ended before: evicted, too late                    | Failed            |
/// | waits for anything else than its turn              | Failing           |
/// | is not scheduled                                   | NotPlaced         |
/// | anything else                                      | Pulling           |
fn state(pod: &Pod) -> State {
    if pod.metadata.deletion_timestamp.is_some() {
        return State::Stopping;
    }
    let Some(status) = &pod.status else { return State::Pulling };
    let container = status.container_statuses.iter().flatten().find(|c| c.name == CONTAINER);
    match container.and_then(of_container) {
        Some(State::Pulled) => State::Pulled,
        other => ended(status).or(other).or_else(|| not_placed(status)).unwrap_or(State::Pulling),
    }
}

fn of_container(container: &ContainerStatus) -> Option<State> {
    let ContainerState { running, terminated, waiting } = container.state.as_ref()?;
    if running.is_some() || terminated.as_ref().is_some_and(|t| t.reason.as_deref() != Some(UNKNOWN)) {
        return Some(State::Pulled);
    }
    let waiting = waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !BEFORE_THE_PULL.contains(reason))?;
    let words = waiting.message.clone().unwrap_or_default();
    Some(if AFTER_THE_PULL.contains(&reason) { State::Pulled } else { State::Failing(Reason::new(reason, words)) })
}

fn ended(status: &PodStatus) -> Option<State> {
    let phase = status.phase.as_deref().filter(|phase| ["Failed", "Succeeded"].contains(phase))?;
    let reason = status.reason.as_deref().unwrap_or(phase);
    Some(State::Failed(Reason::new(reason, status.message.clone().unwrap_or_default())))
}

fn not_placed(status: &PodStatus) -> Option<State> {
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    (condition.reason.as_deref() == Some("Unschedulable")).then_some(State::NotPlaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(template: &str) -> Revision {
        let text = format!(
            "{{apiVersion: lambent.dev/v1alpha1, kind: Revision, metadata: {{name: hello-0123456789, namespace: shop, uid: r-1}},
             spec: {{function: hello, template: {template}}}}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    fn seen(status: &str) -> State {
        let mut pod = pod(&revision("{image: a}"), "n");
        pod.metadata.uid = Some("p-1".to_owned());
        pod.status = Some(serde_yaml::from_str(status).unwrap());
        pull_pod(&pod).unwrap().state
    }

    fn container(state: &str) -> String {
        format!("{{name: image, restartCount: 0, ready: false, image: a, imageID: '', state: {state}}}")
    }

    #[test]
    fn a_pod_is_read_back_as_what_it_was_made_for() {
        let mut pod = pod(&revision("{image: a}"), "node-1");
        pod.metadata.uid = Some("p-1".to_owned());
        let read = pull_pod(&pod).unwrap();
        assert_eq!(read.revision, RevisionKey::new("shop", "hello-0123456789"));
        assert_eq!((read.revision_uid.as_str(), read.node.as_str()), ("r-1", "node-1"));
        assert_eq!((read.function(), read.state), (FunctionKey::new("shop", "hello"), State::Pulling));
    }

    #[test]
    fn no_watch_of_instances_sees_it() {
        let labels = pod(&revision("{image: a}"), "n").metadata.labels.unwrap();
        assert!(!labels.contains_key(lambent_api::meta::LABEL_FUNCTION));
        assert!(!labels.contains_key(lambent_api::meta::LABEL_REVISION));
    }

    #[test]
    fn nothing_of_the_function_runs_or_is_mounted_there() {
        let template = "{image: a, command: [serve], args: [x], env: [{name: A, value: b}], workingDir: /x,
          volumeMounts: [{name: v, mountPath: /v}], securityContext: {runAsUser: 0, privileged: true},
          lifecycle: {postStart: {exec: {command: [x]}}},
          pod: {volumes: [{name: v, emptyDir: {}}], serviceAccountName: s, priorityClassName: high}}";
        let spec = pod(&revision(template), "n").spec.unwrap();
        let container = &spec.containers[0];
        assert_eq!(container.command.as_deref(), Some(&[NO_COMMAND.to_owned()][..]));
        assert!(container.args.is_none() && container.env.is_none() && container.lifecycle.is_none());
        assert!(container.volume_mounts.is_none() && spec.volumes.is_none());
        let security = container.security_context.as_ref().unwrap();
        assert!(security.run_as_user.is_none() && security.privileged.is_none());
        assert_eq!(spec.security_context.unwrap().run_as_non_root, Some(true));
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert!(spec.priority_class_name.is_none(), "it must push nobody out");
    }

    #[test]
    fn it_pulls_as_an_instance_would() {
        let template =
            "{image: a@sha256:1, pod: {imagePullSecrets: [{name: s}], serviceAccountName: t, runtimeClassName: u,
          tolerations: [{operator: Exists}]}}";
        let spec = pod(&revision(template), "n").spec.unwrap();
        assert_eq!(spec.image_pull_secrets.unwrap()[0].name, "s");
        assert_eq!((spec.service_account_name.as_deref(), spec.runtime_class_name.as_deref()), (Some("t"), Some("u")));
        assert_eq!(spec.tolerations.unwrap().len(), 1);
        assert_eq!(spec.containers[0].image.as_deref(), Some("a@sha256:1"));
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
        let always = pod(&revision("{image: a, imagePullPolicy: Always}"), "n").spec.unwrap();
        assert_eq!(always.containers[0].image_pull_policy.as_deref(), Some("Always"));
    }

    #[test]
    fn the_longest_name_is_a_host_name() {
        let name = pod_name(&format!("{}-0123456789", "f".repeat(lambent_api::meta::MAX_NAME_LENGTH)), "n");
        assert!(name.len() <= 63, "{}", name.len());
        assert_ne!(pod_name("r", "n"), pod_name("r", "m"));
    }

    #[test]
    fn a_container_that_can_not_start_has_its_image() {
        for state in [
            "{terminated: {exitCode: 128, reason: StartError}}",
            "{terminated: {exitCode: 127, reason: ContainerCannotRun}}",
            "{waiting: {reason: RunContainerError}}",
            "{waiting: {reason: CreateContainerError}}",
            "{running: {}}",
        ] {
            assert_eq!(seen(&format!("{{phase: Failed, containerStatuses: [{}]}}", container(state))), State::Pulled);
        }
    }

    #[test]
    fn what_is_on_its_way_is_told_from_what_fails() {
        let waiting = |reason| {
            format!(
                "{{phase: Pending, containerStatuses: [{}]}}",
                container(&format!("{{waiting: {{reason: {reason}, message: words}}}}"))
            )
        };
        assert_eq!(seen("{phase: Pending}"), State::Pulling);
        assert_eq!(seen(&waiting("ContainerCreating")), State::Pulling);
        for reason in ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "SignatureValidationFailed"] {
            assert_eq!(seen(&waiting(reason)), State::Failing(Reason::new(reason, "words")));
        }
    }

    #[test]
    fn an_end_before_the_pull_is_a_failure() {
        let late = "{phase: Failed, reason: DeadlineExceeded, message: too long}";
        assert_eq!(seen(late), State::Failed(Reason::new("DeadlineExceeded", "too long")));
        let lost = container("{terminated: {exitCode: 137, reason: ContainerStatusUnknown}}");
        let lost = format!("{{phase: Failed, reason: Evicted, message: disk, containerStatuses: [{lost}]}}");
        assert_eq!(seen(&lost), State::Failed(Reason::new("Evicted", "disk")));
    }

    #[test]
    fn a_node_that_the_scheduler_rejects_is_told() {
        let status = "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable}]}";
        assert_eq!(seen(status), State::NotPlaced);
    }

    #[test]
    fn other_pods_are_not_ours() {
        let mut foreign = pod(&revision("{image: a}"), "n");
        foreign.metadata.uid = Some("p".to_owned());
        foreign.metadata.owner_references = None;
        assert_eq!(pull_pod(&foreign), None);
    }
}
