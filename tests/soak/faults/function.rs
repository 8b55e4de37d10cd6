//! Faults of Functions: their pods, and what their users do to them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt, api::DeleteParams};
use lambent_api::{ConditionType, Conditions, Function};
use lambent_tests::{
    function::phase,
    process::{self, signal},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::platform::restarts;
use crate::{
    load::Callers,
    mix,
    plan::BadImage,
    world::{World, insist},
};

/// The API server may be away for half a minute in between.
const PATIENCE: Duration = Duration::from_secs(90);
/// A rollout is done by then: two steps, and a controller that was killed meanwhile.
const ROLLED_OUT_WITHIN: Duration = Duration::from_secs(120);
/// The newcomer is called for so long after it is Ready.
const LIVES_ON: Duration = Duration::from_secs(6);

/// Deletes one pod, as a user does.
pub async fn delete_pod(world: &World, number: usize, function: &str, pick: usize, force: bool) -> anyhow::Result<()> {
    let Some(pod) = pick_pod(world, function, pick, |_| true).await? else {
        return no_instance(world, number);
    };
    world.hits(number, &pod.name_any());
    let params = if force { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
    let deleted = world.cx.api::<Pod>().delete(&pod.name_any(), &params).await;
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// kill -9 of the process in one pod. Only one that has not been restarted: before the next restart
/// the kubelet waits.
pub async fn crash(world: &World, number: usize, function: &str, pick: usize) -> anyhow::Result<()> {
    let Some(pod) = pick_pod(world, function, pick, |pod| restarts(pod) == 0).await? else {
        return no_instance(world, number);
    };
    let Ok(pids) = process::of_containers(&pod) else { return no_instance(world, number) };
    world.hits(number, &format!("{}, processes {pids:?}", pod.name_any()));
    pids.into_iter().try_for_each(|pid| signal("KILL", pid))
}

/// Changes what runs, and waits until that serves.
pub async fn roll_out(world: &World, number: usize, function: &str) -> anyhow::Result<()> {
    let change = json!({"env": [{"name": "SOAK", "value": number.to_string()}]});
    serves_another(world, function, &change).await
}

/// Changes it to what can't run, and takes that back.
pub async fn roll_out_bad(
    world: &World,
    number: usize,
    function: &str,
    how: BadImage,
    seconds: u64,
) -> anyhow::Result<()> {
    let good = world.profile(function).context("no such function")?.spec["image"].clone();
    world.hits(number, function);
    world.change(function, &spoilt(world, how)).await?;
    sleep(Duration::from_secs(seconds)).await;
    world.change(function, &json!({"image": good, "command": null})).await?;
    world.is_over(number);
    is_ready(world, function).await
}

/// Makes a Function with a bad image, which is called at once; corrects it; removes it.
pub async fn new_with_bad_image(
    world: &World,
    callers: &Arc<Callers>,
    (number, name): (usize, &str),
    how: BadImage,
    seconds: u64,
) -> anyhow::Result<()> {
    let profile = mix::newcomer(&world.cx);
    let mut spec = profile.spec.clone();
    merge(&mut spec, spoilt(world, how));
    insist(PATIENCE, "the new Function", async || Ok(world.cx.try_apply(name, spec.clone()).await?)).await?;
    world.hits(number, name);
    let load = callers.start(name, &profile);
    sleep(Duration::from_secs(seconds)).await;
    world.change(name, &json!({"image": profile.spec["image"], "command": null})).await?;
    world.is_over(number);
    is_ready(world, name).await?;
    sleep(LIVES_ON).await;
    drop(load);
    insist(PATIENCE, "its last calls", async || {
        ensure!(callers.under_way_of(name) == 0, "calls are under way");
        Ok(())
    })
    .await?;
    world.cx.api::<Function>().delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// What makes a Function unable to run.
fn spoilt(world: &World, how: BadImage) -> Value {
    match how {
        BadImage::Missing => json!({"image": world.cx.image("there-is-no-such-image")}),
        BadImage::NoCommand => json!({"command": ["/there-is-no-such-command"]}),
    }
}

fn merge(spec: &mut Value, change: Value) {
    if let (Some(spec), Value::Object(change)) = (spec.as_object_mut(), change) {
        spec.extend(change);
    }
}

async fn serves_another(world: &World, function: &str, change: &Value) -> anyhow::Result<()> {
    let handle = world.cx.function(function);
    let serving = async || Ok(handle.get().await?.status.and_then(|status| status.revision));
    let before = insist(PATIENCE, "the present Revision", serving).await?;
    world.change(function, change).await?;
    insist(ROLLED_OUT_WITHIN, "the new Revision to serve", async || {
        let status = handle.status().await?;
        ensure!(status.revision != before, "{before:?} serves; {:?}", status.conditions);
        ensure!(status.conditions.is_true(ConditionType::Ready), "{:?}", status.conditions);
        Ok(())
    })
    .await
}

async fn is_ready(world: &World, function: &str) -> anyhow::Result<()> {
    let handle = world.cx.function(function);
    insist(ROLLED_OUT_WITHIN, "the Function to be Ready", async || {
        let status = handle.status().await?;
        ensure!(status.conditions.is_true(ConditionType::Ready), "{:?}", status.conditions);
        Ok(())
    })
    .await
}

async fn pick_pod(
    world: &World,
    function: &str,
    pick: usize,
    fit: impl Fn(&Pod) -> bool,
) -> anyhow::Result<Option<Pod>> {
    let handle = world.cx.function(function);
    let mut pods = insist(PATIENCE, "its pods", async || handle.instances().await).await?;
    pods.retain(|pod| phase(pod) == "Running" && pod.meta().deletion_timestamp.is_none() && fit(pod));
    pods.sort_by_key(ResourceExt::name_any);
    let count = pods.len();
    Ok((count > 0).then(|| pods.swap_remove(pick % count)))
}

fn no_instance(world: &World, number: usize) -> anyhow::Result<()> {
    world.hits(number, "no instance to hit");
    Ok(())
}
