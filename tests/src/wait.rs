//! Waiting for what others do: asked again and again up to a deadline, and told what was seen last.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Far longer than anything takes on an idle machine: a busy one is no failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Often enough to see short states, seldom enough to leave the API server alone.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until the answer is `Ok`.
///
/// # Panics
/// With the last answer, if that takes longer than [`PATIENCE`].
pub async fn await_condition<T>(what: impl Display, ask: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
    await_condition_for(PATIENCE, what, ask).await
}

/// Asks until the answer is `Ok`.
///
/// # Panics
/// With the last answer, if that takes longer than `patience`.
pub async fn await_condition_for<T>(
    patience: Duration,
    what: impl Display,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> T {
    let deadline = Instant::now() + patience;
    let mut last = String::from("it never answered");
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        match timeout(left, ask()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(state)) => last = format!("{state:#}"),
            Err(_) => break,
        }
        sleep(PAUSE).await;
    }
    panic!("waited {} s for {what}; last seen: {last}", patience.as_secs());
}

/// Does something while an invariant is asked for again and again: what it gives in the end.
///
/// # Panics
/// When the invariant doesn't hold.
pub async fn holds_while<T>(
    what: impl Display,
    mut ask: impl AsyncFnMut() -> anyhow::Result<()>,
    work: impl Future<Output = T>,
) -> T {
    let watch = async {
        loop {
            if let Err(state) = ask().await {
                panic!("{what} doesn't hold: {state:#}");
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = watch => unreachable!("the watch ends only by a panic"),
    }
}
