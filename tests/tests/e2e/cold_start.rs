//! From `kubectl apply` to the first answer, and the first answer of a function that isn't running.

use lambent_api::{ConditionType, Conditions};
use lambent_tests::{Context, Request, await_condition, command::checkout, with_temp_ns};
use serde_json::{Value, json};

#[tokio::test]
async fn an_applied_function_becomes_ready_and_answers_at_its_url() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        let status = hello.status().await.unwrap();
        assert!(status.conditions.is_true(ConditionType::ImageResolved), "{:?}", status.conditions);
        assert_eq!(status.revision, status.latest_revision);
        let url = status.url.expect("a URL");
        let path = hello.path("");
        assert!(url.starts_with("http") && url.ends_with(&path), "{url} does not end in {path}");
        assert!(!hello.call("").await.expect(200).body.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_ready_function_has_the_conditions_that_kstatus_reads() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        await_condition("no other condition than Ready to be of note", async || {
            let conditions = hello.status().await?.conditions;
            for type_ in [ConditionType::Reconciling, ConditionType::Stalled] {
                anyhow::ensure!(!conditions.is_true(type_), "{conditions:?}");
            }
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_new_function_proves_itself_without_a_call() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"idle": "1h"}})).await;
        hello.await_instances(1).await;
        assert!(!hello.call("/").await.expect(200).was_cold());
    })
    .await;
}

#[tokio::test]
async fn a_call_wakes_a_function_that_is_not_running() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"idle": "1s"}})).await;
        hello.await_instances(0).await;

        let cold = hello.call("/").await.expect(200);
        assert!(cold.was_cold(), "{:?}", cold.headers);
        let [queue, start, run] = ["queue", "cold", "function"].map(|name| cold.timing(name));
        assert!(queue.is_some_and(|ms| ms > 0.0) && run.is_some_and(|ms| ms > 0.0), "{:?}", cold.headers);
        assert!(start.is_some_and(|ms| ms > 0.0 && ms < cold.took.as_secs_f64() * 1e3), "{:?}", cold.headers);
        assert!(cold.header("x-request-id").is_some_and(|id| !id.is_empty()), "{:?}", cold.headers);

        let warm = hello.call("/").await.expect(200);
        assert_eq!(warm.header("lambent-cold-start"), None);
        assert!(warm.timing("function").is_some(), "{:?}", warm.headers);
        assert!(warm.timing("cold").is_none_or(|ms| ms == 0.0), "{:?}", warm.headers);
    })
    .await;
}

#[tokio::test]
async fn all_who_wait_for_the_first_instance_are_answered() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("hello"), "concurrency": 10, "scale": {"max": 1, "idle": "1s"}});
        let hello = cx.deploy("hello", spec).await;
        hello.await_instances(0).await;
        for answer in hello.call_at_once(20, "/").await {
            answer.expect(200);
        }
        assert_eq!(hello.instances().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_callers_request_id_comes_back() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        let request = Request::get(&hello.path("/")).header("x-request-id", "from-the-caller-7");
        let answer = cx.gateway.send(request).await.expect(200);
        assert_eq!(answer.header("x-request-id"), Some("from-the-caller-7"));
        let others = [hello.call("/").await, hello.call("/").await];
        assert_ne!(others[0].header("x-request-id"), others[1].header("x-request-id"));
    })
    .await;
}

#[tokio::test]
async fn a_function_in_python_answers() {
    answers_as_its_manifest_says("python").await;
}

#[tokio::test]
async fn the_first_example_answers_as_its_manifest_says() {
    answers_as_its_manifest_says("hello").await;
}

/// Its manifest is applied as it stands, but for the namespace and the registry.
async fn answers_as_its_manifest_says(example: &str) {
    with_temp_ns(async |cx: Context| {
        let text = std::fs::read_to_string(checkout(&format!("examples/{example}/function.yaml"))).expect("a manifest");
        let mut manifest: Value = serde_yaml::from_str(&text).expect("YAML");
        let image = manifest["spec"]["image"].as_str().expect("an image").to_owned();
        assert!(image.contains(&format!("/{example}:")), "{image}");
        manifest["spec"]["image"] = json!(cx.image(example));
        let name = manifest["metadata"]["name"].as_str().expect("a name").to_owned();
        let function = cx.deploy(&name, manifest["spec"].take()).await;
        assert!(!function.call("/").await.expect(200).body.is_empty());
    })
    .await;
}
