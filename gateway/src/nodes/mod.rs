//! Addresses of pods before the API shows them. A node's agent is asked for those of its own pods that
//! have none yet, and is believed as far as the API server can't say otherwise (docs/decisions/0005).
//!
//! ```text
//! watch of pods -> directory --awaited--> desk --where--> agent of that node -> container runtime
//!                  directory <--early---- doubt <---at---'
//! ```

pub mod desk;
pub mod doubt;
pub mod metrics;
mod parking;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lambent_api::node::{FromNode, ToNode};
use lambent_fleet::{Instance, Phase};
use lambent_wire::session;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::timeout,
};
use tracing::{debug, warn};

pub use self::{
    doubt::{Doubt, Facts, Holder},
    metrics::{NodeMetrics, Outcome},
};

use self::{
    desk::{Desk, Pod},
    doubt::Checks,
    parking::{Ear, Speakers},
};
use crate::directory::Change;

/// No message is longer.
const MAX_LINE: usize = 16 << 10;
/// Then the agent connects again, with a token that is looked at anew.
const SESSION: Duration = Duration::from_secs(600);
/// By then the API shows the address itself.
const CHECKED_WITHIN: Duration = Duration::from_secs(2);

/// The agents of all nodes, as one gateway knows them.
pub struct Nodes {
    desk: Mutex<Desk>,
    speakers: Speakers,
    checks: Checks,
    metrics: NodeMetrics,
    changes: mpsc::Sender<Change>,
    sessions: AtomicU64,
}

impl Nodes {
    /// Checks what agents say by `facts`; what stands goes to `changes`.
    pub fn new(facts: Box<dyn Facts>, metrics: NodeMetrics, changes: mpsc::Sender<Change>) -> Self {
        let (desk, speakers, sessions) = (Mutex::default(), Speakers::default(), AtomicU64::new(0));
        Self { desk, speakers, checks: Checks::new(facts), metrics, changes, sessions }
    }

    /// Asks for the address of an instance, if that is of use, and no longer than it is.
    pub fn follow(&self, instance: &Instance) {
        let placed = instance.placed.as_ref().filter(|_| instance.phase == Phase::Starting);
        let awaited = placed.filter(|_| instance.address.is_none()).map(|placed| Pod {
            namespace: instance.namespace.clone(),
            name: instance.id.name.clone(),
            node: placed.node.as_str().into(),
        });
        let mut desk = self.desk.lock();
        match awaited {
            Some(pod) => desk.await_address(&instance.id.uid, pod),
            None => desk.settle(&instance.id.uid),
        }
    }

    /// An instance is gone.
    pub fn gone(&self, uid: &str) {
        self.desk.lock().settle(uid);
    }

    /// Counts what became of an address.
    pub fn count(&self, outcome: Outcome) {
        self.metrics.count(outcome);
    }

    /// Serves the agent of a node until the connection ends.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self: Arc<Self>, node: Arc<str>, stream: S) {
        let (to, mut outgoing) = mpsc::unbounded_channel();
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        if !self.desk.lock().join(&node, session, to.clone()) {
            warn!(node = &*node, "too many connections of one node's agent");
            return;
        }
        self.metrics.agents.inc();
        debug!(node = &*node, "the agent of a node has connected");
        let checks = self.clone();
        let of = node.clone();
        // Its first pod need not wait for this.
        tokio::spawn(async move { drop(timeout(CHECKED_WITHIN, checks.checks.ranges(&of)).await) });
        let ear = Ear::open(&self, &node, session, to);
        let overrun = ear.overrun.clone();
        let take = |message| match message {
            FromNode::At { uid, ip } => self.told(&node, session, uid, ip),
            message => ear.hear(&self, message),
        };
        let talk = session::run(stream, MAX_LINE, &ToNode::Alive, &mut outgoing, take);
        let outcome = tokio::select! {
            outcome = timeout(SESSION, talk) => outcome,
            () = overrun.cancelled() => Ok(Ok(())),
        };
        ear.close(&self).await;
        self.desk.lock().leave(&node, session);
        self.metrics.agents.dec();
        let error = outcome.ok().and_then(Result::err).map(|error| error.to_string());
        debug!(node = &*node, error, "the connection of a node's agent has ended");
    }

    /// An agent has answered. So many checks run at once as there are pods that it was asked about.
    fn told(self: &Arc<Self>, node: &Arc<str>, session: u64, uid: String, ip: IpAddr) {
        let Some(pod) = self.desk.lock().answered(node, session, &uid) else {
            debug!(node = &**node, uid, %ip, "an agent tells an address that it was not asked for");
            self.count(Outcome::Unasked);
            return;
        };
        let nodes = self.clone();
        tokio::spawn(async move { nodes.check(uid, pod, ip.to_canonical()).await });
    }

    async fn check(&self, uid: String, pod: Pod, ip: IpAddr) {
        let checked = timeout(CHECKED_WITHIN, self.checks.check(&uid, &pod.node, ip)).await;
        let Err(doubt) = checked.unwrap_or_else(|_| Err(Doubt::Unknown("not in time".into()))) else {
            let _ = self.changes.send(Change::Early { uid, ip }).await;
            return;
        };
        let outcome = if matches!(doubt, Doubt::Unknown(_)) { Outcome::Unchecked } else { Outcome::Refused };
        self.count(outcome);
        let Pod { namespace, name, node } = pod;
        warn!(namespace, name, node = &*node, %ip, %doubt, "an agent's address of a pod is not used");
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
