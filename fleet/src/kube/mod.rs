//! Instances as Pods of a cluster. This file talks to the API server; what a Pod looks like is
//! decided in [`pod`], what one means in [`observe`].

pub mod observe;
pub mod pod;
pub mod refusal;

use futures::{Stream, StreamExt, TryStreamExt, future, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Error,
    api::{DeleteParams, PostParams, Preconditions},
    runtime::{WatchStreamExt, watcher},
};
use lambent_api::{InstanceRef, meta::LABEL_FUNCTION};

use crate::{Event, Fleet, FleetError, Order, StartError, Stop};

/// What an idle instance gets: 0 would take its object away before its process has ended.
const IDLE_GRACE_SECONDS: u32 = 1;

/// The fleet of a cluster, or of one namespace of it.
#[derive(Clone)]
pub struct KubeFleet {
    client: Client,
    namespace: Option<String>,
}

impl KubeFleet {
    /// Watches one namespace, or all.
    pub fn new(client: Client, namespace: Option<String>) -> Self {
        Self { client, namespace }
    }

    fn pods_in(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn watched_pods(&self) -> Api<Pod> {
        match &self.namespace {
            Some(namespace) => self.pods_in(namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

impl Fleet for KubeFleet {
    async fn start(&self, order: &Order) -> Result<(), StartError> {
        let namespace = order.revision.metadata.namespace.as_deref().unwrap_or_default();
        match self.pods_in(namespace).create(&PostParams::default(), &pod::pod(order)).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(refusal::of(error)),
        }
    }

    async fn stop(&self, namespace: &str, instance: &InstanceRef, how: Stop) -> Result<(), FleetError> {
        let params = DeleteParams {
            grace_period_seconds: match how {
                Stop::Gracefully => None, // The pod's own, which covers the Function's timeout.
                Stop::Idle => Some(IDLE_GRACE_SECONDS),
                // The kubelet does not shorten a preStop sleep that has begun, so only the object can go
                // early; the process follows when its sleep is over.
                Stop::Drained => Some(0),
            },
            preconditions: Some(Preconditions { uid: Some(instance.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.pods_in(namespace).delete(&instance.name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or the name is another's by now: either way this one doesn't run.
            Err(Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn watch(&self) -> impl Stream<Item = Event> + Send + 'static {
        let config = watcher::Config::default().labels(LABEL_FUNCTION);
        watcher::watcher(self.watched_pods(), config)
            .default_backoff()
            // Whoever follows the fleet only sees that it goes on, so the loss is told here.
            .inspect_err(|error| tracing::warn!(%error, "watch of instances lost; trying again"))
            .filter_map(|event| future::ready(event.ok().and_then(translate)))
            .boxed() as BoxStream<'static, Event>
    }
}

/// Turns each Pod into the small [`crate::Instance`] at once, so that no whole Pod is kept.
fn translate(event: watcher::Event<Pod>) -> Option<Event> {
    match event {
        watcher::Event::Init => Some(Event::Restarted),
        watcher::Event::InitDone => Some(Event::Complete),
        watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => observe::instance(&pod).map(Event::Applied),
        watcher::Event::Delete(pod) => observe::instance(&pod).map(Event::Gone),
    }
}

#[cfg(test)]
mod tests;
