//! Looks at the cluster again and again: instances each second, the platform's pods each five.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use lambent_api::meta::LABEL_FUNCTION;
use lambent_tests::function::phase;
use tokio::time::timeout;

use crate::{
    faults::look,
    record::{PlatformPod, Sample},
    world::World,
};

/// Longer: the API server is away, and there is nothing to see.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Instances of all Functions of the run.
pub async fn instances(world: &World) -> Option<Vec<Sample>> {
    let api = world.cx.api::<Pod>();
    let at = world.now();
    let pods = timeout(ANSWERS_WITHIN, api.list(&ListParams::default())).await.ok()?.ok()?;
    let mut counts: BTreeMap<String, usize> =
        world.profiles.iter().map(|profile| (profile.name.to_owned(), 0)).collect();
    for pod in pods.items {
        let ended = matches!(phase(&pod), "Failed" | "Succeeded");
        let function = pod.metadata.labels.unwrap_or_default().remove(LABEL_FUNCTION);
        if let (Some(function), None, false) = (function, pod.metadata.deletion_timestamp, ended) {
            *counts.entry(function).or_default() += 1;
        }
    }
    Some(counts.into_iter().map(|(function, instances)| Sample { at, function, instances }).collect())
}

/// The platform's pods.
pub async fn platform(world: &Arc<World>) -> Option<Vec<PlatformPod>> {
    timeout(ANSWERS_WITHIN, look(world)).await.ok()?.ok()
}
