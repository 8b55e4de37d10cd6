//! A process in a cgroup of its own, for tests.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::Freezer;
use crate::hierarchy::Hierarchy;

/// Where this machine has its cgroups.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// A process that writes numbers, one after the other, and ends with this.
pub(crate) struct Counting {
    pub(crate) freezer: Freezer,
    /// Its cgroup, below the root.
    pub(crate) path: PathBuf,
    pub(crate) child: Child,
}

impl Counting {
    /// In a cgroup that ends in `name`; none where this machine, or this user, has no freezer.
    pub(crate) fn start(name: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let freezer = Freezer::new(Hierarchy::find(Path::new(ROOT), &mounts, "freezer")?);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("lambent-test-{}-{number}", std::process::id())).join(name);
        fs::create_dir_all(freezer.0.root.join(&path)).ok()?;
        let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.001; done";
        let child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().ok()?;
        let made = Self { freezer, path, child };
        fs::write(made.freezer.0.root.join(&made.path).join("cgroup.procs"), made.child.id().to_string()).ok()?;
        Some(made)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.freezer.is_frozen(&self.path).unwrap()
    }

    /// The next number that it writes.
    pub(crate) fn next(&mut self) -> u32 {
        let mut line = Vec::new();
        let mut byte = [0];
        let out = self.child.stdout.as_mut().unwrap();
        while out.read(&mut byte).unwrap() > 0 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap().parse().unwrap()
    }

    /// The processor time that it has had.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.freezer.thaw(&self.path);
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.freezer.0.remove(&self.path);
    }
}
