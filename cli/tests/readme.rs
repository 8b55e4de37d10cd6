//! The README's first command as a newcomer has it: in a fresh clone, with the machine's own toolchain and
//! no target named.
//!
//! What it costs: the first time all of the dependencies are built once more, as a newcomer's build is not the
//! one of the tests (10 minutes on two cores, and 2 GB). They are kept beside the tests' own; from then on only
//! this workspace's crates are built, which takes a minute or two: files of a new clone are always new to cargo.
//! What is cloned is what is committed.

#![allow(clippy::unwrap_used)] // Helpers of tests.

#[allow(dead_code)] // Shared with the tests of `lambent dev`, which use all of it.
#[path = "dev/support.rs"]
mod support;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use support::{get, wait_for};

/// A whole build on a machine that is slow and busy.
const BUILT_WITHIN: Duration = Duration::from_secs(45 * 60);

/// A clone of the checkout, unless this is no checkout, as in a source archive.
fn clone(into: &Path) -> Option<()> {
    // Cargo runs tests in their package's folder; checkouts may share what is compiled.
    let checkout = Path::new("..");
    let git = |arguments: &[&str]| Command::new("git").arg("-C").arg(checkout).args(arguments).output();
    let is_checkout = git(&["rev-parse", "--git-dir"]).is_ok_and(|output| output.status.success());
    if !is_checkout {
        // Not by a macro, whose words the test's runner keeps to itself where the test passes.
        std::io::stderr().write_all(b"\nskipped: no git checkout: nothing to clone\n").unwrap();
        return None;
    }
    let cloned = git(&["clone", "--quiet", "--no-hardlinks", ".", into.to_str().unwrap()]).unwrap();
    assert!(cloned.status.success(), "{}", String::from_utf8_lossy(&cloned.stderr));
    Some(())
}

/// The first lines of a shell that the README has: a command, and a call while that runs.
fn first_commands(clone: &Path) -> (String, String) {
    let readme = fs::read_to_string(clone.join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```sh\n").unwrap();
    let mut lines = rest.lines().map(str::to_owned);
    (lines.next().unwrap(), lines.next().unwrap())
}

/// An address of its own, as others may have the one of the README.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start(command: &str, clone: &Path, address: SocketAddr) -> Child {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    let log = File::create(clone.join("build.log")).unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[..3], ["cargo", "run", "--release"], "{command}");
    let mut command = Command::new(words[0]);
    // What this test's own cargo has set, a newcomer's shell has not.
    for name in std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("CARGO_")) {
        if !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command.env("CARGO_TARGET_DIR", kept).env("LAMBENT_DEV_LISTEN", address.to_string());
    command.env("LAMBENT_DEV_STATE_DIR", clone.join("state"));
    command.args(&words[1..]).current_dir(clone).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().unwrap()
}

#[test]
fn the_first_command_of_the_readme_serves_the_first_example_in_a_fresh_clone() {
    let directory = tempfile::tempdir().unwrap();
    let clone_of_it = directory.path().join("lambent");
    if clone(&clone_of_it).is_none() {
        return;
    }
    let (command, call) = first_commands(&clone_of_it);
    let address = free_address();
    let mut child = start(&command, &clone_of_it, address);
    let (sender, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let built = Instant::now();
        let served = || lines.recv_timeout(BUILT_WITHIN.saturating_sub(built.elapsed()));
        let log = || fs::read_to_string(clone_of_it.join("build.log")).unwrap();
        while !served().unwrap_or_else(|_| panic!("it does not serve:\n{}", log())).contains("serving at http://") {}
        let url = call.strip_prefix("curl http://127.0.0.1:8080").unwrap();
        let answered = wait_for(|| Some(get(address, url)).filter(|(status, _)| *status == 200));
        let (_, body) = answered.unwrap_or_else(|| panic!("{url}: {:?}", get(address, url)));
        assert!(body.starts_with("Hello from Python on "), "{body}");
        // The examples in Rust are being built meanwhile.
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        wait_for(|| child.try_wait().unwrap()).unwrap().code()
    }));
    let _ = child.kill();
    let code = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(code, Some(0));
}
