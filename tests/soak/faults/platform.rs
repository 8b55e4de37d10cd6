//! Faults of Lambent's own parts. The image has no shell, so that a process is killed from the node:
//! it is found by its pod's cgroup, which works where the node is this machine.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use lambent_tests::{
    process,
    system::{COMPONENTS, NAMESPACE, System},
};

use crate::world::{World, insist};

/// A part has its pods again by then: the kubelet's own back-off of 10 s is in it.
const SETTLES_WITHIN: Duration = Duration::from_secs(180);

/// kill -9 of the process in one pod of a part. The kubelet waits longer before each restart of a
/// container: where one had a restart already, its pod is removed too, and the Deployment makes
/// another at once.
pub async fn kill(world: &World, number: usize, component: &str, pick: usize) -> anyhow::Result<()> {
    settled(world).await?;
    let mut pods = insist(SETTLES_WITHIN, "pods", async || System::new(&world.cx).pods(component).await).await?;
    pods.sort_by_key(ResourceExt::name_any);
    ensure!(!pods.is_empty(), "no pod of {component}");
    let pod = pods.swap_remove(pick % pods.len());
    let (name, uid) = (pod.name_any(), pod.uid().context("no uid")?);
    let pids = process::of_containers(&pod)?;
    world.hits(number, &format!("{name}, processes {pids:?}"));
    world.note(number, |h| h.killed.push(uid));
    for pid in pids {
        process::signal("KILL", pid)?;
    }
    world.is_over(number);
    if restarts(&pod) > 0 {
        let api: Api<Pod> = Api::namespaced(world.cx.client.clone(), NAMESPACE);
        insist(SETTLES_WITHIN, "the pod's removal", async || {
            let removed = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
            match removed {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => Ok(other.map(drop)?),
            }
        })
        .await?;
    }
    settled(world).await
}

/// `kubectl rollout restart`, and until it is done.
pub async fn restart_gateways(world: &World, number: usize) -> anyhow::Result<()> {
    settled(world).await?;
    let api = deployments(world);
    let of_gateways = labels("gateway");
    let name = insist(SETTLES_WITHIN, "the Deployment", async || {
        let found = api.list(&of_gateways).await?.items;
        Ok(found.first().context("no Deployment of the gateways")?.name_any())
    })
    .await?;
    world.hits(number, &name);
    api.restart(&name).await?;
    settled(world).await
}

/// Waits until all parts have exactly the pods that they are to have, all of them ready.
///
/// # Errors
/// What is missing.
pub async fn settled(world: &World) -> anyhow::Result<()> {
    insist(SETTLES_WITHIN, "the platform to settle", async || {
        for deployment in deployments(world).list(&ListParams::default()).await?.items {
            let name = deployment.name_any();
            let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let status = deployment.status.unwrap_or_default();
            let counts = [status.replicas, status.updated_replicas, status.available_replicas];
            let current = status.observed_generation == deployment.metadata.generation;
            ensure!(current && counts.iter().all(|n| n.unwrap_or(0) == wanted), "{name}: {status:?}");
        }
        for component in COMPONENTS {
            for pod in pods(world, component).await? {
                ensure!(is_ready(&pod), "{} is not ready", pod.name_any());
            }
        }
        Ok(())
    })
    .await
}

/// All pods of a part, those that are being stopped among them.
///
/// # Errors
/// If the API server doesn't answer.
pub async fn pods(world: &World, component: &str) -> anyhow::Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(world.cx.client.clone(), NAMESPACE);
    Ok(api.list(&labels(component)).await?.items)
}

/// Restarts of a pod's containers.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|container| container.restart_count).sum()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn deployments(world: &World) -> Api<Deployment> {
    Api::namespaced(world.cx.client.clone(), NAMESPACE)
}

fn labels(component: &str) -> ListParams {
    ListParams::default().labels(&format!("app.kubernetes.io/part-of=lambent,app.kubernetes.io/component={component}"))
}

/// One look at the platform's pods.
pub async fn look(world: &Arc<World>) -> anyhow::Result<Vec<crate::record::PlatformPod>> {
    let mut all = Vec::new();
    for component in COMPONENTS {
        for pod in pods(world, component).await? {
            let (name, uid) = (pod.name_any(), pod.uid().context("no uid")?);
            let of = uid.clone();
            // Reads all of /proc.
            let pids = tokio::task::spawn_blocking(move || process::of_pod(&of)).await?.unwrap_or_default();
            let memory = process::resident(&pids) / 1024.0;
            let (at, component) = (world.now(), component.to_owned());
            all.push(crate::record::PlatformPod { at, component, name, uid, restarts: restarts(&pod), memory });
        }
    }
    Ok(all)
}
