//! The gateway: the request path and the queue.
//!
//! ```text
//! request -> server -> forward: route -> admit -> acquire (queue, permit) -> send -> answer
//! watches -> kube -> directory: Functions, Revisions, instances -> pools
//! pools   -> hub -> signals -> internal port -> autoscaler
//!               `-> raise from zero
//! ```

pub mod access_log;
pub mod body;
pub mod caller;
pub mod directory;
pub mod forward;
pub mod function;
pub mod headers;
pub mod hub;
pub mod internal;
pub mod kube;
pub mod member;
pub mod metrics;
pub mod pool;
pub mod refusal;
pub mod router;
pub mod server;
pub mod service_time;
pub mod signals;
pub mod target;
pub mod upgrade;

use std::{net::SocketAddr, pin::pin, sync::Arc};

use futures::StreamExt;
use lambent_fleet::{Event, Fleet};
use prometheus::Registry;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    directory::{Applier, Change, Directory},
    forward::Forwarder,
    hub::Hub,
    metrics::Metrics,
    server::Drain,
    signals::Signals,
};

/// Changes that wait to be applied; the watches wait when it is full.
const CHANGES: usize = 1024;

/// How a gateway runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Watch this namespace only; all without.
    pub namespace: Option<String>,
    /// The public port.
    pub listen: SocketAddr,
    /// The internal port.
    pub internal_listen: SocketAddr,
    /// Functions are called as `<name>.<namespace>.<domain>` as well.
    pub domain: Option<String>,
    /// Accounts that may use the internal port, by their full user names.
    pub trusted_accounts: Vec<String>,
    /// How a drain goes.
    pub drain: Drain,
}

/// Why a gateway could not run.
#[derive(Debug, Error)]
pub enum Error {
    /// A port is taken, say.
    #[error("listening on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// Two series of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs a gateway on a cluster until `shutdown`, then drains it. `ready` is true from the moment
/// that everything is known until the drain.
///
/// # Errors
/// If a port can't be listened on.
pub async fn run<F: Fleet>(
    config: Config,
    client: ::kube::Client,
    fleet: F,
    registry: &Registry,
    ready: watch::Sender<bool>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let Config { namespace, listen, internal_listen, domain, trusted_accounts, drain } = config;
    let public = bind(listen).await?;
    let internal = bind(internal_listen).await?;
    let directory = Arc::new(Directory::default());
    let (news, news_receiver) = mpsc::unbounded_channel();
    let hub = Arc::new(Hub::new(news, Box::new(kube::KubeRaise(client.clone()))));
    let metrics = Arc::new(Metrics::register(registry)?);
    let applier = Applier::new(directory.clone(), hub, metrics);
    let signals = Signals::new(directory.clone());
    let (changes, changes_receiver) = mpsc::channel(CHANGES);
    let synced = CancellationToken::new();
    let tasks = tokio_util::task::TaskTracker::new();
    let reviewer = Arc::new(kube::Reviewer::new(client.clone(), trusted_accounts));
    let routes = internal::routes(signals.clone(), directory.clone(), reviewer);
    let background = [
        tasks.spawn(watch_all(client, namespace, fleet, changes.clone(), synced.clone())).abort_handle(),
        tasks.spawn(apply(applier, changes_receiver)).abort_handle(),
        tasks.spawn(signals.run(news_receiver, changes)).abort_handle(),
        tasks.spawn(async move { drop(axum::serve(internal, routes).await) }).abort_handle(),
        tasks.spawn(readiness(ready, synced, shutdown.clone())).abort_handle(),
    ];
    info!(%listen, %internal_listen, "gateway runs");
    server::run(public, Arc::new(Forwarder { directory, domain }), drain, shutdown).await;
    background.iter().for_each(tokio::task::AbortHandle::abort);
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| Error::Listen(address, error))
}

async fn readiness(ready: watch::Sender<bool>, synced: CancellationToken, shutdown: CancellationToken) {
    synced.cancelled().await;
    ready.send_replace(true);
    shutdown.cancelled().await;
    ready.send_replace(false);
}

/// Functions, then Revisions, then instances: after the last list everything is known.
async fn watch_all<F: Fleet>(
    client: ::kube::Client,
    namespace: Option<String>,
    fleet: F,
    changes: mpsc::Sender<Change>,
    synced: CancellationToken,
) {
    let (functions, revisions) = (CancellationToken::new(), CancellationToken::new());
    let lists = [functions.clone(), revisions.clone()];
    tokio::join!(
        kube::functions(client.clone(), namespace.clone(), changes.clone(), move || functions.cancel()),
        kube::revisions(client, namespace, changes.clone(), move || revisions.cancel()),
        async move {
            let mut events = pin!(fleet.watch());
            while let Some(event) = events.next().await {
                let complete = event == Event::Complete;
                if changes.send(Change::Fleet(event)).await.is_err() {
                    return;
                }
                if complete && !synced.is_cancelled() {
                    for list in &lists {
                        list.cancelled().await;
                    }
                    synced.cancel();
                }
            }
        }
    );
}

async fn apply(mut applier: Applier, mut changes: mpsc::Receiver<Change>) {
    while let Some(change) = changes.recv().await {
        applier.apply(change);
    }
}
