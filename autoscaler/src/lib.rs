//! The autoscaler: signals in, wanted counts out.
//!
//! ```text
//! gateways --Load--> link --> book: window, start model, decide --> write Revision.spec.instances
//!                                `-- down: ask the gateway to retire --> write count and names
//! ```

pub mod arrivals;
pub mod book;
pub mod decide;
pub mod kube;
pub mod link;
pub mod metrics;
pub mod order;
pub mod revision;
pub mod start_model;
pub mod window;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ::kube::{Api, Client};
use lambent_api::{
    RevisionKey,
    signal::{Retire, Retired},
};
use parking_lot::Mutex;
use prometheus::Registry;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    book::{Book, Input},
    link::{FromGateways, client, connect_all, discover},
    metrics::Metrics,
    order::{Order, Write},
};

/// News that wait to be taken; whoever brings them waits when it is full.
const NEWS: usize = 1024;
/// How often it is looked whether something may go.
const TICK: Duration = Duration::from_millis(250);

/// How an autoscaler runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Watch this namespace only; all without.
    pub namespace: Option<String>,
    /// Where the gateways are.
    pub system_namespace: String,
    /// Their internal port.
    pub internal_port: u16,
    /// A token of the audience `lambent-gateway`.
    pub token_path: PathBuf,
}

/// Why an autoscaler could not run.
#[derive(Debug, Error)]
pub enum Error {
    /// Two series of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs until `shutdown`. Only one may run at a time: the caller holds a Lease.
///
/// # Errors
/// If metrics can't be registered.
pub async fn run(
    config: Config,
    client: Client,
    registry: &Registry,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let Config { namespace, system_namespace, internal_port, token_path } = config;
    let metrics = Metrics::register(registry)?;
    let (news, mut receiver) = mpsc::channel(NEWS);
    let gateways = Arc::new(Mutex::new(BTreeSet::new()));
    let doer = Doer {
        client: client.clone(),
        token: token_path.clone(),
        gateways: gateways.clone(),
        metrics: metrics.clone(),
        news: news.clone(),
    };
    // All background work ends with this set.
    let mut tasks = JoinSet::new();
    let links = connect_all(discover::gateways(client.clone(), &system_namespace, internal_port), token_path);
    tasks.spawn(pass_on(links, gateways, news.clone()));
    tasks.spawn(kube::functions(scoped(&client, namespace.as_deref()), news.clone()));
    tasks.spawn(kube::revisions(scoped(&client, namespace.as_deref()), news.clone()));
    let mut book = Book::default();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let input = tokio::select! {
            Some(input) = receiver.recv() => input,
            _ = tick.tick() => Input::Tick,
            () = shutdown.cancelled() => return Ok(()),
        };
        count(&metrics, &input);
        for order in book.apply(input, Instant::now()) {
            tasks.spawn(doer.clone().carry_out(order));
        }
        while tasks.try_join_next().is_some() {}
    }
}

fn count(metrics: &Metrics, input: &Input) {
    match input {
        Input::Revision(view) => metrics.wanted(&view.key, view.wanted),
        Input::RevisionGone(key) => metrics.gone(key),
        _ => {}
    }
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: ::kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn pass_on(
    mut links: mpsc::Receiver<FromGateways>,
    known: Arc<Mutex<BTreeSet<SocketAddr>>>,
    to: mpsc::Sender<Input>,
) {
    while let Some(event) = links.recv().await {
        let input = match event {
            FromGateways::One(gateway, event) => Input::Link(gateway, event),
            FromGateways::All(all) => {
                known.lock().clone_from(&all);
                Input::Gateways(all)
            }
        };
        if to.send(input).await.is_err() {
            return;
        }
    }
}

/// Carries orders out and tells the book how it went.
#[derive(Clone)]
struct Doer {
    client: Client,
    token: PathBuf,
    gateways: Arc<Mutex<BTreeSet<SocketAddr>>>,
    metrics: Metrics,
    news: mpsc::Sender<Input>,
}

impl Doer {
    async fn carry_out(self, order: Order) {
        let outcome = match order {
            Order::Write(write) => self.write(&write).await,
            Order::Retire { revision, keep } => Some(self.retire(revision, keep).await),
        };
        if let Some(input) = outcome {
            let _ = self.news.send(input).await;
        }
    }

    async fn write(&self, write: &Write) -> Option<Input> {
        if !kube::write(&self.client, write).await {
            return Some(Input::Failed(write.revision.clone()));
        }
        self.metrics.decided(write);
        let Write { function, revision, from, to, stopping: _, reason } = write;
        info!(%function, %revision, from, to, reason = reason.as_str(), "scaled");
        None
    }

    /// Asks every gateway: each instance is used by the one that owns its function.
    async fn retire(&self, revision: RevisionKey, keep: u32) -> Input {
        let order = Retire { namespace: revision.namespace.clone(), revision: revision.name.clone(), keep };
        let gateways: Vec<SocketAddr> = self.gateways.lock().iter().copied().collect();
        let mut all = Retired::default();
        for gateway in gateways {
            match client::retire(gateway, &self.token, &order).await {
                Ok(retired) => {
                    all.left = all.left.max(retired.left);
                    all.instances.extend(retired.instances);
                }
                Err(error) => {
                    debug!(%gateway, %error, "a gateway could not be asked to retire instances");
                    return Input::Failed(revision);
                }
            }
        }
        Input::Retired(revision, all)
    }
}
