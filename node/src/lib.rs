//! The node agent: says the address of a pod of its node as soon as its sandbox has one, which the API server
//! learns up to a second later; and freezes functions that no request needs. It has no rights in the cluster; the gateways tell it what to look for.
//!
//! ```text
//! gateway --where--> link -> board -> watch --ListPodSandbox--> container runtime
//!         <---at---- link <- board <- watch <------------------
//! gateway --park, thaw-----> link -> parker -> freezer of the container's cgroup
//! gateways: DNS -> one link for each
//! ```
#![warn(missing_docs)]

pub mod board;
pub mod cgroup;
pub mod cri;
pub mod freezer;
pub mod gateways;
pub mod hierarchy;
pub mod link;
pub mod metrics;
pub mod parker;
pub mod reclaim;
pub mod watch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prometheus::Registry;
use thiserror::Error;
use tokio::{sync::watch as flag, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    cri::{Runtime, RuntimeError},
    freezer::Freezer,
    hierarchy::Hierarchy,
    link::Links,
    metrics::Metrics,
    parker::Parker,
    reclaim::Reclaimer,
    watch::Awaited,
};

/// Between two tries to find the container runtime.
const PAUSE: Duration = Duration::from_secs(1);

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the container runtime may be; the first that answers is used.
    pub runtime_endpoints: Vec<String>,
    /// The gateways' internal ports, as `host:port` with a host behind which there may be several addresses.
    pub gateways: String,
    /// A file with the token to show to them.
    pub token: PathBuf,
    /// Where the node's cgroups are; without it nothing is frozen.
    pub cgroups: Option<PathBuf>,
    /// Whether the memory of what is frozen is pushed out.
    pub push_out: bool,
}

/// Why an agent could not run.
#[derive(Debug, Error)]
pub enum Error {
    /// An endpoint that can't be one.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Two series of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs until `shutdown`. `ready` is true from the moment that the container runtime has answered.
///
/// # Errors
/// If an endpoint can't be one.
pub async fn run(
    config: Config,
    registry: &Registry,
    ready: flag::Sender<bool>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let Config { runtime_endpoints, gateways, token, cgroups, push_out } = config;
    let metrics = Metrics::register(registry)?;
    let runtimes: Vec<_> = runtime_endpoints.iter().map(|endpoint| Runtime::new(endpoint)).collect::<Result<_, _>>()?;
    let runtime = tokio::select! {
        runtime = first_that_answers(&runtime_endpoints, runtimes) => runtime,
        () = shutdown.cancelled() => return Ok(()),
    };
    let reclaimer = cgroups.as_deref().filter(|_| push_out).and_then(reclaimer);
    let parker = Parker::new(runtime.clone(), freezer(cgroups.as_deref()), reclaimer, metrics.clone());
    parker.find_left().await;
    ready.send_replace(true);
    let awaited = Arc::new(Awaited::default());
    // All of them end with this set.
    let mut background = JoinSet::new();
    background.spawn(watch::run(awaited.clone(), runtime, metrics.clone()));
    background.spawn(gateways::run(gateways, Links::new(awaited, parker.clone(), metrics, token)));
    background.spawn(parker.clone().run());
    shutdown.cancelled().await;
    ready.send_replace(false);
    parker.close().await;
    Ok(())
}

/// What freezes on this node, or why nothing does.
fn freezer(cgroups: Option<&Path>) -> Result<Freezer, String> {
    let root = cgroups.ok_or("the agent of this node may not freeze")?;
    let freezer = controller(root, "freezer").map(Freezer::new);
    match &freezer {
        Ok(freezer) => info!(?freezer, "functions can be frozen"),
        Err(why) => warn!(why, "functions can't be frozen"),
    }
    freezer
}

/// What pushes memory out on this node.
fn reclaimer(cgroups: &Path) -> Option<Reclaimer> {
    controller(cgroups, "memory")
        .inspect_err(|why| warn!(why, "the memory of frozen functions is kept"))
        .ok()
        .map(Reclaimer::new)
}

fn controller(root: &Path, name: &str) -> Result<Hierarchy, String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("mountinfo: {error}"))?;
    Hierarchy::find(root, &mounts, name).ok_or_else(|| format!("no {name} at {}", root.display()))
}

async fn first_that_answers(endpoints: &[String], runtimes: Vec<Runtime>) -> Runtime {
    let mut complained = false;
    loop {
        for (endpoint, runtime) in endpoints.iter().zip(&runtimes) {
            match runtime.version().await {
                Ok(version) => {
                    let (name, version) = (version.runtime_name, version.runtime_version);
                    info!(endpoint, name, version, "the container runtime answers");
                    return runtime.clone();
                }
                Err(error) if !complained => warn!(endpoint, %error, "no container runtime there so far"),
                Err(error) => debug!(endpoint, %error, "no container runtime there so far"),
            }
        }
        complained = true;
        sleep(PAUSE).await;
    }
}
