//! Instances that go without our doing are replaced, and what runs in them may end.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, EvictParams, Patch, PatchParams},
};
use lambent_tests::{Context, Deployed, Request, await_condition, examples::Run, function::uid, with_temp_ns};
use serde_json::json;

async fn warm(cx: &Context) -> (Deployed, Pod) {
    let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"min": 1, "max": 2}})).await;
    let pod = slow.await_instances(1).await.remove(0);
    (slow, pod)
}

async fn await_another(function: &Deployed, than: &Pod) -> Pod {
    await_condition("another instance", async || {
        let instances = function.instances().await?;
        let other = instances.into_iter().find(|pod| uid(pod) != uid(than));
        other.ok_or_else(|| anyhow::anyhow!("none"))
    })
    .await
}

#[tokio::test]
async fn a_deleted_pod_is_replaced() {
    with_temp_ns(async |cx: Context| {
        let (slow, pod) = warm(&cx).await;
        cx.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        await_another(&slow, &pod).await;
        slow.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn an_evicted_pod_is_replaced() {
    with_temp_ns(async |cx: Context| {
        let (slow, pod) = warm(&cx).await;
        cx.api::<Pod>().evict(&pod.name_any(), &EvictParams::default()).await.unwrap();
        await_another(&slow, &pod).await;
        slow.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_failed_pod_is_replaced_and_its_object_removed() {
    with_temp_ns(async |cx: Context| {
        let (slow, pod) = warm(&cx).await;
        // The kubelet fails a pod that has run for longer than this, as it fails one that it evicts.
        let deadline = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
        cx.api::<Pod>().patch(&pod.name_any(), &PatchParams::default(), &deadline).await.unwrap();
        await_another(&slow, &pod).await;
        await_condition("the failed pod's object to be gone", async || {
            let pods = slow.all_pods().await?;
            ensure!(pods.iter().all(|p| uid(p) != uid(&pod)), "it is there");
            Ok(())
        })
        .await;
        slow.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_request_in_a_deleted_pod_is_answered_and_new_ones_go_elsewhere() {
    goes_with_a_request(async |pods, name| {
        pods.delete(name, &DeleteParams::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_request_in_an_evicted_pod_is_answered_and_new_ones_go_elsewhere() {
    goes_with_a_request(async |pods, name| {
        pods.evict(name, &EvictParams::default()).await.unwrap();
    })
    .await;
}

/// A pod with a request and room for more is taken away by somebody else.
async fn goes_with_a_request(take_away: impl AsyncFnOnce(&Api<Pod>, &str)) {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "concurrency": 5, "scale": {"min": 1, "max": 2}});
        let slow = cx.deploy("slow", spec).await;
        let pod = slow.await_instances(1).await.remove(0);
        let in_flight = slow.start("/?ms=8000").await;
        take_away(&cx.api::<Pod>(), &pod.name_any()).await;
        await_another(&slow, &pod).await;
        let next = Run::all(slow.call_at_once(8, "/?ms=100").await);
        assert!(next.iter().all(|run| run.host != pod.name_any()), "{pod:?}: {next:?}");
        let answer = in_flight.answer().await.expect(200);
        assert_eq!(Run::of(&answer).host, pod.name_any());
    })
    .await;
}

#[tokio::test]
async fn a_drained_pod_goes_long_before_its_grace_ends() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "timeout": "10m", "scale": {"min": 1}});
        let slow = cx.deploy("slow", spec).await;
        let pod = slow.await_instances(1).await.remove(0);
        cx.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        await_condition("the pod to be gone", async || {
            let there = slow.all_pods().await?.iter().any(|p| uid(p) == uid(&pod));
            ensure!(!there, "it is there");
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_crashed_process_is_started_again_and_callers_go_on() {
    with_temp_ns(async |cx: Context| {
        let (slow, pod) = warm(&cx).await;
        let answer = cx.gateway.send(Request::post(&slow.path("/exit?code=3"), "x")).await;
        answer.expect_refusal(502, "InstanceFailed");
        let next = Run::of(&slow.await_answer("/?ms=10").await);
        assert_eq!(next.host, pod.name_any(), "the container was not restarted in place");
    })
    .await;
}

#[tokio::test]
async fn an_idle_function_with_a_deleted_pod_stays_at_zero() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"idle": "1s"}})).await;
        hello.await_instances(0).await;
        assert!(hello.call("/").await.expect(200).was_cold());
        let pod = hello.await_instances(1).await.remove(0);
        cx.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        hello.await_instances(0).await;
        hello.call("/").await.expect(200);
    })
    .await;
}
