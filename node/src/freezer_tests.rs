use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;

const ROOT: &str = "/sys/fs/cgroup";

#[test]
fn the_freezer_is_found_by_its_version() {
    let find = |mounts| Freezer::find(Path::new(ROOT), mounts).map(|f| (f.version, f.root));
    let one = "30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        32 30 0:28 / /sys/fs/cgroup/freezer rw,relatime shared:9 master:1 - cgroup cgroup rw,freezer\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    assert_eq!(find(one), Some((Version::One, "/sys/fs/cgroup/freezer".into())));
    let two = "30 29 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
    assert_eq!(find(two), Some((Version::Two, ROOT.into())));
    assert_eq!(find("30 29 0:26 / /elsewhere rw - cgroup2 cgroup2 rw"), None);
    assert_eq!(find("nonsense"), None);
}

#[test]
fn a_cgroup_that_is_gone_is_let_go_on_and_can_not_be_frozen() {
    let freezer = Freezer { root: "/nowhere".into(), version: Version::Two };
    assert!(freezer.thaw(Path::new("pod/x")).is_ok());
    assert!(freezer.is_frozen(Path::new("pod/x")).unwrap_err().is_gone());
}

/// A process in a cgroup of its own, which ends with this.
struct Frozen {
    freezer: Freezer,
    path: PathBuf,
    child: Child,
}

impl Frozen {
    /// None where this machine, or this user, has no freezer.
    fn counting() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let freezer = Freezer::find(Path::new(ROOT), &mounts)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("lambent-test-{}-{number}", std::process::id()));
        fs::create_dir(freezer.root.join(&path)).ok()?;
        let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.001; done";
        let child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().ok()?;
        let made = Self { freezer, path, child };
        fs::write(made.freezer.root.join(&made.path).join("cgroup.procs"), made.child.id().to_string()).ok()?;
        Some(made)
    }

    /// The next line that it writes.
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        let out = self.child.stdout.as_mut().unwrap();
        while io::Read::read(out, &mut byte).unwrap() > 0 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.freezer.thaw(&self.path);
        let _ = self.child.kill();
        let _ = self.child.wait();
        let directory = self.freezer.root.join(&self.path);
        // Its last child may still be ending.
        let gone = || fs::remove_dir(&directory).is_ok();
        let begun = std::time::Instant::now();
        while !gone() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::yield_now();
        }
    }
}

macro_rules! counting {
    () => {
        match Frozen::counting() {
            Some(frozen) => frozen,
            None => {
                eprintln!("skipped: no freezer that this user may use");
                return;
            }
        }
    };
}

#[tokio::test]
async fn a_frozen_process_does_nothing_and_goes_on_where_it_was() {
    let mut process = counting!();
    assert_eq!(process.line(), "1");
    assert!(!process.freezer.is_frozen(&process.path).unwrap());
    process.freezer.freeze(&process.path, || true).await.unwrap();
    assert!(process.freezer.is_frozen(&process.path).unwrap());
    // What it had written before is read, and nothing comes after that.
    let before = process.ticks();
    let state = fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
    assert!(state.rsplit_once(") ").unwrap().1.starts_with(['D', 'S', 'T']), "{state}");
    assert_eq!(process.ticks(), before);
    process.freezer.thaw(&process.path).unwrap();
    assert!(!process.freezer.is_frozen(&process.path).unwrap());
    let last: u32 = process.line().parse().unwrap();
    let next: u32 = process.line().parse().unwrap();
    assert_eq!(next, last + 1);
    process.freezer.thaw(&process.path).unwrap();
}

#[tokio::test]
async fn a_signal_is_heard_when_it_goes_on() {
    let mut process = counting!();
    process.line();
    process.freezer.freeze(&process.path, || true).await.unwrap();
    let pid = rustix::process::Pid::from_child(&process.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(process.child.try_wait().unwrap().is_none());
    process.freezer.thaw(&process.path).unwrap();
    let status = process.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
}
