//! The wait for a slot: here if this gateway grants the Function's slots, else at the one that does.

use std::{sync::Arc, time::Duration};

use lambent_api::InstanceRef;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    function::{Function, Turned},
    owner::Owner,
    peers::{lease::Leased, link::Link},
    permit::Permit,
    pool::{Admission, Grant, Origin, Ticket},
    refusal::Refusal,
};

/// Owners change within milliseconds; then it is asked again, or when it is told.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// The owner keeps `queue.timeout` itself; this is for one that has stopped answering.
const OWNER_ANSWERS: Duration = Duration::from_secs(1);

impl Function {
    /// A slot, in the order of arrival. Ends with a permit, at `queue.timeout`, or by being dropped,
    /// which leaves the line.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn acquire(self: &Arc<Self>, arrived: Instant, again: bool) -> Result<Permit, Refusal> {
        let limit = self.settings().queue_timeout;
        loop {
            let outcome = match self.owner() {
                Owner::Me | Owner::Nobody => self.acquire_here(arrived, Origin::Caller, again).await,
                Owner::Peer(peer) => self.acquire_from(&peer, arrived, again, limit).await,
            };
            match outcome {
                Ok(permit) => return Ok(permit),
                Err(Turned::Down(refusal)) => return Err(refusal),
                Err(Turned::Away) if arrived.elapsed() < limit => {
                    let _ = timeout(ASK_AGAIN, self.owner_changed.notified()).await;
                }
                Err(Turned::Away) => return Err(Refusal::QueueTimeout(limit)),
            }
        }
    }

    /// A slot granted here. As [`Function::acquire`], and it ends when another gateway takes over.
    pub(crate) async fn acquire_here(
        self: &Arc<Self>,
        arrived: Instant,
        origin: Origin,
        again: bool,
    ) -> Result<Permit, Turned> {
        let mut receiver = None;
        let waiter = || {
            let (sender, there) = oneshot::channel();
            receiver = Some(there);
            sender
        };
        let ticket = {
            let mut state = self.state();
            match (&state.owner, origin) {
                (Owner::Me, _) | (Owner::Nobody, Origin::Caller) => {}
                _ => return Err(Turned::Away),
            }
            match state.pool.admit(waiter, origin, again, Instant::now()) {
                Admission::Waiting(ticket) => ticket,
                Admission::Refused(refusal) => return Err(Turned::Down(refusal)),
                Admission::Granted(grant) => {
                    drop(state);
                    return Ok(Permit::new(self.clone(), grant, None));
                }
            }
        };
        let Some(receiver) = receiver else { return Err(Turned::Down(Refusal::NoRevision)) };
        let mut place = Place { function: self, ticket, granted: receiver };
        let _counted = (origin == Origin::Caller).then(|| Counted::queued(self));
        self.thaw_if_needed();
        self.tell();
        self.raise_if_needed();
        let limit = self.settings().queue_timeout;
        match timeout_at(arrived + limit, &mut place.granted).await {
            Ok(Ok(outcome)) => outcome.map(|grant| Permit::new(self.clone(), grant, None)),
            // Never: the sender stays in the line until it is used or this request leaves.
            Ok(Err(_)) => Err(Turned::Away),
            Err(_) => Err(Turned::Down(self.state().pool.waited_in_vain(limit))),
        }
    }

    /// A slot granted by another gateway.
    async fn acquire_from(
        self: &Arc<Self>,
        peer: &Arc<Link>,
        arrived: Instant,
        again: bool,
        limit: Duration,
    ) -> Result<Permit, Turned> {
        // What is granted after the Function has gone on to a third gateway, or come here, does not count:
        // that one was told of all that is in use.
        let epoch = self.state().pool.epoch();
        let asked = peer.acquire(&self.key, arrived, again);
        let _counted = Counted::queued(self);
        let Leased { lease, granted } = match timeout_at(arrived + limit + OWNER_ANSWERS, asked).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(Turned::Away),
        };
        let mut state = self.state();
        if state.pool.epoch() != epoch {
            drop(state);
            return Err(Turned::Away);
        }
        let now = Instant::now();
        let instance = Arc::new(InstanceRef { name: granted.name.clone(), uid: granted.uid.clone() });
        let mut grant = state.pool.occupy(&instance, &granted.revision.as_str().into(), Origin::Caller, now);
        drop(state);
        match granted.early {
            true => grant.target.set_early_address(granted.address),
            false => grant.target.set_address(granted.address),
        };
        grant.target.set_protocol(granted.protocol);
        grant.started = granted.started(now);
        Ok(Permit::new(self.clone(), grant, Some(lease)))
    }
}

/// A place in the line; left when dropped. A slot that was granted in the very moment goes to the next.
struct Place<'a> {
    function: &'a Arc<Function>,
    ticket: Ticket,
    granted: oneshot::Receiver<Result<Box<Grant>, Turned>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.function.state().pool.cancel(self.ticket);
        self.granted.close();
        if let Ok(Ok(grant)) = self.granted.try_recv() {
            self.function.change(|pool| pool.release_unused(&grant));
        }
    }
}

/// One who waits, in the metrics.
struct Counted<'a>(&'a Function);

impl<'a> Counted<'a> {
    fn queued(function: &'a Function) -> Self {
        function.metrics.queued().inc();
        Self(function)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.queued().dec();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        function::tests::{function, ready},
        peers::message::{Granted, Message},
    };

    /// Its answer and the word that the Function is this gateway's come one after the other, and the one who
    /// waits for the answer may hear of it last.
    #[tokio::test]
    async fn a_slot_that_another_gateway_granted_just_before_this_one_took_over_is_not_used() {
        let (function, _news) = function();
        let instance = ready(&function, "uid-1");
        let (heir, _told) = mpsc::unbounded_channel();
        let (to, mut said) = mpsc::unbounded_channel();
        let link = Arc::new(Link::new("other".into(), 1));
        link.connected(to);
        function.yield_to(link.clone(), heir);
        let mut asks = Box::pin(function.acquire(Instant::now(), false));
        assert!((&mut asks).now_or_never().is_none(), "it asks the other one");
        let Ok(Message::Acquire { id, .. }) = said.try_recv() else { panic!() };
        let granted = Granted {
            id,
            name: instance.name,
            uid: instance.uid,
            revision: "hello-1".into(),
            address: ([127, 0, 0, 1], 9).into(),
            early: false,
            protocol: lambent_api::Protocol::Http1,
            seen: 0.0,
            placed: None,
            addressed: None,
            answered: None,
            thawed: None,
        };
        link.take(Message::Granted(granted));
        function.take_over();
        let here = function.acquire_here(Instant::now(), Origin::Caller, false).now_or_never();
        assert!(here.is_some_and(|permit| permit.is_ok_and(|here| {
            // Concurrency is 1, and that one is taken.
            assert!((&mut asks).now_or_never().is_none());
            drop(here);
            true
        })));
        assert!(matches!(said.try_recv(), Ok(Message::Release { id: given_back }) if given_back == id));
        assert!(tokio::time::timeout(Duration::from_secs(60), asks).await.is_ok_and(|permit| permit.is_ok()));
    }

    #[tokio::test]
    async fn a_slot_that_comes_in_the_moment_in_which_its_caller_leaves_goes_to_the_next() {
        let (function, _news) = function();
        ready(&function, "uid-1");
        let acquire = || function.acquire_here(Instant::now(), Origin::Caller, false);
        let first = acquire().now_or_never().expect("it is free").expect("a permit");
        let mut leaves = Box::pin(acquire());
        assert!((&mut leaves).now_or_never().is_none(), "it waits");
        drop(first);
        drop(leaves);
        assert!(acquire().now_or_never().is_some_and(|permit| permit.is_ok()), "the slot is free");
    }
}
