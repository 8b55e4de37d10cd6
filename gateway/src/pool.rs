//! Queue and permits of one Function: who waits, who is served where. A state machine without
//! clock, socket or waker: `W` is whatever wakes a waiter, and time comes in as an argument.
//!
//! ```text
//! admit -> Granted | Waiting(ticket) | Refused        next_grant -> (waiter, grant)*
//! release, observe, answered, serve ... -> then next_grant until it gives none
//! ```

mod handover;
pub mod parking;
mod retire;

use std::{cmp::Reverse, collections::VecDeque, sync::Arc, time::Duration};

use lambent_api::{
    FunctionKey, InstanceRef, Reason, Settings,
    signal::{Load, Start},
};
use tokio::time::Instant;

pub use self::handover::Estate;

use self::parking::Agents;
use crate::{
    cold_start::{Asked, Started},
    member::{Member, Use},
    refusal::Refusal,
    service_time::ServiceTime,
    target::Target,
};

/// An instance that was named for stopping is used again when nothing came of it in this time.
/// Longer than any single write of the autoscaler may take.
const RETIRED_FOR: Duration = Duration::from_secs(8);

/// The state of one Function's queue and instances.
pub struct Pool<W> {
    settings: Arc<Settings>,
    serving: Option<Serving>,
    members: Vec<Member>,
    queue: VecDeque<Waiting<W>>,
    next_ticket: Ticket,
    next_member: MemberId,
    service_time: ServiceTime,
    stalled: Option<Arc<Reason>>,
    arrived: u64,
    /// The most requests at once at all instances since last told. The members' own peaks need not
    /// have been at the same time: calls one after the other may go to one and then to another.
    peak: u32,
    /// Whether slots are granted here: only by the gateway that owns the Function.
    granting: bool,
    /// A first instance was asked for and has not been seen yet.
    asked: Option<Asked>,
    /// Counts the times that the Function was handed over; grants from before are the heir's to count.
    epoch: u64,
}

/// Somebody in the line.
struct Waiting<W> {
    ticket: Ticket,
    waiter: W,
    origin: Origin,
}

/// Who asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A caller of this gateway.
    Caller,
    /// Another gateway, for a caller of its own.
    Peer,
}

/// Position in the queue; later ones are greater.
pub type Ticket = u64;
/// Which member of a pool; never used again.
pub type MemberId = u64;

/// The Revision that new requests go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Name of the Revision.
    pub revision: Arc<str>,
    /// The Revision that is taking its place: it takes requests too, and rather.
    pub next: Option<Arc<str>>,
    /// Its wanted count.
    pub wanted: u32,
    /// Why no instance of it can start, if that is so.
    pub not_startable: Option<Arc<Reason>>,
}

/// A slot of an instance, taken.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whose slot.
    pub member: MemberId,
    /// Where to send.
    pub target: Arc<Target>,
    /// The Revision of the instance.
    pub revision: Arc<str>,
    /// When the instance was known and answered first.
    pub started: Started,
    /// Which instance.
    pub instance: Arc<InstanceRef>,
    /// For whom.
    pub origin: Origin,
    /// Of the pool at that moment.
    pub epoch: u64,
}

impl Serving {
    /// Whether requests may go to instances of this Revision.
    pub fn includes(&self, revision: &str) -> bool {
        *self.revision == *revision || self.is_next(revision)
    }

    fn is_next(&self, revision: &str) -> bool {
        self.next.as_deref() == Some(revision)
    }
}

impl Grant {
    /// Whether the Function was handed over since: then the heir counts it.
    pub fn is_before(&self, epoch: u64) -> bool {
        self.epoch < epoch && self.origin == Origin::Caller
    }
}

/// An instance that gets no new request.
#[derive(Debug, PartialEq, Eq)]
pub struct Drained {
    /// Which.
    pub instance: InstanceRef,
    /// It does not end a request that was given up.
    pub stuck: bool,
    /// Others still run there.
    pub in_use: bool,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Admission {
    /// It can be sent now.
    Granted(Box<Grant>),
    /// It waits; its waker was kept.
    Waiting(Ticket),
    /// It is refused.
    Refused(Refusal),
}

impl<W> Pool<W> {
    /// An empty pool.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            serving: None,
            members: Vec::new(),
            queue: VecDeque::new(),
            next_ticket: 0,
            next_member: 0,
            service_time: ServiceTime::default(),
            stalled: None,
            arrived: 0,
            peak: 0,
            granting: true,
            asked: None,
            epoch: 0,
        }
    }

    /// Takes other settings; they hold for everyone from now on.
    pub fn configure(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// Sends new requests to this Revision; without one, `stalled` says whether one can be expected.
    pub fn serve(&mut self, serving: Option<Serving>, stalled: Option<Arc<Reason>>) {
        self.serving = serving;
        self.stalled = stalled;
    }

    /// The Revision that serves, and what is known of it.
    pub fn serving(&self) -> Option<&Serving> {
        self.serving.as_ref()
    }

    fn drop_member(&mut self, at: usize) {
        self.members.swap_remove(at);
        if self.members.is_empty() {
            // Most Functions sleep most of the time.
            self.members = Vec::new();
        }
    }

    /// Grants a slot if nobody waits and one is free, else lets the request wait in line.
    /// `again` is a request that had a slot and could not be sent: it goes first.
    pub fn admit(&mut self, waiter: impl FnOnce() -> W, origin: Origin, again: bool, now: Instant) -> Admission {
        self.arrived += u64::from(!again);
        if (again || self.queue.is_empty())
            && let Some(grant) = self.take_slot(origin, now)
        {
            return Admission::Granted(grant);
        }
        if let Some(refusal) = self.hopeless() {
            return Admission::Refused(refusal);
        }
        if again {
            let ticket = self.queue.front().map_or(self.next_ticket, |first| first.ticket.saturating_sub(1));
            self.queue.push_front(Waiting { ticket, waiter: waiter(), origin });
            self.next_ticket = self.next_ticket.max(ticket + 1);
            return Admission::Waiting(ticket);
        }
        if self.queue.len() >= self.settings.queue_depth {
            return Admission::Refused(Refusal::QueueFull { depth: self.settings.queue_depth });
        }
        if let Some(expected) = self.expected_wait().filter(|wait| *wait > self.settings.queue_timeout) {
            return Admission::Refused(Refusal::QueueTooSlow { expected });
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.push_back(Waiting { ticket, waiter: waiter(), origin });
        Admission::Waiting(ticket)
    }

    /// The first waiter with a slot for it, if both are there.
    pub fn next_grant(&mut self, now: Instant) -> Option<(W, Box<Grant>)> {
        let origin = self.queue.front()?.origin;
        let grant = self.take_slot(origin, now)?;
        self.queue.pop_front().map(|first| (first.waiter, grant))
    }

    /// Everyone who waits for what can't come, with the reason.
    pub fn take_hopeless(&mut self) -> Option<(Refusal, Vec<W>)> {
        let refusal = self.hopeless()?;
        Some((refusal, self.queue.drain(..).map(|waiting| waiting.waiter).collect()))
    }

    /// Leaves the line.
    pub fn cancel(&mut self, ticket: Ticket) {
        // Nearly sorted: only requests that come a second time stand before their number.
        if let Some(at) = self.queue.iter().position(|waiting| waiting.ticket == ticket) {
            self.queue.remove(at);
        }
    }

    /// Gives a slot back. Returns the instance if it gets no new one and can be ended.
    pub fn release(&mut self, grant: &Grant, held: Duration, now: Instant) -> Option<Drained> {
        let at = self.members.iter().position(|m| m.id == grant.member)?;
        let member = &mut self.members[at];
        member.give_back(grant.origin);
        member.last_used = now;
        self.service_time.observe(held);
        let last = member.in_flight == 0;
        let drained = member.drained();
        if last && member.gone {
            self.drop_member(at);
        }
        drained
    }

    /// Gives a slot back that was never used.
    pub fn release_unused(&mut self, grant: &Grant) {
        if let Some(member) = self.members.iter_mut().find(|m| m.id == grant.member) {
            member.give_back(grant.origin);
        }
    }

    /// An instance did not accept a connection. Its unique id, if that is news.
    pub fn away(&mut self, id: MemberId) -> Option<String> {
        let member = self.members.iter_mut().find(|m| m.id == id)?;
        let news = matches!(member.usage, Use::Ready | Use::Retired(_));
        news.then(|| {
            member.usage = Use::Starting;
            member.instance.uid.clone()
        })
    }

    /// An instance does not end a request: no new one is sent there.
    pub fn stuck(&mut self, id: MemberId) {
        if let Some(member) = self.members.iter_mut().find(|m| m.id == id) {
            (member.usage, member.stuck) = (Use::Stopping, true);
        }
    }

    /// Instances that get no new request and can be ended.
    pub fn drained(&self) -> Vec<Drained> {
        self.members.iter().filter(|m| !m.gone).filter_map(Member::drained).collect()
    }

    /// Begins new peaks, and forgets starts that were told.
    pub fn start_peaks_anew(&mut self) {
        for member in &mut self.members {
            member.peak = member.in_flight;
            member.start = None;
        }
        self.peak = self.in_flight();
    }

    fn in_flight(&self) -> u32 {
        self.members.iter().map(|m| m.in_flight).sum()
    }

    /// An instance answers. `others` is the most that were starting at the same time.
    pub fn answered(&mut self, uid: &str, others: u32, now: Instant) {
        let Some(member) = self.members.iter_mut().find(|m| m.instance.uid == uid) else { return };
        if member.usage != Use::Starting {
            return;
        }
        member.usage = Use::Ready;
        if member.started.answered.is_none() {
            let seconds = now.duration_since(member.started.seen).as_secs_f64();
            member.start = Some(Start { seconds, others });
            member.started.answered = Some(now);
        }
    }

    /// All members, for housekeeping.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Instances that can be used, least busy first; of equals those of the Revision to come, and of
    /// these the last used, so that the others become idle and can go.
    fn take_slot(&mut self, origin: Origin, now: Instant) -> Option<Box<Grant>> {
        if !self.granting {
            return None;
        }
        let epoch = self.epoch;
        let serving = self.serving.as_ref()?;
        let limit = self.settings.concurrency.get();
        let usable = |m: &&mut Member| m.can_take(limit, now, RETIRED_FOR) && serving.includes(&m.revision);
        let order = |m: &&mut Member| (m.in_flight, !serving.is_next(&m.revision), Reverse(m.last_used));
        let member = self.members.iter_mut().filter(usable).min_by_key(order)?;
        let grant = member.take(origin, epoch, now);
        self.peak = self.peak.max(self.in_flight());
        Some(grant)
    }

    /// Why waiting would be in vain, unless an instance is ready or nothing was tried yet.
    fn hopeless(&self) -> Option<Refusal> {
        let refusal = |reason: &Arc<Reason>| Refusal::StartFailed(Reason::clone(reason));
        let Some(serving) = &self.serving else { return self.stalled.as_ref().map(refusal) };
        let reason = serving.not_startable.as_ref().filter(|r| serving.wanted > 0 && r.reason != "Unschedulable")?;
        let any_ready = self.of_serving().any(|m| m.usage.is_at_hand());
        (!any_ready).then(|| refusal(reason))
    }

    /// What a request that waited in vain is told: the fleet's words, where there are any.
    pub fn waited_in_vain(&self, waited: Duration) -> Refusal {
        let reason = self.serving.as_ref().and_then(|s| s.not_startable.as_deref());
        match reason.filter(|_| !self.of_serving().any(|m| m.usage.is_at_hand())) {
            Some(reason) => Refusal::StartFailed(reason.clone()),
            None => Refusal::QueueTimeout(waited),
        }
    }

    /// How long the last in line will wait: everyone before it, shared by all slots that there may
    /// be. The maximum counts, not what runs, because more will be started for them; where no more
    /// can start, those that answer.
    fn expected_wait(&self) -> Option<Duration> {
        let ready = || self.of_serving().filter(|m| m.usage.is_at_hand()).count().max(1);
        let stuck = self.serving.as_ref().is_some_and(|s| s.not_startable.is_some());
        let instances = if stuck { u32::try_from(ready()).unwrap_or(u32::MAX) } else { self.settings.max };
        let slots = f64::from(instances) * f64::from(self.settings.concurrency.get());
        let seconds = self.queue.len() as f64 * self.service_time.seconds()? / slots;
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn of_serving(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| self.serving.as_ref().is_some_and(|s| s.includes(&m.revision)))
    }

    /// How many wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether somebody waits and nothing was asked to run yet.
    pub fn must_raise(&self) -> bool {
        !self.queue.is_empty() && self.serving.as_ref().is_some_and(|s| s.wanted == 0)
    }

    /// A first instance is asked for.
    pub fn asking(&mut self, now: Instant) {
        self.asked = Some(Asked { at: now, taken: None });
    }

    /// The API server has taken that; the instance may have been seen before.
    pub fn asked(&mut self, now: Instant) {
        let seen = self.members.iter_mut().filter_map(|m| m.started.asked.as_mut());
        if let Some(asked) = self.asked.as_mut().or_else(|| seen.last()) {
            asked.taken.get_or_insert(now);
        }
    }

    /// Starts to know an instance.
    pub fn add(&mut self, instance: Arc<InstanceRef>, revision: Arc<str>, now: Instant) -> MemberId {
        let id = self.next_member;
        self.next_member += 1;
        self.members.push(Member::new(id, instance, revision, Started::seen(self.asked.take(), now)));
        id
    }

    /// The member of this unique id.
    pub fn find_mut(&mut self, uid: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.instance.uid == uid)
    }

    /// The instance is gone; its requests may still be ending. Returns whether it was forgotten.
    pub fn remove(&mut self, uid: &str) {
        if let Some(at) = self.members.iter().position(|m| m.instance.uid == uid) {
            let member = &mut self.members[at];
            member.usage = Use::Stopping;
            member.gone = true;
            if member.in_flight == 0 {
                self.drop_member(at);
            }
        }
    }

    /// Whether no instance is known.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.queue.is_empty()
    }

    /// How long a request takes: at least as long as one that still runs has taken already, so that
    /// who waits behind a long one is not put off by the average of short ones.
    fn service_seconds(&self, now: Instant) -> Option<f64> {
        let busy = self.members.iter().filter(|m| m.in_flight > 0);
        let running = busy.map(|m| now.duration_since(m.last_used).as_secs_f64()).fold(0.0, f64::max);
        let average = self.service_time.seconds();
        average.map(|seconds| seconds.max(running)).or((running > 1.0).then_some(running))
    }

    /// The load of each Revision that has instances or serves; that of the one to come is a part of
    /// what the serving one has to bear.
    pub fn loads(&self, of: &FunctionKey, now: Instant, agents: &dyn Agents) -> Vec<Load> {
        let mut loads: Vec<Load> = Vec::new();
        if let Some(serving) = &self.serving {
            loads.push(Load { revision: serving.revision.clone().into(), serving: true, ..Load::default() });
            loads[0].arrived = self.arrived;
            loads[0].queued = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
            loads[0].not_parkable = self.not_parkable(now, agents);
        }
        for member in &self.members {
            let serving = self.serving.as_ref().filter(|s| s.includes(&member.revision));
            let revision = serving.map_or(&member.revision, |s| &s.revision);
            let at = loads.iter().position(|l| *l.revision == **revision).unwrap_or_else(|| {
                loads.push(Load { revision: revision.clone().into(), ..Load::default() });
                loads.len() - 1
            });
            member.add_to(&mut loads[at]);
        }
        for load in &mut loads {
            (load.namespace, load.function) = (of.namespace.clone(), of.name.clone());
            load.service_seconds = self.service_seconds(now);
            load.peak_in_flight = load.peak_in_flight.min(self.peak);
        }
        loads
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
