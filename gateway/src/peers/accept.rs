//! Another gateway has connected: its claims go to the coordinator, and it is served slots.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use lambent_api::FunctionKey;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{
    coordinator::Event,
    lent::Lent,
    message::{Granted, Message},
    session,
};
use crate::{directory::Directory, function::Turned, pool::Origin};

const SWEEP_FROM: usize = 64;

/// Serves the gateways that connect.
#[derive(Clone, Debug)]
pub struct Host {
    directory: Arc<Directory>,
    lent: Arc<Lent>,
    events: mpsc::UnboundedSender<Event>,
    sessions: Arc<AtomicU64>,
}

/// One connection of another gateway.
struct Guest {
    host: Host,
    session: u64,
    to: mpsc::UnboundedSender<Message>,
    /// Once it has said so.
    name: Option<Arc<str>>,
    waiting: HashMap<u64, AbortOnDropHandle<()>>,
    /// Answered ones are forgotten when there are so many.
    sweep_at: usize,
}

impl Host {
    /// Lends slots of the Functions in `directory`.
    pub fn new(directory: Arc<Directory>, lent: Arc<Lent>, events: mpsc::UnboundedSender<Event>) -> Self {
        Self { directory, lent, events, sessions: Arc::default() }
    }

    /// Serves one until the connection ends.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let (to, mut outgoing) = mpsc::unbounded_channel();
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let mut guest = Guest { host: self, session, to, name: None, waiting: HashMap::new(), sweep_at: SWEEP_FROM };
        let outcome = session::run(stream, &mut outgoing, |message| guest.take(message)).await;
        if let Some(peer) = guest.name.take() {
            debug!(peer = &*peer, outcome = outcome.err().map(|e| e.to_string()), "a gateway's connection ended");
            let _ = guest.host.events.send(Event::GuestGone { peer, session });
        }
    }
}

impl Guest {
    fn take(&mut self, message: Message) {
        if let Message::Hello { name, boot } = message {
            let peer: Arc<str> = name.into();
            self.name = Some(peer.clone());
            let (session, to) = (self.session, self.to.clone());
            let _ = self.host.events.send(Event::Guest { peer, boot, session, to });
            return;
        }
        let Some(peer) = self.name.clone() else { return };
        let lent = &self.host.lent;
        match message {
            Message::Acquire { id, namespace, function, waited, again } => {
                self.acquire(peer, id, &FunctionKey::new(namespace, function), waited, again);
            }
            Message::Cancel { id } => {
                self.waiting.remove(&id);
                lent.take_back(&peer, id);
            }
            Message::Release { id } => lent.take_back(&peer, id),
            Message::Away { id } => lent.get(&peer, id).iter().for_each(|permit| permit.instance_is_away()),
            Message::Stuck { id } => lent.get(&peer, id).iter().for_each(|permit| permit.instance_is_stuck()),
            Message::Claim { seq, members } => {
                let members = members.into_iter().map(Arc::from).collect();
                let _ = self.host.events.send(Event::Claimed { peer, session: self.session, seq, members });
            }
            message @ (Message::Leaving | Message::Unclaimed) => {
                drop(self.host.events.send(Event::Said { peer, message }));
            }
            _ => {}
        }
    }

    /// Hands a slot over: at once if one is free, else it is waited for in the background.
    fn acquire(&mut self, peer: Arc<str>, id: u64, key: &FunctionKey, waited: f64, again: bool) {
        let Some(function) = self.host.directory.find(&key.namespace, &key.name) else {
            let _ = self.to.send(Message::Elsewhere { id });
            return;
        };
        let now = Instant::now();
        let waited = Duration::try_from_secs_f64(waited).unwrap_or_default();
        let arrived = now.checked_sub(waited).unwrap_or(now);
        let (to, lent) = (self.to.clone(), self.host.lent.clone());
        let mut handed_over = Box::pin(async move {
            let answer = match function.acquire_here(arrived, Origin::Peer, again).await {
                Ok(permit) => match Granted::new(id, &permit.grant, Instant::now()) {
                    Some(granted) => {
                        lent.put(&peer, id, permit);
                        Message::Granted(granted)
                    }
                    None => Message::Elsewhere { id },
                },
                Err(Turned::Down(refusal)) => Message::Refused { id, refusal },
                Err(Turned::Away) => Message::Elsewhere { id },
            };
            let _ = to.send(answer);
        });
        if handed_over.as_mut().now_or_never().is_none() {
            self.wait_for(id, handed_over);
        }
    }

    fn wait_for(&mut self, id: u64, handed_over: impl Future<Output = ()> + Send + 'static) {
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|_, task| !task.is_finished());
            self.sweep_at = (self.waiting.len() * 2).max(SWEEP_FROM);
        }
        self.waiting.insert(id, AbortOnDropHandle::new(tokio::spawn(handed_over)));
    }
}
