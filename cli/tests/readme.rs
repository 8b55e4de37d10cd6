//! The README's first command as a newcomer has it: in a fresh clone, with the machine's own toolchain and
//! no target named.
//!
//! What it costs: the first time all of the dependencies are built once more, as a newcomer's build is not the
//! one of the tests (10 minutes on two cores, and 2 GB). They are kept beside the tests' own; from then on only
//! this workspace's crates are built, which takes a minute or two: files of a new clone are always new to cargo.
//! What is cloned is what is committed.

#![allow(clippy::unwrap_used)] // Helpers of tests.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A whole build on a machine that is slow and busy.
const BUILT_WITHIN: Duration = Duration::from_secs(45 * 60);
/// What a started program does.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// A port of its own, as others may have the one of the README.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(command: &str, clone: &Path, address: &str) -> Child {
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
    command.env("CARGO_TARGET_DIR", kept).env("LAMBENT_DEV_LISTEN", address);
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
    let address = format!("127.0.0.1:{}", free_port());
    let mut child = start(&command, &clone_of_it, &address);
    let (sender, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let built = Instant::now();
        let served = || lines.recv_timeout(BUILT_WITHIN.saturating_sub(built.elapsed()));
        let log = || fs::read_to_string(clone_of_it.join("build.log")).unwrap();
        while !served().unwrap_or_else(|_| panic!("it does not serve:\n{}", log())).contains("serving at http://") {}
        let url = call.strip_prefix("curl http://127.0.0.1:8080").unwrap();
        let answer = answer(&address, url);
        assert!(answer.contains("\r\n\r\nHello from Python on "), "{answer}");
        // The examples in Rust are being built meanwhile.
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        ended(&mut child)
    }));
    let _ = child.kill();
    let code = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(code, Some(0));
}

/// What a GET gets, once it is 200.
fn answer(address: &str, path: &str) -> String {
    wait_for(path, || get(address, path).ok().filter(|answer| answer.starts_with("HTTP/1.1 200 ")))
}

fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    std::io::read_to_string(stream)
}

fn ended(child: &mut Child) -> Option<i32> {
    wait_for("its end", || child.try_wait().unwrap()).code()
}

/// Looks again and again until there is something, with a pause between two looks.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
