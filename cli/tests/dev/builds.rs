//! Functions that are built before they run.

use std::fs;

use rustix::process::Signal;

use crate::{
    call,
    support::{Files, PYTHON, manifest, processes_of, python, wait_for},
};

/// A function whose `main.py` is made of `main.txt`, which is watched, by a shell's command.
fn built(name: &str, script: &str, spec: &str) -> String {
    python(name, spec).replace(
        "    dev.lambent.dev/watch: main.py",
        &format!("    dev.lambent.dev/build: 'sh -c \"{script}\"'\n    dev.lambent.dev/watch: main.txt"),
    )
}

/// With `main.txt`, and without `main.py`.
fn unbuilt() -> Files {
    let files = Files::new();
    files.write("main.txt", PYTHON);
    fs::remove_file(files.path("main.py")).unwrap();
    files
}

#[test]
fn a_build_comes_before_the_first_request_and_one_that_fails_keeps_what_serves() {
    let files = unbuilt();
    files.write("f.yaml", &built("hello", "cp main.txt main.py", ""));
    let dev = files.dev();
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.line("shop/hello: built");
    let script = "echo starting; echo main.c:1:2: error: no such thing; echo the end; exit 3";
    dev.files.write("f.yaml", &built("hello", script, ""));
    let line = dev.line("BuildFailed");
    assert!(
        line.contains("f.yaml:4: shop/hello: ") && line.contains("exit code 3: main.c:1:2: error: no such"),
        "{line}"
    );
    assert!(line.contains("; what runs of hello-"), "{line}");
    dev.line("shop/hello build | the end");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
}

#[test]
fn callers_wait_for_the_first_build_and_changes_of_other_functions_do_not() {
    let files = unbuilt();
    files.write("other.py", PYTHON);
    files.write("f.yaml", &built("hello", "until [ -e go ]; do sleep 0.01; done; cp main.txt main.py", ""));
    let dev = files.dev();
    dev.line("shop/hello: building: ");
    let waiting = call(&dev, "/fn/shop/hello");
    dev.files.write("g.yaml", &python("other", "").replace("main.py", "other.py"));
    assert!(dev.ok("/fn/shop/other").starts_with("one "));
    dev.files.write("other.py", &PYTHON.replace("\"one\"", "\"two\""));
    dev.until("the new file to serve", || dev.get("/fn/shop/other").1.starts_with("two "));
    dev.files.write("go", "");
    let (status, body) = waiting.join().unwrap();
    assert!(status == 200 && body.starts_with("one "), "{status} {body}");
}

#[test]
fn a_first_build_that_fails_is_told_to_callers_with_its_words() {
    let files = unbuilt();
    files.write("f.yaml", &built("hello", "cp nothing main.py", ""));
    let dev = files.dev();
    let (status, body) = dev.get("/fn/shop/hello");
    assert!(status == 503 && body.contains("cp: ") && body.contains("exit code 1"), "{status} {body}");
    dev.files.write("f.yaml", &built("hello", "cp main.txt main.py", ""));
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
}

#[test]
fn a_newer_change_takes_the_place_of_a_build_that_hangs() {
    let files = unbuilt();
    files.write("main.txt", "hang");
    let script = "if grep -q hang main.txt; then setsid sleep 1000; fi; cp main.txt main.py";
    files.write("f.yaml", &built("hello", script, "  scale: {idle: 1s}\n"));
    let dev = files.dev();
    dev.until("the build to hang", || dev.processes().len() >= 3);
    dev.files.write("main.txt", PYTHON);
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.until("all of it to go", || dev.processes().is_empty());
}

#[test]
fn what_a_build_leaves_behind_neither_holds_it_up_nor_stays() {
    let files = unbuilt();
    files.write("f.yaml", &built("hello", "sleep 1000 & cp main.txt main.py", "  scale: {idle: 1s}\n"));
    let dev = files.dev();
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev.until("all of it to go", || dev.processes().is_empty());
}

#[test]
fn going_back_to_an_earlier_source_builds_it_again() {
    let files = unbuilt();
    files.write("f.yaml", &built("hello", "cp main.txt main.py", ""));
    let dev = files.dev();
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    for word in ["two", "one"] {
        dev.files.write("main.txt", &PYTHON.replace("\"one\"", &format!("\"{word}\"")));
        dev.until("the change to serve", || dev.get("/fn/shop/hello").1.starts_with(word));
    }
}

#[test]
fn nothing_of_a_build_outlives_a_kill_or_a_second_interrupt() {
    for signals in [&[Signal::KILL][..], &[Signal::INT, Signal::INT]] {
        let files = unbuilt();
        files.write("f.yaml", &built("hello", "(setsid sleep 1000 &); sleep 1000", ""));
        files.write("other.py", PYTHON);
        files.write(
            "g.yaml",
            &manifest("other", "exec python3 other.py", "").replace("watch: main.py", "watch: other.py"),
        );
        let mut dev = files.dev();
        dev.line("shop/hello: building: ");
        dev.until("the build to run", || dev.processes().len() >= 4);
        // Somebody waits for an answer, so that one interrupt does not end it.
        dev.ok("/fn/shop/other");
        let running = call(&dev, "/fn/shop/other?ms=25000");
        dev.until("the call to run", || dev.get("/fn/shop/other").0 == 200);
        for signal in signals {
            dev.signal(*signal);
            if *signal == Signal::INT {
                dev.line("once more to stop now");
            }
        }
        dev.ended();
        drop(running);
        let directory = dev.files.functions.path().to_owned();
        let gone = wait_for(|| processes_of(&directory).is_empty().then_some(()));
        assert!(gone.is_some(), "{signals:?}: {:?}", processes_of(&directory));
    }
}
