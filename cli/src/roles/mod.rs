//! What the roles have in common: logging, the admin port, the API server, signals.

pub mod autoscaler;
pub mod controller;
pub mod dev;
pub mod gateway;
pub mod node;

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use prometheus::Registry;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    admin,
    args::{CommonArgs, ProcessArgs},
};

/// An API server that has not sent anything for so long is taken for lost; watches send
/// bookmarks every minute.
const SILENCE: Duration = Duration::from_secs(295);

/// What every role runs with.
pub struct Runtime {
    /// The API server.
    pub client: kube::Client,
    /// Series to be shown on the admin port.
    pub registry: Registry,
    /// Whether `/readyz` says yes.
    pub ready: watch::Sender<bool>,
    /// Cancelled by SIGTERM or SIGINT.
    pub shutdown: CancellationToken,
    /// Of this replica and start.
    pub identity: String,
}

/// Starts what every role needs.
pub async fn start(role: &str, args: &CommonArgs) -> anyhow::Result<Runtime> {
    start_with(role, args, Registry::new(), Router::new()).await
}

/// The same, with series that are registered already and with more on the admin port.
pub async fn start_with(role: &str, args: &CommonArgs, registry: Registry, more: Router) -> anyhow::Result<Runtime> {
    let Process { registry, ready, shutdown } = start_process(role, &args.process, registry, more).await?;
    let mut config =
        kube::Config::infer().await.context("no way to the API server: neither in a cluster nor a kubeconfig")?;
    config.read_timeout = Some(SILENCE);
    let client = kube::Client::try_from(config).context("the API server's client")?;
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| role.to_owned());
    let started = jiff::Timestamp::now().as_microsecond();
    Ok(Runtime { client, registry, ready, shutdown, identity: format!("{host}-{started:x}") })
}

/// What a role runs with that does not talk to the API server.
pub struct Process {
    /// Series to be shown on the admin port.
    pub registry: Registry,
    /// Whether `/readyz` says yes.
    pub ready: watch::Sender<bool>,
    /// Cancelled by SIGTERM or SIGINT.
    pub shutdown: CancellationToken,
}

/// Starts what every process needs.
pub async fn start_process(
    role: &str,
    args: &ProcessArgs,
    registry: Registry,
    more: Router,
) -> anyhow::Result<Process> {
    crate::logging::init(args.log_format, &args.log_level)?;
    info!(role, version = env!("CARGO_PKG_VERSION"), "starting");
    let (ready, is_ready) = watch::channel(false);
    admin::serve(args.admin_address, registry.clone(), is_ready, more).await?;
    Ok(Process { registry, ready, shutdown: until_signalled()? })
}

fn until_signalled() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        info!("stopping");
        token.cancel();
    });
    Ok(shutdown)
}
