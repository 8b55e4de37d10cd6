//! `lambent gateway` as a process of this machine, before a stand-in for the API server.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use lambent_api::Protocol;
use lambent_tests::{Request, await_condition};
use serde_json::{Value, json};

use super::{
    Contestant, PREFIX,
    stand_in::{Objects, StandIn},
};
use crate::process::{self, Started};

/// Names the program that is measured: the one that ships, unless another one is to be tried.
const BINARY: &str = "LAMBENT_BINARY";

/// What the gateway is shown.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Functions `hello-0` and on, in namespace `bench`.
    pub functions: usize,
    /// Each has one instance there; none without.
    pub backend: Option<SocketAddr>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// A running gateway.
pub struct Gateway {
    process: Started,
    _api: StandIn,
}

impl Gateway {
    /// Starts one and waits until it knows everything.
    pub async fn start(folder: &Path, scene: Scene) -> anyhow::Result<Self> {
        let binary = binary()?;
        let api = StandIn::start(objects(scene)).await?;
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig().to_string())?;
        let (public, internal, admin) = (process::free_address()?, process::free_address()?, process::free_address()?);
        let mut command = Command::new(binary);
        command.arg("gateway").env("KUBECONFIG", &kubeconfig).env("LAMBENT_DRAIN_DELAY_SECONDS", "0");
        command.env("LAMBENT_DRAIN_SECONDS", "1");
        for (flag, address) in [("--listen", public), ("--internal-listen", internal), ("--admin-address", admin)] {
            command.args([flag, &address.to_string()]);
        }
        let process = Started::new("gateway", &mut command, public, folder).await?;
        let probe = lambent_tests::Gateway::new(&format!("http://{admin}"));
        await_condition("the gateway to be ready", async || {
            let answer = probe.try_send(Request::get("/readyz")).await?;
            ensure!(answer.status == 200, "{}", answer.status);
            Ok(())
        })
        .await;
        let gateway = Self { process, _api: api };
        if scene.functions > 0 && scene.backend.is_some() {
            gateway.answers_for(scene.functions - 1).await;
        }
        Ok(gateway)
    }

    /// Waits until the last Function of the list is called through it.
    async fn answers_for(&self, number: usize) {
        let public = lambent_tests::Gateway::new(&format!("http://{}", self.address()));
        await_condition("the last Function to answer", async || {
            let answer = public.try_send(Request::get(&format!("/fn/bench/hello-{number}/"))).await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        })
        .await;
    }

    /// As a way to the backend.
    pub fn contestant(&self) -> Contestant {
        Contestant::proxy("Lambent", &format!("{PREFIX}/"), &self.process)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its public port.
    pub fn address(&self) -> SocketAddr {
        self.process.address
    }
}

/// The binary that is measured.
pub(super) fn binary() -> anyhow::Result<PathBuf> {
    let binary = std::env::var_os(BINARY).map(PathBuf::from);
    let binary = binary.with_context(|| format!("{BINARY} is not set: run `make bench`, which builds it"))?;
    ensure!(binary.is_file(), "there is no {}, which {BINARY} names", binary.display());
    Ok(binary)
}

fn objects(scene: Scene) -> Objects {
    let backend = scene.backend.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
    let template = json!({"image": "registry.example/hello:1", "port": backend.port(), "protocol": scene.protocol});
    let all = |of: &dyn Fn(usize) -> Value| (0..scene.functions).map(of).collect::<Vec<_>>();
    let pods = if scene.backend.is_some() { all(&|n| pod(n, backend)) } else { Vec::new() };
    let (functions, revisions) = (all(&|n| function(n, &template)), all(&|n| revision(n, &template)));
    let mut objects = Objects::from([("functions", functions), ("revisions", revisions), ("pods", pods)]);
    if scene.backend.is_none() {
        objects.get_mut("revisions").into_iter().flatten().for_each(|r| r["spec"]["instances"] = 0.into());
    }
    objects
}

fn name(n: usize) -> (String, String) {
    (format!("hello-{n}"), format!("hello-{n}-0a1b2c3d4e"))
}

fn meta(name: &str) -> Value {
    json!({
        "name": name, "namespace": "bench", "uid": format!("uid-of-{name}"), "resourceVersion": "1", "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    })
}

fn condition(type_: &str) -> Value {
    json!({
        "type": type_, "status": "True", "reason": "Ready", "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn function(n: usize, template: &Value) -> Value {
    let (name, revision) = name(n);
    let mut spec = template.clone();
    spec["concurrency"] = 1000.into();
    spec["maxBody"] = "1Gi".into();
    let status = json!({
        "conditions": [condition("Ready")], "observedGeneration": 1, "url": format!("http://gateway/fn/bench/{name}"),
        "revision": revision, "latestRevision": revision, "instances": 1, "ready": 1,
        "selector": format!("lambent.dev/function={name}"),
    });
    json!({
        "apiVersion": "lambent.dev/v1alpha1", "kind": "Function", "metadata": meta(&name), "spec": spec,
        "status": status,
    })
}

fn revision(n: usize, template: &Value) -> Value {
    let (function, name) = name(n);
    let status = json!({
        "conditions": [condition("Ready")], "observedGeneration": 1, "instances": 1, "ready": 1,
        "selector": format!("lambent.dev/revision={name}"),
    });
    json!({
        "apiVersion": "lambent.dev/v1alpha1", "kind": "Revision", "metadata": meta(&name),
        "spec": {"function": function, "instances": 1, "template": template, "imageUser": 65532},
        "status": status,
    })
}

fn pod(n: usize, backend: SocketAddr) -> Value {
    let (function, revision) = name(n);
    let mut metadata = meta(&format!("{revision}-0"));
    metadata["labels"] = json!({"lambent.dev/function": function, "lambent.dev/revision": revision});
    let container = json!({
        "name": "function", "image": "registry.example/hello:1",
        "ports": [{"name": "http", "containerPort": backend.port()}],
    });
    let running = json!({
        "name": "function", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]},
        "status": {"phase": "Running", "podIP": backend.ip().to_string(), "containerStatuses": [running]},
    })
}

/// After this long without news nothing more settles in an idle gateway.
pub const SETTLES: Duration = Duration::from_millis(1500);

/// Resident memory of a gateway that has been left alone for a moment, in KiB.
pub async fn settled_memory(gateway: &Gateway) -> anyhow::Result<f64> {
    tokio::time::sleep(SETTLES).await;
    Some(process::resident(&[gateway.pid()])).filter(|kib| *kib > 0.0).context("the gateway is gone")
}
