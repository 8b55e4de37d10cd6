//! Where a Function's news go: to those who listen for signals, and to the cluster for a first
//! instance. Each channel holds at most one message per Function or instance.

use std::sync::Arc;

use futures::future::BoxFuture;
use lambent_api::signal::Drained;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    function::Function,
    pool::parking::{Agents, Order},
};

/// Raises a Revision's wanted count from zero to one.
pub trait Raise: Send + Sync {
    /// Tries once; a failure is logged where it happens and tried again by the caller. Bounded in time.
    fn raise<'a>(&'a self, namespace: &'a str, revision: &'a str) -> BoxFuture<'a, ()>;
}

/// News from Functions.
pub enum News {
    /// Its load has changed in a way that can't wait.
    Changed(Arc<Function>),
    /// A stopping instance has no request any more.
    Drained(Drained),
    /// An instance that answered before does not accept connections.
    Away(Arc<Function>, String),
}

/// Takes the news.
pub struct Hub {
    news: UnboundedSender<News>,
    raise: Box<dyn Raise>,
    agents: Arc<dyn Agents>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub")
    }
}

impl Hub {
    /// Sends news there.
    pub fn new(news: UnboundedSender<News>, raise: Box<dyn Raise>, agents: Arc<dyn Agents>) -> Self {
        Self { news, raise, agents }
    }

    /// What is known of the nodes' agents.
    pub fn agents(&self) -> &dyn Agents {
        &*self.agents
    }

    /// Tells the agents what they have to do.
    pub fn order(&self, orders: &[(Arc<str>, Order)]) {
        orders.iter().for_each(|(node, order)| self.agents.tell(node, order));
    }

    /// A Function's load has changed.
    pub fn changed(&self, function: Arc<Function>) {
        let _ = self.news.send(News::Changed(function));
    }

    /// A stopping instance can be ended.
    pub fn drained(&self, drained: Drained) {
        let _ = self.news.send(News::Drained(drained));
    }

    /// An instance does not accept connections any more.
    pub fn away(&self, function: Arc<Function>, uid: String) {
        let _ = self.news.send(News::Away(function, uid));
    }

    /// Asks for a first instance.
    pub async fn raise(&self, namespace: &str, revision: &str) {
        self.raise.raise(namespace, revision).await;
    }
}
