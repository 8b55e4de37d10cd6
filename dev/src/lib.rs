//! Lambent on one machine: the cluster's controller, gateway and autoscaler, unchanged, over an API
//! server in memory ([`store`]), processes, and a directory of manifests.
//!
//! ```text
//! files -> loader -> store <-> controller -> processes
//!                     ^  ^---> gateway ------^   |
//!                     |           | signals      | output, Pods
//!                     '-----> autoscaler         v
//! lambent list, logs, describe ----> face (loopback port, token)
//! ```
#![warn(missing_docs)]

mod build;
mod face;
mod files;
mod find;
mod link;
mod loader;
mod lossless;
pub mod manifest;
mod news;
mod notices;
mod pods;
pub mod reader;
pub mod screen;
pub mod source;
pub mod state_dir;
mod stats;
pub mod store;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::stream;
use lambent_api::FunctionKey;
use lambent_autoscaler::{core::run_core, record::Record};
use lambent_fleet::process::{
    Config as FleetConfig, ProcessFleet,
    engine::{Engine, Engines, NoEngine},
    output::OutputFiles,
};
use lambent_gateway::{Inside, Ports, server::Drain};
use prometheus::Registry;
use serde_json::json;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{OnceCell, mpsc, oneshot, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    build::Builds,
    face::Face,
    loader::Loader,
    manifest::COMMAND,
    reader::{Asked, Look},
    screen::Screen,
    state_dir::{Endpoint, StateDir},
    store::{Key, Kind, Store},
};

/// News that wait to be taken.
const NEWS: usize = 1024;
/// Where Lambent itself seems to run.
const SYSTEM_NAMESPACE: &str = "lambent-system";
/// Nothing must have been written for so long before the store is tidied up.
const QUIET: Duration = Duration::from_secs(5);
/// Fewer writes than these are not worth it.
const MUCH: u64 = 1000;
/// From SIGTERM to SIGKILL when all ends and nobody waits for an answer any more.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// What runs Functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// Commands as processes; images by the first engine that there is.
    Auto,
    /// Commands as processes, and no images.
    Process,
    /// All images by this engine, and no commands.
    Named(String),
}

/// How it runs.
#[derive(Debug)]
pub struct Config {
    /// Files and directories of manifests.
    pub paths: Vec<PathBuf>,
    /// Where callers are served.
    pub listen: SocketAddr,
    /// What runs Functions.
    pub engine: EngineChoice,
    /// Where its private directory may be, the first choice first.
    pub state: Vec<PathBuf>,
    /// How long requests may go on when it stops.
    pub drain: Duration,
    /// This program: it also supervises instances and reads manifests, in processes of their own.
    pub program: PathBuf,
}

/// Why it can't run.
#[derive(Debug, Error)]
pub enum Error {
    /// The port is taken, most likely.
    #[error("{0} can't be listened on: {1}; choose another address with --listen, such as --listen 127.0.0.1:8081")]
    Listen(SocketAddr, io::Error),
    /// A path that can't be read, or the process that reads has failed.
    #[error("{0}")]
    Paths(String),
    /// The engine that was asked for.
    #[error("{0} can't be used: {1}; --engine process runs the commands of the manifests instead")]
    Engine(String, String),
    /// No place for the private directory.
    #[error(transparent)]
    StateDir(#[from] state_dir::NoStateDir),
    /// The loopback port for other commands.
    #[error("the port for other commands: {0}")]
    Face(io::Error),
    /// A role could not start.
    #[error(transparent)]
    Gateway(#[from] lambent_gateway::Error),
    /// The same.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A role has ended by itself.
    #[error("{0} has ended: {1}")]
    Ended(&'static str, String),
}

/// Runs until `shutdown`, and then until what runs has ended or the drain is over.
///
/// # Errors
/// If it can't start, or a part of it ends.
pub async fn run(config: Config, screen: Screen, shutdown: CancellationToken) -> Result<(), Error> {
    let Config { paths, listen, engine, state, drain, program } = config;
    let public = TcpListener::bind(listen).await.map_err(|error| Error::Listen(listen, error))?;
    let listen = public.local_addr().map_err(|error| Error::Listen(listen, error))?;
    let state = StateDir::create(&state)?;
    let output = OutputFiles::new(state.output());
    let store = Store::default();
    let processes = !matches!(engine, EngineChoice::Named(_));
    let mut loader = Loader::new(paths, processes, program.clone(), store.clone());
    let first = tokio::select! {
        first = loader.look() => first.map_err(|error| Error::Paths(error.to_string()))?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let engine = Arc::new(choose(engine).await?);
    say_what_is_there(&first, &engine).await;
    // Before callers are served, so that whoever calls at once finds it.
    let ground = loader.apply(first).await;
    let shown = Arc::new(news::Shown(output.clone()));
    let fleet = ProcessFleet::new(FleetConfig { supervisor: program, engine, output: shown });

    let client = store::client(store.clone());
    let registry = Registry::new();
    let record = Record::new(lambent_autoscaler::metrics::Metrics::register(&registry)?);
    let (inside_sender, inside) = oneshot::channel();
    let (news_sender, news_receiver) = mpsc::channel(NEWS);
    let (said_sender, said) = mpsc::channel(NEWS);
    let roles_end = CancellationToken::new();

    // All of them end with this set.
    let mut tasks = JoinSet::new();
    let face = Face { store: store.clone(), output: output.clone(), record: record.clone(), token: token() };
    let url = format!("http://{}", reachable(listen));
    publish(&state, &store, &face, &url, &mut tasks, face_listener().await?).map_err(Error::Face)?;
    tasks.spawn(named("Pods", pods::follow(fleet.clone(), store.clone(), output)));
    tasks.spawn(named("Events", news::tell_events(client.clone(), store.clone())));
    tasks.spawn(named("the order in the store", keep_tidy(store.clone())));
    if screen.is_terminal() {
        tasks.spawn(named("the table", news::draw(screen.clone(), store.clone(), registry.clone())));
    }
    tasks.spawn(named(
        "the watch of Functions",
        lambent_autoscaler::kube::functions(kube::Api::all(client.clone()), news_sender.clone()),
    ));
    tasks.spawn(named(
        "the watch of Revisions",
        lambent_autoscaler::kube::revisions(kube::Api::all(client.clone()), news_sender.clone()),
    ));
    let (ready, is_ready) = watch::channel(false);
    let gateway = tokio::spawn(gateway(
        ready,
        public,
        listen,
        drain,
        client.clone(),
        fleet.clone(),
        registry.clone(),
        shutdown.clone(),
        inside_sender,
    ));
    let Ok(inside) = inside.await else { return gateway_end(gateway.await) };
    let retirer = link::DirectRetirer { directory: inside.directory.clone(), store: store.clone() };
    tasks.spawn(named("the link", link::follow(inside, news_sender, said_sender)));
    let writer = lambent_autoscaler::kube::KubeWriter(client.clone());
    tasks.spawn(named("the autoscaler", run_core(news_receiver, writer, retirer, record, roles_end.clone())));
    let said = stream::unfold(said, async |mut said| said.recv().await.map(|one| (one, said)));
    let controller =
        controller(url.clone(), client, fleet.clone(), store.clone(), said, registry.clone(), roles_end.clone());
    tasks.spawn(named("the controller", controller));
    tasks.spawn(named("the files", loader.run(ground)));
    tasks.spawn(announce(url, is_ready));

    let result = tokio::select! {
        ended = gateway => gateway_end(ended),
        Some(ended) = tasks.join_next() => Err(ended.map_or_else(
            |error| Error::Ended("a task", error.to_string()),
            |name| Error::Ended(name, "by itself".to_owned()),
        )),
    };
    screen.release();
    roles_end.cancel();
    info!("stopping instances");
    if timeout(LAST_GRACE * 2, fleet.end(LAST_GRACE)).await.is_err() {
        warn!("some instances can't be stopped");
    }
    result
}

/// Tidies the store up whenever much was written and nothing more is.
async fn keep_tidy(store: Store) {
    let (mut tick, mut tidied, mut before) = (interval(QUIET), 0, 0);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let version = store.version();
        if version == before && version - tidied > MUCH {
            store.tidy();
            tidied = version;
        }
        before = version;
    }
}

/// Says where to call once the gateway knows everything.
async fn announce(url: String, mut ready: watch::Receiver<bool>) -> &'static str {
    let _ = ready.wait_for(|ready| *ready).await;
    info!("serving at {url}/fn/<namespace>/<name>");
    std::future::pending().await
}

async fn named<T>(name: &'static str, work: impl Future<Output = T>) -> &'static str {
    work.await;
    name
}

fn gateway_end(ended: Result<Result<(), lambent_gateway::Error>, tokio::task::JoinError>) -> Result<(), Error> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(Error::Ended("the gateway", error.to_string())),
    }
}

#[allow(clippy::too_many_arguments)] // The parts of a role.
async fn gateway(
    ready: watch::Sender<bool>,
    public: TcpListener,
    listen: SocketAddr,
    drain: Duration,
    client: kube::Client,
    fleet: ProcessFleet,
    registry: Registry,
    shutdown: CancellationToken,
    inside: oneshot::Sender<Inside>,
) -> Result<(), lambent_gateway::Error> {
    let config = lambent_gateway::Config {
        namespace: None,
        listen,
        internal_listen: listen,
        domain: None,
        trusted_accounts: Vec::new(),
        peers: None,
        node_account: None,
        drain: Drain { delay: Duration::ZERO, grace: drain },
    };
    let ports = Ports { public, internal: None };
    lambent_gateway::run_on(ports, config, client, fleet, &registry, ready, shutdown, |parts| drop(inside.send(parts)))
        .await
}

async fn controller(
    url: String,
    client: kube::Client,
    fleet: ProcessFleet,
    store: Store,
    said: impl futures::Stream<Item = lambent_api::signal::Message> + Send + 'static,
    registry: Registry,
    shutdown: CancellationToken,
) {
    let config = lambent_controller::Config {
        namespace: None,
        system_namespace: SYSTEM_NAMESPACE.to_owned(),
        public_url: Some(url),
        plain_http_registries: Vec::new(),
        pull_ahead: None,
        // All that they wait for is in this process.
        looks: 2,
        builder: Some(Arc::new(Builds::new(fleet.clone(), store))),
    };
    if let Err(error) = lambent_controller::run(config, client, fleet, said, &registry, shutdown).await {
        warn!(%error, "the controller");
    }
}

async fn choose(choice: EngineChoice) -> Result<Engines, Error> {
    match choice {
        EngineChoice::Process => Ok(Engines::Off),
        EngineChoice::Named(name) => {
            let engine = Engine::new(&name);
            engine.check().await.map_err(|words| Error::Engine(name, words))?;
            Ok(Engines::Named(engine))
        }
        EngineChoice::Auto => Ok(Engines::First(OnceCell::new())),
    }
}

async fn say_what_is_there(look: &Look, engines: &Engines) {
    if look.functions.is_empty() {
        warn!("no Function is there yet; `lambent new hello --template python` makes one");
    }
    let images: Vec<_> = look.functions.iter().filter(|(_, (asked, _))| !asked.is_process).collect();
    if !images.is_empty() {
        // Only looked for where an image is to be run: a client may take its time to say no.
        let engine = engines.get().await;
        images.iter().for_each(|(key, (asked, _))| say_what_runs_an_image(key, asked, engine));
    }
}

fn say_what_runs_an_image(key: &FunctionKey, asked: &Asked, engine: Result<&Engine, NoEngine>) {
    let why = match engine {
        Ok(engine) => return info!("{key} runs its image with {}", engine.name()),
        Err(NoEngine::Off) => "--engine process runs no images",
        Err(NoEngine::NotFound) => "no container engine was found",
    };
    warn!("{}: {key} can't run here: it has no annotation {COMMAND}, and {why}", asked.place);
}

async fn face_listener() -> Result<TcpListener, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::Face)
}

/// Lets the other commands find and ask this one.
fn publish(
    state: &StateDir,
    store: &Store,
    face: &Face,
    gateway: &str,
    tasks: &mut JoinSet<&'static str>,
    listener: TcpListener,
) -> io::Result<()> {
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    let server = format!("http://{}", listener.local_addr()?);
    state.tell(&Endpoint { server, token: face.token.clone(), gateway: gateway.to_owned(), pid })?;
    let labels = json!({"app.kubernetes.io/name": "lambent", "app.kubernetes.io/component": "autoscaler"});
    let pod = json!({"metadata": {"labels": labels}, "status": {"phase": "Running"}});
    // The store is new, so that there is none yet.
    let _ = store.create(Key::new(Kind::Pod, SYSTEM_NAMESPACE, "lambent-dev"), pod);
    tasks.spawn(named("the port for other commands", face.clone().serve(listener)));
    Ok(())
}

/// 244 random bits.
fn token() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Where a client on this machine finds what listens on all addresses.
fn reachable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())) } else { listen }
}
