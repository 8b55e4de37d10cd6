//! Which agents freeze and thaw: those of a node that have said what is frozen there. In an update two may
//! be connected for a moment, and both are told.

use std::{collections::HashMap, sync::Arc};

use lambent_api::node::{FromNode, ToNode};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc::{self, UnboundedSender},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::warn;

use super::Nodes;
use crate::{
    directory::{AgentNews, Change},
    pool::parking::{Agent, Agents, Order},
};

/// News of one agent that wait to be applied; one that says more at once has to connect again.
const NEWS: usize = 1024;

/// Who is told to freeze and thaw.
#[derive(Debug)]
pub(super) struct Speakers {
    /// Since when agents can have come.
    since: Instant,
    by_node: Mutex<HashMap<Arc<str>, Node>>,
}

/// The agents of one node.
#[derive(Debug)]
struct Node {
    speakers: Vec<Speaker>,
    /// Since when there has been none.
    away_since: Instant,
}

#[derive(Debug)]
struct Speaker {
    session: u64,
    to: UnboundedSender<ToNode>,
    synced: bool,
}

impl Default for Speakers {
    fn default() -> Self {
        Self { since: Instant::now(), by_node: Mutex::default() }
    }
}

impl Speakers {
    /// Whether it is the only one of its node.
    fn join(&self, node: &Arc<str>, session: u64, to: UnboundedSender<ToNode>) -> bool {
        let mut by_node = self.by_node.lock();
        let new = || Node { speakers: Vec::new(), away_since: self.since };
        let node = by_node.entry(node.clone()).or_insert_with(new);
        node.speakers.push(Speaker { session, to, synced: false });
        node.speakers.len() == 1
    }

    fn synced(&self, node: &str, session: u64) {
        let mut by_node = self.by_node.lock();
        let speakers = by_node.get_mut(node).into_iter().flat_map(|node| &mut node.speakers);
        speakers.filter(|speaker| speaker.session == session).for_each(|speaker| speaker.synced = true);
    }

    /// Whether the node has nobody to speak to now.
    fn leave(&self, node: &str, session: u64) -> bool {
        let mut by_node = self.by_node.lock();
        let Some(node) = by_node.get_mut(node) else { return true };
        node.speakers.retain(|speaker| speaker.session != session);
        node.away_since = Instant::now();
        node.speakers.is_empty()
    }

    fn of(&self, node: &str) -> Agent {
        match self.by_node.lock().get(node) {
            Some(node) if node.speakers.iter().any(|speaker| speaker.synced) => Agent::Linked,
            Some(node) => Agent::Away(node.away_since),
            None => Agent::Away(self.since),
        }
    }

    fn tell(&self, node: &str, order: &Order) {
        let by_node = self.by_node.lock();
        let speakers = by_node.get(node).into_iter().flat_map(|node| &node.speakers);
        for speaker in speakers.filter(|speaker| speaker.synced) {
            let _ = speaker.to.send(match order {
                Order::Park(instance) => ToNode::Park { uid: instance.uid.clone() },
                Order::Thaw(instance) => ToNode::Thaw { uid: instance.uid.clone() },
            });
        }
    }
}

impl Agents for Nodes {
    fn of(&self, node: &str) -> Agent {
        self.speakers.of(node)
    }

    fn tell(&self, node: &str, order: &Order) {
        self.speakers.tell(node, order);
    }
}

/// What one agent says of frozen instances, on its way to the pools, in its order.
pub(super) struct Ear {
    node: Arc<str>,
    session: u64,
    to: mpsc::Sender<AgentNews>,
    /// It says more than can be listened to.
    pub(super) overrun: CancellationToken,
    /// Passes on; ends with the last news.
    passing: Option<AbortOnDropHandle<()>>,
}

impl Ear {
    /// A connection has been made.
    pub(super) fn open(nodes: &Nodes, node: &Arc<str>, session: u64, says: UnboundedSender<ToNode>) -> Self {
        let first = nodes.speakers.join(node, session, says);
        let (to, mut news) = mpsc::channel(NEWS);
        let (changes, of) = (nodes.changes.clone(), node.clone());
        let passing = tokio::spawn(async move {
            while let Some(news) = news.recv().await {
                if changes.send(Change::Agent(of.clone(), news)).await.is_err() {
                    return;
                }
            }
        });
        let passing = Some(AbortOnDropHandle::new(passing));
        let ear = Self { node: node.clone(), session, to, overrun: CancellationToken::new(), passing };
        if first {
            ear.pass_on(AgentNews::Linked);
        }
        ear
    }

    /// The agent says something.
    pub(super) fn hear(&self, nodes: &Nodes, message: FromNode) {
        let news = match message {
            FromNode::Parked { uid } => AgentNews::Parked(uid),
            FromNode::Running { uid } => AgentNews::Running(uid),
            FromNode::CantPark { uid, why } => {
                warn!(node = &*self.node, uid, why, "an instance can't be frozen");
                AgentNews::CannotPark(uid, why)
            }
            FromNode::Synced => {
                nodes.speakers.synced(&self.node, self.session);
                AgentNews::Synced
            }
            FromNode::At { .. } | FromNode::Alive | FromNode::Unknown => return,
        };
        self.pass_on(news);
    }

    /// The connection has ended.
    pub(super) async fn close(mut self, nodes: &Nodes) {
        let last = nodes.speakers.leave(&self.node, self.session);
        let passing = self.passing.take();
        if last {
            // Bounded by the applier, which never waits for us.
            let _ = self.to.send(AgentNews::Lost).await;
        }
        drop(self);
        if let Some(passing) = passing {
            let _ = passing.await;
        }
    }

    fn pass_on(&self, news: AgentNews) {
        if self.to.try_send(news).is_err() {
            self.overrun.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn park() -> Order {
        Order::Park(Arc::new(lambent_api::InstanceRef { name: "hello-1".into(), uid: "u-1".into() }))
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_told_once_it_has_said_all_that_is_frozen() {
        let speakers = Speakers::default();
        let node: Arc<str> = "a".into();
        let (first, mut to_first) = mpsc::unbounded_channel();
        let (second, mut to_second) = mpsc::unbounded_channel();
        assert_eq!(speakers.of("a"), Agent::Away(speakers.since));
        assert!(speakers.join(&node, 1, first));
        assert_eq!(speakers.of("a"), Agent::Away(speakers.since));
        speakers.synced("a", 1);
        assert_eq!(speakers.of("a"), Agent::Linked);
        assert!(!speakers.join(&node, 2, second));
        speakers.tell("a", &park());
        assert_eq!(to_first.try_recv(), Ok(ToNode::Park { uid: "u-1".into() }));
        assert!(to_second.try_recv().is_err());
        assert!(!speakers.leave(&node, 1));
        assert!(matches!(speakers.of("a"), Agent::Away(_)), "the other one has not said all");
        speakers.synced("a", 2);
        assert_eq!(speakers.of("a"), Agent::Linked);
        assert!(speakers.leave(&node, 2));
        assert_eq!(speakers.of("a"), Agent::Away(Instant::now()));
    }
}
