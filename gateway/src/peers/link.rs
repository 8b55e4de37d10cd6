//! The way to one other gateway: a connection that is made again when it breaks, and the questions
//! that wait for its answers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use lambent_api::FunctionKey;
use lambent_wire::connect::{self, ConnectError};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tracing::{debug, info};

use super::{
    PROTOCOL,
    coordinator::Event,
    lease::{Lease, Leased},
    message::{Granted, Message},
    session::{self, SessionError},
};
use crate::{function::Turned, refusal::Refusal};

/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// A gateway that can't be reached for so many tries in a row is taken for dead: with the pauses
/// between them and the time to connect, a few seconds.
const TRIES: u32 = 3;

/// Why another gateway can't be reached, or is not any more.
#[derive(Debug, Error)]
pub enum LinkError {
    /// There was no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection was there and has ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl LinkError {
    fn is_nobody_there(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_nobody_there())
    }
}

/// The way to another gateway.
pub struct Link {
    name: Arc<str>,
    to: ArcSwapOption<mpsc::UnboundedSender<Message>>,
    asked: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// Ids grow also from one process to the next, so that an old one is never taken for a new one.
    next_id: AtomicU64,
}

enum Answer {
    Granted(Box<Granted>),
    Refused(Refusal),
    Elsewhere,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.name)
    }
}

impl Link {
    /// Not connected yet. `first_id` is greater than all that an earlier process has used.
    pub fn new(name: Arc<str>, first_id: u64) -> Self {
        Self { name, to: ArcSwapOption::empty(), asked: Mutex::default(), next_id: AtomicU64::new(first_id) }
    }

    /// Which gateway.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Sends, if there is a connection; what was to be said on a lost one is settled by the claim
    /// that follows on the next.
    pub fn send(&self, message: Message) {
        if let Some(to) = &*self.to.load() {
            let _ = to.send(message);
        }
    }

    /// Greater than the ids of all slots that were asked for so far.
    pub fn fence(&self) -> u64 {
        self.next_id.load(Ordering::SeqCst)
    }

    /// Asks for a slot. Ends with the answer or the connection; leaves the line there when dropped.
    ///
    /// # Errors
    /// Refused, or that gateway isn't the owner or can't be asked.
    pub async fn acquire(
        self: &Arc<Self>,
        function: &FunctionKey,
        arrived: Instant,
        again: bool,
    ) -> Result<Leased, Turned> {
        let id = self.next_id.fetch_add(1, Ordering::SeqCst);
        let (sender, answer) = oneshot::channel();
        self.asked.lock().insert(id, sender);
        let mut question = Question { link: self, id, answered: false };
        let FunctionKey { namespace, name } = function.clone();
        let waited = arrived.elapsed().as_secs_f64();
        if self.to.load().is_none() {
            return Err(Turned::Away);
        }
        self.send(Message::Acquire { id, namespace, function: name, waited, again });
        let answer = answer.await;
        question.answered = answer.is_ok();
        match answer {
            Ok(Answer::Granted(granted)) => Ok(Leased { lease: Lease::new(self.clone(), id), granted: *granted }),
            Ok(Answer::Refused(refusal)) => Err(Turned::Down(refusal)),
            Ok(Answer::Elsewhere) | Err(_) => Err(Turned::Away),
        }
    }

    fn answered(&self, id: u64, answer: Answer) {
        let asker = self.asked.lock().remove(&id);
        let is_grant = matches!(answer, Answer::Granted(_));
        // Who has left meanwhile does not need it.
        if asker.is_none_or(|asker| asker.send(answer).is_err()) && is_grant {
            self.send(Message::Release { id });
        }
    }

    /// There is a connection, over which this is sent.
    pub(crate) fn connected(&self, to: mpsc::UnboundedSender<Message>) {
        self.to.store(Some(Arc::new(to)));
    }

    /// Takes what the other side says. What is not an answer is the coordinator's.
    pub(crate) fn take(&self, message: Message) -> Option<Message> {
        match message {
            Message::Granted(granted) => self.answered(granted.id, Answer::Granted(Box::new(granted))),
            Message::Refused { id, refusal } => self.answered(id, Answer::Refused(refusal)),
            Message::Elsewhere { id } => self.answered(id, Answer::Elsewhere),
            Message::Alive | Message::Unknown => {}
            other => return Some(other),
        }
        None
    }

    /// The connection is lost, or nobody keeps it any more.
    pub(super) fn disconnected(&self) {
        self.to.store(None);
        // Their askers ask again.
        self.asked.lock().clear();
    }
}

struct Question<'a> {
    link: &'a Link,
    id: u64,
    answered: bool,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.asked.lock().remove(&self.id);
            self.link.send(Message::Cancel { id: self.id });
        }
    }
}

/// Who connects.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// This gateway's name.
    pub name: Arc<str>,
    /// Tells this process from others of that name.
    pub boot: u64,
    /// A file with the token to show.
    pub token: PathBuf,
}

/// Connects, talks, and connects again, until the coordinator is gone.
pub async fn keep(link: Arc<Link>, address: SocketAddr, me: Introduction, events: mpsc::UnboundedSender<Event>) {
    let (mut pause, mut failures) = (FIRST_PAUSE, 0_u32);
    while !events.is_closed() {
        let mut connected = false;
        let outcome = talk(&link, address, &me, &events, &mut connected).await;
        link.disconnected();
        let dead = if connected {
            info!(peer = &*link.name, outcome = outcome.err().map(|e| e.to_string()), "connection to a gateway ended");
            (pause, failures) = (FIRST_PAUSE, 0);
            false
        } else {
            failures += 1;
            let nobody = outcome.as_ref().err().is_some_and(LinkError::is_nobody_there);
            debug!(peer = &*link.name, error = outcome.err().map(|e| e.to_string()), "a gateway can't be reached");
            nobody || failures >= TRIES
        };
        let _ = events.send(Event::LinkDown { peer: link.name.clone(), dead });
        // At once after a loss: whether it is dead is what others wait for.
        if !connected {
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

async fn talk(
    link: &Arc<Link>,
    address: SocketAddr,
    me: &Introduction,
    events: &mpsc::UnboundedSender<Event>,
    connected: &mut bool,
) -> Result<(), LinkError> {
    let stream = connect::upgrade(address, &me.token, "/internal/v1/peer", PROTOCOL).await?;
    *connected = true;
    let (to, mut outgoing) = mpsc::unbounded_channel();
    let _ = to.send(Message::Hello { name: me.name.to_string(), boot: me.boot });
    link.connected(to);
    let _ = events.send(Event::LinkUp { peer: link.name.clone() });
    let take = |message| {
        if let Some(message) = link.take(message) {
            let _ = events.send(Event::Said { peer: link.name.clone(), message });
        }
    };
    Ok(session::run(stream, &mut outgoing, take).await?)
}
