//! What all looks at Functions share: the caches, the memories and the ways out.

use std::{collections::HashMap, sync::Arc};

use kube::Client;
use lambent_api::{Function, FunctionKey, Guarded, Revision};
use lambent_compact::{Packed, give_back};
use lambent_fleet::Instance;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc::Sender};

use crate::{
    Config, caches::Kept, events::About, index::Index, lookup::Registries, memory::Memory, metrics::Metrics, pull,
    queue::Queue,
};

/// A Function as it is watched: one that can't be read must not stop the others.
pub(crate) type Watched = Guarded<Function>;

/// Connections that are being tried at once. Each is a socket and a timer.
const PROBES: usize = 1024;
/// Orders of all Functions that are under way at once. Whoever comes first is served first, and no
/// Function waits with more than its own few, so that none starves another.
const ORDERS: usize = 128;

/// Shared by all looks.
pub(crate) struct Context<F> {
    /// What the caller set.
    pub(crate) config: Config,
    /// The API server.
    pub(crate) client: Client,
    /// Where instances run.
    pub(crate) fleet: F,
    /// Functions to look at.
    pub(crate) queue: Arc<Queue>,
    /// All Functions, each as the one member of itself.
    pub(crate) functions: Mutex<Index<Kept>>,
    /// All Revisions.
    pub(crate) revisions: Mutex<Index<Packed>>,
    /// All instances.
    pub(crate) instances: Mutex<Index<Instance>>,
    /// A cache has become complete.
    pub(crate) completed: Notify,
    /// Image registries.
    pub(crate) registries: Arc<Registries>,
    /// Events on their way.
    pub(crate) events: Sender<About>,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Images to pull ahead.
    pub(crate) pulls: pull::Board,
    /// Bounds the connections that are tried at once.
    pub(crate) probes: Semaphore,
    /// Bounds the orders that are under way at once.
    pub(crate) orders: Semaphore,
    memories: Mutex<HashMap<FunctionKey, Box<Memory>>>,
}

impl<F> Context<F> {
    /// With empty caches.
    pub(crate) fn new(config: Config, client: Client, fleet: F, events: Sender<About>, metrics: Metrics) -> Self {
        let registries = Registries::new(client.clone(), config.plain_http_registries.clone(), config.builder.clone());
        Self {
            config,
            client,
            fleet,
            queue: Arc::default(),
            functions: Mutex::default(),
            revisions: Mutex::default(),
            instances: Mutex::default(),
            completed: Notify::new(),
            registries: Arc::new(registries),
            events,
            metrics,
            pulls: pull::Board::default(),
            probes: Semaphore::new(PROBES),
            orders: Semaphore::new(ORDERS),
            memories: Mutex::default(),
        }
    }

    /// Works with the memory of a Function. Never across an await.
    pub(crate) fn remember<T>(&self, function: &FunctionKey, work: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memories = self.memories.lock();
        match memories.get_mut(function) {
            Some(memory) => work(memory),
            None => work(memories.entry(function.clone()).or_default()),
        }
    }

    /// Works with the memory of a Function if there is one: news from the watch or from a task may
    /// come after the Function is gone.
    pub(crate) fn remember_if_known<T>(
        &self,
        function: &FunctionKey,
        work: impl FnOnce(&mut Memory) -> T,
    ) -> Option<T> {
        self.memories.lock().get_mut(function).map(|memory| work(memory))
    }

    /// The Function of this name, if there is one.
    pub(crate) fn function(&self, key: &FunctionKey) -> Option<Watched> {
        let kept = self.functions.lock().get(key, &key.name).cloned();
        // Unpacked without the lock.
        kept.map(|kept| kept.unpacked())
    }

    /// The Revisions of a Function.
    pub(crate) fn revisions_of(&self, function: &FunctionKey) -> Vec<Arc<Revision>> {
        let packed = self.revisions.lock().of(function);
        let unpack = |packed: &Packed| {
            let revision = packed.value().map(Arc::new);
            revision.inspect_err(|error| tracing::error!(%function, %error, "a Revision is lost")).ok()
        };
        packed.iter().filter_map(unpack).collect()
    }

    /// After a look at a Function: forgets what is found out again, or all if it is no more.
    pub(crate) fn looked_at(&self, function: &FunctionKey) {
        let is_there = self.functions.lock().get(function, &function.name).is_some();
        if !is_there {
            return self.forget(function);
        }
        let mut memories = self.memories.lock();
        if memories.get(function).is_some_and(|memory| memory.is_dispensable()) {
            memories.remove(function);
            give_back(&mut memories);
        }
    }

    /// Forgets a Function that is no more.
    pub(crate) fn forget(&self, function: &FunctionKey) {
        self.memories.lock().remove(function);
        self.metrics.forget(function);
        self.pulls.forget(function);
    }

    /// Whether images are pulled ahead. Nodes are seen by who sees all namespaces.
    pub(crate) fn pulls_ahead(&self) -> bool {
        self.config.namespace.is_none() && self.config.pull_ahead.is_some_and(|at_once| at_once > 0)
    }

    /// Ends all that goes on in the background for Functions.
    pub(crate) fn clear(&self) {
        self.memories.lock().clear();
    }

    /// Where a Function is called.
    pub(crate) fn url(&self, function: &FunctionKey) -> String {
        let FunctionKey { namespace, name } = function;
        match &self.config.public_url {
            Some(base) => format!("{}/fn/{namespace}/{name}", base.trim_end_matches('/')),
            None => format!("http://lambent-gateway.{}.svc/fn/{namespace}/{name}", self.config.system_namespace),
        }
    }
}
