//! What the gateway tells: loads within milliseconds when something waits, every second otherwise.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use lambent_api::signal::{Load, Message};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::error;

use crate::{
    directory::{Change, Directory},
    hub::News,
};

/// The slowest listener may be so many batches behind before it has to connect again: half a second of a burst,
/// minutes of one batch a second. What one has not read yet is kept in memory.
const BACKLOG: usize = 256;
/// Between two urgent batches.
const BREATH: Duration = Duration::from_millis(2);
/// News in one batch.
const BATCH: usize = 1024;

/// Sends batches of lines to everyone who listens.
#[derive(Clone, Debug)]
pub struct Signals {
    batches: broadcast::Sender<Bytes>,
    directory: Arc<Directory>,
}

impl Signals {
    /// Nobody listens yet.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { batches: broadcast::channel(BACKLOG).0, directory }
    }

    /// The present state, and then every batch to come. A batch is of whole lines.
    pub fn subscribe(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let receiver = self.batches.subscribe();
        let mut batch = Batch::default();
        self.directory.all().iter().for_each(|function| batch.loads(function.loads()));
        batch.line(&Message::Synced);
        (batch.0.into(), receiver)
    }

    /// Passes news on until the gateway ends. Instances that are away go to the `applier`.
    pub async fn run(self, mut news: mpsc::UnboundedReceiver<News>, applier: mpsc::Sender<Change>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut burst) = (Instant::now(), Vec::new());
        loop {
            tokio::select! {
                count = news.recv_many(&mut burst, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    // The first of a burst goes out at once, the rest of it together.
                    if last.elapsed() < BREATH {
                        sleep_until(last + BREATH).await;
                        burst.extend(std::iter::from_fn(|| news.try_recv().ok()).take(BATCH - burst.len()));
                    }
                    last = Instant::now();
                    self.pass_on(std::mem::take(&mut burst), &applier).await;
                }
                _ = second.tick() => self.each_second(),
            }
        }
    }

    async fn pass_on(&self, burst: Vec<News>, applier: &mpsc::Sender<Change>) {
        let (mut batch, mut away) = (Batch::default(), Vec::new());
        for news in burst {
            match news {
                News::Changed(function) => batch.loads(function.take_loads()),
                News::Drained(drained) => batch.line(&Message::Drained(drained)),
                News::Away(function, uid) => away.push(Change::Away(function, uid)),
            }
        }
        // First: what was taken may not wait for the applier.
        self.send(batch);
        for change in away {
            let _ = applier.send(change).await;
        }
    }

    fn each_second(&self) {
        let mut batch = Batch::default();
        for function in self.directory.all() {
            function.each_second();
            batch.loads(function.take_loads());
        }
        batch.line(&Message::Synced);
        self.send(batch);
    }

    fn send(&self, batch: Batch) {
        if !batch.0.is_empty() {
            // Nobody listening is fine: the state is told to whoever comes.
            let _ = self.batches.send(batch.0.into());
        }
    }
}

/// Messages as JSON, each on a line.
#[derive(Default)]
struct Batch(Vec<u8>);

impl Batch {
    /// What there is to say of a Function: nothing while nothing of it runs or waits.
    fn loads(&mut self, loads: Vec<Load>) {
        let is_said = |l: &Load| l.ready + l.starting + l.parked + l.in_flight + l.queued + l.peak_in_flight > 0;
        loads.into_iter().filter(is_said).for_each(|load| self.line(&Message::Load(load)));
    }

    fn line(&mut self, message: &Message) {
        let before = self.0.len();
        if let Err(error) = serde_json::to_writer(&mut self.0, message) {
            error!(%error, "a signal can't be written as JSON");
            return self.0.truncate(before);
        }
        self.0.push(b'\n');
    }
}
