//! What the nodes' agents say of frozen instances, passed on to the pools.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use lambent_api::{FunctionKey, Reason};
use lambent_fleet::Phase;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Applier, KnownInstance, count_down};
use crate::{
    function::{Function, Waiter},
    pool::{
        Pool,
        parking::{Order, Orders},
    },
};

/// What runs already when this gateway first sees it may be frozen: it is used when the agent of its node
/// has said what is, or when none has come in this time.
const SPEAKS_WITHIN: Duration = Duration::from_secs(3);

/// What the agent of a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentNews {
    /// The only one has connected: what is frozen follows, up to `Synced`.
    Linked,
    /// An instance is frozen.
    Parked(String),
    /// An instance runs.
    Running(String),
    /// An instance could not be frozen, and runs.
    CannotPark(String, String),
    /// All that is frozen was said.
    Synced,
    /// No agent of the node is connected any more.
    Lost,
}

/// What is known of one node.
#[derive(Debug)]
struct Node {
    /// Unique ids of what is frozen there.
    frozen: HashSet<String>,
    synced: CancellationToken,
    /// Since when its agent is expected.
    since: Instant,
}

/// What is known of all nodes whose agents were ever heard of or waited for.
#[derive(Debug, Default)]
pub(super) struct ByNode(HashMap<String, Node>);

impl ByNode {
    fn node(&mut self, name: &str) -> &mut Node {
        let new = || Node { frozen: HashSet::new(), synced: CancellationToken::new(), since: Instant::now() };
        self.0.entry(name.to_owned()).or_insert_with(new)
    }

    fn is_frozen(&self, node: &str, uid: &str) -> bool {
        self.0.get(node).is_some_and(|node| node.frozen.contains(uid))
    }
}

impl Applier {
    pub(super) fn agent(&mut self, node: &str, news: AgentNews) {
        let now = Instant::now();
        match news {
            AgentNews::Linked => self.frozen.node(node).frozen.clear(),
            AgentNews::Parked(uid) => {
                self.frozen.node(node).frozen.insert(uid.clone());
                self.to_pool(node, &uid, |pool| pool.parked(&uid, now));
            }
            AgentNews::Running(uid) => {
                self.frozen.node(node).frozen.remove(&uid);
                self.to_pool(node, &uid, |pool| {
                    pool.running(&uid, now);
                    Orders::new()
                });
            }
            AgentNews::CannotPark(uid, why) => {
                let why = Reason::new("FreezerUnavailable", why);
                self.to_pool(node, &uid, |pool| {
                    pool.cannot_park(&uid, why, now);
                    Orders::new()
                });
            }
            AgentNews::Synced => self.agent_synced(node, now),
            AgentNews::Lost => {
                let node = self.frozen.node(node);
                node.frozen.clear();
                (node.synced, node.since) = (CancellationToken::new(), now);
            }
        }
    }

    /// Only about instances of that very node: an agent has no say in others.
    fn to_pool(&self, node: &str, uid: &str, change: impl FnOnce(&mut Pool<Waiter>) -> Orders) {
        let Some(known) = self.instances.get(uid).filter(|k| k.instance.node.as_deref() == Some(node)) else { return };
        let FunctionKey { namespace, name } = known.instance.function_key();
        if let Some(function) = self.directory.any(&namespace, &name) {
            self.change(&function, uid, change);
            function.tell();
        }
    }

    /// One that an agent speaks of was started before, though this gateway may not have seen it answer.
    fn change(&self, function: &Arc<Function>, uid: &str, change: impl FnOnce(&mut Pool<Waiter>) -> Orders) {
        let starts = |pool: &mut Pool<Waiter>| pool.find_mut(uid).is_some_and(|m| m.started.answered.is_none());
        let (orders, started) = function.change(|pool| {
            let before = starts(pool);
            (change(pool), before && !starts(pool))
        });
        if started {
            count_down(&self.starting);
        }
        function.order(&orders);
    }

    fn agent_synced(&mut self, node: &str, now: Instant) {
        let there = self.instances.values().filter(|k| k.instance.node.as_deref() == Some(node));
        let functions: HashSet<FunctionKey> = there.map(|known| known.instance.function_key()).collect();
        let state = self.frozen.node(node);
        for key in functions {
            if let Some(function) = self.directory.any(&key.namespace, &key.name) {
                function.change(|pool| pool.agent_synced(node, |uid| state.frozen.contains(uid), now));
                function.tell();
            }
        }
        state.synced.cancel();
    }

    /// An instance is shown that its node's agent may have spoken of before. One that is to end is let go
    /// on first: a frozen process does not hear of its end.
    pub(super) fn mind_frozen(&self, function: &Arc<Function>, known: &KnownInstance) {
        let instance = &known.instance;
        let Some(node) = instance.node.as_deref().filter(|node| self.frozen.is_frozen(node, &instance.id.uid)) else {
            return;
        };
        let uid = &instance.id.uid;
        if instance.phase == Phase::Stopping {
            function.order(&[(node.into(), Order::Thaw(Arc::new(instance.id.clone())))]);
        } else {
            self.change(function, uid, |pool| pool.parked(uid, Instant::now()));
        }
    }

    /// What has to be known before a connection says that an instance answers; nothing for one that this
    /// gateway has seen before it ran.
    pub(super) fn word_of_agent(&mut self, function: &Function, uid: &str) -> Option<Word> {
        let known = self.instances.get(uid)?;
        if self.nodes.is_none() || known.seen_starting || function.settings().parked == 0 {
            return None;
        }
        let node = self.frozen.node(known.instance.node.as_deref()?);
        Some(Word { synced: node.synced.clone(), until: node.since + SPEAKS_WITHIN })
    }
}

/// What an agent will say, or not.
pub(super) struct Word {
    synced: CancellationToken,
    until: Instant,
}

impl Word {
    /// Ends when all that is frozen is known, or when that can't be waited for any longer.
    pub(super) async fn spoken(self) {
        let _ = timeout_at(self.until, self.synced.cancelled()).await;
    }
}
