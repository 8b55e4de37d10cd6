//! Which agents freeze and thaw: of each node the one that has connected last, since it has said what is
//! frozen there.

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
    by_node: Mutex<HashMap<Arc<str>, Speaker>>,
}

#[derive(Debug)]
enum Speaker {
    Here { session: u64, to: UnboundedSender<ToNode>, synced: bool },
    Away(Instant),
}

impl Default for Speakers {
    fn default() -> Self {
        Self { since: Instant::now(), by_node: Mutex::default() }
    }
}

impl Speakers {
    fn join(&self, node: &Arc<str>, session: u64, to: UnboundedSender<ToNode>) {
        self.by_node.lock().insert(node.clone(), Speaker::Here { session, to, synced: false });
    }

    /// Whether a session is the last one of its node; one that has been replaced has no say.
    fn is_of(&self, node: &str, session: u64) -> bool {
        matches!(self.by_node.lock().get(node), Some(Speaker::Here { session: last, .. }) if *last == session)
    }

    fn synced(&self, node: &str, of: u64) {
        if let Some(Speaker::Here { session, synced, .. }) = self.by_node.lock().get_mut(node) {
            *synced |= *session == of;
        }
    }

    /// Whether the node has nobody to speak to now.
    fn leave(&self, node: &Arc<str>, session: u64) -> bool {
        let last = self.is_of(node, session);
        if last {
            self.by_node.lock().insert(node.clone(), Speaker::Away(Instant::now()));
        }
        last
    }

    fn of(&self, node: &str) -> Agent {
        match self.by_node.lock().get(node) {
            Some(Speaker::Here { synced: true, .. }) => Agent::Linked,
            Some(Speaker::Away(since)) => Agent::Away(*since),
            // It says what is frozen in this very moment.
            Some(Speaker::Here { synced: false, .. }) => Agent::Away(Instant::now()),
            None => Agent::Away(self.since),
        }
    }

    fn tell(&self, node: &str, order: &Order) {
        if let Some(Speaker::Here { to, .. }) = self.by_node.lock().get(node) {
            let _ = to.send(match order {
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
        nodes.speakers.join(node, session, says);
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
        ear.pass_on(AgentNews::Linked);
        ear
    }

    /// The agent says something.
    pub(super) fn hear(&self, nodes: &Nodes, message: FromNode) {
        if !nodes.speakers.is_of(&self.node, self.session) {
            return;
        }
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
    async fn an_agent_counts_once_it_has_said_all_and_the_last_one_is_asked() {
        let speakers = Speakers::default();
        let node: Arc<str> = "a".into();
        assert_eq!(speakers.of("a"), Agent::Away(speakers.since));
        let (first, mut to_first) = mpsc::unbounded_channel();
        speakers.join(&node, 1, first);
        assert!(matches!(speakers.of("a"), Agent::Away(_)));
        speakers.synced("a", 1);
        assert_eq!(speakers.of("a"), Agent::Linked);
        let (second, mut to_second) = mpsc::unbounded_channel();
        speakers.join(&node, 2, second);
        speakers.synced("a", 1);
        assert!(matches!(speakers.of("a"), Agent::Away(_)), "another one speaks now");
        speakers.synced("a", 2);
        speakers.tell("a", &park());
        assert!(to_first.try_recv().is_err());
        assert_eq!(to_second.try_recv(), Ok(ToNode::Park { uid: "u-1".into() }));
        assert!(!speakers.leave(&node, 1));
        assert_eq!(speakers.of("a"), Agent::Linked);
        assert!(speakers.leave(&node, 2));
        assert_eq!(speakers.of("a"), Agent::Away(Instant::now()));
    }
}
