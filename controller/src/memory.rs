//! What the controller remembers of one Function between two looks at it: what an instance's
//! status can't tell (whether it answered, since when it has been trying) and what the caches don't
//! show yet (orders and stops under way). All of it may be lost in a restart: it's found out again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lambent_api::{FunctionStatus, InstanceRef, Reason, RevisionStatus, Settings};
use lambent_fleet::{Instance, Phase};
use tokio_util::task::AbortOnDropHandle;

use crate::{backoff::Backoff, elapsed::Elapsed, lookup::Lookup, parked::Parked};

/// An order or a stop that no watch has confirmed by then is taken for lost and repeated.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);
/// How long the status that was written last is trusted over a cache that may be late.
const WRITTEN_HOLDS: Duration = Duration::from_secs(2);

/// How far an instance is, as far as its Function is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It answers.
    Ready,
    /// It has not answered yet, and may take until then.
    Starting(Instant),
    /// It has not answered within `startTimeout`.
    Overdue,
    /// It has answered, and now its readiness probe fails.
    Unready,
    /// It can't start for now.
    Failing(Reason),
    /// It won't come back.
    Ended,
    /// It is being stopped.
    Stopping,
}

/// An instance with how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Which one.
    pub(crate) id: InstanceRef,
    /// When it was ordered.
    pub(crate) created: Timestamp,
    /// How far it is.
    pub(crate) state: State,
}

/// The memory of one Function.
#[derive(Default)]
pub(crate) struct Memory {
    /// While those of the spec are invalid: the last ones that were valid.
    pub(crate) last_valid: Option<Arc<Settings>>,
    /// The image lookup for the current source.
    pub(crate) lookup: Option<Lookup>,
    /// Why the object could not be read, once that was told.
    pub(crate) unreadable: Option<String>,
    /// Failures to carry out what was decided.
    pub(crate) errors: Backoff,
    /// The status as it was written last.
    pub(crate) written: Written<FunctionStatus>,
    /// How long the rollout has been going on.
    pub(crate) rollout: Elapsed,
    revisions: HashMap<String, Box<RevisionMemory>>,
    instances: HashMap<String, InstanceMemory>,
    ordered: BTreeMap<String, (String, Instant)>,
}

/// The memory of one Revision.
#[derive(Default)]
pub(crate) struct RevisionMemory {
    /// An instance of it has answered.
    pub(crate) proven: bool,
    /// When the next replacement may be started.
    pub(crate) backoff: Backoff,
    /// Why the last attempt failed, until one succeeds.
    pub(crate) trouble: Option<Reason>,
    /// Whether the fleet took no order, so that taking one ends the trouble.
    refused: bool,
    /// The status as it was written last.
    pub(crate) written: Written<RevisionStatus>,
    /// What the gateways say of its frozen instances.
    pub(crate) parked: Option<Box<Parked>>,
}

struct InstanceMemory {
    since: Instant,
    restarts: u32,
    answers: bool,
    has_answered: bool,
    /// Not yet counted for its Revision.
    news: bool,
    failed: bool,
    stop_sent: Option<Instant>,
    probe: Option<AbortOnDropHandle<()>>,
}

/// A status that was written and that the cache may not show yet.
#[derive(Debug)]
pub(crate) struct Written<S> {
    last: Option<(Box<S>, Instant)>,
    /// Since when there is another one to write.
    differs: Option<Instant>,
}

impl<S> Default for Written<S> {
    fn default() -> Self {
        Self { last: None, differs: None }
    }
}

impl<S: Clone + PartialEq> Written<S> {
    /// It was written now.
    pub(crate) fn set(&mut self, status: S, now: Instant) {
        *self = Self { last: Some((Box::new(status), now)), differs: None };
    }

    /// Since when there is another one to write.
    pub(crate) fn differs(&mut self, now: Instant) -> Instant {
        *self.differs.get_or_insert(now)
    }

    /// Whether the cache shows what was written last, and there is nothing else to write.
    fn is_settled(&self) -> bool {
        self.last.is_none() && self.differs.is_none()
    }

    /// There is nothing to write.
    pub(crate) fn is_same(&mut self) {
        self.differs = None;
    }

    /// The status to compare with: the written one while the cache may be late.
    pub(crate) fn or_cached(&mut self, cached: S, now: Instant) -> S {
        // Once the cache has it, it is not held twice.
        let shown =
            |(status, at): &mut (Box<S>, Instant)| **status == cached || now.duration_since(*at) >= WRITTEN_HOLDS;
        self.last.take_if(shown);
        self.last.as_ref().map_or(cached, |(status, _)| S::clone(status))
    }
}

impl Memory {
    /// What is remembered of a Revision.
    pub(crate) fn revision(&mut self, name: &str) -> &mut RevisionMemory {
        self.revisions.entry(name.to_owned()).or_default()
    }

    /// What is remembered of a Revision that was looked at before.
    pub(crate) fn known_revision(&mut self, name: &str) -> Option<&mut RevisionMemory> {
        self.revisions.get_mut(name).map(Box::as_mut)
    }

    /// Looks at an instance. `probed` says that a readiness probe of its author's decides.
    pub(crate) fn look(&mut self, instance: &Instance, probed: bool, start_timeout: Duration, now: Instant) -> Seen {
        let revision = self.revisions.entry(instance.revision.clone()).or_default();
        let memory = self
            .instances
            .entry(instance.id.uid.clone())
            .or_insert_with(|| InstanceMemory::new(instance.restarts, now));
        memory.restarted(instance.restarts, now);
        if probed && instance.phase == Phase::Running {
            memory.answered();
        }
        let state = memory.state(&instance.phase, start_timeout, now);
        revision.learn(memory, &state, &instance.phase, start_timeout, now);
        Seen { id: instance.id.clone(), created: instance.created, state }
    }

    /// Forgets all Revisions and instances but these.
    pub(crate) fn keep_only(&mut self, revisions: impl Fn(&str) -> bool, instances: impl Fn(&str) -> bool) {
        self.revisions.retain(|name, _| revisions(name));
        self.instances.retain(|uid, _| instances(uid));
        if self.instances.is_empty() {
            // Most Functions sleep most of the time: nothing is held ready for their instances.
            self.instances = HashMap::new();
        }
    }

    /// The instance has accepted a connection; `restarts` tells which of its processes.
    pub(crate) fn answered(&mut self, uid: &str, restarts: u32) {
        if let Some(memory) = self.instances.get_mut(uid).filter(|memory| memory.restarts == restarts) {
            memory.answered();
        }
    }

    /// Whether the controller should find out by itself when this instance answers.
    pub(crate) fn wants_probe(&self, uid: &str) -> bool {
        self.instances.get(uid).is_some_and(|memory| !memory.answers && memory.probe.is_none())
    }

    /// The task that finds out; it ends with the memory of the instance.
    pub(crate) fn probing(&mut self, uid: &str, task: AbortOnDropHandle<()>) {
        if let Some(memory) = self.instances.get_mut(uid) {
            memory.probe = Some(task);
        }
    }

    /// An order goes out. Noted before it does, as the watch may be faster than the answer.
    pub(crate) fn ordering(&mut self, revision: &str, instance: &str, now: Instant) {
        self.ordered.insert(instance.to_owned(), (revision.to_owned(), now));
    }

    /// The order failed, or the watch has shown the instance, be it that it is gone.
    pub(crate) fn order_settled(&mut self, instance: &str) {
        self.ordered.remove(instance);
        if self.ordered.is_empty() {
            // An emptied tree keeps its root.
            self.ordered = BTreeMap::new();
        }
    }

    /// Orders that the watch has not shown yet, of one Revision.
    pub(crate) fn ordered(&mut self, revision: &str, now: Instant) -> Vec<String> {
        self.ordered.retain(|_, (_, at)| now.duration_since(*at) < CONFIRMED_WITHIN);
        self.ordered.iter().filter(|(_, (r, _))| r == revision).map(|(name, _)| name.clone()).collect()
    }

    /// A stop goes out.
    pub(crate) fn stopping(&mut self, uid: &str, now: Instant) {
        if let Some(memory) = self.instances.get_mut(uid) {
            memory.stop_sent = Some(now);
        }
    }

    /// The stop failed.
    pub(crate) fn stop_failed(&mut self, uid: &str) {
        if let Some(memory) = self.instances.get_mut(uid) {
            memory.stop_sent = None;
        }
    }

    /// Whether all of it is found out again from the objects when it is needed: then it can be forgotten, and
    /// a Function that sleeps takes no memory here. What its proven Revisions are, their status says.
    pub(crate) fn is_dispensable(&self) -> bool {
        let Self { last_valid, lookup, unreadable, errors, written, rollout, revisions, instances, ordered } = self;
        let is_calm = |revision: &RevisionMemory| {
            let RevisionMemory { proven: _, backoff, trouble, refused, written, parked } = revision;
            *backoff == Backoff::default() && trouble.is_none() && !refused && written.is_settled() && parked.is_none()
        };
        last_valid.is_none()
            && lookup.as_ref().is_none_or(Lookup::is_known)
            && unreadable.is_none()
            && *errors == Backoff::default()
            && written.is_settled()
            && rollout.is_over()
            && revisions.values().all(|revision| is_calm(revision))
            && instances.is_empty()
            && ordered.is_empty()
    }

    /// When something under way is to be looked at again, if nothing tells of it before.
    pub(crate) fn unconfirmed(&self) -> Option<Duration> {
        let stops = self.instances.values().any(|memory| memory.stop_sent.is_some());
        (stops || !self.ordered.is_empty()).then_some(CONFIRMED_WITHIN)
    }
}

impl InstanceMemory {
    fn new(restarts: u32, now: Instant) -> Self {
        // Not since its creation: after a restart of the controller all would be overdue.
        Self {
            since: now,
            restarts,
            answers: false,
            has_answered: false,
            news: false,
            failed: false,
            stop_sent: None,
            probe: None,
        }
    }

    /// A new process has to answer anew, with its own time to do so.
    fn restarted(&mut self, restarts: u32, now: Instant) {
        if restarts != self.restarts {
            (self.restarts, self.since, self.answers, self.probe) = (restarts, now, false, None);
        }
    }

    fn answered(&mut self) {
        if !std::mem::replace(&mut self.answers, true) {
            (self.has_answered, self.news, self.failed, self.probe) = (true, true, false, None);
        }
    }

    fn state(&mut self, phase: &Phase, start_timeout: Duration, now: Instant) -> State {
        let stopping = self.stop_sent.is_some_and(|at| now.duration_since(at) < CONFIRMED_WITHIN);
        match phase {
            Phase::Stopping => State::Stopping,
            _ if stopping => State::Stopping,
            Phase::Ended(_) => State::Ended,
            Phase::Failing(reason) => {
                self.since = now;
                State::Failing(reason.clone())
            }
            Phase::Unready if self.answers => State::Unready,
            Phase::Starting | Phase::Running if self.answers => State::Ready,
            Phase::Starting | Phase::Running | Phase::Unready => match self.since.checked_add(start_timeout) {
                Some(deadline) if deadline > now => State::Starting(deadline),
                _ => State::Overdue,
            },
        }
    }
}

impl RevisionMemory {
    /// | an instance that            | means                                    |
    /// | --------------------------- | ---------------------------------------- |
    /// | answers                     | proven, and all trouble is over          |
    /// | ended, but had answered     | nothing: it is replaced at once          |
    /// | ended without an answer     | trouble with its reason, and back-off    |
    /// | is overdue                  | trouble `StartTimeout`, and back-off     |
    /// | fails after a restart       | trouble with its reason                  |
    fn learn(&mut self, memory: &mut InstanceMemory, state: &State, phase: &Phase, timeout: Duration, now: Instant) {
        if std::mem::take(&mut memory.news) {
            self.proven = true;
            self.calm();
        }
        if let State::Failing(reason) = state
            && memory.restarts > 0
        {
            // It crashes again and again: between two crashes it only seems to be starting.
            self.trouble = Some(reason.clone());
        }
        let trouble = match (state, phase) {
            (State::Ended, Phase::Ended(reason)) if !memory.has_answered => reason.clone(),
            (State::Overdue, _) => Reason::new("StartTimeout", format!("no answer within startTimeout ({timeout:?})")),
            _ => return,
        };
        // Each instance is one failure, however often it is looked at.
        if !std::mem::replace(&mut memory.failed, true) {
            self.failed(trouble, now);
        }
    }

    fn failed(&mut self, trouble: Reason, now: Instant) {
        self.trouble = Some(trouble);
        self.refused = false;
        self.backoff.failed(now);
    }

    /// The fleet didn't take an order: the next one waits.
    pub(crate) fn refused(&mut self, reason: Reason, now: Instant) {
        self.failed(reason, now);
        self.refused = true;
    }

    /// The fleet took an order.
    pub(crate) fn taken(&mut self) {
        if self.refused {
            self.calm();
        }
    }

    /// Whatever was wrong is over, or nobody wants to know any more.
    pub(crate) fn calm(&mut self) {
        self.trouble = None;
        self.refused = false;
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests;
