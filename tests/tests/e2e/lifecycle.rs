//! The end of Functions and of the namespaces that they are in.

use anyhow::bail;
use kube::api::DeleteParams;
use lambent_api::Revision;
use lambent_tests::{Context, await_condition, command::kubectl, with_temp_ns};
use serde_json::json;

#[tokio::test]
async fn a_deleted_function_lets_its_request_end_and_is_removed_then() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow")})).await;
        let in_flight = slow.start("/?ms=5000").await;
        slow.delete().await;
        in_flight.answer().await.expect(200);
        slow.await_removed().await;
        slow.call("/").await.expect_refusal(404, "FunctionNotFound");
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_deleted_function_is_told() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 1}})).await;
        let in_flight = slow.start("/?ms=4000").await;
        let waiting = slow.enqueue("/?ms=1", 1).await;
        slow.delete().await;
        in_flight.answer().await.expect(200);
        let answer = waiting.answer().await;
        assert!([200, 404, 503, 504].contains(&answer.status.as_u16()), "{answer:?}");
        slow.await_removed().await;
    })
    .await;
}

#[tokio::test]
async fn a_deleted_idle_function_is_removed_long_before_its_timeout() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("hello"), "timeout": "15m", "scale": {"min": 2}});
        let hello = cx.deploy("hello", spec).await;
        hello.await_instances(2).await;
        hello.delete().await;
        hello.await_removed().await;
    })
    .await;
}

#[tokio::test]
async fn a_function_applied_again_after_its_deletion_serves() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("hello")});
        let hello = cx.deploy("hello", spec.clone()).await;
        hello.delete().await;
        await_condition("the object to be gone", async || match hello.get().await {
            Ok(_) => bail!("it is there"),
            Err(_) => Ok(()),
        })
        .await;
        cx.deploy("hello", spec).await.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn nothing_of_ours_blocks_the_deletion_of_a_namespace() {
    with_temp_ns(async |cx: Context| {
        let warm = cx.deploy("warm", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let broken = cx.apply("broken", json!({"image": cx.image("no-such-image")})).await;
        warm.await_instances(1).await;
        broken.await_not_ready("ImageNotFound").await;
        cx.namespaces().delete(&cx.namespace, &DeleteParams::default()).await.unwrap();
        await_condition("the namespace to be gone", async || match cx.namespaces().get_opt(&cx.namespace).await? {
            Some(namespace) => bail!("{:?}", namespace.status),
            None => Ok(()),
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn no_object_of_ours_has_a_finalizer() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let pod = hello.await_instances(1).await.remove(0);
        let function = hello.get().await.unwrap();
        let revision = hello.revisions().await.unwrap().remove(0);
        for metadata in [&function.metadata, &revision.metadata, &pod.metadata] {
            assert_eq!(metadata.finalizers, None, "{metadata:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_deleted_revision_that_serves_is_made_again() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        let revision = hello.revisions().await.unwrap().remove(0);
        let name = revision.key().name;
        cx.api::<Revision>().delete(&name, &DeleteParams::default()).await.unwrap();
        await_condition("the Revision to be there again", async || {
            let again = hello.revisions().await?;
            let made = again.iter().any(|r| r.key().name == name && r.metadata.uid != revision.metadata.uid);
            anyhow::ensure!(made, "{} Revisions", again.len());
            Ok(())
        })
        .await;
        hello.await_ready().await;
        hello.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn function_pods_mount_nothing_and_meet_pod_security_restricted() {
    with_temp_ns(async |cx: Context| {
        // The namespace enforces it; a pod that is there has passed.
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let pod = hello.await_instances(1).await.remove(0);
        let spec = pod.spec.expect("a spec");
        assert_eq!((spec.volumes, spec.automount_service_account_token), (None, Some(false)));
        let drain = kubectl(&cx, &["-n", &cx.namespace, "get", "events", "--field-selector=reason=FailedCreate"]).await;
        assert!(!drain.stdout.contains("hello"), "{}", drain.stdout);
    })
    .await;
}
