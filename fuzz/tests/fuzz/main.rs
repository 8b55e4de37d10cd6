//! Nothing that anyone sends makes a part panic, and what is documented of each reader holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod headers;
mod lines;
mod manifest;
mod registry;
mod request_head;
mod router;
mod text;

use proptest::{
    strategy::Strategy,
    test_runner::{Config, TestRunner},
};

/// Holds a property against generated input: 256 cases, or as many as PROPTEST_CASES says. A
/// panic is a failure, and is shown with the smallest input that was found to lead to it.
fn check<S: Strategy>(input: S, property: impl Fn(S::Value)) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&input, |case| {
        property(case);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
