//! Functions to look at. However often one is touched before its turn, it's in here once, so the
//! queue is never longer than there are Functions.

use std::collections::BTreeSet;

use lambent_api::FunctionKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A set of Functions that waits for one reader.
#[derive(Default)]
pub(crate) struct Queue {
    touched: Mutex<BTreeSet<FunctionKey>>,
    news: Notify,
}

impl Queue {
    /// Something about this Function has changed.
    pub(crate) fn touch(&self, function: FunctionKey) {
        self.touched.lock().insert(function);
        self.news.notify_one();
    }

    /// The next one, when there is one. Nothing is lost when it is not waited for to the end.
    pub(crate) async fn next(&self) -> FunctionKey {
        loop {
            if let Some(function) = self.touched.lock().pop_first() {
                return function;
            }
            // A touch since the look leaves a permit here, so none is missed.
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_function_touched_twice_is_looked_at_once() {
        let queue = Queue::default();
        assert!(queue.next().now_or_never().is_none());
        for name in ["a", "b", "a"] {
            queue.touch(FunctionKey::new("shop", name));
        }
        assert_eq!(queue.next().await.name, "a");
        assert_eq!(queue.next().await.name, "b");
        assert!(queue.next().now_or_never().is_none());
    }
}
