//! What the kernel says of an instance's cgroup on the node, which is this machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use lambent_api::ConditionType;

use crate::{Deployed, await_condition, function::uid};

/// Below one of these all containers have their cgroups: version 1, version 2.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/freezer/kubepods", "/sys/fs/cgroup/kubepods"];

/// Whether the one container of a pod is frozen.
///
/// # Errors
/// If it has no cgroup here.
pub fn is_frozen(pod: &Pod) -> anyhow::Result<bool> {
    let cgroup = cgroup(pod)?;
    if let Ok(state) = fs::read_to_string(cgroup.join("freezer.state")) {
        return Ok(state.trim() == "FROZEN");
    }
    Ok(fs::read_to_string(cgroup.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"))
}

fn cgroup(pod: &Pod) -> anyhow::Result<PathBuf> {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let id = containers.and_then(|all| all.first()?.container_id.as_ref()).context("no container yet")?;
    let (_, id) = id.rsplit_once('/').context("an id as kubelets write it")?;
    ROOTS
        .iter()
        .find_map(|root| find(Path::new(root), id, 4))
        .with_context(|| format!("no cgroup of {id} on this machine"))
}

fn find(below: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let directories = fs::read_dir(below).ok()?.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    let all: Vec<PathBuf> = directories.map(|entry| entry.path()).collect();
    let here = all.iter().find(|path| path.to_string_lossy().contains(name)).cloned();
    here.or_else(|| if depth == 0 { None } else { all.iter().find_map(|path| find(path, name, depth - 1)) })
}

impl Deployed {
    /// Waits until so many instances are parked, by the status and by the kernel's word, and no other runs.
    /// These.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn await_parked(&self, count: usize) -> Vec<Pod> {
        await_condition(format!("{count} parked instances of {}", self.name), async || {
            let status = self.status().await?;
            let told = (usize::try_from(status.parked)?, status.ready);
            ensure!(told == (count, 0), "{} parked, {} ready: {:?}", told.0, told.1, status.conditions);
            let instances = self.instances().await?;
            for pod in &instances {
                ensure!(is_frozen(pod)?, "{} runs", uid(pod));
            }
            ensure!(instances.len() == count, "{} instances", instances.len());
            Ok(instances)
        })
        .await
    }

    /// Waits until instances can't be parked for this reason.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn await_not_parked(&self, reason: &str) {
        await_condition(format!("{} not to be parked for {reason}", self.name), async || {
            let parked = self.condition(ConditionType::Parked).await?;
            ensure!(parked.status == "False" && parked.reason == reason, "{parked:?}");
            Ok(())
        })
        .await;
    }
}
