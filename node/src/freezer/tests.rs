use super::{testing::Counting, *};

macro_rules! counting {
    () => {
        match Counting::start("of-a-test") {
            Some(counting) => counting,
            None => {
                eprintln!("skipped: no freezer that this user may use");
                return;
            }
        }
    };
}

#[test]
fn a_cgroup_that_is_gone_is_let_go_on_and_can_not_be_frozen() {
    let freezer = Freezer::new(Hierarchy { root: "/nowhere".into(), version: Version::Two });
    assert!(freezer.thaw(Path::new("pod/x")).is_ok());
    assert!(freezer.is_frozen(Path::new("pod/x")).unwrap_err().is_gone());
}

#[tokio::test]
async fn a_frozen_process_does_nothing_and_goes_on_where_it_was() {
    let mut process = counting!();
    assert_eq!(process.next(), 1);
    assert!(!process.is_frozen());
    process.freezer.freeze(&process.path, || true).await.unwrap();
    assert!(process.is_frozen());
    // What it had written before is read, and nothing comes after that.
    let before = process.ticks();
    let state = fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
    assert!(state.rsplit_once(") ").unwrap().1.starts_with(['D', 'S', 'T']), "{state}");
    assert_eq!(process.ticks(), before);
    process.freezer.thaw(&process.path).unwrap();
    assert!(!process.is_frozen());
    let last = process.next();
    assert_eq!(process.next(), last + 1);
    process.freezer.thaw(&process.path).unwrap();
}

/// Its processes vfork, and are often caught in the middle of that.
#[tokio::test]
async fn what_starts_processes_all_the_time_is_frozen_whenever_that_is_wanted() {
    let mut process = counting!();
    for _ in 0..100 {
        process.next();
        process.freezer.freeze(&process.path, || true).await.unwrap();
        assert!(process.is_frozen());
        process.freezer.thaw(&process.path).unwrap();
    }
}

#[tokio::test]
async fn a_signal_is_heard_when_it_goes_on() {
    let mut process = counting!();
    process.next();
    process.freezer.freeze(&process.path, || true).await.unwrap();
    let pid = rustix::process::Pid::from_child(&process.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(process.child.try_wait().unwrap().is_none());
    process.freezer.thaw(&process.path).unwrap();
    let status = process.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
}
