//! What the autoscaler knows, and what follows from it: news in, orders out. No clock, no socket.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use lambent_api::{
    FunctionKey, Name, RevisionKey, Settings,
    signal::{Load, Message, Retired},
};
use lambent_compact::Table;
use tokio::time::Instant;

use crate::{
    decide::{self, Situation},
    link::LinkEvent,
    order::{Order, Reason},
    revision::RevisionState,
    start_model::StartModel,
};

/// A write or a question that was not heard of for so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// What the autoscaler needs of a Function.
#[derive(Clone, Debug)]
pub struct FunctionView {
    /// Which.
    pub key: FunctionKey,
    /// Its settings; none if they are invalid, and then the last good ones stay.
    pub settings: Option<Arc<Settings>>,
    /// The Revision that serves.
    pub serving: Option<Name>,
    /// The Revision made from the current spec.
    pub latest: Option<Name>,
}

/// What the autoscaler needs of a Revision.
#[derive(Clone, Debug)]
pub struct RevisionView {
    /// Which.
    pub key: RevisionKey,
    /// Its Function's name.
    pub function: String,
    /// Its wanted count.
    pub wanted: u32,
    /// Whether an instance of it has answered once.
    pub proven: bool,
}

/// News.
#[derive(Clone, Debug)]
pub enum Input {
    /// A Function is there or has changed.
    Function(FunctionView),
    /// A Function is gone.
    FunctionGone(FunctionKey),
    /// There are no Functions but these.
    OnlyFunctions(HashSet<FunctionKey>),
    /// A Revision is there or has changed.
    Revision(RevisionView),
    /// A Revision is gone.
    RevisionGone(RevisionKey),
    /// There are no Revisions but these.
    OnlyRevisions(HashSet<RevisionKey>),
    /// From a gateway.
    Link(SocketAddr, LinkEvent),
    /// The gateways that there are.
    Gateways(BTreeSet<SocketAddr>),
    /// A gateway has stopped using instances.
    Retired(RevisionKey, Retired),
    /// An order could not be carried out.
    Failed(RevisionKey),
    /// Time has passed.
    Tick,
}

/// A Revision is made before the status of its Function names it: for so long one that was never named is not
/// taken for superseded.
const INTRODUCED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Default)]
struct FunctionState {
    settings: Option<Arc<Settings>>,
    serving: Option<Name>,
    latest: Option<Name>,
    /// Since when `serving` is what it is.
    since: Option<Instant>,
    /// Learned from its own starts; of all Functions' until it has some.
    start: Option<StartModel>,
}

impl FunctionState {
    fn names(&self, revision: &str) -> bool {
        [&self.serving, &self.latest].into_iter().flatten().any(|name| name == revision)
    }
}

/// All that is known.
#[derive(Default)]
pub struct Book {
    start: StartModel,
    functions: Table<FunctionKey, FunctionState>,
    revisions: Table<RevisionKey, RevisionState>,
    gateways: BTreeSet<SocketAddr>,
    synced: HashMap<SocketAddr, Instant>,
}

/// Who asks for the first instance. A gateway where something waits does so in the moment in which it says
/// that: a second writer would only lose the race or win it, and either costs the start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FromZero {
    GatewayDoes,
    NobodyDid,
}

impl Book {
    /// Takes news; what is to be done now.
    pub fn apply(&mut self, input: Input, now: Instant) -> Vec<Order> {
        match input {
            Input::Function(view) => self.function(view, now),
            Input::FunctionGone(key) => {
                self.functions.remove(&key);
                Vec::new()
            }
            Input::OnlyFunctions(listed) => {
                self.functions.retain(|key, _| listed.contains(key));
                Vec::new()
            }
            Input::Revision(view) => self.revision(&view, now),
            Input::RevisionGone(key) => {
                self.revisions.remove(&key);
                Vec::new()
            }
            Input::OnlyRevisions(listed) => {
                self.revisions.retain(|key, _| listed.contains(key));
                Vec::new()
            }
            Input::Gateways(gateways) => {
                self.synced.retain(|gateway, _| gateways.contains(gateway));
                self.revisions.values_mut().for_each(|revision| revision.keep_loads(&gateways));
                self.gateways = gateways;
                Vec::new()
            }
            Input::Link(gateway, event) => self.link(gateway, event, now),
            Input::Retired(key, retired) => self.retired(&key, retired, now).into_iter().collect(),
            Input::Failed(key) => {
                let changed = self.revisions.get_mut(&key).is_some_and(|revision| revision.clear());
                // Otherwise the news is still to come, or the next tick tries again.
                changed.then(|| self.more(&key, now)).flatten().into_iter().collect()
            }
            Input::Tick => {
                self.revisions.values_mut().for_each(|revision| revision.forget_what_is_over(now));
                let keys: Vec<RevisionKey> = self.revisions.keys().cloned().collect();
                keys.iter().filter_map(|key| self.more(key, now).or_else(|| self.fewer(key, now))).collect()
            }
        }
    }

    fn function(&mut self, view: FunctionView, now: Instant) -> Vec<Order> {
        let state = self.functions.get_or_insert_with(view.key.clone(), FunctionState::default);
        state.settings = view.settings.or(state.settings.take());
        if state.serving != view.serving {
            state.since = Some(now);
        }
        (state.serving, state.latest) = (view.serving.clone(), view.latest);
        for name in [&state.serving, &state.latest].into_iter().flatten() {
            let named = self.revisions.get_mut(&RevisionKey::new(view.key.namespace.clone(), name.clone()));
            named.into_iter().for_each(|revision| revision.introduced = true);
        }
        let serving = view.serving.map(|name| RevisionKey::new(view.key.namespace.clone(), name));
        serving.and_then(|key| self.more(&key, now)).into_iter().collect()
    }

    fn revision(&mut self, view: &RevisionView, now: Instant) -> Vec<Order> {
        let revision = self.revisions.get_or_insert_with(view.key.clone(), || RevisionState::new(view, now));
        revision.observe(view, now);
        revision.introduced |= self.functions.get(&revision.function).is_some_and(|f| f.names(&view.key.name));
        self.more(&view.key, now).into_iter().collect()
    }

    /// More instances, if that is due.
    fn more(&mut self, key: &RevisionKey, now: Instant) -> Option<Order> {
        self.backlog(key, FromZero::NobodyDid, now).or_else(|| self.warm(key, now))
    }

    /// Never below `scale.min` while it serves.
    fn warm(&mut self, key: &RevisionKey, now: Instant) -> Option<Order> {
        let revision = self.revisions.get_mut(key)?;
        let function = self.functions.get(&revision.function)?;
        let min = function.settings.as_ref().map_or(0, |s| s.min);
        let serves = function.serving.as_ref() == Some(&key.name);
        if serves { revision.raise(min, Reason::WarmMinimum, now) } else { None }
    }

    fn link(&mut self, gateway: SocketAddr, event: LinkEvent, now: Instant) -> Vec<Order> {
        match event {
            // A gateway that has just been (re)connected to may know less than the last one did.
            LinkEvent::Up | LinkEvent::Down => {
                self.synced.remove(&gateway);
                self.revisions.values_mut().for_each(|revision| revision.forget_load(gateway));
                Vec::new()
            }
            LinkEvent::Message(Message::Synced) => {
                self.synced.entry(gateway).or_insert(now);
                Vec::new()
            }
            LinkEvent::Message(Message::Load(load)) => self.load(gateway, load, now).into_iter().collect(),
            LinkEvent::Message(Message::Drained(_)) => Vec::new(),
        }
    }

    fn load(&mut self, gateway: SocketAddr, load: Load, now: Instant) -> Option<Order> {
        let key = RevisionKey::new(load.namespace.clone(), load.revision.clone());
        let revision = self.revisions.get_mut(&key)?;
        let function = self.functions.get_mut(&revision.function)?;
        for start in &load.starts {
            function.start.get_or_insert(self.start).observe(*start);
            self.start.observe(*start);
        }
        let begins = load.serving && !revision.serves_at(gateway);
        let serving = begins.then(|| revision.function.clone());
        revision.take_load(gateway, load, function.settings.as_ref()?, now);
        if let Some(function) = serving {
            self.serves_no_other(gateway, &function, &key);
        }
        self.backlog(&key, FromZero::GatewayDoes, now).or_else(|| self.follow(&key, now))
    }

    /// What gateways have thawed by themselves and need is asked for too, so that it goes on until the
    /// load has been lower for `scale.idle`.
    fn follow(&mut self, key: &RevisionKey, now: Instant) -> Option<Order> {
        let revision = self.revisions.get_mut(key)?;
        let settings = self.functions.get(&revision.function)?.settings.as_ref().filter(|s| s.parked > 0)?;
        if !revision.proven || !revision.load(now).serving {
            return None;
        }
        let busy = revision.busy(settings, now).min(settings.max);
        revision.raise(busy, Reason::Thawed, now)
    }

    /// A gateway sends a Function's requests to one Revision: what it said of the one before is over.
    fn serves_no_other(&mut self, gateway: SocketAddr, function: &FunctionKey, serving: &RevisionKey) {
        let others = self.revisions.iter_mut().filter(|(key, revision)| {
            key.namespace == serving.namespace && *key != serving && revision.function == *function
        });
        others.for_each(|(_, revision)| revision.no_longer_serves(gateway));
    }

    /// What waits decides, once an instance has shown that it can answer: a Revision that proves
    /// itself has the one instance that it needs for that.
    fn backlog(&mut self, key: &RevisionKey, from_zero: FromZero, now: Instant) -> Option<Order> {
        let revision = self.revisions.get_mut(key)?;
        let function = self.functions.get(&revision.function)?;
        let settings = function.settings.as_ref()?;
        let load = revision.load(now);
        if load.queued == 0 || !load.serving || !revision.proven {
            return None;
        }
        let wanted = revision.wanted(now);
        // The gateway lets them go on at once for those who wait.
        let thawing = load.parked.min(load.queued.div_ceil(settings.concurrency.get()));
        let ready = load.ready + thawing;
        let situation = Situation {
            queued: load.queued,
            in_flight: load.in_flight,
            arriving: revision.arriving(),
            ready,
            starting: wanted.saturating_sub(ready),
            starting_for: revision.starting_for(now),
            concurrency: settings.concurrency.get(),
            service_seconds: load.service_seconds,
            start: function.start.unwrap_or(self.start),
            max: settings.max,
        };
        let least = if function.serving.as_ref() == Some(&key.name) { settings.min } else { 0 };
        let to = decide::wanted(&situation).max(least).min(settings.max);
        if (wanted, to, from_zero) == (0, 1, FromZero::GatewayDoes) {
            return None;
        }
        revision.raise(to, Reason::Backlog, now)
    }

    /// Since when every gateway has told everything; none while one is missing.
    fn covered_since(&self) -> Option<Instant> {
        let known = self.gateways.iter().all(|gateway| self.synced.contains_key(gateway));
        self.synced.values().max().copied().filter(|_| known && !self.gateways.is_empty())
    }

    /// What may go. Never for lack of news.
    fn fewer(&mut self, key: &RevisionKey, now: Instant) -> Option<Order> {
        let covered = self.covered_since()?;
        let revision = self.revisions.get_mut(key)?;
        let function = self.functions.get(&revision.function)?;
        let settings = function.settings.as_ref()?;
        if function.serving.is_none() && function.latest.is_none() {
            // The controller has not said yet, or again, which one is which.
            return None;
        }
        let (keep, reason) = if function.serving.as_ref() == Some(&key.name) {
            let since = covered.max(revision.known_since).max(function.since.unwrap_or(now));
            let long_enough = now.duration_since(since) >= settings.idle;
            let wanted = revision.wanted(now);
            let needed = if long_enough { revision.needed(settings, now).max(settings.min) } else { wanted };
            if needed <= settings.max { (needed, Reason::IdleWindow) } else { (settings.max, Reason::MaximumLowered) }
        } else if function.latest.as_ref() == Some(&key.name) {
            // Still proving itself: the controller started it for that.
            return None;
        } else if revision.load(now).queued > 0 {
            // A gateway that has not heard yet sends requests there, and would have it raised again.
            return None;
        } else if !revision.introduced && now.duration_since(revision.known_since) < INTRODUCED_WITHIN {
            return None;
        } else {
            (0, Reason::Superseded)
        };
        revision.ask_to_retire(keep, reason, now)
    }

    fn retired(&mut self, key: &RevisionKey, retired: Retired, now: Instant) -> Option<Order> {
        self.revisions.get_mut(key)?.lower(retired, now)
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
