//! The one task's work that keeps the [`Directory`] as the watches see it.

mod early;
mod observe;
mod parked;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use lambent_api::{FunctionKey, Name, Protocol, Reason, RevisionKey};
use lambent_compact::{Table, give_back};
use lambent_fleet::{Event, Instance, Phase, probe};
use tokio::{sync::mpsc::UnboundedSender, task::AbortHandle, time::Instant};

pub use self::parked::AgentNews;
use self::{observe::observe, parked::ByNode};
use super::{Change, Directory, FunctionView, RevisionView};
use crate::{
    function::Function,
    hub::Hub,
    member::Use,
    metrics::Metrics,
    nodes::{Nodes, Outcome},
    peers,
    pool::Serving,
};

/// Applies what the watches see, in the order in which it comes, whatever comes first.
pub struct Applier {
    directory: Arc<Directory>,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    /// Where Functions go whose owner is to be found; without it this gateway is the only one.
    newcomers: Option<UnboundedSender<peers::Event>>,
    /// Whom to ask for addresses; without it the API tells them.
    nodes: Option<Arc<Nodes>>,
    functions: Table<FunctionKey, KnownFunction>,
    revisions: Table<RevisionKey, KnownRevision>,
    instances: HashMap<String, KnownInstance>,
    /// Unique ids of a Function's instances.
    instances_of: HashMap<FunctionKey, HashSet<String>>,
    frozen: ByNode,
    /// Instances, of any Function, that do not answer yet.
    starting: Arc<AtomicU32>,
    /// Counts the fleet's restarts: what was not said since the last one is gone.
    round: u64,
}

/// What is kept of a Function's view.
struct KnownFunction {
    revision: Option<Name>,
    next: Option<Name>,
    stalled: Option<Arc<Reason>>,
}

/// What is kept of a Revision's view.
struct KnownRevision {
    wanted: u32,
    protocol: Protocol,
    proven: bool,
    not_startable: Option<Arc<Reason>>,
}

struct KnownInstance {
    instance: Instance,
    /// Its address is an agent's word; the API shows none yet.
    early: bool,
    round: u64,
    connecting: Option<AbortHandle>,
    /// How many others were starting when it was first seen.
    others: u32,
    /// Whether it was seen before its process ran: then it can't have been frozen before.
    seen_starting: bool,
}

impl Drop for KnownInstance {
    fn drop(&mut self) {
        if let Some(task) = &self.connecting {
            task.abort();
        }
    }
}

impl Applier {
    /// An empty one that fills `directory`. With `newcomers` nobody grants a new Function's slots
    /// before its owner is known.
    pub fn new(
        directory: Arc<Directory>,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        newcomers: Option<UnboundedSender<peers::Event>>,
    ) -> Self {
        Self {
            directory,
            hub,
            metrics,
            newcomers,
            nodes: None,
            functions: Table::default(),
            revisions: Table::default(),
            instances: HashMap::new(),
            instances_of: HashMap::new(),
            frozen: ByNode::default(),
            starting: Arc::default(),
            round: 0,
        }
    }

    /// Asks agents for addresses.
    #[must_use]
    pub fn with_nodes(mut self, nodes: Option<Arc<Nodes>>) -> Self {
        self.nodes = nodes;
        self
    }

    /// Applies one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Function(view) => self.function(view),
            Change::FunctionGone(key) => self.function_gone(&key),
            Change::Revision(view) => self.revision(view),
            Change::OnlyFunctions(listed) => {
                let gone: Vec<_> = self.functions.keys().filter(|key| !listed.contains(key)).cloned().collect();
                gone.iter().for_each(|key| self.function_gone(key));
            }
            Change::RevisionGone(key) => self.revision_gone(&key),
            Change::OnlyRevisions(listed) => {
                let gone: Vec<_> = self.revisions.keys().filter(|key| !listed.contains(key)).cloned().collect();
                gone.iter().for_each(|key| self.revision_gone(key));
            }
            Change::Synced(applied) => applied.cancel(),
            Change::Fleet(Event::Restarted) => self.round += 1,
            Change::Fleet(Event::Applied(instance)) => self.instance(instance),
            Change::Fleet(Event::Gone(instance)) => self.instance_gone(&instance.id.uid),
            Change::Fleet(Event::Complete) => self.drop_unsaid(),
            Change::Early { uid, ip } => self.early(&uid, ip),
            Change::Agent(node, news) => self.agent(&node, news),
            Change::Away(function, uid) => self.connect(&function, &uid),
        }
    }

    fn function(&mut self, view: FunctionView) {
        let known = self.directory.any(&view.key.namespace, &view.key.name);
        let FunctionView { key, settings, revision, next, stalled } = view;
        match (known, settings) {
            (Some(function), settings) => {
                if let Some(settings) = settings.filter(|s| *s != function.settings()) {
                    function.configure(settings);
                }
                function.set_callable(true);
            }
            (None, Some(settings)) => {
                let metrics = self.metrics.of(&key.namespace, &key.name);
                let function = Arc::new(Function::new(key.clone(), settings, metrics, self.hub.clone()));
                function.set_callable(true);
                if let Some(newcomers) = &self.newcomers {
                    function.await_owner();
                    self.directory.insert(function.clone());
                    let _ = newcomers.send(peers::Event::Function(function));
                } else {
                    self.directory.insert(function);
                }
            }
            // Never valid so far: nothing to serve.
            (None, None) => return,
        }
        let known = KnownFunction { revision, next, stalled: stalled.map(Arc::new) };
        let is_new = self.functions.insert(key.clone(), known).is_none();
        self.refresh(&key);
        if is_new {
            self.show_again(&key);
        }
    }

    fn revision(&mut self, view: RevisionView) {
        let RevisionView { key, wanted, protocol, proven, not_startable, stopping } = view;
        let known = KnownRevision { wanted, protocol, proven, not_startable: not_startable.map(Arc::new) };
        let is_new = self.revisions.insert(key.clone(), known).is_none();
        let Some(function) = self.refresh_of(&key) else { return };
        if is_new {
            self.show_again(&function);
        }
        // Whoever named them may have died since, and this gateway be the one that takes over.
        if let Some(function) = self.directory.any(&function.namespace, &function.name).filter(|_| !stopping.is_empty())
        {
            let now = Instant::now();
            function.change(|pool| stopping.iter().for_each(|instance| pool.mark_retired(&instance.uid, now)));
        }
    }

    fn revision_gone(&mut self, key: &RevisionKey) {
        self.revisions.remove(key);
        self.refresh_of(key);
    }

    /// Instances that were seen before their Function or Revision.
    fn show_again(&mut self, function: &FunctionKey) {
        let uids: Vec<String> = self.instances_of.get(function).into_iter().flatten().cloned().collect();
        uids.iter().for_each(|uid| self.show(uid));
    }

    fn function_gone(&mut self, key: &FunctionKey) {
        self.functions.remove(key);
        if let Some(function) = self.directory.any(&key.namespace, &key.name) {
            function.set_callable(false);
            self.forget_if_empty(&function);
        }
    }

    fn forget_if_empty(&self, function: &Arc<Function>) {
        if !function.is_callable() && function.is_empty() {
            self.directory.remove(&function.key);
        }
    }

    /// Tells the Function of a Revision what has become of that. Which Function.
    fn refresh_of(&self, key: &RevisionKey) -> Option<FunctionKey> {
        let (name, _) = key.name.rsplit_once('-')?;
        let function = FunctionKey::new(key.namespace.clone(), name);
        self.refresh(&function);
        Some(function)
    }

    fn refresh(&self, key: &FunctionKey) {
        let Some(view) = self.functions.get(key) else { return };
        let Some(function) = self.directory.any(&key.namespace, &key.name) else { return };
        let find = |name: &Name| self.revisions.get(&RevisionKey::new(key.namespace.clone(), name.clone()));
        let next = view.next.as_ref().filter(|name| find(name).is_some_and(|revision| revision.proven));
        let serving = view.revision.as_ref().and_then(|name| {
            let revision = find(name)?;
            Some(Serving {
                revision: name.as_str().into(),
                next: next.map(|name| name.as_str().into()),
                wanted: revision.wanted,
                not_startable: revision.not_startable.clone(),
            })
        });
        function.serve(serving, view.stalled.clone());
    }

    fn instance(&mut self, mut instance: Instance) {
        let uid = instance.id.uid.clone();
        let others = self.starting.load(Ordering::Relaxed);
        let round = self.round;
        self.instances_of.entry(instance.function_key()).or_default().insert(uid.clone());
        match self.instances.get_mut(&uid) {
            Some(known) => {
                known.early = known.early && !early::settle(known, &mut instance, self.nodes.as_deref());
                if known.instance.address.is_some_and(|before| instance.address != Some(before)) {
                    known.connecting.take().iter().for_each(AbortHandle::abort);
                }
                (known.instance, known.round) = (instance, round);
            }
            None => {
                let seen_starting = instance.phase != Phase::Running;
                let known = KnownInstance { instance, early: false, round, connecting: None, others, seen_starting };
                self.instances.insert(uid.clone(), known);
            }
        }
        if let (Some(nodes), Some(known)) = (&self.nodes, self.instances.get(&uid)) {
            nodes.follow(&known.instance);
        }
        self.show(&uid);
    }

    /// Tells an instance's Function of it, if that is known.
    fn show(&mut self, uid: &str) {
        let Some(known) = self.instances.get(uid) else { return };
        let FunctionKey { namespace, name } = known.instance.function_key();
        let Some(function) = self.directory.any(&namespace, &name) else { return };
        let connect = observe(&function, &known.instance, known.early, &self.starting);
        self.mind_frozen(&function, known);
        if connect {
            self.connect(&function, uid);
        }
    }

    /// Connects until the instance accepts, unless that is being done.
    fn connect(&mut self, function: &Arc<Function>, uid: &str) {
        let word = self.word_of_agent(function, uid);
        let Some(known) = self.instances.get_mut(uid) else { return };
        // Without its Revision it isn't known what it speaks.
        let Some(revision) = self.revisions.get(&known.instance.revision_key()) else { return };
        let protocol = revision.protocol;
        let Some(address) = known.instance.connectable() else { return };
        if known.connecting.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (function, uid, others) = (function.clone(), uid.to_owned(), known.others);
        let (starting, nodes) = (self.starting.clone(), self.nodes.clone());
        // Ends when the instance accepts; aborted when it goes or restarts.
        let task = tokio::spawn(async move {
            if let Some(word) = word {
                // One that is parked is not connected to before it goes on.
                function.change(|pool| pool.find_mut(&uid).map(|m| m.target.set_protocol(protocol)));
                word.spoken().await;
                if function.change(|pool| pool.find_mut(&uid).is_none_or(|m| m.usage != Use::Starting)) {
                    return;
                }
            }
            let stream = probe::until_accepts(address).await;
            if let Some(target) = function.change(|pool| pool.find_mut(&uid).map(|m| m.target.clone())) {
                target.set_protocol(protocol);
                if target.is_early()
                    && let Some(nodes) = nodes
                {
                    nodes.count(Outcome::Answered);
                }
                target.adopt(stream).await;
                let others = others.max(count_down(&starting));
                function.change(|pool| pool.answered(&uid, others, Instant::now()));
                function.tell();
            }
        });
        known.connecting = Some(task.abort_handle());
    }

    fn instance_gone(&mut self, uid: &str) {
        let Some(known) = self.instances.remove(uid) else { return };
        give_back(&mut self.instances);
        if let Some(nodes) = &self.nodes {
            nodes.gone(uid);
        }
        let key = known.instance.function_key();
        if let Entry::Occupied(mut uids) = self.instances_of.entry(key.clone()) {
            uids.get_mut().remove(uid);
            if uids.get().is_empty() {
                uids.remove();
                give_back(&mut self.instances_of);
            }
        }
        if let Some(function) = self.directory.any(&key.namespace, &key.name) {
            let was_starting = function.change(|pool| {
                let was_starting = pool.find_mut(uid).is_some_and(|m| m.started.answered.is_none());
                pool.remove(uid);
                was_starting
            });
            if was_starting {
                count_down(&self.starting);
            }
            function.tell();
            self.forget_if_empty(&function);
        }
    }

    fn drop_unsaid(&mut self) {
        let unsaid = self.instances.iter().filter(|(_, k)| k.round != self.round).map(|(uid, _)| uid.clone());
        for uid in unsaid.collect::<Vec<_>>() {
            self.instance_gone(&uid);
        }
    }
}

/// One less is starting; how many still are.
fn count_down(starting: &AtomicU32) -> u32 {
    let before = starting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
    before.unwrap_or(0).saturating_sub(1)
}
