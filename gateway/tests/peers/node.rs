//! Several gateways in one process, each with a runtime of its own, so that one can be killed: its
//! sockets close as they do when a process dies.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use jiff::Timestamp;
use lambent_api::{FunctionKey, FunctionSpec, InstanceRef, Protocol, Reason, RevisionKey, Settings};
use lambent_fleet::{Event as FleetEvent, Instance, Phase};
use lambent_gateway::{
    directory::{Applier, Change, Directory, FunctionView, RevisionView},
    forward::Forwarder,
    hub::{Hub, Raise},
    internal::{self, Authenticate, Role},
    metrics::Metrics,
    owner::Owner,
    peers::{Coordinator, Event, PeerPod, accept::Host, lent::Lent, link::Introduction, ring},
    pool::parking::NoAgents,
    server::{self, Drain},
    signals::Signals,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::support::{self, Body, text};

/// One gateway.
pub struct Node {
    pub name: Arc<str>,
    pub public: SocketAddr,
    pub directory: Arc<Directory>,
    pub served: CancellationToken,
    internal: SocketAddr,
    events: mpsc::UnboundedSender<Event>,
    changes: mpsc::Sender<Change>,
    shutdown: CancellationToken,
    runtime: Option<Runtime>,
}

struct Nobody;

impl Raise for Nobody {
    fn raise<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

impl Authenticate for Nobody {
    fn role_of(&self, token: String) -> BoxFuture<'_, Option<Role>> {
        Box::pin(async move { (token == "secret").then_some(Role::Peer) })
    }
}

impl Node {
    fn start(name: &str, token: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            (listener.local_addr().unwrap(), listener)
        };
        let ((public, public_listener), (internal, internal_listener)) = (listen(), listen());
        let name: Arc<str> = name.into();
        let directory = Arc::new(Directory::default());
        let (news, news_receiver) = mpsc::unbounded_channel();
        let (events, events_receiver) = mpsc::unbounded_channel();
        let (changes, mut changes_receiver) = mpsc::channel(64);
        let (shutdown, served) = (CancellationToken::new(), CancellationToken::new());
        let hub = Arc::new(Hub::new(news, Box::new(Nobody), Arc::new(NoAgents { since: tokio::time::Instant::now() })));
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        let mut applier = Applier::new(directory.clone(), hub, metrics, Some(events.clone()));
        let signals = Signals::new(directory.clone());
        let lent = Arc::new(Lent::default());
        let host = Host::new(directory.clone(), lent.clone(), events.clone());
        let routes = internal::routes(signals.clone(), directory.clone(), Arc::new(Nobody), Some(host), None);
        let boot = u64::try_from(Timestamp::now().as_microsecond()).unwrap();
        let me = Introduction { name: name.clone(), boot, token };
        let coordinator = Coordinator::new(me, directory.clone(), lent, events.clone(), CancellationToken::new());
        let forwarder = Arc::new(Forwarder { directory: directory.clone(), domain: None });
        let drain = Drain { delay: Duration::from_millis(100), grace: Duration::from_secs(20) };
        runtime.spawn(coordinator.run(events_receiver));
        runtime.spawn(signals.run(news_receiver, changes.clone()));
        runtime.spawn(async move {
            while let Some(change) = changes_receiver.recv().await {
                applier.apply(change);
            }
        });
        runtime.spawn(async move {
            axum::serve(TcpListener::from_std(internal_listener).unwrap(), routes).await.unwrap();
        });
        runtime.spawn({
            let (shutdown, served) = (shutdown.clone(), served.clone());
            async move {
                let listener = TcpListener::from_std(public_listener).unwrap();
                server::run(listener, forwarder, drain, shutdown).await.unwrap();
                served.cancel();
            }
        });
        Self { name, public, directory, served, internal, events, changes, shutdown, runtime: Some(runtime) }
    }

    pub fn is_owner(&self, function: &str) -> bool {
        self.directory.any("shop", function).is_some_and(|f| f.owner().is_me())
    }

    pub fn queued_or_running(&self, function: &str) -> u32 {
        let function = self.directory.any("shop", function).unwrap();
        function.loads().iter().map(|load| load.queued + load.in_flight).sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// Gateways, and the Functions and instances that all of them know.
pub struct World {
    pub nodes: Vec<Node>,
    token: PathBuf,
    _directory: tempfile::TempDir,
    changes: Vec<Change>,
    started: u32,
    unlisted: Vec<Arc<str>>,
}

impl World {
    pub async fn of(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "secret\n").unwrap();
        let mut world = Self {
            nodes: Vec::new(),
            token,
            _directory: directory,
            changes: Vec::new(),
            started: 0,
            unlisted: Vec::new(),
        };
        for name in names {
            world.join(name).await;
        }
        world
    }

    /// Another gateway, known to the others once it is ready.
    pub async fn join(&mut self, name: &str) {
        self.join_unheard(name).await;
        self.tell_pods();
    }

    /// Another gateway, which knows of the others while they don't know of it yet.
    pub async fn join_unheard(&mut self, name: &str) {
        let node = Node::start(name, self.token.clone());
        for change in &self.changes {
            node.changes.send(copy(change)).await.unwrap();
        }
        // Then nothing comes before them: its runtime has one thread.
        support::until("it has heard of all", || node.changes.capacity() == node.changes.max_capacity()).await;
        self.nodes.push(node);
        let newest = &self.nodes[self.nodes.len() - 1];
        let _ = newest.events.send(Event::Pods(self.pods()));
    }

    /// Everyone is told who is there.
    pub fn tell_pods(&self) {
        let pods = self.pods();
        for node in &self.nodes {
            let _ = node.events.send(Event::Pods(pods.clone()));
        }
    }

    fn pods(&self) -> BTreeMap<Arc<str>, PeerPod> {
        let pod = |node: &Node| {
            let ready = !node.shutdown.is_cancelled();
            (node.name.clone(), PeerPod { address: node.internal, ready })
        };
        let there = self.nodes.iter().filter(|node| !self.unlisted.contains(&node.name));
        there.map(pod).collect()
    }

    /// A gateway's pod is gone from the API while its process still runs, as after a deletion by force.
    pub fn unlist(&mut self, at: usize) {
        self.unlisted.push(self.nodes[at].name.clone());
        self.tell_pods();
    }

    /// Drains a gateway, as SIGTERM does. The others are not told by anyone but itself.
    pub fn leave(&mut self, at: usize) -> &Node {
        let node = &self.nodes[at];
        node.shutdown.cancel();
        let _ = node.events.send(Event::Leave);
        node
    }

    /// Kills one. Nobody is told.
    pub fn kill(&mut self, at: usize) {
        drop(self.nodes.remove(at));
    }

    async fn change(&mut self, change: Change) {
        for node in &self.nodes {
            node.changes.send(copy(&change)).await.unwrap();
        }
        self.changes.push(change);
    }

    pub async fn function(&mut self, name: &str, mut spec: serde_json::Value) {
        spec["image"] = "a".into();
        let spec: FunctionSpec = serde_json::from_value(spec).unwrap();
        let (key, revision) = (FunctionKey::new("shop", name), format!("{name}-1"));
        let settings = Some(Arc::new(Settings::try_from(&spec).unwrap()));
        self.change(Change::Function(FunctionView {
            key,
            settings,
            revision: Some(revision.into()),
            next: None,
            stalled: None,
        }))
        .await;
        self.revision(name, None).await;
    }

    pub async fn revision(&mut self, function: &str, not_startable: Option<Reason>) {
        let key = RevisionKey::new("shop", format!("{function}-1"));
        self.change(Change::Revision(RevisionView {
            key,
            wanted: 1,
            proven: true,
            protocol: Protocol::Http1,
            not_startable,
            stopping: Vec::new(),
        }))
        .await;
    }

    /// An instance of a Function that takes `time` for each request and counts them.
    pub async fn instance(&mut self, function: &str, time: Duration) -> Counts {
        let counts = Counts::default();
        let inner = counts.clone();
        let address = support::serve(move |_: Request<Incoming>| {
            let counts = inner.clone();
            async move {
                let _here = counts.enter();
                tokio::time::sleep(time).await;
                Response::<Body>::new(text("done"))
            }
        })
        .await;
        self.started += 1;
        let n = self.started;
        let id = InstanceRef { name: format!("{function}-1-{n}"), uid: format!("uid-{n}") };
        let instance = Instance {
            id,
            namespace: "shop".into(),
            function: function.into(),
            revision: format!("{function}-1"),
            node: None,
            address: Some(address),
            phase: Phase::Running,
            placed: None,
            restarts: 0,
            created: Timestamp::now(),
        };
        self.change(Change::Fleet(FleetEvent::Applied(instance))).await;
        counts
    }

    /// Waits until each Function's slots are granted by the gateway that is to, and all know it.
    pub async fn settled(&self, functions: &[&str]) {
        let mut names: Vec<_> = self.nodes.iter().map(|node| node.name.clone()).collect();
        names.sort();
        let settled = |function: &str| {
            let due = ring::owner(&names, &FunctionKey::new("shop", function)).unwrap();
            self.nodes.iter().all(|node| match node.directory.any("shop", function).map(|f| f.owner()) {
                Some(Owner::Me) => node.name == *due,
                Some(Owner::Peer(owner)) => owner.name() == due,
                _ => false,
            })
        };
        support::until("one owner each", || functions.iter().all(|f| settled(f))).await;
    }

    pub fn owner_of(&self, function: &str) -> usize {
        self.nodes.iter().position(|node| node.is_owner(function)).unwrap()
    }
}

/// Who is at an instance, and the most who ever were at once.
#[derive(Clone, Default)]
pub struct Counts(Arc<(AtomicU32, AtomicU32)>);

impl Counts {
    fn enter(&self) -> Here {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Here(self.clone())
    }

    pub fn now(&self) -> u32 {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> u32 {
        self.0.1.load(Ordering::SeqCst)
    }
}

struct Here(Counts);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The name of a Function that goes to `owner` by the hash.
pub fn function_of(owner: &str, gateways: &[&str]) -> String {
    let gateways: Vec<Arc<str>> = gateways.iter().map(|name| Arc::from(*name)).collect();
    let is_its = |name: &String| ring::owner(&gateways, &FunctionKey::new("shop", name)).is_some_and(|n| **n == *owner);
    (0..).map(|n| format!("hello{n}")).find(is_its).unwrap()
}

fn copy(change: &Change) -> Change {
    match change {
        Change::Function(view) => Change::Function(view.clone()),
        Change::Revision(view) => Change::Revision(view.clone()),
        Change::Fleet(event) => Change::Fleet(event.clone()),
        other => panic!("{other:?}"),
    }
}
