//! The gateway: the request path and the queue.
//!
//! ```text
//! request -> server -> forward: route -> admit -> acquire (queue, permit) -> send -> answer
//! watches -> kube -> directory: Functions, Revisions, instances -> pools
//! pools   -> hub -> signals -> internal port -> autoscaler
//!               `-> raise from zero
//! peers   -> who of several gateways grants a Function's slots
//! nodes   -> addresses of pods before the API shows them -> directory
//! ```

pub mod access_log;
pub mod acquire;
pub mod body;
pub mod caller;
pub mod cold_start;
pub mod directory;
pub mod forward;
pub mod forwarded;
pub mod function;
pub mod headers;
pub mod hub;
pub mod incoming;
pub mod internal;
pub mod kube;
pub mod kube_nodes;
pub mod kube_peers;
pub mod lane;
pub mod leash;
pub mod member;
pub mod metrics;
pub mod nodes;
pub mod owner;
pub mod peers;
pub mod permit;
pub mod pool;
pub mod refusal;
pub mod router;
pub mod server;
pub mod server_timing;
pub mod service_time;
pub mod signals;
pub mod target;
pub mod upgrade;
pub mod workers;

use std::{net::SocketAddr, path::PathBuf, pin::pin, sync::Arc};

use futures::StreamExt;
use lambent_fleet::{Event as FleetEvent, Fleet};
use prometheus::Registry;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    directory::{Applier, Change, Directory},
    forward::Forwarder,
    hub::Hub,
    metrics::Metrics,
    nodes::{NodeMetrics, Nodes},
    peers::{Coordinator, Event, accept::Host, lent::Lent, link::Introduction},
    pool::parking::{Agents, NoAgents},
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
    /// Accounts that may listen and retire at the internal port, by their full user names.
    pub trusted_accounts: Vec<String>,
    /// How it knows the other gateways; without it, it is the only one.
    pub peers: Option<Peers>,
    /// The account of node agents, by its full user name; without it there are none.
    pub node_account: Option<String>,
    /// How a drain goes.
    pub drain: Drain,
}

/// How a gateway finds others, and is known to them.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Its own pod.
    pub pod: String,
    /// Where gateways run.
    pub namespace: String,
    /// The account of all of them, by its full user name.
    pub account: String,
    /// A file with this gateway's token.
    pub token: PathBuf,
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
    /// The system gives no more threads or files.
    #[error("threads for callers: {0}")]
    Threads(std::io::Error),
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
    let ports = Ports { public: bind(config.listen).await?, internal: Some(bind(config.internal_listen).await?) };
    run_on(ports, config, client, fleet, registry, ready, shutdown, drop).await
}

/// Ports that are listened on already.
#[derive(Debug)]
pub struct Ports {
    /// For callers.
    pub public: TcpListener,
    /// For the autoscaler, the controller and other gateways; not needed where all is one process.
    pub internal: Option<TcpListener>,
}

/// What the internal port serves, for those who are in the same process.
#[derive(Clone, Debug)]
pub struct Inside {
    /// What there is to listen to.
    pub signals: Signals,
    /// The Functions.
    pub directory: Arc<Directory>,
}

/// As [`run`], on these ports. `tell` gets the inside.
///
/// # Errors
/// If there are metrics of the same names already.
#[allow(clippy::too_many_arguments)] // The parts of a process, each of its own kind.
pub async fn run_on<F: Fleet>(
    ports: Ports,
    config: Config,
    client: ::kube::Client,
    fleet: F,
    registry: &Registry,
    ready: watch::Sender<bool>,
    shutdown: CancellationToken,
    tell: impl FnOnce(Inside) + Send,
) -> Result<(), Error> {
    let Ports { public, internal } = ports;
    let Config { namespace, listen, internal_listen, domain, trusted_accounts, peers, node_account, drain } = config;
    let directory = Arc::new(Directory::default());
    let (news, news_receiver) = mpsc::unbounded_channel();
    let metrics = Arc::new(Metrics::register(registry)?);
    let signals = Signals::new(directory.clone());
    tell(Inside { signals: signals.clone(), directory: directory.clone() });
    let (changes, changes_receiver) = mpsc::channel(CHANGES);
    let (synced, peers_known) = (CancellationToken::new(), CancellationToken::new());
    let (events, events_receiver) = mpsc::unbounded_channel();
    let lent = Arc::new(Lent::default());
    let host = peers.as_ref().map(|_| Host::new(directory.clone(), lent.clone(), events.clone()));
    let nodes = match &node_account {
        Some(_) => Some(nodes(client.clone(), registry, changes.clone())?),
        None => None,
    };
    let agents: Arc<dyn Agents> = match &nodes {
        Some(nodes) => nodes.clone(),
        None => Arc::new(NoAgents { since: Instant::now() }),
    };
    let hub = Arc::new(Hub::new(news, Box::new(kube::KubeRaise(client.clone())), agents));
    let newcomers = peers.as_ref().map(|_| events.clone());
    let applier = Applier::new(directory.clone(), hub, metrics, newcomers).with_nodes(nodes.clone());
    let peer = peers.as_ref().map(|peers| peers.account.clone());
    let accounts = kube::Accounts { listeners: trusted_accounts, peer, node: node_account };
    let reviewer = Arc::new(kube::Reviewer::new(client.clone(), accounts));
    let routes = internal::routes(signals.clone(), directory.clone(), reviewer, host, nodes);
    // All of them end with this set.
    let mut background = JoinSet::new();
    match peers {
        Some(Peers { pod, namespace, token, .. }) => {
            let boot = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0);
            let me = Introduction { name: pod.into(), boot, token };
            let coordinator = Coordinator::new(me, directory.clone(), lent, events.clone(), peers_known.clone());
            background.spawn(coordinator.run(events_receiver));
            background.spawn(kube_peers::follow(client.clone(), namespace, internal_listen.port(), events.clone()));
        }
        None => peers_known.cancel(),
    }
    background.spawn(watch_all(client, namespace, fleet, changes.clone(), synced.clone()));
    background.spawn(apply(applier, changes_receiver));
    background.spawn(signals.run(news_receiver, changes));
    if let Some(internal) = internal {
        background.spawn(async move { drop(axum::serve(internal, routes).await) });
    }
    background.spawn(readiness(ready, [synced, peers_known], shutdown.clone(), events));
    info!(%listen, %internal_listen, "gateway runs");
    server::run(public, Arc::new(Forwarder { directory, domain }), drain, shutdown).await.map_err(Error::Threads)
}

fn nodes(
    client: ::kube::Client,
    registry: &Registry,
    changes: mpsc::Sender<Change>,
) -> Result<Arc<Nodes>, prometheus::Error> {
    let metrics = NodeMetrics::register(registry)?;
    Ok(Arc::new(Nodes::new(Box::new(kube_nodes::KubeFacts(client)), metrics, changes)))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| Error::Listen(address, error))
}

async fn readiness(
    ready: watch::Sender<bool>,
    known: [CancellationToken; 2],
    shutdown: CancellationToken,
    peers: mpsc::UnboundedSender<Event>,
) {
    for known in known {
        known.cancelled().await;
    }
    ready.send_replace(true);
    shutdown.cancelled().await;
    ready.send_replace(false);
    let _ = peers.send(Event::Leave);
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
        follow_fleet(fleet, lists, changes, synced),
    );
}

/// `synced` is cancelled when all that `lists` and the fleet's own first one brought is applied.
async fn follow_fleet<F: Fleet>(
    fleet: F,
    lists: [CancellationToken; 2],
    changes: mpsc::Sender<Change>,
    synced: CancellationToken,
) {
    let mut first = Some(synced);
    let mut events = pin!(fleet.watch());
    while let Some(event) = events.next().await {
        let complete = event == FleetEvent::Complete;
        if changes.send(Change::Fleet(event)).await.is_err() {
            return;
        }
        if let Some(synced) = first.take_if(|_| complete) {
            for list in &lists {
                list.cancelled().await;
            }
            if changes.send(Change::Synced(synced)).await.is_err() {
                return;
            }
        }
    }
}

async fn apply(mut applier: Applier, mut changes: mpsc::Receiver<Change>) {
    while let Some(change) = changes.recv().await {
        applier.apply(change);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::BoxFuture};
    use lambent_fleet::memory::MemoryFleet;

    use super::*;

    struct NoRaise;

    impl hub::Raise for NoRaise {
        fn raise<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ()> {
            Box::pin(async {})
        }
    }

    #[tokio::test]
    async fn all_is_known_when_it_is_applied_not_when_it_is_sent() {
        let fleet = MemoryFleet::new(|_| SocketAddr::from(([127, 0, 0, 1], 9)));
        let (changes, mut sent) = mpsc::channel(CHANGES);
        let lists = [CancellationToken::new(), CancellationToken::new()];
        let synced = CancellationToken::new();
        lists.iter().for_each(CancellationToken::cancel);
        let followed = follow_fleet(fleet, lists, changes, synced.clone()).now_or_never();
        assert!(followed.is_none(), "a watch goes on");
        assert!(!sent.is_empty() && !synced.is_cancelled(), "sent is not applied");
        let hub = Arc::new(Hub::new(
            mpsc::unbounded_channel().0,
            Box::new(NoRaise),
            Arc::new(NoAgents { since: Instant::now() }),
        ));
        let metrics = Arc::new(Metrics::register(&Registry::new()).unwrap());
        let mut applier = Applier::new(Arc::default(), hub, metrics, None);
        while let Ok(change) = sent.try_recv() {
            applier.apply(change);
        }
        assert!(synced.is_cancelled());
    }
}
