//! Processes that a benchmark starts, beside what the kernel knows of them and of others.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
pub use lambent_tests::process::*;
use tokio::{net::TcpStream, time::sleep};

/// Until a started process must listen.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// Until one that was told to end is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// A process of ours; it ends with this value.
pub struct Started {
    name: &'static str,
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Started {
    /// Starts one that will listen on `address`. What it writes to standard output goes through a
    /// pipe to a reader, as that of a container does; to standard error, into `log`.
    pub async fn new(
        name: &'static str,
        command: &mut Command,
        address: SocketAddr,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let log = log.join(format!("{name}.log"));
        let errors = fs::File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().with_context(|| format!("{:?} can't be started", command.get_program()))?;
        if let Some(mut out) = child.stdout.take() {
            thread::spawn(move || io::copy(&mut out, &mut io::sink()));
        }
        let mut started = Self { name, child, address };
        started.listens(&log).await?;
        Ok(started)
    }

    async fn listens(&mut self, log: &Path) -> anyhow::Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, fs::read_to_string(log).unwrap_or_default());
            }
            ensure!(begun.elapsed() < STARTS_WITHIN, "{} does not listen on {}", self.name, self.address);
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // SIGTERM, so that it takes its own children along.
        let _ = Command::new("kill").arg(self.pid().to_string()).status();
        let told = Instant::now();
        while told.elapsed() < ENDS_WITHIN {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port on loopback that is free now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A program in PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
