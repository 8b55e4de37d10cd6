//! The API server of the test cluster, stopped for a while: it keeps its connections and answers
//! nobody, as one that hangs.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use crate::world::World;

/// Stops it for so many seconds.
pub async fn stop(world: &World, number: usize, seconds: u64) -> anyhow::Result<()> {
    let pid = pid(world)?;
    world.hits(number, &format!("kube-apiserver, process {pid}, SIGSTOP"));
    let _stopped = Stopped::new(pid, seconds)?;
    sleep(Duration::from_secs(seconds)).await;
    Ok(())
}

/// The test cluster notes its processes beside its kubeconfig.
fn pid(world: &World) -> anyhow::Result<u32> {
    let folder = world.cx.kubeconfig.parent().context("the kubeconfig has no folder")?;
    let file = folder.join("pid/apiserver");
    let text = fs::read_to_string(&file)
        .with_context(|| format!("{}: only the test cluster's API server can be stopped", file.display()))?;
    let pid: u32 = text.trim().parse()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ensure!(name.trim() == "kube-apiserver", "process {pid} is {name:?}, not the API server");
    Ok(pid)
}

/// Goes on when dropped; and by itself, should this process be killed meanwhile.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32, seconds: u64) -> anyhow::Result<Self> {
        let script = "sleep \"$2\"; kill -CONT \"$1\"";
        let arguments = ["-c", script, "resume", &pid.to_string(), &(seconds + 2).to_string()];
        let mut resume = Command::new("sh");
        resume.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own: Ctrl-C at this program's terminal doesn't end it.
        let mut child = resume.process_group(0).spawn().context("sh")?;
        std::thread::spawn(move || child.wait());
        signal("STOP", pid)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = signal("CONT", self.0);
    }
}

/// Sends a signal to a process.
pub(super) fn signal(name: &str, pid: u32) -> anyhow::Result<()> {
    let done = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().context("kill")?;
    ensure!(done.success(), "kill -{name} {pid}: {done}");
    Ok(())
}
