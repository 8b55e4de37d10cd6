//! One Function on the request path: its settings, its pool, and the wait for a permit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use lambent_api::{FunctionKey, InstanceRef, Reason, Settings, signal};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    hub::Hub,
    metrics::FunctionMetrics,
    pool::{Admission, Grant, Pool, Serving, Ticket},
    refusal::Refusal,
    target::Target,
};

type Waiter = oneshot::Sender<Result<Grant, Refusal>>;

/// One Function.
#[derive(Debug)]
pub struct Function {
    /// Which.
    pub key: FunctionKey,
    /// Its series.
    pub metrics: FunctionMetrics,
    settings: ArcSwap<Settings>,
    pool: Mutex<Pool<Waiter>>,
    hub: Arc<Hub>,
    /// Whether a message about it is on its way to the autoscaler.
    told: AtomicBool,
    raising: AtomicBool,
    /// Whether there is such a Function: a deleted one stays until its last request has ended.
    callable: AtomicBool,
}

impl std::fmt::Debug for Pool<Waiter> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

/// A slot of an instance; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    function: Arc<Function>,
    /// What was granted.
    pub grant: Grant,
    since: Instant,
}

impl Function {
    /// A Function without instances.
    pub fn new(key: FunctionKey, settings: Arc<Settings>, metrics: FunctionMetrics, hub: Arc<Hub>) -> Self {
        Self {
            pool: Mutex::new(Pool::new(settings.clone())),
            settings: ArcSwap::new(settings),
            key,
            metrics,
            hub,
            told: AtomicBool::new(false),
            raising: AtomicBool::new(false),
            callable: AtomicBool::new(false),
        }
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
    /// stopped are used again, and what is drained is said again for who has not heard it.
    pub fn each_second(self: &Arc<Self>) {
        let now = Instant::now();
        let drained = self.change(|pool| {
            pool.members().iter().for_each(|m| m.target.prune(now));
            pool.drained()
        });
        drained.into_iter().for_each(|instance| self.drained(instance));
    }

    /// Stops using all but `keep` instances of a Revision.
    pub fn retire(&self, revision: &str, keep: u32) -> signal::Retired {
        self.pool.lock().retire(revision, keep, Instant::now())
    }

    /// Whether it has neither instances nor requests.
    pub fn is_empty(&self) -> bool {
        self.pool.lock().is_empty()
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
    pub fn serve(self: &Arc<Self>, serving: Option<Serving>, stalled: Option<Reason>) {
        self.change(|pool| pool.serve(serving, stalled));
    }

    /// A slot, in the order of arrival. Ends with a permit, at `queue.timeout`, or by being dropped,
    /// which leaves the line.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn acquire(self: &Arc<Self>, arrived: Instant, again: bool) -> Result<Permit, Refusal> {
        let mut receiver = None;
        let waiter = || {
            let (sender, there) = oneshot::channel();
            receiver = Some(there);
            sender
        };
        let admission = self.pool.lock().admit(waiter, again, Instant::now());
        let ticket = match admission {
            Admission::Granted(grant) => return Ok(self.permit(grant)),
            Admission::Refused(refusal) => return Err(refusal),
            Admission::Waiting(ticket) => ticket,
        };
        let Some(mut receiver) = receiver else { return Err(Refusal::NoRevision) };
        let _place = Place { function: self, ticket };
        self.metrics.queued.inc();
        self.tell();
        self.raise_if_needed();
        let limit = self.settings.load().queue_timeout;
        match timeout_at(arrived + limit, &mut receiver).await {
            Ok(Ok(outcome)) => outcome.map(|grant| self.permit(grant)),
            // Never: the sender stays in the line until it is used or this request leaves.
            Ok(Err(_)) => Err(Refusal::NoRevision),
            Err(_) => self.last_chance(receiver, limit),
        }
    }

    /// A grant may have been sent in the moment in which the time ran out.
    fn last_chance(
        self: &Arc<Self>,
        mut receiver: oneshot::Receiver<Result<Grant, Refusal>>,
        waited: Duration,
    ) -> Result<Permit, Refusal> {
        match receiver.try_recv() {
            Ok(outcome) => outcome.map(|grant| self.permit(grant)),
            Err(_) => Err(self.pool.lock().waited_in_vain(waited)),
        }
    }

    fn permit(self: &Arc<Self>, grant: Grant) -> Permit {
        self.metrics.in_flight.inc();
        Permit { function: self.clone(), grant, since: Instant::now() }
    }

    /// Changes the pool and hands out what has become free.
    pub fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Pool<Waiter>) -> T) -> T {
        let (result, lost) = {
            let mut pool = self.pool.lock();
            let result = change(&mut pool);
            (result, hand_out(&mut pool))
        };
        for (waiter, refusal) in lost {
            let _ = waiter.send(Err(refusal));
        }
        self.raise_if_needed();
        result
    }

    /// Its loads now, by Revision, without taking them from those who listen already.
    pub fn loads(&self) -> Vec<signal::Load> {
        self.pool.lock().loads(&self.key.namespace, &self.key.name, Instant::now())
    }

    /// Its loads for all who listen; peaks start anew.
    pub fn take_loads(&self) -> Vec<signal::Load> {
        self.told.store(false, Ordering::Release);
        let loads = {
            let mut pool = self.pool.lock();
            let loads = pool.loads(&self.key.namespace, &self.key.name, Instant::now());
            pool.start_peaks_anew();
            loads
        };
        let count = |of: fn(&signal::Load) -> u32| i64::from(loads.iter().map(of).sum::<u32>());
        self.metrics.ready.set(count(|l| l.ready));
        self.metrics.starting.set(count(|l| l.starting));
        loads
    }

    /// Tells the autoscaler soon how much waits here.
    pub fn tell(self: &Arc<Self>) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.hub.changed(self.clone());
        }
    }

    /// Asks for a first instance while somebody waits and none is wanted. It does so itself, so
    /// that a function wakes also while the autoscaler is away.
    fn raise_if_needed(self: &Arc<Self>) {
        let revision = {
            let pool = self.pool.lock();
            pool.serving().filter(|_| pool.must_raise()).map(|s| s.revision.clone())
        };
        let Some(revision) = revision else { return };
        if self.raising.swap(true, Ordering::AcqRel) {
            return;
        }
        let function = self.clone();
        // Ends when nobody waits any more or the count is seen to be raised.
        tokio::spawn(async move {
            let mut pause = Duration::from_millis(20);
            while function.pool.lock().must_raise() {
                function.hub.raise(&function.key.namespace, &revision).await;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            function.raising.store(false, Ordering::Release);
        });
    }
}

/// Gives free slots to those who wait; a waiter who has just left gives its slot to the next.
fn hand_out(pool: &mut Pool<Waiter>) -> Vec<(Waiter, Refusal)> {
    let now = Instant::now();
    while let Some((waiter, grant)) = pool.next_grant(now) {
        if let Err(Ok(grant)) = waiter.send(Ok(grant)) {
            pool.release_unused(grant.member);
        }
    }
    let hopeless = pool.take_hopeless();
    hopeless.map_or_else(Vec::new, |(refusal, waiters)| waiters.into_iter().map(|w| (w, refusal.clone())).collect())
}

/// A place in the line; left when dropped.
struct Place<'a> {
    function: &'a Arc<Function>,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.function.metrics.queued.dec();
        self.function.pool.lock().cancel(self.ticket);
    }
}

impl Permit {
    /// The instance's connections.
    pub fn target(&self) -> &Target {
        &self.grant.target
    }

    /// The instance did not accept a connection: it is not used until it answers again.
    pub fn instance_is_away(&self) {
        let member = self.grant.member;
        if let Some(uid) = self.function.pool.lock().away(member) {
            self.function.hub.away(self.function.clone(), uid);
        }
    }

    /// The instance does not end its request: nothing new is sent there.
    pub fn instance_is_stuck(&self) {
        let function = &self.function;
        let stuck = function.pool.lock().stuck(self.grant.member);
        if let Some(instance) = stuck {
            let namespace = function.key.namespace.clone();
            function.hub.drained(signal::Drained { stuck: true, namespace, instance });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let function = &self.function;
        function.metrics.in_flight.dec();
        let now = Instant::now();
        let held = now.duration_since(self.since);
        let drained = function.change(|pool| pool.release(self.grant.member, held, now));
        if let Some(instance) = drained {
            function.drained(instance);
        }
    }
}

impl Function {
    /// A stopping instance has no request any more.
    pub fn drained(&self, instance: InstanceRef) {
        self.hub.drained(signal::Drained { stuck: false, namespace: self.key.namespace.clone(), instance });
    }
}
