//! Which gateways there are: Pods of the system namespace that run.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tracing::warn;

/// Label of the gateways' Pods.
const GATEWAYS: &str = "app.kubernetes.io/name=lambent,app.kubernetes.io/component=gateway";

#[derive(Default)]
struct Known {
    pods: HashMap<String, SocketAddr>,
    relisted: HashMap<String, SocketAddr>,
    listing: bool,
}

impl Known {
    /// Takes an event. Whether what is known is complete.
    fn apply(&mut self, event: watcher::Event<Pod>, port: u16) -> bool {
        match event {
            watcher::Event::Init => {
                self.relisted.clear();
                self.listing = true;
            }
            watcher::Event::InitApply(pod) => put(&mut self.relisted, &pod, port),
            watcher::Event::InitDone => {
                self.pods = std::mem::take(&mut self.relisted);
                self.listing = false;
            }
            watcher::Event::Apply(pod) => put(&mut self.pods, &pod, port),
            watcher::Event::Delete(pod) => drop(self.pods.remove(&uid(&pod))),
        }
        !self.listing
    }
}

fn put(pods: &mut HashMap<String, SocketAddr>, pod: &Pod, port: u16) {
    match address(pod, port) {
        Some(address) => drop(pods.insert(uid(pod), address)),
        None => drop(pods.remove(&uid(pod))),
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// A draining gateway still has requests, so it counts until its process has ended.
fn address(pod: &Pod, port: u16) -> Option<SocketAddr> {
    let status = pod.status.as_ref()?;
    let running = status.phase.as_deref() == Some("Running");
    let ip: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
    running.then(|| SocketAddr::new(ip, port))
}

/// The gateways' internal addresses, whenever they change.
pub fn gateways(client: Client, namespace: &str, port: u16) -> impl Stream<Item = BTreeSet<SocketAddr>> + Send + use<> {
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let events = watcher(api, watcher::Config::default().labels(GATEWAYS)).default_backoff().boxed();
    stream::unfold((events, Known::default(), None), move |(mut events, mut known, mut last)| async move {
        loop {
            match events.next().await? {
                Ok(event) => {
                    let complete = known.apply(event, port);
                    let now: BTreeSet<SocketAddr> = known.pods.values().copied().collect();
                    if complete && last.as_ref() != Some(&now) {
                        last = Some(now.clone());
                        return Some((now, (events, known, last)));
                    }
                }
                Err(error) => warn!(%error, "the watch of gateways failed; it is tried again"),
            }
        }
    })
}
