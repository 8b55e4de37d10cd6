//! The loop around the book: news in, orders carried out. Whoever writes the counts and whoever
//! asks the gateways is handed in: the API server and the link on a cluster, channels in one process.

use std::{future::Future, sync::Arc, time::Duration};

use lambent_api::signal::{Retire, Retired};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    book::{Book, Input},
    order::{Order, Write},
    record::Record,
};

/// How often it is looked whether something may go.
const TICK: Duration = Duration::from_millis(250);
/// Questions to gateways at once: when a thousand functions fall idle together, more can wait.
const QUESTIONS: usize = 16;

/// Writes counts.
pub trait Writer: Send + Sync + 'static {
    /// Writes one, if it still is what was decided upon. Whether it was written. Bounded in time;
    /// a failure is logged where it happens.
    fn write(&self, order: &Write) -> impl Future<Output = bool> + Send;
}

/// Asks the gateways to stop using instances.
pub trait Retirer: Send + Sync + 'static {
    /// What the Function's owner has stopped using; none if it could not be asked. Bounded in time.
    fn retire(&self, order: &Retire) -> impl Future<Output = Option<Retired>> + Send;
}

/// Decides upon news and carries out what was decided, until `shutdown` or the end of the news.
pub async fn run_core<W: Writer, R: Retirer>(
    mut news: mpsc::Receiver<Input>,
    writer: W,
    retirer: R,
    record: Record,
    shutdown: CancellationToken,
) {
    let doer = Arc::new(Doer { writer, retirer, record, questions: Semaphore::new(QUESTIONS) });
    // At most one order for each Revision; all of them end with this set.
    let mut orders = JoinSet::new();
    let mut book = Book::default();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let input = tokio::select! {
            input = news.recv() => match input {
                Some(input) => input,
                None => return,
            },
            Some(outcome) = orders.join_next() => match outcome {
                Ok(Some(input)) => input,
                // Written: the watch tells. Or it panicked, and then it is tried again after a while.
                Ok(None) | Err(_) => continue,
            },
            _ = tick.tick() => Input::Tick,
            () = shutdown.cancelled() => return,
        };
        doer.record.seen(&input);
        for order in book.apply(input, Instant::now()) {
            orders.spawn(carry_out(doer.clone(), order));
        }
    }
}

struct Doer<W, R> {
    writer: W,
    retirer: R,
    record: Record,
    questions: Semaphore,
}

/// What the book is to know of how it went.
async fn carry_out<W: Writer, R: Retirer>(doer: Arc<Doer<W, R>>, order: Order) -> Option<Input> {
    match order {
        Order::Write(write) => {
            if !doer.writer.write(&write).await {
                return Some(Input::Failed(write.revision));
            }
            doer.record.written(&write);
            None
        }
        Order::Retire { revision, keep } => {
            let _turn = doer.questions.acquire().await;
            let order = Retire { namespace: revision.namespace.clone(), revision: revision.name.clone(), keep };
            Some(match doer.retirer.retire(&order).await {
                Some(retired) => Input::Retired(revision, retired),
                None => Input::Failed(revision),
            })
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
