//! Looks for awaited pods in the container runtime: every few milliseconds while there are any, never
//! otherwise. containerd 1.6 has no stream of events, and what an event says has to be asked for anyway.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    board::Board,
    cri::{Runtime, RuntimeError},
    metrics::Metrics,
};

/// Between two looks. One costs the runtime 0.6 ms of CPU on a busy machine.
const PAUSE: Duration = Duration::from_millis(5);
/// A look that takes longer is followed by a pause so many times as long, so that a node under load, or with
/// many pods, is not kept busy by this.
const PAUSE_SHARE: u32 = 4;
/// A pod that waits for a volume, say, is looked for more and more seldom: this part of its wait.
const PAUSE_OF_WAIT: u32 = 50;
const LAST_PAUSE: Duration = Duration::from_millis(250);
/// While the runtime is away.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// The board, and a bell for who looks at it.
#[derive(Debug, Default)]
pub struct Awaited {
    board: Mutex<Board>,
    news: Notify,
}

impl Awaited {
    /// Changes the board.
    pub fn change<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let result = change(&mut self.board.lock());
        self.news.notify_one();
        result
    }
}

/// How it stands with the runtime.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    retry: Option<Duration>,
}

/// Looks until it is dropped.
pub async fn run(awaited: Arc<Awaited>, runtime: Runtime, metrics: Metrics) {
    let mut outage = Outage::default();
    loop {
        let uids = awaited.board.lock().awaited(Instant::now());
        if uids.is_empty() {
            awaited.news.notified().await;
            continue;
        }
        let begun = Instant::now();
        metrics.polls.inc();
        let pause = match runtime.addresses(&uids).await {
            Ok(found) => {
                outage.over();
                for (uid, ip) in found {
                    let waited = awaited.board.lock().found(&uid, ip, Instant::now());
                    debug!(uid, %ip, "the sandbox of an awaited pod is there");
                    waited.into_iter().for_each(|waited| metrics.told(waited));
                }
                let now = Instant::now();
                pause_after(now.duration_since(begun), awaited.board.lock().youngest(now))
            }
            Err(error) => {
                metrics.errors.inc();
                outage.goes_on(&error)
            }
        };
        sleep(pause).await;
    }
}

fn pause_after(look: Duration, youngest: Duration) -> Duration {
    (youngest / PAUSE_OF_WAIT).clamp(PAUSE, LAST_PAUSE).max(look * PAUSE_SHARE)
}

impl Outage {
    /// Said once. When to try again.
    fn goes_on(&mut self, error: &RuntimeError) -> Duration {
        if self.since.is_none() {
            warn!(%error, "the container runtime can't be asked; the API tells addresses meanwhile");
            self.since = Some(Instant::now());
        }
        let retry = self.retry.map_or(FIRST_RETRY, |before| (before * 2).min(LAST_RETRY));
        self.retry = Some(retry);
        retry
    }

    fn over(&mut self) {
        self.retry = None;
        if let Some(since) = self.since.take() {
            info!(seconds = since.elapsed().as_secs_f64(), "the container runtime answers again");
        }
    }
}
#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
