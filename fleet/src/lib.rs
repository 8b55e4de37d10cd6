//! Where instances run. The controller starts and stops instances through [`Fleet`]; the gateway
//! follows them. What differs between a cluster and a laptop is behind this trait and nowhere else;
//! one contract suite ([`contract`]) holds all kinds to the same behaviour.
//!
//! ```text
//! controller --start/stop--> Fleet --watch--> controller (is it true yet?)
//!                                  `-watch--> gateway    (whom can I send to?)
//! ```
#![warn(missing_docs)]

pub mod contract;
pub mod instance;
pub mod kube;
pub mod memory;
pub mod probe;
pub mod process;

use std::{future::Future, sync::Arc};

use futures::Stream;
use lambent_api::{InstanceRef, Reason, Revision, Settings};
use thiserror::Error;

pub use instance::{Instance, Phase, Placed};

/// Starts, stops and shows instances.
pub trait Fleet: Send + Sync + 'static {
    /// Starts one instance and returns when the order is taken, not when it runs. Ordering a name
    /// that exists is no error, so that an order may be repeated.
    fn start(&self, order: &Order) -> impl Future<Output = Result<(), StartError>> + Send;

    /// Stops one instance. One that is gone already, or whose name is another's by now, is no error.
    fn stop(
        &self,
        namespace: &str,
        instance: &InstanceRef,
        how: Stop,
    ) -> impl Future<Output = Result<(), FleetError>> + Send;

    /// Everything that there is, and from then on every change. It never ends and mends itself:
    /// after a loss of the connection it says everything again, between `Restarted` and `Complete`.
    fn watch(&self) -> impl Stream<Item = Event> + Send + 'static;
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the instance: at most 63 characters, a DNS label.
    pub name: String,
    /// What runs. Its `metadata` has namespace, name and uid.
    pub revision: Arc<Revision>,
    /// Of the Function at this moment: how long it may be busy when it is stopped.
    pub settings: Arc<Settings>,
}

/// How an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It may be busy: requests that it has may end, up to the Function's `timeout`.
    Gracefully,
    /// No request uses it: SIGTERM and a few seconds.
    Idle,
    /// It is being stopped already and its last request has ended: nothing more is waited for.
    Drained,
}

/// A change in the fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What was known may be out of date: everything follows again, up to `Complete`.
    Restarted,
    /// An instance is there or has changed.
    Applied(Instance),
    /// An instance is gone.
    Gone(Instance),
    /// Everything that there is has been said; what was not said since `Restarted` is gone.
    Complete,
}

/// Why an instance could not be ordered.
#[derive(Debug, Error)]
pub enum StartError {
    /// Refused by quota, admission or Pod Security: it stays refused until something changes.
    #[error("{}: {}", .0.reason, .0.message)]
    Refused(Reason),
    /// Anything else; worth another try.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

/// The fleet itself could not be asked.
#[derive(Debug, Error)]
pub enum FleetError {
    /// The API server.
    #[error("the API server: {0}")]
    Kube(#[from] ::kube::Error),
    /// A Kubernetes type that can't be written as JSON.
    #[error("manifest of an instance: {0}")]
    Manifest(#[from] serde_json::Error),
}
