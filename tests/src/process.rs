//! Processes of this machine, as the kernel knows them: those of a pod on a one-node cluster too.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;

/// Ticks a second in /proc: fixed in the kernel's interface.
const TICKS: f64 = 100.0;

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
///
/// # Errors
/// If there are none.
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

/// The processes of one container that runs on this machine, without those of its pod's sandbox:
/// who kills that one takes the pod's address away. `id` is as the pod's status has it.
///
/// # Errors
/// If there are none.
pub fn of_container(id: &str) -> anyhow::Result<Vec<u32>> {
    let bare = id.rsplit('/').next().unwrap_or_default();
    ensure!(!bare.is_empty(), "the container has no id");
    let in_its_cgroup =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(bare));
    let pids: Vec<u32> = all().into_iter().filter(in_its_cgroup).collect();
    ensure!(!pids.is_empty(), "container {bare} has no process on this machine: run this where the node runs");
    Ok(pids)
}

/// The processes of a pod's containers, not that of its sandbox.
///
/// # Errors
/// If there are none.
pub fn of_containers(pod: &Pod) -> anyhow::Result<Vec<u32>> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let ids = statuses.into_iter().flatten().filter_map(|container| container.container_id.as_deref());
    let processes: Vec<Vec<u32>> = ids.map(of_container).collect::<anyhow::Result<_>>()?;
    ensure!(!processes.is_empty(), "{:?} has no container", pod.metadata.name);
    Ok(processes.concat())
}

/// Sends a signal, by its name without SIG, to a process.
///
/// # Errors
/// If there is no such process.
pub fn signal(name: &str, pid: u32) -> anyhow::Result<()> {
    let done = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().context("kill")?;
    ensure!(done.success(), "kill -{name} {pid}: {done}");
    Ok(())
}

/// Processes that do nothing, and keep their connections, until this is dropped.
pub struct Frozen(Vec<u32>);

impl Frozen {
    /// Stops them; they go on by themselves after `limit`, should this process be killed meanwhile.
    ///
    /// # Errors
    /// If one of them is not there.
    pub fn new(pids: Vec<u32>, limit: Duration) -> anyhow::Result<Self> {
        let seconds = limit.as_secs().to_string();
        let mut resume = Command::new("sh");
        resume.args(["-c", "sleep \"$1\"; shift; kill -CONT \"$@\"", "resume", &seconds]);
        resume.args(pids.iter().map(u32::to_string));
        resume.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own: Ctrl-C at this program's terminal doesn't end it.
        let mut child = resume.process_group(0).spawn().context("sh")?;
        std::thread::spawn(move || child.wait());
        let frozen = Self(pids);
        frozen.0.iter().try_for_each(|pid| signal("STOP", *pid))?;
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = signal("CONT", *pid);
        }
    }
}

/// Resident memory now, in KiB.
pub fn resident(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| memory(*pid, "VmRSS:")).sum()
}

/// The most resident memory since the last [`forget_peak`], in KiB.
///
/// # Errors
/// If there is no such process.
pub fn peak(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmHWM:").with_context(|| format!("no process {pid}"))
}

/// Starts a process's peak of memory anew.
///
/// # Errors
/// If the kernel refuses.
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("starting the peak of memory anew")
}

/// Resident memory that is in no file, such as the heap, in KiB.
///
/// # Errors
/// If there is no such process.
pub fn anonymous(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "RssAnon:").with_context(|| format!("no process {pid}"))
}

fn memory(pid: u32, name: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_frozen_process_goes_on_afterwards() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let state = || stat(child.id()).and_then(|fields| fields.into_iter().next()).unwrap();
        let is = |wanted: &str| {
            let begun = Instant::now();
            while state() != wanted {
                assert!(begun.elapsed() < Duration::from_secs(20), "{}", state());
            }
        };
        let frozen = Frozen::new(vec![child.id()], Duration::from_secs(60)).unwrap();
        is("T");
        drop(frozen);
        is("S");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_kernel_knows_of_this_process() {
        let pid = std::process::id();
        assert!(resident(&[pid]) > 100.0);
        assert!(peak(pid).unwrap() >= resident(&[pid]) * 0.5);
        assert!((1.0..resident(&[pid])).contains(&anonymous(pid).unwrap()));
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
