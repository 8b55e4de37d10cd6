//! What can't start is told with its own reason: in the condition, in an Event and to who calls.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Event, Pod, ResourceQuota},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use lambent_api::ConditionType;
use lambent_tests::{Context, Deployed, await_condition, locked_registry::LockedRegistry, registry, with_temp_ns};
use serde_json::json;

/// Long before a queue.timeout of 30 s, on the busiest machine.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Callers get these words, and get them at once.
async fn refuses_callers(function: &Deployed, words: &[&str]) {
    let answer = function.call("/").await;
    let detail = answer.expect_refusal(503, "StartFailed");
    for word in words {
        assert!(detail.contains(word), "no {word:?} in: {detail}");
    }
    assert!(answer.took < AT_ONCE, "{:?}", answer.took);
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_told_to_author_and_caller() {
    with_temp_ns(async |cx: Context| {
        let missing = cx.apply("missing", json!({"image": cx.image("no-such-image")})).await;
        let words = missing.await_not_ready("ImageNotFound").await;
        assert!(words.contains("no-such-image") && words.contains("check repository and tag"), "{words}");
        refuses_callers(&missing, &["ImageNotFound", "no-such-image"]).await;
        await_event(&missing, "no-such-image").await;
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_is_away_is_told_at_once() {
    with_temp_ns(async |cx: Context| {
        let lost = cx.apply("lost", json!({"image": "127.0.0.1:1/lost:1", "queue": {"timeout": "10m"}})).await;
        lost.await_not_ready("RegistryUnreachable").await;
        refuses_callers(&lost, &["RegistryUnreachable"]).await;
    })
    .await;
}

#[tokio::test]
async fn an_image_that_appears_later_makes_the_function_ready() {
    with_temp_ns(async |cx: Context| {
        let name = &cx.namespace;
        let missing = cx.apply("missing", json!({"image": cx.image(name)})).await;
        missing.await_not_ready("ImageNotFound").await;
        refuses_callers(&missing, &["ImageNotFound", name]).await;
        // Pushed by somebody else: nobody touches the Function.
        registry::copy(&cx, "hello:1", &format!("{name}:1")).await;
        missing.await_ready().await;
        missing.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_pull_secret_is_told_at_once_and_the_right_one_is_noticed() {
    with_temp_ns(async |cx: Context| {
        let registry = LockedRegistry::start(&cx, &cx.namespace, "right").await;
        registry.pull_secret(&cx, "wrong").await;
        let pod = json!({"imagePullSecrets": [{"name": "pull"}]});
        let locked = cx.apply("locked", json!({"image": registry.image("hello"), "pod": pod})).await;
        // Of "Unauthorized" or "authorization", as the node's runtime has it.
        await_stalled(&locked, "authoriz").await;
        refuses_callers(&locked, &["authoriz"]).await;
        let image = locked.condition(ConditionType::ImageResolved).await.unwrap();
        assert!(image.message.contains("imagePullSecrets"), "{image:?}");
        await_event(&locked, "authoriz").await;

        registry.pull_secret(&cx, "right").await;
        locked.await_ready().await;
        locked.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_told() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("hello"), "command": ["/no/such/command"]});
        let wrong = cx.apply("wrong", spec).await;
        await_stalled(&wrong, "/no/such/command").await;
        refuses_callers(&wrong, &["/no/such/command"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_exits_at_once_is_told_with_its_exit_code() {
    with_temp_ns(async |cx: Context| {
        // Lambent's own binary refuses such arguments with exit code 2.
        let spec = json!({"image": cx.image("lambent"), "args": ["no-such-role"]});
        let crashing = cx.apply("crashing", spec).await;
        let words = crashing.await_not_ready("CrashLoopBackOff").await;
        assert!(words.contains("exit code 2"), "{words}");
        refuses_callers(&crashing, &["CrashLoopBackOff", "exit code 2"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_needs_more_memory_than_it_may_have_is_told() {
    with_temp_ns(async |cx: Context| {
        // Debian's Python, in the image of the example: a gigabyte of nothing.
        let greedy = json!({
            "image": cx.image("python"), "command": ["python3", "-c", "b = bytearray(1 << 30)"],
            "resources": {"limits": {"memory": "32Mi"}, "requests": {"memory": "32Mi"}},
        });
        let greedy = cx.apply("greedy", greedy).await;
        await_stalled(&greedy, "OOMKilled").await;
        refuses_callers(&greedy, &["OOMKilled"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_quota_is_told_at_once_and_its_end_is_noticed() {
    with_temp_ns(async |cx: Context| {
        let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
        let _: ResourceQuota = cx.create(quota).await;
        let hello = cx.apply("hello", json!({"image": cx.image("hello")})).await;
        let words = hello.await_not_ready("QuotaExceeded").await;
        assert!(words.contains("exceeded quota: none"), "{words}");
        refuses_callers(&hello, &["QuotaExceeded", "exceeded quota: none"]).await;
        cx.api::<ResourceQuota>().delete("none", &DeleteParams::default()).await.unwrap();
        hello.await_ready().await;
        hello.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn what_an_admission_policy_refuses_is_told_with_its_words() {
    with_temp_ns(async |cx: Context| {
        let name = cx.namespace.clone();
        let policy = json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                ],
            },
            "validations": [{"expression": "false", "message": "no pods on a Sunday"}],
        }});
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(cx.client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(cx.client.clone());
        policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
        bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
        let in_force = await_condition("the policy to be in force", async || {
            let pod = serde_json::from_value(json!({"metadata": {"name": "probe"}, "spec": {
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "a", "image": "a", "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                }}],
            }}))?;
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            let refused = cx.api::<Pod>().create(&dry, &pod).await.err();
            ensure!(refused.is_some_and(|error| error.to_string().contains("Sunday")), "pods are still made");
            Ok(())
        });
        in_force.await;
        let refused = cx.apply("refused", json!({"image": cx.image("hello")})).await;
        let words = refused.await_not_ready("Refused").await;
        let caller = refused.call("/").await;
        let removed = DeleteParams::default();
        bindings.delete(&name, &removed).await.unwrap();
        policies.delete(&name, &removed).await.unwrap();
        assert!(words.contains("no pods on a Sunday"), "{words}");
        assert!(caller.expect_refusal(503, "StartFailed").contains("no pods on a Sunday"));
        refused.await_ready().await;
    })
    .await;
}

#[tokio::test]
async fn what_pod_security_refuses_is_told_with_its_words() {
    with_temp_ns(async |cx: Context| {
        let root = json!({"runAsUser": 0, "runAsNonRoot": false});
        let spec = json!({"image": cx.image("hello"), "securityContext": root});
        let refused = cx.apply("refused", spec).await;
        let words = refused.await_not_ready("PodSecurity").await;
        assert!(words.contains("runAsNonRoot"), "{words}");
        refuses_callers(&refused, &["PodSecurity", "runAsNonRoot"]).await;
    })
    .await;
}

#[tokio::test]
async fn what_no_node_has_room_for_is_told_with_the_schedulers_words_after_the_queue_timeout() {
    with_temp_ns(async |cx: Context| {
        let resources = json!({"requests": {"cpu": "5000"}});
        let spec = json!({"image": cx.image("hello"), "resources": resources, "queue": {"timeout": "2s"}});
        let large = cx.apply("large", spec).await;
        let words = large.await_not_ready("Unschedulable").await;
        assert!(words.contains("Insufficient cpu"), "{words}");
        let answer = large.call("/").await;
        let detail = answer.expect_refusal(503, "StartFailed");
        assert!(detail.contains("Insufficient cpu"), "{detail}");
        assert!(answer.took >= Duration::from_secs(2), "a node may be coming: {:?}", answer.took);
    })
    .await;
}

#[tokio::test]
async fn a_process_that_never_listens_is_told_after_the_start_timeout() {
    with_temp_ns(async |cx: Context| {
        // It runs for long, and listens nowhere.
        let arguments = ["healthcheck", "--timeout-seconds=900", "http://127.0.0.1:9/"];
        let deaf =
            cx.apply("deaf", json!({"image": cx.image("lambent"), "args": arguments, "startTimeout": "2s"})).await;
        let words = deaf.await_not_ready("StartTimeout").await;
        assert!(words.contains("startTimeout"), "{words}");
        refuses_callers(&deaf, &["StartTimeout"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_listens_on_another_port_is_told_after_the_start_timeout() {
    with_temp_ns(async |cx: Context| {
        let serve = "import http.server as h, socketserver as s\n\
                     s.TCPServer(('', 9999), h.SimpleHTTPRequestHandler).serve_forever()";
        let spec = json!({"image": cx.image("python"), "command": ["python3", "-c", serve], "startTimeout": "5s"});
        let elsewhere = cx.apply("elsewhere", spec).await;
        let words = elsewhere.await_not_ready("StartTimeout").await;
        assert!(words.contains("no answer") && words.contains("startTimeout"), "{words}");
        refuses_callers(&elsewhere, &["StartTimeout", "no answer"]).await;
        await_event(&elsewhere, "startTimeout").await;
        elsewhere.change(json!({"port": 9999})).await;
        elsewhere.await_ready().await;
        elsewhere.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_failing_readiness_probe_keeps_callers_out_until_the_start_timeout() {
    with_temp_ns(async |cx: Context| {
        let probe = json!({"tcpSocket": {"port": 9}, "periodSeconds": 1});
        let spec = json!({"image": cx.image("hello"), "readinessProbe": probe, "startTimeout": "3s"});
        let unready = cx.apply("unready", spec).await;
        let words = unready.await_not_ready("StartTimeout").await;
        assert!(words.contains("startTimeout"), "{words}");
        refuses_callers(&unready, &["StartTimeout"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_readiness_probe_that_succeeds_makes_the_function_ready() {
    with_temp_ns(async |cx: Context| {
        let probe = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
        let probed = cx.deploy("probed", json!({"image": cx.image("hello"), "readinessProbe": probe})).await;
        probed.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn who_has_an_instance_is_served_though_no_other_can_start() {
    with_temp_ns(async |cx: Context| {
        let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}});
        let _: ResourceQuota = cx.create(quota).await;
        await_condition("the quota to be counted", async || {
            let quota = cx.api::<ResourceQuota>().get("one").await?;
            ensure!(quota.status.is_some_and(|status| status.used.is_some()), "no count");
            Ok(())
        })
        .await;
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 5, "idle": "1h"}})).await;
        for answer in slow.call_at_once(5, "/?ms=300").await {
            answer.expect(200);
        }
        assert_eq!(slow.instances().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_new_revision_that_can_not_start_leaves_the_old_one_serving() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let good = hello.serving().await;
        hello.change(json!({"command": ["/no/such/command"]})).await;
        await_stalled(&hello, &good).await;
        let status = hello.status().await.unwrap();
        assert_eq!(status.revision.as_ref(), Some(&good));
        assert_ne!(status.latest_revision.as_ref(), Some(&good));
        hello.call("/").await.expect(200);

        hello.change(json!({"command": null})).await;
        hello.await_ready().await;
        assert_eq!(hello.serving().await, good);
    })
    .await;
}

/// Waits for a warning about the Function with these words.
async fn await_event(function: &Deployed, words: &str) {
    let events: Api<Event> = Api::namespaced(function.cluster().client.clone(), function.namespace());
    await_condition(format!("an Event about {}", function.name), async || {
        let of_it = format!("involvedObject.kind=Function,involvedObject.name={}", function.name);
        let all = events.list(&ListParams::default().fields(&of_it)).await?.items;
        let told: Vec<_> = all.into_iter().map(|event| (event.type_, event.message.unwrap_or_default())).collect();
        let is_it =
            |(type_, text): &(Option<String>, String)| type_.as_deref() == Some("Warning") && text.contains(words);
        ensure!(told.iter().any(is_it), "{told:?}");
        Ok(())
    })
    .await;
}

/// Waits until the Function is given up for now, with these words.
async fn await_stalled(function: &Deployed, words: &str) {
    await_condition(format!("{} to be Stalled", function.name), async || {
        let stalled = function.condition(ConditionType::Stalled).await?;
        ensure!(stalled.status == "True" && stalled.message.contains(words), "{stalled:?}");
        Ok(())
    })
    .await;
}
