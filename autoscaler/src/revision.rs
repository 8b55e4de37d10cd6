//! What is known of one Revision: its count, its load, what was asked for and not yet seen.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use lambent_api::{
    FunctionKey, InstanceRef, RevisionKey, Settings,
    signal::{Load, Retired},
};
use tokio::time::Instant;

use crate::{
    arrivals::Arrivals,
    book::{PATIENCE, RevisionView},
    order::{Order, Reason, Write},
    start_model::StartModel,
    window::Window,
};

/// Named instances are named again in later patches for so long, lest one that was missed stays.
const NAMED_FOR: Duration = Duration::from_secs(30);
/// Between two questions to the gateways about one Revision.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// One Revision.
pub struct RevisionState {
    /// Of which Function.
    pub function: FunctionKey,
    /// Since when its load is known.
    pub known_since: Instant,
    key: RevisionKey,
    written: u32,
    /// What was ordered and is not yet seen.
    pending: Option<(u32, Instant)>,
    raised: Option<Instant>,
    asked: Option<(u32, Reason, Instant)>,
    named: Vec<(InstanceRef, Instant)>,
    loads: HashMap<SocketAddr, Load>,
    window: Window,
    arrivals: Arrivals,
    start: StartModel,
}

impl RevisionState {
    /// One that was just seen.
    pub fn new(view: &RevisionView) -> Self {
        Self {
            function: FunctionKey::new(&view.key.namespace, &view.function),
            known_since: Instant::now(),
            key: view.key.clone(),
            written: view.wanted,
            pending: None,
            raised: None,
            asked: None,
            named: Vec::new(),
            loads: HashMap::new(),
            window: Window::default(),
            arrivals: Arrivals::default(),
            start: StartModel::default(),
        }
    }

    /// Takes what the API server says.
    pub fn observe(&mut self, view: &RevisionView, now: Instant) {
        if view.wanted > self.written {
            self.raised.get_or_insert(now);
        }
        self.written = view.wanted;
        if self.pending.is_some_and(|(to, _)| to == view.wanted) {
            self.pending = None;
        }
    }

    /// The count that holds, or will as soon as the last order is seen.
    pub fn wanted(&self, now: Instant) -> u32 {
        self.pending(now).unwrap_or(self.written)
    }

    fn pending(&self, now: Instant) -> Option<u32> {
        self.pending.filter(|(_, at)| now.duration_since(*at) < PATIENCE).map(|(to, _)| to)
    }

    /// The last order has failed: what the API server says holds.
    pub fn clear(&mut self) {
        (self.pending, self.asked) = (None, None);
    }

    /// More instances.
    pub fn raise(&mut self, to: u32, reason: Reason, now: Instant) -> Order {
        let from = self.wanted(now);
        self.raised = Some(now);
        self.asked = None;
        self.pending = Some((to, now));
        self.write(from, to, None, reason)
    }

    fn write(&self, from: u32, to: u32, stopping: Option<Vec<InstanceRef>>, reason: Reason) -> Order {
        let (function, revision) = (self.function.clone(), self.key.clone());
        Order::Write(Write { function, revision, from, to, stopping, reason })
    }

    /// Fewer instances: first the gateways must stop using them.
    pub fn ask_to_retire(&mut self, keep: u32, reason: Reason, now: Instant) -> Option<Order> {
        let asked_lately = self.asked.is_some_and(|(_, _, at)| now.duration_since(at) < ASK_EVERY);
        if asked_lately || self.pending(now).is_some() || self.written <= keep {
            return None;
        }
        self.asked = Some((keep, reason, now));
        Some(Order::Retire { revision: self.key.clone(), keep })
    }

    /// The gateways have stopped using these: count and names go in one patch.
    pub fn lower(&mut self, retired: Retired, now: Instant) -> Option<Order> {
        let (keep, reason, _) = self.asked?;
        let to = retired.left.clamp(keep, self.written.max(keep));
        if to >= self.written || self.pending(now).is_some() {
            return None;
        }
        self.named.retain(|(_, at)| now.duration_since(*at) < NAMED_FOR);
        let known: Vec<InstanceRef> = self.stopping();
        self.named.extend(retired.instances.into_iter().filter(|i| !known.contains(i)).map(|i| (i, now)));
        self.pending = Some((to, now));
        Some(self.write(self.written, to, Some(self.stopping()), reason))
    }

    /// The instances that were named lately.
    pub fn stopping(&self) -> Vec<InstanceRef> {
        self.named.iter().map(|(instance, _)| instance.clone()).collect()
    }

    /// Takes what a gateway says.
    pub fn take_load(&mut self, gateway: SocketAddr, load: Load, settings: &Settings, now: Instant) {
        for start in &load.starts {
            self.start.observe(*start);
        }
        if load.serving {
            self.arrivals.observe(load.arrived, now);
        }
        self.loads.insert(gateway, load);
        let load = self.load();
        if load.starting == 0 && load.ready >= self.written {
            self.raised = None;
        }
        let busy = load.peak_in_flight.div_ceil(settings.concurrency.get());
        let needed = if load.queued > 0 { busy.max(self.wanted(now)) } else { busy };
        self.window.record(needed, now, settings.idle);
    }

    /// A gateway's numbers hold no longer.
    pub fn forget_load(&mut self, gateway: SocketAddr) {
        self.loads.remove(&gateway);
    }

    /// The load over all gateways.
    pub fn load(&self) -> Load {
        let mut sum = Load::default();
        for load in self.loads.values() {
            sum.serving |= load.serving;
            sum.in_flight += load.in_flight;
            sum.queued += load.queued;
            sum.peak_in_flight += load.peak_in_flight;
            // Every gateway sees the same instances.
            sum.ready = sum.ready.max(load.ready);
            sum.starting = sum.starting.max(load.starting);
            sum.service_seconds = sum.service_seconds.or(load.service_seconds);
        }
        sum
    }

    /// Requests a second that keep coming.
    pub fn arriving(&self) -> f64 {
        self.arrivals.sustained()
    }

    /// Seconds since instances were last ordered that have not all answered.
    pub fn starting_for(&self, now: Instant) -> f64 {
        self.raised.map_or(0.0, |at| now.duration_since(at).as_secs_f64())
    }

    /// How long its instances take to start.
    pub fn start_model(&self) -> StartModel {
        self.start
    }

    /// The most instances that were needed within the last while.
    pub fn needed(&mut self, now: Instant, idle: Duration) -> u32 {
        self.window.max(now, idle)
    }
}
