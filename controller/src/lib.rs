//! The controller: makes Functions true. It watches Functions, their Revisions and the fleet's
//! instances, and looks at a Function whenever something of it changed.
//!
//! ```text
//! Functions --+                      +-> Revision (new image or template: made once, proven once)
//! Revisions --+-> queue -> one look: |-> instances (started and stopped at the fleet)
//! instances --+            observe   |-> status, Events, metrics
//! probes    --+            resolve   +
//! registry  --+            decide -> apply
//!
//! gateways say "drained" --------------> the grace of a stopping instance is cut short
//! gateways say what is parked ---------> status
//! ```
//!
//! Decisions are in `plan` and `status`, which know no client and no clock.

mod apply;
mod backoff;
mod caches;
mod context;
mod drain;
mod driver;
mod elapsed;
mod events;
pub mod image;
mod index;
mod latest;
mod looks;
mod lookup;
mod memory;
mod metrics;
mod names;
mod observe;
mod parked;
mod plan;
mod probes;
mod pull;
mod queue;
mod report;
mod rollout;
mod status;

use std::{sync::Arc, time::Duration};

use futures::{Stream, future::BoxFuture};
use kube::{Client, runtime::events::Reporter};
use lambent_api::{Function, FunctionKey, Reason, signal::Message};
use lambent_fleet::Fleet;
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use context::Context;
use metrics::Metrics;

/// What the operator sets.
#[derive(Clone)]
pub struct Config {
    /// Watches one namespace, or all.
    pub namespace: Option<String>,
    /// Where Lambent itself runs.
    pub system_namespace: String,
    /// Where callers reach the gateway, such as `https://fn.example.org`.
    pub public_url: Option<String>,
    /// Registries, as `host` or `host:port`, that are spoken to without TLS.
    pub plain_http_registries: Vec<String>,
    /// Pods that may pull images ahead at once, over all Functions: none if there are no nodes to pull to, 0 if it
    /// is switched off.
    pub pull_ahead: Option<usize>,
    /// Functions that are looked at concurrently: more where the API server is far away.
    pub looks: usize,
    /// Makes what is to run before a Revision is made of it. Without one, images are resolved at their registry.
    pub builder: Option<Arc<dyn Builder>>,
}

/// What takes the place of image registries on one machine.
pub trait Builder: Send + Sync + 'static {
    /// Makes what the Function runs, or says why that can't be. It is dropped when something else is to
    /// be made for the Function instead, or nothing at all.
    fn build(&self, function: &Function) -> BoxFuture<'static, Result<(), Reason>>;
}

/// Why the controller can't go on.
#[derive(Debug, Error)]
pub enum Error {
    /// Metrics of these names exist already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task that never ends has ended.
    #[error("{0} ended")]
    Ended(&'static str),
}

/// Runs the controller until `shutdown`. Only one may run at a time: the caller holds a lease.
///
/// # Errors
/// If metrics can't be registered, or a task that never ends does.
pub async fn run<F: Fleet>(
    config: Config,
    client: Client,
    fleet: F,
    said: impl Stream<Item = Message> + Send + 'static,
    registry: &prometheus::Registry,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let metrics = Metrics::new(registry)?;
    let (news, published) = mpsc::channel(events::WAITING);
    let reporter = Reporter::from(apply::FIELD_MANAGER);
    let publishing = events::publish(client.clone(), reporter, published);
    let context = Arc::new(Context::new(config, client, fleet, news, metrics.clone()));

    let mut tasks = JoinSet::new();
    tasks.spawn(named("watch of Functions", caches::functions(context.clone())));
    tasks.spawn(named("watch of Revisions", caches::revisions(context.clone())));
    tasks.spawn(named("watch of instances", caches::instances(context.clone())));
    tasks.spawn(named("drain", drain::run(context.clone(), said)));
    tasks.spawn(named("Events", publishing));
    if let Some(at_once) = context.config.pull_ahead {
        if at_once > 0 && !context.pulls_ahead() {
            tracing::info!("images are not pulled ahead: within one namespace there is no right to see nodes");
        }
        tasks.spawn(named("pulling images ahead", pull::run(context.clone(), at_once)));
    }

    let result = tokio::select! {
        () = look_at_all(context.clone(), shutdown) => Ok(()),
        ended = tasks.join_next() => Err(Error::Ended(ended.and_then(Result::ok).unwrap_or("a task"))),
    };
    context.clear();
    metrics.unregister(registry);
    result
}

async fn named(name: &'static str, work: impl Future<Output = ()>) -> &'static str {
    work.await;
    name
}

/// Looks at every Function that is touched, until it is time to stop.
async fn look_at_all<F: Fleet>(context: Arc<Context<F>>, shutdown: CancellationToken) {
    tokio::select! {
        () = caches::complete(&context) => tracing::info!("caches are complete"),
        () = shutdown.cancelled() => return,
    }
    let queue = context.queue.clone();
    looks::run(&queue, context.config.looks, |function| look(context.clone(), function), shutdown).await;
}

async fn look<F: Fleet>(context: Arc<Context<F>>, function: FunctionKey) -> Option<Duration> {
    // It may have been touched because it went.
    let object = context.function(&function)?;
    let again = driver::reconcile(&object, &context).await.unwrap_or_else(|error| {
        tracing::warn!(%function, %error, "look failed; trying again");
        driver::after_error(&object, &context)
    });
    context.looked_at(&function);
    again
}
