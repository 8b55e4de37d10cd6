//! Callers that go on while something is done.

use std::time::Duration;

use futures::future::join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};

use crate::{Answer, Deployed};

/// Calls without a pause until the work is done: what it gives.
///
/// # Panics
/// If a call is answered with anything but 200, or not at all.
pub async fn under_load<T>(function: &Deployed, callers: usize, rest: &str, work: impl Future<Output = T>) -> T {
    let caller = async || -> () {
        loop {
            function.call(rest).await.expect(200);
        }
    };
    tokio::select! {
        _ = join_all((0..callers).map(|_| caller())) => unreachable!("callers don't end"),
        done = work => done,
    }
}

/// So many calls a second for so long, each at its time whether or not others were answered.
///
/// # Panics
/// If one is not answered at all.
pub async fn at_a_rate(function: &Deployed, per_second: u32, seconds: u32, rest: &str) -> Vec<Answer> {
    let mut calls = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    let end = Instant::now() + Duration::from_secs(seconds.into());
    while ticks.tick().await < end {
        let (function, rest) = (function.clone(), rest.to_owned());
        calls.spawn(async move { function.call(&rest).await });
    }
    calls.join_all().await
}
