//! Images are on the nodes before they are needed there. The cluster has one node, which pulls an image for its
//! first instance anyway; so here the scheduler has no place for that one, for a reason that keeps nobody from pulling.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Event, Pod, ResourceQuota};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use lambent_api::{PulledImages, meta::LABEL_PULL};
use lambent_tests::{Context, Deployed, await_condition, locked_registry::LockedRegistry, with_temp_ns};
use serde_json::{Value, json};

/// A pod's fields: it has a place only beside a pod that says so.
fn without_a_place() -> Value {
    let beside = json!({"labelSelector": {"matchLabels": {"room": "here"}}, "topologyKey": "kubernetes.io/hostname"});
    json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}}})
}

/// Makes a place for all that had none.
async fn make_a_place(cx: &Context) {
    let container = json!({
        "name": "here", "image": cx.image("hello"),
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let security = json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
    let _: Pod = cx
        .create(json!({
            "metadata": {"name": "here", "labels": {"room": "here"}},
            "spec": {"containers": [container], "securityContext": security, "terminationGracePeriodSeconds": 0},
        }))
        .await;
}

async fn images(function: &Deployed) -> anyhow::Result<PulledImages> {
    let revision = function.revisions().await?.pop().context("no Revision")?;
    revision.status.and_then(|status| status.images).context("nothing is said of its image")
}

/// Waits until all nodes were tried.
async fn await_images(function: &Deployed) -> PulledImages {
    await_condition(format!("the image of {} on the nodes", function.name), async || {
        let images = images(function).await?;
        ensure!(images.nodes_until.is_some(), "{images:?}");
        Ok(images)
    })
    .await
}

async fn pull_pods(cx: &Context) -> anyhow::Result<Vec<Pod>> {
    Ok(cx.api::<Pod>().list(&ListParams::default().labels(LABEL_PULL)).await?.items)
}

async fn await_no_pull_pods(cx: &Context) {
    await_condition("the end of all pods that pull", async || {
        let names: Vec<String> = pull_pods(cx).await?.iter().map(ResourceExt::name_any).collect();
        ensure!(names.is_empty(), "{names:?}");
        Ok(())
    })
    .await;
}

/// What Events say about objects that `is_it` names: reason and message.
async fn events(cx: &Context, is_it: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let all = cx.api::<Event>().list(&ListParams::default()).await.expect("Events").items;
    let about = all.into_iter().filter(|event| event.involved_object.name.as_deref().is_some_and(&is_it));
    about.map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default())).collect()
}

async fn await_event(cx: &Context, function: &Deployed, reason: &str, words: &str) {
    await_condition(format!("an Event {reason}"), async || {
        let told = events(cx, |name| name == function.name).await;
        ensure!(told.iter().any(|(r, message)| r == reason && message.contains(words)), "{told:?}");
        Ok(())
    })
    .await;
}

/// From a registry that lets in only who has the Function's own secret; it has no place on any node yet.
async fn apply_locked(cx: &Context, registry: &LockedRegistry) -> Deployed {
    let mut pod = without_a_place();
    pod["imagePullSecrets"] = json!([{"name": "pull"}]);
    cx.apply("ahead", json!({"image": registry.image("hello"), "pod": pod})).await
}

#[tokio::test]
async fn an_image_is_on_the_node_before_the_first_instance_and_nothing_of_it_has_run() {
    with_temp_ns(async |cx: Context| {
        let registry = LockedRegistry::start(&cx, &cx.namespace, "right").await;
        registry.pull_secret(&cx, "right").await;
        let ahead = apply_locked(&cx, &registry).await;
        let images = await_images(&ahead).await;
        assert_eq!((images.nodes, images.pulled, images.failed, images.message), (1, 1, 0, None));
        await_event(&cx, &ahead, "ImagePulled", "1 of 1 nodes").await;
        await_no_pull_pods(&cx).await;
        let told = events(&cx, |name| name.contains("-pull-")).await;
        assert!(told.iter().any(|(_, words)| words.contains("Successfully pulled image")), "{told:?}");
        assert!(!told.iter().any(|(reason, _)| reason == "Started"), "{told:?}");
        // Nobody can pull it any more.
        drop(registry);
        make_a_place(&cx).await;
        ahead.await_ready().await;
        ahead.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn what_a_node_can_not_pull_is_told_with_the_kubelets_words() {
    with_temp_ns(async |cx: Context| {
        let registry = LockedRegistry::start(&cx, &cx.namespace, "right").await;
        registry.pull_secret(&cx, "wrong").await;
        let ahead = apply_locked(&cx, &registry).await;
        let images = await_images(&ahead).await;
        assert_eq!((images.nodes, images.pulled, images.failed), (1, 0, 1));
        // Of "Unauthorized" or "authorization", as the node's runtime has it.
        let message = images.message.unwrap_or_default();
        assert!(message.contains("Pull") && message.contains("authoriz"), "{message}");
        await_event(&cx, &ahead, "ImagePullFailed", "authoriz").await;
        await_no_pull_pods(&cx).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_has_run_an_instance_has_nothing_to_pull() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        let images = await_images(&hello).await;
        assert_eq!((images.nodes, images.pulled, images.failed), (1, 1, 0));
        let told = events(&cx, |name| name.contains("-pull-")).await;
        assert!(told.is_empty() && pull_pods(&cx).await.unwrap().is_empty(), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_function_can_keep_its_image_from_being_pulled_ahead() {
    with_temp_ns(async |cx: Context| {
        let spec = |ahead: bool| json!({"image": cx.image("hello"), "imagePullAhead": ahead, "pod": without_a_place()});
        let never = cx.apply("never", spec(false)).await;
        never.await_not_ready("Unschedulable").await;
        // Whatever is done for the one would have been done for the other by then.
        let ahead = cx.apply("ahead", spec(true)).await;
        await_images(&ahead).await;
        let said = images(&never).await;
        assert!(said.is_err(), "{said:?}");
        assert!(events(&cx, |name| name.starts_with("never-") && name.contains("-pull-")).await.is_empty());
        let revision = never.revisions().await.unwrap().len();
        never.change(json!({"imagePullAhead": true})).await;
        await_images(&never).await;
        assert_eq!(never.revisions().await.unwrap().len(), revision, "a setting makes no Revision");
    })
    .await;
}

#[tokio::test]
async fn a_quota_that_takes_no_more_pods_is_told_and_its_end_is_noticed() {
    with_temp_ns(async |cx: Context| {
        let registry = LockedRegistry::start(&cx, &cx.namespace, "right").await;
        registry.pull_secret(&cx, "right").await;
        let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}});
        let _: ResourceQuota = cx.create(quota).await;
        await_condition("the quota to be counted", async || {
            let quota = cx.api::<ResourceQuota>().get("one").await?;
            ensure!(quota.status.is_some_and(|status| status.used.is_some()), "no count");
            Ok(())
        })
        .await;
        // The instance that has no place takes the one.
        let ahead = apply_locked(&cx, &registry).await;
        await_condition("a refusal", async || {
            let images = images(&ahead).await?;
            let message = images.message.clone().unwrap_or_default();
            ensure!(message.contains("QuotaExceeded") && message.contains("exceeded quota: one"), "{images:?}");
            ensure!((images.nodes, images.pulled, images.failed) == (1, 0, 0), "{images:?}");
            Ok(())
        })
        .await;
        await_event(&cx, &ahead, "ImagePullFailed", "exceeded quota: one").await;
        cx.api::<ResourceQuota>().delete("one", &DeleteParams::default()).await.unwrap();
        let images = await_images(&ahead).await;
        assert_eq!((images.nodes, images.pulled, images.failed, images.message), (1, 1, 0, None));
    })
    .await;
}
