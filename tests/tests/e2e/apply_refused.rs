//! What can't be served is refused when it is applied, with words that say what to change.

use lambent_api::{Revision, revision::RevisionSpec};
use lambent_tests::{Context, with_temp_ns};
use serde_json::{Value, json};

async fn refused_name(name: &str, spec: Value, words: &[&str]) {
    with_temp_ns(async |cx: Context| {
        let error = cx.try_apply(name, spec).await.expect_err("a refusal");
        let kube::Error::Api(status) = error else { panic!("no answer of the API server: {error}") };
        for word in words {
            assert!(status.message.contains(word), "no {word:?} in: {}", status.message);
        }
    })
    .await;
}

/// The spec with an image is refused with these words.
async fn refused(mut spec: Value, words: &[&str]) {
    spec["image"] = json!("registry.example/a:1");
    refused_name("refused", spec, words).await;
}

#[tokio::test]
async fn more_warm_instances_than_the_maximum_are_refused() {
    refused(json!({"scale": {"min": 3, "max": 2}}), &["scale.min must not be more than scale.max"]).await;
}

#[tokio::test]
async fn more_warm_instances_than_the_default_maximum_are_refused() {
    refused(json!({"scale": {"min": 101}}), &["scale.min must not be more than scale.max"]).await;
}

#[tokio::test]
async fn a_maximum_of_zero_is_refused() {
    refused(json!({"scale": {"max": 0}}), &["spec.scale.max", "greater than or equal to 1"]).await;
}

#[tokio::test]
async fn a_concurrency_of_zero_is_refused() {
    refused(json!({"concurrency": 0}), &["spec.concurrency", "greater than or equal to 1"]).await;
}

#[tokio::test]
async fn port_zero_is_refused() {
    refused(json!({"port": 0}), &["spec.port", "greater than or equal to 1"]).await;
}

#[tokio::test]
async fn a_port_that_does_not_exist_is_refused() {
    refused(json!({"port": 65536}), &["spec.port", "less than or equal to 65535"]).await;
}

#[tokio::test]
async fn a_malformed_duration_is_refused() {
    refused(json!({"timeout": "soon"}), &["spec.timeout", "should match", "ms|s|m|h"]).await;
}

#[tokio::test]
async fn a_duration_without_a_unit_is_refused() {
    refused(json!({"queue": {"timeout": "30"}}), &["spec.queue.timeout", "should match"]).await;
}

#[tokio::test]
async fn a_timeout_of_zero_is_refused() {
    refused(json!({"timeout": "0s"}), &["timeout must be more than 0s and at most 15m"]).await;
}

#[tokio::test]
async fn a_timeout_over_the_longest_is_refused() {
    refused(json!({"timeout": "15m1s"}), &["timeout must be more than 0s and at most 15m"]).await;
}

#[tokio::test]
async fn a_duration_that_overflows_is_refused() {
    refused(json!({"startTimeout": "99999999999999999h"}), &["spec.startTimeout"]).await;
}

#[tokio::test]
async fn a_start_timeout_of_less_than_a_second_is_refused() {
    refused(json!({"startTimeout": "10ms"}), &["startTimeout must be between 1s and 15m"]).await;
}

#[tokio::test]
async fn a_queue_timeout_of_zero_is_refused() {
    refused(json!({"queue": {"timeout": "0s"}}), &["queue.timeout must be more than 0s"]).await;
}

#[tokio::test]
async fn a_negative_queue_depth_is_refused() {
    refused(json!({"queue": {"depth": -1}}), &["spec.queue.depth", "greater than or equal to 0"]).await;
}

#[tokio::test]
async fn an_idle_time_of_less_than_a_second_is_refused() {
    refused(json!({"scale": {"idle": "1ms"}}), &["scale.idle must be between 1s and 24h"]).await;
}

#[tokio::test]
async fn a_malformed_size_is_refused() {
    refused(json!({"maxBody": "6MB"}), &["spec.maxBody", "should match"]).await;
}

#[tokio::test]
async fn an_unknown_protocol_is_refused_with_those_that_there_are() {
    refused(json!({"protocol": "gopher"}), &["spec.protocol", "Unsupported value", "http1"]).await;
}

#[tokio::test]
async fn a_surge_that_is_no_share_is_refused() {
    refused(json!({"rollout": {"maxSurge": "lots"}}), &["rollout.maxSurge must be at least 1, or a percentage"]).await;
}

#[tokio::test]
async fn a_missing_image_is_refused() {
    refused_name("no-image", json!({"concurrency": 1}), &["spec.image", "Required value"]).await;
}

#[tokio::test]
async fn an_empty_image_is_refused() {
    refused_name("empty-image", json!({"image": ""}), &["spec.image"]).await;
}

#[tokio::test]
async fn an_unknown_field_is_refused() {
    refused(json!({"scale": {"minimum": 1}}), &["spec.scale.minimum", "field not declared"]).await;
}

#[tokio::test]
async fn a_field_that_a_pod_has_but_a_function_has_not_is_refused() {
    refused(json!({"pod": {"hostNetwork": true}}), &["spec.pod.hostNetwork", "field not declared"]).await;
}

#[tokio::test]
async fn a_name_over_40_characters_is_refused() {
    let spec = || json!({"image": "registry.example/a:1"});
    refused_name(&"a".repeat(41), spec(), &["the name must have at most 40 characters"]).await;
}

#[tokio::test]
async fn a_name_that_is_no_dns_label_is_refused() {
    refused_name("a.b", json!({"image": "registry.example/a:1"}), &["the name must be a DNS label"]).await;
}

#[tokio::test]
async fn what_a_revision_runs_can_not_be_changed() {
    with_temp_ns(async |cx: Context| {
        let template = json!({"image": "registry.example/a@sha256:0"});
        let spec = json!({"function": "none", "instances": 0, "template": template});
        let revision: Revision = cx.create(json!({"metadata": {"name": "none-1"}, "spec": spec})).await;
        let RevisionSpec { mut template, .. } = revision.spec;
        template.image = "registry.example/b@sha256:0".to_owned();
        let patch = kube::api::Patch::Merge(json!({"spec": {"template": template}}));
        let changed = cx.api::<Revision>().patch("none-1", &kube::api::PatchParams::default(), &patch).await;
        let error = changed.expect_err("a refusal").to_string();
        assert!(error.contains("a Revision's template can't change: change the Function"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_image_alone_is_a_whole_function() {
    with_temp_ns(async |cx: Context| {
        let function =
            cx.try_apply("short", json!({"image": "registry.example/a:1"})).await.expect("an applied Function");
        let spec = serde_json::to_value(&function.spec).unwrap();
        assert_eq!(spec["scale"], json!({"min": 0, "max": 100, "idle": "1m"}));
        assert_eq!(spec["queue"], json!({"depth": 1000, "timeout": "30s"}));
        assert_eq!((&spec["concurrency"], &spec["port"], &spec["maxBody"]), (&json!(1), &json!(8080), &json!("6Mi")));
    })
    .await;
}
