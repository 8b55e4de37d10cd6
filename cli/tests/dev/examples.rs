//! The README's first command: the examples, served from a checkout with nothing but Rust, a C compiler
//! and Python 3.

use std::{fs, time::Duration};

use rustix::process::Signal;

use crate::support::Files;

/// The examples in Rust are built first, and their dependencies with them.
const BUILT_WITHIN: Duration = Duration::from_secs(900);

#[test]
fn the_examples_and_the_readmes_call_are_answered() {
    // Cargo runs tests in their package's folder; checkouts may share what is compiled.
    let checkout = std::path::absolute("..").unwrap();
    let mut dev = Files::of(&checkout.join("examples")).dev();
    assert!(dev.ok("/fn/default/python").starts_with("Hello from Python on "));
    for name in ["hello", "slow", "stream"] {
        dev.line_within(BUILT_WITHIN, &format!("default/{name}: built"));
    }
    assert!(dev.ok("/fn/default/hello").starts_with("Hello from "));
    assert!(dev.ok("/fn/default/slow?ms=1").contains("\"running\":1"));
    let stream = dev.ok("/fn/default/stream?count=2&interval=1");
    assert_eq!(stream.lines().filter(|line| line.starts_with("line ")).count(), 2, "{stream}");
    let readme = fs::read_to_string(checkout.join("README.md")).unwrap();
    assert!(readme.contains("\ncargo run --release -- dev examples\n"));
    let call = readme.lines().find_map(|line| line.strip_prefix("curl http://127.0.0.1:8080")).unwrap();
    dev.ok(call);
    dev.signal(Signal::INT);
    assert_eq!(dev.ended().0, Some(0));
}
