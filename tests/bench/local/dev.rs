//! `lambent dev` as a process of this machine, over a directory of manifests. What it runs is the same
//! program that a benchmark starts by hand.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use lambent_tests::wait::await_condition_for;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Contestant, fresh_folder, gateway::binary};
use crate::{
    load::Target,
    process::{self, Started, with_children},
};

/// Nothing that is waited for here takes longer unless something hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two tries to connect to a process that starts.
const EVERY: Duration = Duration::from_millis(1);

/// A running `lambent dev`, with Functions `hello-0` and on in namespace `bench`.
pub struct Dev(Started);

impl Dev {
    /// Starts one with so many Functions of this spec.
    pub async fn start(folder: &Path, functions: usize, spec: &Value) -> anyhow::Result<Self> {
        let folder = fresh_folder(folder.join("dev"))?;
        let (manifests, state) = (folder.join("functions"), folder.join("state"));
        fs::create_dir(&manifests)?;
        for number in 0..functions {
            fs::write(manifests.join(format!("{number}.yaml")), manifest(number, spec)?)?;
        }
        let address = process::free_address()?;
        let mut command = Command::new(binary()?);
        command.arg("dev").arg(&manifests).arg("--state-dir").arg(&state).args(["--listen", &address.to_string()]);
        Ok(Self(Started::new("dev", &mut command, address, &folder).await?))
    }

    /// Waits until these of its Functions have answered once.
    pub async fn answers(&self, numbers: Range<usize>) {
        for number in numbers {
            let at = self.target(number);
            await_condition_for(PATIENCE, "a Function to answer", async || {
                let at = at.clone();
                blocking(move || call(TcpStream::connect(at.address)?, &at.path)).await
            })
            .await;
        }
    }

    /// Waits until no instance is left of those that it has started, and none is started any more.
    pub async fn sleeps(&self, for_: Duration) {
        let begun = Instant::now();
        let mut quiet = Instant::now();
        while quiet.elapsed() < for_ {
            // Itself, and the one supervisor that it keeps ready.
            if with_children(self.pid()).len() > 2 {
                quiet = Instant::now();
            }
            assert!(begun.elapsed() < PATIENCE, "what lambent dev has started does not end");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What to call for one of its Functions.
    pub fn target(&self, number: usize) -> Target {
        Target { address: self.0.address, path: format!("/fn/bench/hello-{number}/") }
    }

    /// As a way to the first Function.
    pub fn contestant(&self) -> Contestant {
        Contestant { name: "Lambent", target: self.target(0), pids: vec![self.pid()] }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}

fn manifest(number: usize, spec: &Value) -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    let command = format!("'{}' backend '127.0.0.1:$(PORT)'", program.display());
    let mut spec = spec.clone();
    spec["image"] = "none".into();
    let metadata = json!({
        "name": format!("hello-{number}"), "namespace": "bench",
        "annotations": {"dev.lambent.dev/command": command},
    });
    let manifest =
        json!({"apiVersion": "lambent.dev/v1alpha1", "kind": "Function", "metadata": metadata, "spec": spec});
    Ok(serde_yaml::to_string(&manifest)?)
}

/// The same program as that of the Functions, started by hand.
pub struct ByHand(Child);

impl ByHand {
    /// Starts it and calls it as soon as it takes a connection. From the start to the end of the answer.
    pub fn start(program: &Path, address: SocketAddr) -> anyhow::Result<(Self, Duration)> {
        let begun = Instant::now();
        let mut command = Command::new(program);
        command.args(["backend", &address.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        let started = Self(command.spawn()?);
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) => ensure!(begun.elapsed() < PATIENCE, "a process started by hand: {error}"),
            }
            thread::sleep(EVERY);
        };
        call(stream, "/")?;
        Ok((started, begun.elapsed()))
    }

    /// The program.
    pub fn program() -> anyhow::Result<PathBuf> {
        std::env::current_exe().context("this program's own file")
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One request on a connection of its own, to the end of its answer.
pub fn call(mut stream: TcpStream, path: &str) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{}", answer.lines().next().unwrap_or("no answer"));
    Ok(())
}

/// Does what blocks on a thread of its own, where no timer rounds.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
