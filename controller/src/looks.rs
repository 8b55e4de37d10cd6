//! Who is looked at when: each Function that was touched, many at once but none twice at once, and
//! again after the time that a look asks for. A touched one's turn comes at once: kube's own scheduler
//! sends everything through a timer first, which costs each step of a cold start two milliseconds.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    time::Duration,
};

use lambent_api::FunctionKey;
use lambent_compact::give_back;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::{
    sync::CancellationToken,
    time::{DelayQueue, delay_queue},
};

use crate::queue::Queue;

/// A look that panicked is taken again after this.
const AFTER_PANIC: Duration = Duration::from_secs(5);
/// What a look may still take once the controller has to stop: another one may be leading by then.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Looks at whatever the queue has, so many at once, until `shutdown`. A look tells when to look again if nothing
/// touches the Function before.
pub(crate) async fn run<L>(queue: &Queue, at_once: usize, look: impl Fn(FunctionKey) -> L, shutdown: CancellationToken)
where
    L: Future<Output = Option<Duration>> + Send + 'static,
{
    let mut looks = Looks::default();
    loop {
        let function = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = looks.running.join_next_with_id() => {
                looks.ended(queue, ended);
                continue;
            }
            Some(function) = poll_fn(|cx| looks.later.poll_expired(cx)), if !looks.later.is_empty() => {
                let function = function.into_inner();
                looks.due.remove(&function);
                give_back(&mut looks.due);
                queue.touch(function);
                continue;
            }
            function = queue.next(), if looks.running.len() < at_once => function,
        };
        looks.begin(function, &look);
    }
    let _ = timeout(LAST_WORDS, async { while looks.running.join_next().await.is_some() {} }).await;
}

#[derive(Default)]
struct Looks {
    running: JoinSet<Option<Duration>>,
    /// Whom each of them is about.
    about: HashMap<Id, FunctionKey>,
    /// Who is being looked at, and whether it was touched since.
    busy: HashMap<FunctionKey, bool>,
    later: DelayQueue<FunctionKey>,
    due: HashMap<FunctionKey, delay_queue::Key>,
}

impl Looks {
    fn begin<L>(&mut self, function: FunctionKey, look: &impl Fn(FunctionKey) -> L)
    where
        L: Future<Output = Option<Duration>> + Send + 'static,
    {
        if let Some(touched) = self.busy.get_mut(&function) {
            *touched = true;
            return;
        }
        if let Some(due) = self.due.remove(&function) {
            give_back(&mut self.due);
            self.later.remove(&due);
        }
        let task = self.running.spawn(look(function.clone()));
        self.about.insert(task.id(), function.clone());
        self.busy.insert(function, false);
    }

    fn ended(&mut self, queue: &Queue, ended: Result<(Id, Option<Duration>), JoinError>) {
        let (id, again) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a look ended early");
                (error.id(), Some(AFTER_PANIC))
            }
        };
        let Some(function) = self.about.remove(&id) else { return };
        if self.busy.remove(&function) == Some(true) {
            queue.touch(function);
        } else if let Some(wait) = again {
            let due = self.later.insert(function.clone(), wait);
            self.due.insert(function, due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::time::{Instant, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn function() -> FunctionKey {
        FunctionKey::new("shop", "f")
    }

    /// Looks for so long; the times of the looks in seconds, each of which takes one and is answered so.
    async fn looked(
        for_: Duration,
        answer: impl Fn(usize) -> Option<Duration> + Send + Sync + 'static,
        touch: impl AsyncFnOnce(&Queue),
    ) -> Vec<u64> {
        let queue = Queue::default();
        let (times, answer, begun) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer), Instant::now());
        let shutdown = CancellationToken::new();
        let look = |_| {
            let (times, answer) = (times.clone(), answer.clone());
            async move {
                let number = {
                    let mut times = times.lock();
                    times.push(begun.elapsed().as_secs());
                    times.len()
                };
                sleep(SECOND).await;
                answer(number)
            }
        };
        let touching = async {
            touch(&queue).await;
            sleep(for_).await;
            shutdown.cancel();
        };
        tokio::join!(run(&queue, 32, look, shutdown.clone()), touching);
        Arc::into_inner(times).unwrap().into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_touched_while_it_is_looked_at_is_looked_at_once_more() {
        let times = looked(
            SECOND * 9,
            |_| None,
            async |queue: &Queue| {
                queue.touch(function());
                sleep(SECOND / 2).await;
                (0..3).for_each(|_| queue.touch(function()));
            },
        );
        assert_eq!(times.await, [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_comes_again_when_it_asked_for_that_or_is_touched_before() {
        let again = |number| Some(if number == 1 { SECOND * 3 } else { SECOND * 10 });
        let times = looked(SECOND * 12, again, async |queue: &Queue| {
            queue.touch(function());
            sleep(SECOND * 7).await;
            queue.touch(function());
        });
        // Asked for at 0 + 1 + 3; touched at 7, so that the one at 15 is not due any more.
        assert_eq!(times.await, [0, 4, 7, 18]);
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_looked_at_meanwhile_and_a_panic_is_tried_again() {
        let times = looked(
            SECOND * 4,
            |number| {
                assert_ne!(number, 1, "as it should");
                None
            },
            async |queue: &Queue| {
                queue.touch(function());
                queue.touch(FunctionKey::new("shop", "g"));
                sleep(SECOND * 3).await;
            },
        );
        assert_eq!(times.await, [0, 0, 6]);
    }
}
