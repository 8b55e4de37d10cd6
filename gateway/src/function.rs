//! One Function on the request path: its settings, its pool, and what others are told of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use lambent_api::{FunctionKey, InstanceRef, Reason, Settings, signal};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    hub::Hub,
    metrics::FunctionMetrics,
    owner::{Heir, Owner},
    peers::message::Message,
    pool::{Drained, Grant, MemberId, Pool, Serving, parking::Order},
    refusal::Refusal,
};

/// Wakes one who waits.
pub type Waiter = oneshot::Sender<Result<Box<Grant>, Turned>>;

/// Why one who waited has no slot.
#[derive(Debug)]
pub enum Turned {
    /// Refused for good.
    Down(Refusal),
    /// Another gateway grants the slots.
    Away,
}

/// One Function.
#[derive(Debug)]
pub struct Function {
    /// Which.
    pub key: FunctionKey,
    /// Its series.
    pub metrics: FunctionMetrics,
    settings: ArcSwap<Settings>,
    state: Mutex<State>,
    pub(crate) owner_changed: Notify,
    hub: Arc<Hub>,
    /// Whether a message about it is on its way to the autoscaler.
    told: AtomicBool,
    raising: AtomicBool,
    /// Whether there is such a Function: a deleted one stays until its last request has ended.
    callable: AtomicBool,
}

/// What changes together.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) pool: Pool<Waiter>,
    pub(crate) owner: Owner,
    pub(crate) heir: Option<Heir>,
}

impl std::fmt::Debug for Pool<Waiter> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

impl Function {
    /// A Function without instances whose slots are granted here.
    pub fn new(key: FunctionKey, settings: Arc<Settings>, metrics: FunctionMetrics, hub: Arc<Hub>) -> Self {
        let state = State { pool: Pool::new(settings.clone()), owner: Owner::Me, heir: None };
        Self {
            state: Mutex::new(state),
            settings: ArcSwap::new(settings),
            key,
            metrics,
            hub,
            owner_changed: Notify::new(),
            told: AtomicBool::new(false),
            raising: AtomicBool::new(false),
            callable: AtomicBool::new(false),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether it can be called.
    pub fn is_callable(&self) -> bool {
        self.callable.load(Ordering::Acquire)
    }

    /// Says whether it can be called.
    pub fn set_callable(&self, callable: bool) {
        self.callable.store(callable, Ordering::Release);
    }

    /// What only time brings about: idle connections are closed, retired instances that nobody has
    /// stopped are used again, what the load does not need is parked, and what is drained is said again for who has not heard it.
    pub fn each_second(self: &Arc<Self>) {
        let (now, agents) = (Instant::now(), self.hub.agents());
        let (drained, mut orders, parking) = self.change_state(|state| {
            let State { pool, owner, .. } = state;
            pool.members().iter().for_each(|m| m.target.prune(now));
            let orders = pool.mend_parked(now, agents);
            let drained = if owner.is_me() { pool.drained() } else { Vec::new() };
            (drained, orders, pool.park_idle(now, agents))
        });
        drained.into_iter().for_each(|drained| self.drained(drained));
        orders.extend(parking);
        self.hub.order(&orders);
    }

    /// Stops using all but `keep` instances of a Revision; none if that is another gateway's to say.
    pub fn retire(&self, revision: &str, keep: u32) -> Option<signal::Retired> {
        let mut state = self.state.lock();
        state.owner.is_me().then(|| state.pool.retire(revision, keep, Instant::now()))
    }

    /// Whether it has neither instances nor requests.
    pub fn is_empty(&self) -> bool {
        self.state.lock().pool.is_empty()
    }

    /// Its settings now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Takes other settings.
    pub fn configure(self: &Arc<Self>, settings: Arc<Settings>) {
        self.settings.store(settings.clone());
        self.change(|pool| pool.configure(settings));
    }

    /// Sends new requests to this Revision.
    pub fn serve(self: &Arc<Self>, serving: Option<Serving>, stalled: Option<Arc<Reason>>) {
        self.change(|pool| pool.serve(serving, stalled));
    }

    /// Changes the pool and hands out what has become free.
    pub fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Pool<Waiter>) -> T) -> T {
        self.change_state(|state| change(&mut state.pool))
    }

    pub(crate) fn change_state<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, lost, thawing) = {
            let (mut state, now) = (self.state.lock(), Instant::now());
            let result = change(&mut state);
            let lost = hand_out(&mut state.pool, now);
            (result, lost, state.pool.thaw_needed(now, self.hub.agents()))
        };
        self.hub.order(&thawing);
        for (waiter, refusal) in lost {
            let _ = waiter.send(Err(Turned::Down(refusal)));
        }
        self.raise_if_needed();
        result
    }

    /// A request has ended.
    pub(crate) fn release(self: &Arc<Self>, grant: &Grant, since: Instant) {
        let now = Instant::now();
        let drained = self.change_state(|state| {
            let State { pool, owner, heir } = state;
            if let Some(heir) = heir.as_ref().filter(|_| grant.is_before(pool.epoch())) {
                let _ = heir.send(Message::released(&self.key, &grant.instance));
            }
            let drained = pool.release(grant, now.duration_since(since), now);
            drained.filter(|_| owner.is_me())
        });
        if let Some(drained) = drained {
            self.drained(drained);
        }
    }

    /// An instance did not accept a connection: whether it does again is found out.
    pub(crate) fn instance_is_away(self: &Arc<Self>, member: MemberId) {
        let news = self.state.lock().pool.away(member);
        if let Some(uid) = news {
            self.hub.away(self.clone(), uid);
        }
    }

    /// An instance does not end a request. The next look at it tells those who can replace it.
    pub(crate) fn instance_is_stuck(&self, member: MemberId) {
        self.state.lock().pool.stuck(member);
    }

    /// An instance that gets no new request may be ended.
    fn drained(&self, Drained { instance, stuck, in_use }: Drained) {
        let namespace = self.key.namespace.clone();
        self.hub.drained(signal::Drained { stuck, in_use, namespace, instance });
    }

    /// A stopping instance has no request, as far as the gateway knows that grants its slots.
    pub(crate) fn has_drained(&self, instance: InstanceRef) {
        if self.state.lock().owner.is_me() {
            self.drained(Drained { instance, stuck: false, in_use: false });
        }
    }

    /// Its loads now, by Revision, without taking them from those who listen already.
    pub fn loads(&self) -> Vec<signal::Load> {
        self.loads_of(&self.state.lock())
    }

    /// Its loads for all who listen; peaks start anew.
    pub fn take_loads(&self) -> Vec<signal::Load> {
        self.told.store(false, Ordering::Release);
        let mut state = self.state.lock();
        let loads = self.loads_of(&state);
        state.pool.start_peaks_anew();
        drop(state);
        let count = |of: fn(&signal::Load) -> u32| loads.iter().map(of).sum::<u32>();
        self.metrics.instances([count(|l| l.ready), count(|l| l.starting), count(|l| l.parked)]);
        loads
    }

    /// None while another gateway grants the slots: it knows all of it.
    fn loads_of(&self, state: &State) -> Vec<signal::Load> {
        if !state.owner.is_me() {
            return Vec::new();
        }
        state.pool.loads(&self.key, Instant::now(), self.hub.agents())
    }

    /// Tells the autoscaler soon how much waits here.
    pub fn tell(self: &Arc<Self>) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.hub.changed(self.clone());
        }
    }

    /// Lets a parked instance go on, if one is to serve those who wait.
    pub(crate) fn thaw_if_needed(&self) {
        let thawing = self.state.lock().pool.thaw_needed(Instant::now(), self.hub.agents());
        self.hub.order(&thawing);
    }

    /// Tells the agents what they have to do.
    pub(crate) fn order(&self, orders: &[(Arc<str>, Order)]) {
        self.hub.order(orders);
    }

    /// Asks for a first instance while somebody waits and none is wanted. It does so itself, so
    /// that a function wakes also while the autoscaler is away.
    pub(crate) fn raise_if_needed(self: &Arc<Self>) {
        let revision = {
            let state = self.state.lock();
            state.pool.serving().filter(|_| state.pool.must_raise()).map(|s| s.revision.clone())
        };
        let Some(revision) = revision else { return };
        if self.raising.swap(true, Ordering::AcqRel) {
            return;
        }
        self.state.lock().pool.asking(Instant::now());
        let function = self.clone();
        // Ends when nobody waits any more or the count is seen to be raised.
        tokio::spawn(async move {
            let mut pause = Duration::from_millis(20);
            while function.state.lock().pool.must_raise() {
                function.hub.raise(&function.key.namespace, &revision).await;
                function.state.lock().pool.asked(Instant::now());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            function.raising.store(false, Ordering::Release);
        });
    }
}

/// Gives free slots to those who wait; a waiter who has just left gives its slot to the next.
fn hand_out(pool: &mut Pool<Waiter>, now: Instant) -> Vec<(Waiter, Refusal)> {
    while let Some((waiter, grant)) = pool.next_grant(now) {
        if let Err(Ok(grant)) = waiter.send(Ok(grant)) {
            pool.release_unused(&grant);
        }
    }
    let hopeless = pool.take_hopeless();
    hopeless.map_or_else(Vec::new, |(refusal, waiters)| waiters.into_iter().map(|w| (w, refusal.clone())).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use futures::future::BoxFuture;
    use lambent_api::FunctionSpec;
    use tokio::sync::mpsc::{self, UnboundedReceiver};

    use super::*;
    use crate::{
        hub::{News, Raise},
        metrics::Metrics,
        pool::parking::NoAgents,
    };

    struct NoRaise;

    impl Raise for NoRaise {
        fn raise<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ()> {
            Box::pin(async {})
        }
    }

    /// One of concurrency 1 whose Revision is `hello-1`, and its news.
    pub(crate) fn function() -> (Arc<Function>, UnboundedReceiver<News>) {
        let (news, receiver) = mpsc::unbounded_channel();
        let spec: FunctionSpec = serde_json::from_value(serde_json::json!({"image": "a", "concurrency": 1})).unwrap();
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap()).of("shop", "hello");
        let hub = Arc::new(Hub::new(news, Box::new(NoRaise), Arc::new(NoAgents { since: Instant::now() })));
        let settings = Arc::new(Settings::try_from(&spec).unwrap());
        let function = Arc::new(Function::new(FunctionKey::new("shop", "hello"), settings, metrics, hub));
        function.serve(Some(Serving { revision: "hello-1".into(), next: None, wanted: 1, not_startable: None }), None);
        (function, receiver)
    }

    pub(crate) fn ready(function: &Arc<Function>, uid: &str) -> InstanceRef {
        let instance = InstanceRef { name: format!("hello-1-{uid}"), uid: uid.to_owned() };
        function.change(|pool| {
            pool.add(Arc::new(instance.clone()), "hello-1".into(), Instant::now());
            pool.answered(uid, 0, Instant::now());
        });
        instance
    }

    #[tokio::test]
    async fn only_the_gateway_that_grants_the_slots_says_that_an_instance_has_no_request() {
        let (function, mut news) = function();
        let instance = ready(&function, "uid-1");
        let mut said =
            || std::iter::from_fn(|| news.try_recv().ok()).filter(|news| matches!(news, News::Drained(_))).count();
        function.state().owner = Owner::Nobody;
        function.has_drained(instance.clone());
        assert_eq!(said(), 0, "another one may have requests there");
        function.state().owner = Owner::Me;
        function.has_drained(instance);
        assert_eq!(said(), 1);
    }
}
