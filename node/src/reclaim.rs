//! Pushing the memory of frozen functions out: what is a copy of files goes, and what swap has room for is
//! written there. It comes back page by page when it is used again.
//!
//! | version | how much there is       | push it out                                   |
//! | ------- | ----------------------- | --------------------------------------------- |
//! | 1       | `memory.usage_in_bytes` | `0` > `memory.force_empty`                    |
//! | 2       | `memory.current`        | that > `memory.reclaim` (since Linux 5.19)    |
//!
//! Version 2 is written after the kernel's documentation (cgroup-v2.rst), as the freezer's is.

use std::{fs, io, path::Path, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::hierarchy::{self, Hierarchy, Version};

/// Pushes memory out, of one cgroup at a time: the kernel does it on the processor of who asks for it.
#[derive(Clone, Debug)]
pub struct Reclaimer {
    hierarchy: Hierarchy,
    turn: Arc<Semaphore>,
}

impl Reclaimer {
    /// For the cgroups of this hierarchy.
    pub fn new(hierarchy: Hierarchy) -> Self {
        Self { hierarchy, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Pushes out what can be of a cgroup, unless it is not `wanted` any more when its turn has come. How many
    /// bytes went. Ends when the kernel finds no more, which takes milliseconds to seconds.
    ///
    /// # Errors
    /// If the kernel refuses, or does not know how.
    pub async fn push_out(&self, cgroup: &Path, wanted: impl Fn() -> bool) -> io::Result<u64> {
        let Ok(turn) = self.turn.clone().acquire_owned().await else { return Ok(0) };
        if !wanted() {
            return Ok(0);
        }
        let (hierarchy, cgroup) = (self.hierarchy.clone(), cgroup.to_owned());
        let pushed = spawn_blocking(move || {
            let _turn = turn;
            push_out(&hierarchy, &cgroup)
        });
        pushed.await.map_err(io::Error::other)?
    }
}

fn push_out(hierarchy: &Hierarchy, cgroup: &Path) -> io::Result<u64> {
    let (usage, control) = match hierarchy.version {
        Version::One => ("memory.usage_in_bytes", "memory.force_empty"),
        Version::Two => ("memory.current", "memory.reclaim"),
    };
    let usage = || fs::read_to_string(hierarchy.file(cgroup, usage))?.trim().parse::<u64>().map_err(io::Error::other);
    let before = usage()?;
    let order = if hierarchy.version == Version::One { "0".to_owned() } else { before.to_string() };
    match hierarchy::write(&hierarchy.file(cgroup, control), &order) {
        // That is how it says that it was not all.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        outcome => outcome?,
    }
    Ok(before.saturating_sub(usage()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::{BufRead, BufReader},
        path::PathBuf,
        process::{Child, Command, Stdio},
    };

    use super::*;
    use crate::freezer::testing::ROOT;

    pub(crate) const FILE: u64 = 16 << 20;

    /// A process that has read a file of that many bytes, in a memory cgroup of its own.
    pub(crate) struct Reader {
        pub(crate) reclaimer: Reclaimer,
        cgroup: PathBuf,
        child: Child,
        _file: tempfile::NamedTempFile,
    }

    impl Reader {
        /// None where this machine, or this user, has no such cgroups.
        pub(crate) fn start(cgroup: PathBuf) -> Option<Self> {
            let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
            let hierarchy = Hierarchy::find(Path::new(ROOT), &mounts, "memory")?;
            fs::create_dir_all(hierarchy.root.join(&cgroup)).ok()?;
            // Beside the program: what is below /tmp may be memory itself.
            let beside = std::env::current_exe().ok()?;
            let file = tempfile::NamedTempFile::new_in(beside.parent()?).ok()?;
            let script = format!(
                "echo $$ > {0}/cgroup.procs; head -c {FILE} /dev/zero > {1}; sync {1}; cat {1} | wc -c; exec sleep 1000",
                hierarchy.root.join(&cgroup).display(),
                file.path().display()
            );
            let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().ok()?;
            let mut line = String::new();
            BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
            assert_eq!(line.trim().parse(), Ok(FILE));
            Some(Self { reclaimer: Reclaimer::new(hierarchy), cgroup, child, _file: file })
        }
    }

    impl Drop for Reader {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reclaimer.hierarchy.remove(&self.cgroup);
        }
    }

    #[tokio::test]
    async fn what_a_function_has_read_of_files_is_pushed_out_while_that_is_wanted() {
        let Some(reader) = Reader::start(format!("lambent-test-{}", std::process::id()).into()) else {
            eprintln!("skipped: no memory cgroups that this user may use");
            return;
        };
        let reclaimer = &reader.reclaimer;
        assert_eq!(reclaimer.push_out(&reader.cgroup, || false).await.unwrap(), 0);
        let pushed = reclaimer.push_out(&reader.cgroup, || true).await.unwrap();
        assert!(pushed > FILE / 2, "{pushed}");
    }

    #[tokio::test]
    async fn what_is_gone_is_an_error() {
        let reclaimer = Reclaimer::new(Hierarchy { root: "/nowhere".into(), version: Version::Two });
        let error = reclaimer.push_out(Path::new("pod/x"), || true).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
