//! Processes: those that a benchmark starts, and what the kernel knows of them and of others.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tokio::{net::TcpStream, time::sleep};

/// Ticks a second in /proc: fixed in the kernel's interface.
const TICKS: f64 = 100.0;
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

/// Processor seconds, user and system, of these processes so far; 10 ms at the smallest.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| cpu_ticks(*pid)).sum::<u64>() as f64 / TICKS
}

fn cpu_ticks(pid: u32) -> Option<u64> {
    let fields = stat(pid)?;
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// The fields of /proc/pid/stat from the state on: what is before it may have spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// A process and those that it started.
pub fn with_children(pid: u32) -> Vec<u32> {
    let is_child = |other: &u32| stat(*other).is_some_and(|s| s.get(1).is_some_and(|p| *p == pid.to_string()));
    [pid].into_iter().chain(all().into_iter().filter(is_child)).collect()
}

fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processes of a pod's containers that run on this machine.
pub fn of_pod(uid: &str) -> anyhow::Result<Vec<u32>> {
    let in_its_cgroup = |pid: &u32| {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let pause = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "pause");
        !pause && (cgroup.contains(uid) || cgroup.contains(&uid.replace('-', "_")))
    };
    let pids: Vec<u32> = all().into_iter().filter(in_its_cgroup).collect();
    ensure!(!pids.is_empty(), "pod {uid} has no process on this machine: run this where the node runs");
    Ok(pids)
}

/// Resident memory now, in KiB.
pub fn resident(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| memory(*pid, "VmRSS:")).sum()
}

/// The most resident memory since the last [`forget_peak`], in KiB.
pub fn peak(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmHWM:").with_context(|| format!("no process {pid}"))
}

/// Starts a process's peak of memory anew.
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("starting the peak of memory anew")
}

fn memory(pid: u32, name: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_of_this_process() {
        let pid = std::process::id();
        assert!(resident(&[pid]) > 100.0);
        assert!(peak(pid).unwrap() >= resident(&[pid]) * 0.5);
        let before = cpu_seconds(&[pid]);
        let begun = Instant::now();
        while cpu_seconds(&[pid]) == before {
            assert!(begun.elapsed() < Duration::from_secs(20), "used no processor");
        }
    }

    #[test]
    fn children_are_found() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let found = with_children(std::process::id()).contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}
