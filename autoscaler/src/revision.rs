//! What is known of one Revision: its count, its load, what was asked for and not yet seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::LazyLock,
    time::Duration,
};

use lambent_api::{
    FunctionKey, InstanceRef, RevisionKey, Settings,
    signal::{Load, Retired},
};
use tokio::time::Instant;

use crate::{
    arrivals::Arrivals,
    book::{PATIENCE, RevisionView},
    order::{Order, Reason, Seen, Write},
    window::Window,
};

/// Named instances are named again in later patches for so long, lest one that was missed stays.
const NAMED_FOR: Duration = Duration::from_secs(30);
/// Between an answer of the gateways about one Revision and the next question.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A gateway repeats a load each second; one that was not repeated for so long is over.
const REPEATED_WITHIN: Duration = Duration::from_secs(3);

/// A write on its way.
#[derive(Clone, Copy)]
struct Pending {
    from: u32,
    to: u32,
    at: Instant,
}

/// A question to the gateways.
#[derive(Clone, Copy)]
struct Asked {
    keep: u32,
    reason: Reason,
    at: Instant,
    answered: bool,
}

/// One Revision.
pub struct RevisionState {
    /// Of which Function.
    pub function: FunctionKey,
    /// Since when its load is known.
    pub known_since: Instant,
    /// Whether an instance of it has answered once.
    pub proven: bool,
    /// Whether its Function has named it, as the one that serves or the latest.
    pub introduced: bool,
    key: RevisionKey,
    written: u32,
    /// None while it sleeps, as nearly all do nearly all the time.
    activity: Option<Box<Activity>>,
}

/// What goes on with a Revision, or went on lately.
#[derive(Default)]
struct Activity {
    /// What was ordered and is not yet seen.
    pending: Option<Pending>,
    raised: Option<Instant>,
    asked: Option<Asked>,
    named: Vec<(InstanceRef, Instant)>,
    loads: BTreeMap<SocketAddr, (Load, Instant)>,
    window: Window,
    arrivals: Arrivals,
}

static ASLEEP: LazyLock<Activity> = LazyLock::new(Activity::default);

impl Activity {
    fn pending(&self, now: Instant) -> Option<u32> {
        self.pending.filter(|pending| now.duration_since(pending.at) < PATIENCE).map(|pending| pending.to)
    }

    fn has_asked_lately(&self, now: Instant) -> bool {
        let limit = |asked: Asked| if asked.answered { ASK_EVERY } else { PATIENCE };
        self.asked.is_some_and(|asked| now.duration_since(asked.at) < limit(asked))
    }

    /// Lets go of what counts no longer.
    fn forget_what_is_over(&mut self, now: Instant) {
        self.loads.retain(|_, (_, at)| now.duration_since(*at) < REPEATED_WITHIN);
        self.forget_names(now);
    }

    fn forget_names(&mut self, now: Instant) {
        self.named.retain(|(_, at)| now.duration_since(*at) < NAMED_FOR);
    }

    /// Whether nothing is left but how the load was.
    fn is_over(&self, now: Instant) -> bool {
        self.loads.is_empty() && self.named.is_empty() && self.pending(now).is_none() && !self.has_asked_lately(now)
    }
}

impl RevisionState {
    /// One that was just seen.
    pub fn new(view: &RevisionView, now: Instant) -> Self {
        Self {
            function: FunctionKey::new(view.key.namespace.clone(), &view.function),
            known_since: now,
            proven: view.proven,
            introduced: false,
            key: view.key.clone(),
            written: view.wanted,
            activity: None,
        }
    }

    fn activity(&self) -> &Activity {
        self.activity.as_deref().unwrap_or(&ASLEEP)
    }

    fn activity_mut(&mut self) -> &mut Activity {
        self.activity.get_or_insert_default()
    }

    /// Takes what the API server says.
    pub fn observe(&mut self, view: &RevisionView, now: Instant) {
        if view.wanted > self.written {
            self.activity_mut().raised.get_or_insert(now);
        }
        (self.written, self.proven) = (view.wanted, view.proven);
        if let Some(activity) = &mut self.activity {
            activity.pending.take_if(|pending| pending.to == view.wanted);
        }
    }

    /// The count that holds, or will as soon as the last order is seen.
    pub fn wanted(&self, now: Instant) -> u32 {
        self.pending(now).unwrap_or(self.written)
    }

    fn pending(&self, now: Instant) -> Option<u32> {
        self.activity().pending(now)
    }

    /// The last order has failed: what the API server says holds. Whether that is something else
    /// than the order was about, and not just to be seen yet.
    pub fn clear(&mut self) -> bool {
        let Some(activity) = &mut self.activity else { return false };
        activity.asked = None;
        activity.pending.take().is_some_and(|pending| pending.from != self.written)
    }

    /// More instances. None while a write is on its way: the next one would be about a count that
    /// the API server may not have yet, and it is decided again as soon as it has.
    pub fn raise(&mut self, to: u32, reason: Reason, now: Instant) -> Option<Order> {
        if self.pending(now).is_some() || to <= self.written {
            return None;
        }
        let activity = self.activity_mut();
        (activity.raised, activity.asked) = (Some(now), None);
        Some(self.write(to, None, reason, now))
    }

    fn write(&mut self, to: u32, stopping: Option<Vec<InstanceRef>>, reason: Reason, now: Instant) -> Order {
        let from = self.written;
        self.activity_mut().pending = Some(Pending { from, to, at: now });
        let (function, revision) = (self.function.clone(), self.key.clone());
        let Load { queued, in_flight, ready, .. } = self.load(now);
        Order::Write(Write { function, revision, from, to, stopping, reason, seen: Seen { queued, in_flight, ready } })
    }

    /// Fewer instances: first the gateways must stop using them.
    pub fn ask_to_retire(&mut self, keep: u32, reason: Reason, now: Instant) -> Option<Order> {
        if self.activity().has_asked_lately(now) || self.pending(now).is_some() || self.written <= keep {
            return None;
        }
        self.activity_mut().asked = Some(Asked { keep, reason, at: now, answered: false });
        Some(Order::Retire { revision: self.key.clone(), keep })
    }

    /// The gateways have stopped using these: count and names go in one patch.
    pub fn lower(&mut self, retired: Retired, now: Instant) -> Option<Order> {
        let asked = self.activity.as_mut()?.asked.as_mut()?;
        (asked.answered, asked.at) = (true, now);
        let Asked { keep, reason, .. } = *asked;
        let to = retired.left.clamp(keep, self.written.max(keep));
        if to >= self.written || self.pending(now).is_some() {
            return None;
        }
        let activity = self.activity_mut();
        activity.forget_names(now);
        let named = &mut activity.named;
        for instance in retired.instances {
            if !named.iter().any(|(known, _)| *known == instance) {
                named.push((instance, now));
            }
        }
        let names = self.stopping();
        Some(self.write(to, Some(names), reason, now))
    }

    /// The instances that were named lately.
    fn stopping(&self) -> Vec<InstanceRef> {
        self.activity().named.iter().map(|(instance, _)| instance.clone()).collect()
    }

    /// Takes what a gateway says.
    pub fn take_load(&mut self, gateway: SocketAddr, load: Load, settings: &Settings, now: Instant) {
        let activity = self.activity_mut();
        if load.serving {
            activity.arrivals.observe(load.arrived, now);
        }
        activity.loads.insert(gateway, (load, now));
        let (load, needed, written) = (self.load(now), self.needed_now(settings, now), self.written);
        let activity = self.activity_mut();
        if load.starting == 0 && load.ready >= written {
            activity.raised = None;
        }
        activity.window.record(needed, now, settings.idle);
    }

    /// While something waits nothing can go.
    fn needed_now(&self, settings: &Settings, now: Instant) -> u32 {
        let busy = self.busy(settings, now);
        if self.load(now).queued > 0 { busy.max(self.wanted(now)) } else { busy }
    }

    /// Instances that the requests at them need.
    pub fn busy(&self, settings: &Settings, now: Instant) -> u32 {
        let load = self.load(now);
        load.peak_in_flight.max(load.in_flight).div_ceil(settings.concurrency.get())
    }

    /// A gateway's numbers hold no longer.
    pub fn forget_load(&mut self, gateway: SocketAddr) {
        if let Some(activity) = &mut self.activity {
            activity.loads.remove(&gateway);
        }
    }

    /// Whether a gateway sends new requests to it, as far as it has said.
    pub fn serves_at(&self, gateway: SocketAddr) -> bool {
        self.activity().loads.get(&gateway).is_some_and(|(load, _)| load.serving)
    }

    /// A gateway sends new requests to another Revision.
    pub fn no_longer_serves(&mut self, gateway: SocketAddr) {
        if let Some((load, _)) = self.activity.as_mut().and_then(|activity| activity.loads.get_mut(&gateway)) {
            (load.serving, load.queued) = (false, 0);
        }
    }

    /// Lets go of what counts no longer: a Revision that sleeps takes next to no memory.
    pub fn forget_what_is_over(&mut self, now: Instant) {
        let Some(activity) = &mut self.activity else { return };
        activity.forget_what_is_over(now);
        // How the load was says for how long instances are to stay.
        if self.written == 0 && activity.is_over(now) {
            self.activity = None;
        }
    }

    /// The numbers of gateways that are no more hold no longer.
    pub fn keep_loads(&mut self, of: &BTreeSet<SocketAddr>) {
        if let Some(activity) = &mut self.activity {
            activity.loads.retain(|gateway, _| of.contains(gateway));
        }
    }

    /// The load over all gateways.
    pub fn load(&self, now: Instant) -> Load {
        let mut sum = Load::default();
        let fresh = self.activity().loads.values().filter(|(_, at)| now.duration_since(*at) < REPEATED_WITHIN);
        for (load, _) in fresh {
            sum.serving |= load.serving;
            sum.in_flight += load.in_flight;
            sum.queued += load.queued;
            sum.peak_in_flight += load.peak_in_flight;
            // Every gateway sees the same instances.
            sum.ready = sum.ready.max(load.ready);
            sum.starting = sum.starting.max(load.starting);
            sum.parked = sum.parked.max(load.parked);
            sum.service_seconds = sum.service_seconds.or(load.service_seconds);
        }
        sum
    }

    /// Requests a second that keep coming.
    pub fn arriving(&self) -> f64 {
        self.activity().arrivals.sustained()
    }

    /// Seconds since instances were last ordered that have not all answered.
    pub fn starting_for(&self, now: Instant) -> f64 {
        self.activity().raised.map_or(0.0, |at| now.duration_since(at).as_secs_f64())
    }

    /// The most instances that were needed within the last `scale.idle`. What was said last counts
    /// until it is said anew, so that a window of a second does not fall between two messages.
    pub fn needed(&mut self, settings: &Settings, now: Instant) -> u32 {
        let lately = self.activity.as_mut().map_or(0, |activity| activity.window.max(now, settings.idle));
        lately.max(self.needed_now(settings, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_was_named_long_ago_is_named_again() {
        let mut now = Instant::now();
        let view = |wanted| RevisionView {
            key: RevisionKey::new("shop", "hello-1"),
            function: "hello".to_owned(),
            wanted,
            proven: true,
        };
        let mut revision = RevisionState::new(&view(3), now);
        let instance = |name: &str| InstanceRef { name: name.to_owned(), uid: name.to_owned() };
        let mut names = |names: &[&str], left, now| {
            revision.observe(&view(left + 1), now);
            revision.ask_to_retire(left, Reason::IdleWindow, now).unwrap();
            let retired = Retired { instances: names.iter().map(|name| instance(name)).collect(), left };
            let Some(Order::Write(write)) = revision.lower(retired, now) else { panic!("nothing is written") };
            write.stopping.unwrap().into_iter().map(|instance| instance.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["a"], 2, now), ["a"]);
        now += PATIENCE;
        assert_eq!(names(&["b"], 1, now), ["a", "b"]);
        now += NAMED_FOR;
        assert_eq!(names(&["a"], 0, now), ["a"]);
    }
}
