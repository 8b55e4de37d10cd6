//! Proxies side by side on loopback, in front of the same backend process: Lambent's gateway, nginx,
//! Go's ReverseProxy, and the least that a proxy on hyper can be. The gateway is the very binary that runs in
//! the cluster; what it would hear from an API server it hears from a stand-in.

pub mod backend;
pub mod bare;
pub mod dev;
mod gateway;
pub mod nginx;
mod stand_in;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use lambent_api::Protocol;
use lambent_tests::command::checkout;

pub use gateway::{Gateway, Scene, settled_memory};

use crate::{
    load::Target,
    process::{self, Started},
};

/// What comes before the backend's own path, at each of the proxies.
pub const PREFIX: &str = "/fn/bench/hello-0";

/// The backend.
pub struct Backend(Started);

impl Backend {
    /// Starts it, as a process of its own.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::start_with(Protocol::Http1, folder).await
    }

    /// As [`Backend::start`], for this protocol.
    pub async fn start_with(protocol: Protocol, folder: &Path) -> anyhow::Result<Self> {
        let address = process::free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["backend", &address.to_string()]);
        command.args((protocol == Protocol::H2c).then_some("--http2"));
        Ok(Self(Started::new("backend", &mut command, address, folder).await?))
    }

    /// It is called without anything in between.
    pub fn contestant(&self) -> Contestant {
        let pids = vec![self.0.pid()];
        Contestant { name: "direct", target: Target { address: self.0.address, path: "/".into() }, pids }
    }
}

/// One way to the backend.
#[derive(Clone)]
pub struct Contestant {
    /// What it is called in the table.
    pub name: &'static str,
    /// What to call.
    pub target: Target,
    /// Its processes, whose processor time is its own.
    pub pids: Vec<u32>,
}

impl Contestant {
    fn proxy(name: &'static str, path: &str, process: &Started) -> Self {
        let target = Target { address: process.address, path: path.to_owned() };
        Self { name, target, pids: process::with_children(process.pid()) }
    }
}

/// All ways to one backend; the first is the direct one, the second is ours.
pub struct Lab {
    /// The ways.
    pub contestants: Vec<Contestant>,
    _processes: Vec<Started>,
    _gateway: Gateway,
    _backend: Backend,
}

impl Lab {
    /// Starts all. A peer that isn't on this machine is left out, with a word on how to get it.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let backend = Backend::start(folder).await?;
        let direct = backend.contestant();
        let scene = Scene { functions: 1, backend: Some(direct.target.address), protocol: Protocol::Http1 };
        let gateway = Gateway::start(folder, scene).await?;
        let mut contestants = vec![direct.clone(), gateway.contestant()];
        let mut processes = Vec::new();
        let prefixed = format!("{PREFIX}/");
        for (name, path, started) in [
            ("nginx", &prefixed, nginx::start(&direct.target, folder).await),
            ("Go", &prefixed, start_go(&direct.target, folder).await),
            // It takes nothing off.
            ("bare hyper", &direct.target.path, start_bare(&direct.target, folder).await),
        ] {
            match started {
                Ok(process) => {
                    contestants.push(Contestant::proxy(name, path, &process));
                    processes.push(process);
                }
                Err(error) => crate::progress::say(&format!("without {name}: {error:#}")),
            }
        }
        Ok(Self { contestants, _processes: processes, _gateway: gateway, _backend: backend })
    }
}

async fn start_bare(backend: &Target, folder: &Path) -> anyhow::Result<Started> {
    let address = process::free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-proxy", &address.to_string(), &backend.address.to_string()]);
    Started::new("bare hyper", &mut command, address, folder).await
}

async fn start_go(backend: &Target, folder: &Path) -> anyhow::Result<Started> {
    let binary = build_go(folder)?;
    let address = process::free_address()?;
    let mut command = Command::new(binary);
    command.args([address.to_string(), format!("http://{}", backend.address), PREFIX.to_owned()]);
    Started::new("go", &mut command, address, folder).await
}

fn build_go(folder: &Path) -> anyhow::Result<PathBuf> {
    let go =
        process::program("go").context("Go is missing; the test cluster's build needs it too: https://go.dev/dl")?;
    let binary = folder.join("go-proxy");
    let source = checkout("tests/bench/peers/proxy.go");
    let built = Command::new(go).args(["build", "-o"]).arg(&binary).arg(&source).output()?;
    ensure!(built.status.success(), "go build: {}", String::from_utf8_lossy(&built.stderr));
    Ok(binary)
}

/// A folder of a run's own, emptied.
pub fn fresh_folder(path: PathBuf) -> anyhow::Result<PathBuf> {
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}
