//! Which gateways there are: their pods in the system namespace.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::peers::{Event, PeerPod};

/// Label of the gateways' pods.
const GATEWAYS: &str = "app.kubernetes.io/name=lambent,app.kubernetes.io/component=gateway";

type Pods = BTreeMap<Arc<str>, PeerPod>;

/// Tells which gateways there are, until nobody listens.
pub async fn follow(client: Client, namespace: String, port: u16, to: UnboundedSender<Event>) {
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let mut events = pin!(watcher(api, watcher::Config::default().labels(GATEWAYS)).default_backoff());
    let (mut pods, mut relisted) = (Pods::new(), None);
    while let Some(event) = events.next().await {
        let into = relisted.as_mut().unwrap_or(&mut pods);
        match event {
            Ok(watcher::Event::Init) => relisted = Some(Pods::new()),
            Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) => put(into, &pod, port),
            Ok(watcher::Event::Delete(pod)) => drop(into.remove(pod.name_any().as_str())),
            Ok(watcher::Event::InitDone) => pods = relisted.take().unwrap_or_default(),
            Err(error) => {
                warn!(%error, "the watch of gateways failed; it is tried again");
                continue;
            }
        }
        if relisted.is_none() && to.send(Event::Pods(pods.clone())).is_err() {
            return;
        }
    }
}

fn put(pods: &mut Pods, pod: &Pod, port: u16) {
    let name: Arc<str> = pod.name_any().into();
    match view(pod, port) {
        Some(view) => drop(pods.insert(name, view)),
        None => drop(pods.remove(&name)),
    }
}

/// None while it has no address and once it has ended. One that is being deleted still has requests.
fn view(pod: &Pod, port: u16) -> Option<PeerPod> {
    let status = pod.status.as_ref()?;
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let address: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
    let conditions = status.conditions.iter().flatten();
    let ready = conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True");
    let ready = ready && pod.metadata.deletion_timestamp.is_none();
    (!ended).then_some(PeerPod { address: SocketAddr::new(address, port), ready })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str, ready: &str) -> Pod {
        let status = json!({"phase": phase, "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": ready}]});
        serde_json::from_value(json!({"metadata": {"name": "gateway-1"}, "status": status})).unwrap()
    }

    #[test]
    fn a_pod_that_has_ended_or_has_no_address_is_no_gateway() {
        assert!(view(&pod("Running", "True"), 1).unwrap().ready);
        assert!(!view(&pod("Running", "False"), 1).unwrap().ready);
        assert_eq!(view(&pod("Failed", "False"), 1), None);
        assert_eq!(view(&Pod::default(), 1), None);
    }

    #[test]
    fn one_that_is_being_deleted_takes_no_share() {
        let mut leaving = pod("Running", "True");
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(!view(&leaving, 1).unwrap().ready);
    }
}
