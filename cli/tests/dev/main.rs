//! `lambent dev` as a user has it: real processes, real files, real signals.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod builds;
mod changes;
mod engines;
mod examples;
mod reload;
mod support;
mod table;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{Files, PYTHON, get, manifest, processes_of, python, wait_for};

#[test]
fn a_call_wakes_a_function_and_it_goes_back_to_zero() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", "  scale: {idle: 1s}\n"));
    let dev = files.dev();
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    assert!(!dev.processes().is_empty());
    dev.until("its processes to go", || dev.processes().is_empty());
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.line("hello-0 | listening");
    assert_eq!(dev.get("/fn/shop/nobody").0, 404);
}

#[test]
fn load_multiplies_a_function_up_to_its_maximum() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", "  scale: {max: 3}\n"));
    let dev = files.dev();
    let calls: Vec<_> = (0..9).map(|_| call(&dev, "/fn/shop/hello?ms=300")).collect();
    let bodies: Vec<String> = calls.into_iter().map(|call| answered(call, 200)).collect();
    let mut pids: Vec<&str> = bodies.iter().filter_map(|body| body.split(' ').nth(1)).collect();
    pids.sort_unstable();
    pids.dedup();
    assert!((2..=3).contains(&pids.len()), "{bodies:?}");
}

type Call = thread::JoinHandle<(u16, String)>;

fn call(dev: &support::Dev, path: &str) -> Call {
    let (listen, path) = (dev.listen, path.to_owned());
    thread::spawn(move || get(listen, &path))
}

/// A function that says which request it has begun.
fn telling() -> String {
    PYTHON.replace("        time.sleep(", "        print(\"asked for\", self.path, flush=True)\n        time.sleep(")
}

fn answered(call: Call, expected: u16) -> String {
    let (status, body) = call.join().unwrap();
    assert_eq!(status, expected, "{body}");
    body
}

#[test]
fn a_changed_file_or_manifest_makes_a_new_revision() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.files.write("main.py", &PYTHON.replace("\"one\"", "\"two\""));
    dev.until("the new file to serve", || dev.get("/fn/shop/hello").1.starts_with("two "));
    let spec = "  env: [{name: WORD, value: three}]\n";
    dev.files.write("main.py", &PYTHON.replace("\"one\"", "os.environ[\"WORD\"]"));
    dev.files.write("f.yaml", &python("hello", spec));
    dev.until("the new manifest to serve", || dev.get("/fn/shop/hello").1.starts_with("three "));
}

#[test]
fn a_new_manifest_is_served_and_a_removed_one_is_not() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    dev.files.write("g.yaml", &python("other", ""));
    dev.ok("/fn/shop/other");
    fs::remove_file(dev.files.path("f.yaml")).unwrap();
    dev.until("it to go", || dev.get("/fn/shop/hello").0 == 404);
    assert!(dev.ok("/fn/shop/other").starts_with("one "));
}

#[test]
fn broken_yaml_keeps_what_serves_and_is_told_with_its_line() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    dev.files.write("f.yaml", &format!("{}  scale: [1\n", python("hello", "")));
    dev.line("f.yaml:1");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.files.write("f.yaml", &python("hello", "  concurency: 2\n"));
    dev.line("f.yaml:11: spec.concurency: unknown field; did you mean concurrency?");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.files.write("f.yaml", &python("hello", "  concurrency: 2\n"));
    dev.line("all manifests are well again");
}

#[test]
fn a_broken_program_keeps_the_old_one_serving_and_is_told_with_its_words() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    dev.files.write("main.py", "raise Exception('no such thing')\n");
    let line = dev.line("StartFailed");
    assert!(line.contains("f.yaml:4: shop/hello: ") && line.contains("Exception: no such thing"), "{line}");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.files.write("main.py", &PYTHON.replace("\"one\"", "\"two\""));
    dev.until("the mended file to serve", || dev.get("/fn/shop/hello").1.starts_with("two "));
}

#[test]
fn what_runs_is_kept_while_its_files_are_broken_and_goes_when_they_are_mended() {
    let files = Files::new();
    files.write("other.py", PYTHON);
    files.write("f.yaml", &python("hello", "  scale: {idle: 1s}\n"));
    files.write("g.yaml", &python("other", "  scale: {idle: 2s}\n").replace("main.py", "other.py"));
    let dev = files.dev();
    let first = dev.ok("/fn/shop/hello");
    dev.files.write("main.py", "raise Exception('no such thing')\n");
    let line = dev.line("StartFailed");
    assert!(line.contains("; what runs of hello-") && line.ends_with(" still serves"), "{line}");
    // Idle for longer than the first one, and gone: so the first one has outstayed its time.
    dev.ok("/fn/shop/other");
    dev.until("the other one to go", || {
        dev.output().lines().any(|line| line.contains("other-") && line.contains("to=0"))
    });
    let pid = |body: &str| body.split(' ').nth(1).map(str::to_owned);
    assert_eq!(pid(&dev.ok("/fn/shop/hello")), pid(&first));
    dev.files.write("main.py", &PYTHON.replace("\"one\"", "\"two\""));
    dev.until("the mended file to serve", || dev.get("/fn/shop/hello").1.starts_with("two "));
    dev.until("all of them to go", || dev.processes().is_empty());
}

#[test]
fn of_files_that_break_while_nothing_runs_nobody_is_told_that_they_serve() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", "  scale: {idle: 1s}\n"));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    dev.until("its processes to go", || dev.processes().is_empty());
    dev.files.write("main.py", "raise Exception('no such thing')\n");
    let line = dev.line("StartFailed");
    assert!(line.contains("Exception: no such thing") && line.contains("; nothing runs of hello-"), "{line}");
    let told = || Some(dev.get("/fn/shop/hello")).filter(|(status, _)| *status == 503);
    let (_, body) = wait_for(told).unwrap();
    assert!(body.contains("Exception: no such thing") && !body.contains("still serves"), "{body}");
}

#[test]
fn of_two_manifests_of_one_name_the_first_serves_and_the_second_is_named() {
    let files = Files::new();
    files.write("a.yaml", &python("hello", ""));
    files.write("b.yaml", &python("hello", ""));
    let dev = files.dev();
    let line = dev.line("b.yaml:4: shop/hello stands in");
    assert!(line.contains("a.yaml:4 already"), "{line}");
    dev.ok("/fn/shop/hello");
}

#[test]
fn a_command_that_is_not_there_is_told_to_the_caller_and_in_the_log() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", "").replace("sh -c", "no-such-command -c"));
    let dev = files.dev();
    dev.line("no-such-command: no such program on PATH");
    let (status, body) = dev.get("/fn/shop/hello");
    assert_eq!(status, 503);
    assert!(body.contains("StartFailed") && body.contains("no-such-command"), "{body}");
}

#[test]
fn a_process_that_dies_fails_its_request_and_the_next_one_is_served() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    let (status, body) = dev.get("/fn/shop/hello?die=1");
    // A GET that broke on a kept connection is sent again, and may be told that the process is started anew.
    assert!(body.contains("InstanceFailed") || body.contains("CrashLoopBackOff"), "{status} {body}");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
}

#[test]
fn a_process_that_hangs_is_left_at_its_timeout() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", "  timeout: 200ms\n"));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    let (status, body) = dev.get("/fn/shop/hello?ms=30000");
    assert_eq!(status, 504, "{body}");
    assert!(body.contains("FunctionTimeout"), "{body}");
}

#[test]
fn a_process_that_never_listens_is_told_at_its_start_timeout() {
    let files = Files::new();
    files.write("f.yaml", &manifest("hello", "exec sleep 1000", "  startTimeout: 1s\n"));
    let dev = files.dev();
    let line = dev.line("StartTimeout");
    assert!(line.contains("f.yaml:4: shop/hello: ") && line.contains("no answer within startTimeout"), "{line}");
    dev.until("callers to be told", || {
        let (status, body) = dev.get("/fn/shop/hello");
        status == 503 && body.contains("StartTimeout")
    });
}

#[test]
fn what_a_process_forks_goes_with_it_even_from_a_session_of_its_own() {
    let files = Files::new();
    let script = "(setsid sleep 1000 &); sleep 1000 & exec python3 main.py";
    files.write("f.yaml", &manifest("hello", script, "  scale: {idle: 1s}\n"));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    // The supervisor, the program and both sleeps; then none of them.
    dev.until("all of them to run", || dev.processes().len() >= 4);
    dev.until("all of them to go", || dev.processes().is_empty());
    // Of one that dies by itself, too.
    dev.ok("/fn/shop/hello");
    dev.get("/fn/shop/hello?die=1");
    dev.until("all of them to go", || dev.processes().is_empty());
}

#[test]
fn thousands_of_requests_at_once_are_all_answered() {
    let files = Files::new();
    files.write(
        "f.yaml",
        &python("hello", "  concurrency: 50\n  scale: {max: 2}\n  queue: {depth: 5000, timeout: 60s}\n"),
    );
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    let open = |_| {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(dev.listen).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        write!(stream, "GET /fn/shop/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    let streams: Vec<_> = (0..2000).map(open).collect();
    let good = streams.into_iter().filter_map(|mut stream| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).ok()?;
        text.starts_with("HTTP/1.1 200 ").then_some(())
    });
    assert_eq!(good.count(), 2000, "{}", dev.output());
}

#[test]
fn an_interrupt_lets_a_request_end_and_leaves_nothing() {
    let files = Files::new();
    files.write("main.py", &telling());
    files.write("f.yaml", &python("hello", ""));
    let mut dev = files.dev();
    dev.ok("/fn/shop/hello");
    let running = call(&dev, "/fn/shop/hello?ms=700");
    dev.line("asked for /?ms=700");
    dev.signal(Signal::INT);
    assert!(answered(running, 200).starts_with("one "));
    assert_eq!(dev.ended().0, Some(0));
    assert!(dev.processes().is_empty());
    assert!(fs::read_dir(dev.files.state.path()).unwrap().next().is_none());
}

#[test]
fn a_drain_ends_at_its_limit() {
    let files = Files::new();
    files.write("main.py", &telling());
    files.write("f.yaml", &python("hello", ""));
    let mut dev = files.dev_with(&["--drain-seconds", "1"]);
    dev.ok("/fn/shop/hello");
    let running = call(&dev, "/fn/shop/hello?ms=25000");
    dev.line("asked for /?ms=25000");
    dev.signal(Signal::TERM);
    let (_, took) = dev.ended();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_ne!(running.join().unwrap().0, 200);
    dev.until("its processes to go", || dev.processes().is_empty());
}

#[test]
fn a_second_interrupt_does_not_wait() {
    let files = Files::new();
    files.write("main.py", &telling());
    files.write("f.yaml", &python("hello", ""));
    let mut dev = files.dev();
    dev.ok("/fn/shop/hello");
    let running = call(&dev, "/fn/shop/hello?ms=25000");
    dev.line("asked for /?ms=25000");
    dev.signal(Signal::INT);
    dev.line("once more to stop now");
    dev.signal(Signal::INT);
    let (code, took) = dev.ended();
    assert_eq!(code, Some(130));
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(running);
    dev.until("its processes to go", || dev.processes().is_empty());
}

#[test]
fn a_kill_leaves_neither_children_nor_grandchildren() {
    let files = Files::new();
    let script = "trap : TERM; (setsid sleep 1000 &); sleep 1000 & exec python3 main.py";
    files.write("f.yaml", &manifest("hello", script, "  scale: {min: 2}\n"));
    let mut dev = files.dev();
    // Each with a supervisor, a program, and two sleeps.
    dev.until("all of them to run", || dev.processes().len() >= 8);
    dev.signal(Signal::KILL);
    dev.ended();
    let directory = dev.files.functions.path().to_owned();
    assert!(wait_for(|| processes_of(&directory).is_empty().then_some(())).is_some(), "{:?}", processes_of(&directory));
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_after_its_grace() {
    let files = Files::new();
    let script = "trap \\\"\\\" TERM; python3 main.py & while :; do sleep 1; done";
    let ignoring = PYTHON.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN");
    files.write("main.py", &ignoring);
    files.write("f.yaml", &manifest("hello", script, "  scale: {idle: 1s}\n"));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    dev.until("its processes to go", || dev.processes().is_empty());
}

#[test]
fn a_port_that_is_taken_is_an_error_with_a_way_out() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = files.command().args(["--listen", &address]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && words.contains(&address) && words.contains("--listen 127.0.0.1:8081"),
        "{words}"
    );
}

#[test]
fn without_a_writable_directory_the_error_says_what_was_tried() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    // Not a matter of rights, which root has everywhere.
    fs::write(files.state.path().join("file"), "").unwrap();
    fs::set_permissions(files.state.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let place = files.state.path().join("file/below");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lambent"));
    command.arg("dev").arg(files.functions.path()).arg("--state-dir").arg(&place).args(["--listen", "127.0.0.1:0"]);
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    let named = words.contains(&place.display().to_string()) && words.contains("--state-dir");
    assert!(!output.status.success() && named, "{words}");
}

#[test]
fn a_path_that_is_not_there_is_an_error_with_its_name() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lambent"))
        .args(["dev", "/no/such/path", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/path: "));
}

#[test]
fn a_hundred_functions_called_at_once_from_zero_all_answer() {
    let files = Files::new();
    let all: Vec<String> = (0..100)
        .map(|number| python(&format!("f-{number}"), "  scale: {idle: 1s}\n  queue: {timeout: 60s}\n"))
        .collect();
    files.write("f.yaml", &all.join("---\n"));
    let dev = files.dev();
    let start = Instant::now();
    dev.until("all of them to be known", || dev.get("/fn/shop/f-99").0 == 200);
    dev.until("their first instances to go", || dev.processes().is_empty());
    println!("idle after {:?}", start.elapsed());
    let calls: Vec<_> = (0..100).map(|number| call(&dev, &format!("/fn/shop/f-{number}"))).collect();
    for call in calls {
        answered(call, 200);
    }
}
