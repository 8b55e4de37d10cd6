//! All Functions, by name: what the request path looks up, and what the watches change.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use arc_swap::ArcSwap;
use lambent_api::{FunctionKey, Reason, RevisionKey, Settings};
use lambent_fleet::{Event, Instance, Phase, probe};
use tokio::{sync::mpsc::UnboundedSender, task::AbortHandle, time::Instant};

use crate::{function::Function, hub::Hub, member::Use, metrics::Metrics, peers, pool::Serving};

/// What the gateway needs of a Function.
#[derive(Clone, Debug)]
pub struct FunctionView {
    /// Which.
    pub key: FunctionKey,
    /// Settings of the path; none if they are invalid, and then the last good ones stay.
    pub settings: Option<Arc<Settings>>,
    /// The Revision that new requests go to: the serving one, else the one that is proving itself.
    pub revision: Option<String>,
    /// Why there will be no Revision unless something changes.
    pub stalled: Option<Reason>,
}

/// What the gateway needs of a Revision.
#[derive(Clone, Debug)]
pub struct RevisionView {
    /// Which.
    pub key: RevisionKey,
    /// Its wanted count.
    pub wanted: u32,
    /// Why no instance of it can start.
    pub not_startable: Option<Reason>,
}

/// A change that a watch has seen.
#[derive(Debug)]
pub enum Change {
    /// A Function is there or has changed.
    Function(FunctionView),
    /// A Function is gone.
    FunctionGone(FunctionKey),
    /// A Revision is there or has changed.
    Revision(RevisionView),
    /// A Revision is gone.
    RevisionGone(RevisionKey),
    /// Instances.
    Fleet(Event),
    /// An instance that answered before does not.
    Away(Arc<Function>, String),
}

type Table = HashMap<String, HashMap<String, Arc<Function>>>;

/// The Functions that there are; looked up without a lock and without an allocation.
#[derive(Debug, Default)]
pub struct Directory {
    table: ArcSwap<Table>,
}

impl Directory {
    /// The Function of this name, if it can be called.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Function>> {
        self.any(namespace, name).filter(|f| f.is_callable())
    }

    /// The Function of this name, or what is left of it.
    pub fn any(&self, namespace: &str, name: &str) -> Option<Arc<Function>> {
        self.table.load().get(namespace)?.get(name).cloned()
    }

    /// Everything, also what is left of deleted ones.
    pub fn all(&self) -> Vec<Arc<Function>> {
        self.table.load().values().flat_map(HashMap::values).cloned().collect()
    }

    fn update(&self, change: impl FnOnce(&mut Table)) {
        let mut table = Table::clone(&self.table.load());
        change(&mut table);
        self.table.store(Arc::new(table));
    }

    fn insert(&self, function: Arc<Function>) {
        let FunctionKey { namespace, name } = function.key.clone();
        self.update(|table| drop(table.entry(namespace).or_default().insert(name, function)));
    }

    fn remove(&self, key: &FunctionKey) {
        self.update(|table| {
            if let Some(functions) = table.get_mut(&key.namespace) {
                functions.remove(&key.name);
                if functions.is_empty() {
                    table.remove(&key.namespace);
                }
            }
        });
    }
}

/// Applies what the watches see, in the order in which it comes, whatever comes first.
pub struct Applier {
    directory: Arc<Directory>,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    /// Where Functions go whose owner is to be found; without it this gateway is the only one.
    newcomers: Option<UnboundedSender<peers::Event>>,
    functions: HashMap<FunctionKey, FunctionView>,
    revisions: HashMap<RevisionKey, RevisionView>,
    instances: HashMap<String, Known>,
    /// Instances, of any Function, that do not answer yet.
    starting: Arc<AtomicU32>,
    /// Counts the fleet's restarts: what was not said since the last one is gone.
    round: u64,
}

struct Known {
    instance: Instance,
    round: u64,
    connecting: Option<AbortHandle>,
    /// How many others were starting when it was first seen.
    others: u32,
}

impl Drop for Known {
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
            functions: HashMap::new(),
            revisions: HashMap::new(),
            instances: HashMap::new(),
            starting: Arc::default(),
            round: 0,
        }
    }

    /// Applies one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Function(view) => self.function(view),
            Change::FunctionGone(key) => self.function_gone(&key),
            Change::Revision(view) => {
                let key = view.key.clone();
                self.revisions.insert(key.clone(), view);
                self.refresh_of(&key);
            }
            Change::RevisionGone(key) => {
                self.revisions.remove(&key);
                self.refresh_of(&key);
            }
            Change::Fleet(Event::Restarted) => self.round += 1,
            Change::Fleet(Event::Applied(instance)) => self.instance(instance),
            Change::Fleet(Event::Gone(instance)) => self.instance_gone(&instance.id.uid),
            Change::Fleet(Event::Complete) => self.drop_unsaid(),
            Change::Away(function, uid) => self.connect(&function, &uid),
        }
    }

    fn function(&mut self, view: FunctionView) {
        let known = self.directory.any(&view.key.namespace, &view.key.name);
        match (known, view.settings.clone()) {
            (Some(function), settings) => {
                if let Some(settings) = settings.filter(|s| *s != function.settings()) {
                    function.configure(settings);
                }
                function.set_callable(true);
            }
            (None, Some(settings)) => {
                let metrics = self.metrics.of(&view.key.namespace, &view.key.name);
                let function = Arc::new(Function::new(view.key.clone(), settings, metrics, self.hub.clone()));
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
        let key = view.key.clone();
        let is_new = self.functions.insert(key.clone(), view).is_none();
        self.refresh(&key);
        if is_new {
            self.adopt_instances(&key);
        }
    }

    /// Instances that were seen before their Function.
    fn adopt_instances(&mut self, key: &FunctionKey) {
        let mine = self.instances.values().filter(|k| k.instance.function_key() == *key);
        for instance in mine.map(|k| k.instance.clone()).collect::<Vec<_>>() {
            self.instance(instance);
        }
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

    /// Tells the Function of a Revision what has become of that.
    fn refresh_of(&self, key: &RevisionKey) {
        if let Some((name, _)) = key.name.rsplit_once('-') {
            self.refresh(&FunctionKey::new(&key.namespace, name));
        }
    }

    fn refresh(&self, key: &FunctionKey) {
        let Some(view) = self.functions.get(key) else { return };
        let Some(function) = self.directory.any(&key.namespace, &key.name) else { return };
        let revision = view.revision.as_ref().map(|name| RevisionKey::new(&key.namespace, name));
        let serving = revision.and_then(|r| self.revisions.get(&r)).map(|revision| Serving {
            revision: revision.key.name.as_str().into(),
            wanted: revision.wanted,
            not_startable: revision.not_startable.clone(),
        });
        function.serve(serving, view.stalled.clone());
    }

    fn instance(&mut self, instance: Instance) {
        let uid = instance.id.uid.clone();
        let key = instance.function_key();
        let others = self.starting.load(Ordering::Relaxed);
        let round = self.round;
        let known = self.instances.entry(uid.clone()).or_insert_with(|| Known {
            instance: instance.clone(),
            round,
            connecting: None,
            others,
        });
        known.instance = instance;
        known.round = round;
        let Some(function) = self.directory.any(&key.namespace, &key.name) else { return };
        if observe(&function, &known.instance, &self.starting) {
            self.connect(&function, &uid);
        }
    }

    /// Connects until the instance accepts, unless that is being done.
    fn connect(&mut self, function: &Arc<Function>, uid: &str) {
        let Some(known) = self.instances.get_mut(uid) else { return };
        let Some(address) = known.instance.connectable() else { return };
        if known.connecting.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (function, uid, others) = (function.clone(), uid.to_owned(), known.others);
        let starting = self.starting.clone();
        // Ends when the instance accepts; aborted when it goes or restarts.
        let task = tokio::spawn(async move {
            let stream = probe::until_accepts(address).await;
            if let Some(target) = function.change(|pool| pool.find_mut(&uid).map(|m| m.target.clone())) {
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
        let key = known.instance.function_key();
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

/// Tells the pool what has become of an instance. Whether a connection is to be tried.
fn observe(function: &Arc<Function>, instance: &Instance, starting: &AtomicU32) -> bool {
    let now = Instant::now();
    let (connect, drained) = function.change(|pool| {
        if pool.find_mut(&instance.id.uid).is_none() {
            if matches!(instance.phase, Phase::Ended(_)) {
                return (false, None);
            }
            pool.add(Arc::new(instance.id.clone()), instance.revision.as_str().into(), now);
            starting.fetch_add(1, Ordering::Relaxed);
        }
        let Some(member) = pool.find_mut(&instance.id.uid) else { return (false, None) };
        if std::mem::take(&mut member.gone) {
            // Another gateway has used it before our watch showed it.
            member.usage = Use::Starting;
            starting.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(address) = instance.address {
            member.target.set_address(address);
            member.started.addressed.get_or_insert(now);
        }
        if instance.restarts > member.restarts {
            member.restarts = instance.restarts;
            member.target.clear();
            member.usage = if member.usage == Use::Stopping { Use::Stopping } else { Use::Starting };
        }
        match instance.phase {
            Phase::Stopping | Phase::Ended(_) => member.usage = Use::Stopping,
            Phase::Unready | Phase::Failing(_) if member.usage != Use::Stopping => member.usage = Use::Starting,
            _ => {}
        }
        let drained = instance.phase == Phase::Stopping && member.in_flight == 0;
        (member.usage == Use::Starting && instance.connectable().is_some(), drained.then(|| instance.id.clone()))
    });
    if let Some(id) = drained {
        function.drained(id);
    }
    function.tell();
    connect
}
