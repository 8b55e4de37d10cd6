//! The connection to one gateway: made again when it breaks, for as long as there is such a gateway.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lambent_api::node::{self, FromNode, ToNode};
use lambent_wire::{
    connect::{self, ConnectError},
    session::{self, SessionError},
};
use thiserror::Error;
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, info, warn};

use crate::{metrics::Metrics, parker::Parker, watch::Awaited};

/// No message is longer.
const MAX_LINE: usize = 16 << 10;
/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Why there is no connection, or not any more.
#[derive(Debug, Error)]
enum LinkError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// What all links have.
#[derive(Clone, Debug)]
pub struct Links {
    awaited: Arc<Awaited>,
    parker: Parker,
    metrics: Metrics,
    token: PathBuf,
    next: Arc<AtomicU64>,
}

impl Links {
    /// To gateways that let the bearer of this token in.
    pub fn new(awaited: Arc<Awaited>, parker: Parker, metrics: Metrics, token: PathBuf) -> Self {
        Self { awaited, parker, metrics, token, next: Arc::default() }
    }

    /// How many gateways are connected.
    pub fn count(&self) -> usize {
        usize::try_from(self.metrics.links.get()).unwrap_or(0)
    }

    /// Connects to a gateway, and again, until it is dropped.
    pub async fn keep(self, gateway: SocketAddr) {
        let (mut pause, mut refused) = (FIRST_PAUSE, false);
        loop {
            let mut up = None;
            let outcome = self.talk(gateway, &mut up).await;
            match outcome {
                Err(LinkError::Connect(ConnectError::Status(status))) if !refused => {
                    warn!(%gateway, %status, "a gateway does not let this agent in; its log says why");
                    refused = true;
                }
                Err(LinkError::Connect(error)) => debug!(%gateway, %error, "a gateway can't be reached"),
                outcome => {
                    // A gateway ends it from time to time, to see the token again.
                    match outcome {
                        Ok(()) => debug!(%gateway, "the connection to a gateway has ended"),
                        Err(error) => info!(%gateway, %error, "the connection to a gateway is lost"),
                    }
                    (pause, refused) = (FIRST_PAUSE, false);
                }
            }
            drop(up);
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn talk(&self, gateway: SocketAddr, up: &mut Option<Up>) -> Result<(), LinkError> {
        let stream = connect::upgrade(gateway, &self.token, node::PATH, node::PROTOCOL).await?;
        debug!(%gateway, "connected to a gateway");
        let (to, mut outgoing) = mpsc::unbounded_channel::<FromNode>();
        let link = self.next.fetch_add(1, Ordering::Relaxed);
        self.metrics.links.inc();
        *up = Some(Up { links: self.clone(), link });
        self.parker.join(link, to.clone());
        let take = |message| match message {
            ToNode::Where { namespace, name, uid } => {
                debug!(namespace, name, uid, "a pod's address is awaited");
                self.awaited.change(|board| board.ask(uid, link, to.clone(), Instant::now()));
            }
            ToNode::Forget { uid } => self.awaited.change(|board| board.forget(&uid, link)),
            ToNode::Park { uid } => self.parker.order(&uid, true),
            ToNode::Thaw { uid } => self.parker.order(&uid, false),
            ToNode::Alive | ToNode::Unknown => {}
        };
        Ok(session::run(stream, MAX_LINE, &FromNode::Alive, &mut outgoing, take).await?)
    }
}

/// A connection that is there; also one whose task is ended leaves nothing behind.
struct Up {
    links: Links,
    link: u64,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.links.metrics.links.dec();
        self.links.parker.leave(self.link);
        self.links.awaited.change(|board| board.leave(self.link));
    }
}
