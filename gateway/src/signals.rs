//! What the gateway tells: loads within milliseconds when something waits, every second otherwise.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use lambent_api::signal::{Load, Message};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::error;

use crate::{
    directory::{Change, Directory},
    hub::News,
};

/// The slowest listener may be so many messages behind before it has to connect again.
const BACKLOG: usize = 4096;
/// Between two urgent messages about the same burst.
const BREATH: Duration = Duration::from_millis(2);

/// Sends lines to everyone who listens.
#[derive(Clone, Debug)]
pub struct Signals {
    lines: broadcast::Sender<Bytes>,
    directory: Arc<Directory>,
}

impl Signals {
    /// Nobody listens yet.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { lines: broadcast::channel(BACKLOG).0, directory }
    }

    /// The present state, and then every line to come.
    pub fn subscribe(&self) -> (Vec<Bytes>, broadcast::Receiver<Bytes>) {
        let receiver = self.lines.subscribe();
        let mut lines: Vec<Bytes> = self.directory.all().iter().flat_map(|f| lines(f.loads())).collect();
        lines.extend(line(&Message::Synced));
        (lines, receiver)
    }

    /// Passes news on until the gateway ends. Instances that are away go to the `applier`.
    pub async fn run(self, mut news: mpsc::UnboundedReceiver<News>, applier: mpsc::Sender<Change>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                next = news.recv() => match next {
                    Some(News::Changed(function)) => {
                        // The first of a burst goes out at once, the rest of it together.
                        if last.elapsed() < BREATH {
                            sleep(BREATH).await;
                        }
                        last = Instant::now();
                        self.send(lines(function.take_loads()));
                    }
                    Some(News::Drained(drained)) => self.send(line(&Message::Drained(drained))),
                    Some(News::Away(function, uid)) => drop(applier.send(Change::Away(function, uid)).await),
                    None => return,
                },
                _ = second.tick() => self.each_second(),
            }
        }
    }

    fn each_second(&self) {
        for function in self.directory.all() {
            function.each_second();
            self.send(lines(function.take_loads()));
        }
        self.send(line(&Message::Synced));
    }

    fn send(&self, lines: impl IntoIterator<Item = Bytes>) {
        for line in lines {
            // Nobody listening is fine: the state is told to whoever comes.
            let _ = self.lines.send(line);
        }
    }
}

/// What there is to say of a Function: nothing while nothing of it runs or waits.
fn lines(loads: Vec<Load>) -> Vec<Bytes> {
    let said =
        loads.into_iter().filter(|l| l.ready + l.starting + l.parked + l.in_flight + l.queued + l.peak_in_flight > 0);
    said.flat_map(|load| line(&Message::Load(load))).collect()
}

fn line(message: &Message) -> Option<Bytes> {
    match serde_json::to_vec(message) {
        Ok(mut json) => {
            json.push(b'\n');
            Some(json.into())
        }
        Err(error) => {
            error!(%error, "a signal can't be written as JSON");
            None
        }
    }
}
