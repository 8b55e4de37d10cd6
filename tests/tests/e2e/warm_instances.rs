//! `scale.min` and the scale subresources.

use anyhow::ensure;
use lambent_api::{Function, Revision};
use lambent_tests::{
    Context, await_condition,
    command::kubectl,
    function::{revision_of, uid},
    holds_while, with_temp_ns,
};
use serde_json::{Value, json};

#[tokio::test]
async fn warm_instances_stay_while_nobody_calls() {
    with_temp_ns(async |cx: Context| {
        let spec = |min: i32| json!({"image": cx.image("hello"), "scale": {"min": min, "idle": "1s"}});
        let warm = cx.deploy("warm", spec(2)).await;
        warm.await_instances(2).await;
        let two_stay = async || {
            let count = warm.instances().await?.len();
            ensure!(count == 2, "{count} instances");
            Ok(())
        };
        // Another one, of the same idle time, goes in the meantime: so these would have had the time.
        let other_goes = async { cx.deploy("other", spec(0)).await.await_instances(0).await };
        holds_while("two warm instances", two_stay, other_goes).await;
        assert!(!warm.call("/").await.expect(200).was_cold());
    })
    .await;
}

#[tokio::test]
async fn warm_instances_change_without_a_new_revision() {
    with_temp_ns(async |cx: Context| {
        let warm = cx.deploy("warm", json!({"image": cx.image("hello"), "scale": {"min": 1, "idle": "1s"}})).await;
        let first = warm.await_instances(1).await;
        warm.change(json!({"scale": {"min": 3}})).await;
        let three = warm.await_instances(3).await;
        assert!(three.iter().any(|pod| uid(pod) == uid(&first[0])), "the first one was replaced");
        warm.change(json!({"scale": {"min": 0}})).await;
        warm.await_instances(0).await;
        assert_eq!(warm.revisions().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn kubectl_scale_of_a_function_sets_its_warm_instances() {
    with_temp_ns(async |cx: Context| {
        let warm = cx.deploy("warm", json!({"image": cx.image("hello")})).await;
        kubectl(&cx, &["-n", &cx.namespace, "scale", "fn", "warm", "--replicas=2"]).await.expect();
        let function = warm.get().await.unwrap();
        assert_eq!(function.spec.scale.min, 2);
        warm.await_instances(2).await;
        await_condition("the scale subresource to tell", async || {
            let scale = cx.api::<Function>().get_scale("warm").await?;
            let (spec, status) = (scale.spec.unwrap_or_default(), scale.status.unwrap_or_default());
            ensure!((spec.replicas, status.replicas) == (Some(2), 2), "{spec:?} {status:?}");
            Ok(())
        })
        .await;
        assert_eq!(warm.revisions().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_revisions_scale_subresource_counts_and_selects_its_instances() {
    with_temp_ns(async |cx: Context| {
        let warm = cx.deploy("warm", json!({"image": cx.image("hello"), "scale": {"min": 2}})).await;
        let pods = warm.await_instances(2).await;
        let revision = warm.serving().await;
        assert!(pods.iter().all(|pod| revision_of(pod) == revision));
        let status = await_condition("two replicas in the scale subresource", async || {
            let status = cx.api::<Revision>().get_scale(&revision).await?.status.unwrap_or_default();
            ensure!(status.replicas == 2, "{status:?}");
            Ok(status)
        })
        .await;
        let selector = status.selector.expect("a selector");
        let listed = kubectl(&cx, &["-n", &cx.namespace, "get", "pods", "-l", &selector, "-o", "json"]).await.expect();
        let listed: Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "{selector}");
    })
    .await;
}

#[tokio::test]
async fn a_scaled_revision_has_so_many_instances() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 2, "idle": "1h"}})).await;
        let revision = format!("revisions.lambent.dev/{}", slow.serving().await);
        kubectl(&cx, &["-n", &cx.namespace, "scale", &revision, "--replicas=2"]).await.expect();
        slow.await_instances(2).await;
    })
    .await;
}

#[tokio::test]
async fn a_revision_scaled_above_the_maximum_is_held_to_it() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 2, "idle": "1h"}})).await;
        let revision = format!("revisions.lambent.dev/{}", slow.serving().await);
        let at_most_two = async || {
            let count = slow.instances().await?.len();
            ensure!(count <= 2, "{count} instances");
            Ok(())
        };
        let scaled = async {
            kubectl(&cx, &["-n", &cx.namespace, "scale", &revision, "--replicas=5"]).await.expect();
            slow.await_instances(2).await;
            slow.call_at_once(4, "/?ms=1000").await
        };
        for answer in holds_while("at most 2 instances", at_most_two, scaled).await {
            answer.expect(200);
        }
    })
    .await;
}
