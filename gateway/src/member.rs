//! One instance as a member of its Function's pool.

use std::{sync::Arc, time::Duration};

use lambent_api::{
    InstanceRef, Reason,
    signal::{Load, Start},
};
use tokio::time::Instant;

use crate::{
    cold_start::Started,
    pool::{Drained, Grant, MemberId, Origin},
    target::Target,
};

/// Whether new requests may go to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It does not answer yet.
    Starting,
    /// It answers.
    Ready,
    /// It answered, and the agent of its node was asked then to freeze it.
    Parking(Instant),
    /// It is frozen.
    Parked,
    /// It was frozen; the agent of its node was asked then to let it go on.
    Thawing(Instant),
    /// Named for stopping at this time, while idle.
    Retired(Instant),
    /// It is being stopped, or was found not to end a request.
    Stopping,
}

impl Use {
    /// Whether its process is frozen, or may be.
    pub fn is_parked(self) -> bool {
        matches!(self, Self::Parking(_) | Self::Parked | Self::Thawing(_))
    }

    /// Whether it answers, or will within milliseconds when that is needed.
    pub fn is_at_hand(self) -> bool {
        self == Self::Ready || self.is_parked()
    }
}

/// An instance and who is on it.
#[derive(Debug)]
pub struct Member {
    /// Its number in the pool.
    pub id: MemberId,
    /// Name and unique id.
    pub instance: Arc<InstanceRef>,
    /// Its Revision.
    pub revision: Arc<str>,
    /// The node where it runs, once that is known.
    pub node: Option<Arc<str>>,
    /// Where and through which connections it is reached.
    pub target: Arc<Target>,
    /// Whether new requests may go there.
    pub usage: Use,
    /// Requests there now. Survives leaving and coming back, restarts and deletion: only a
    /// request's end takes it down.
    pub in_flight: u32,
    /// Those of them that callers of this gateway have sent.
    pub of_callers: u32,
    /// The most at once since last told.
    pub peak: u32,
    /// When a slot was last taken or given back.
    pub last_used: Instant,
    /// Milestones of its start.
    pub started: Started,
    /// How often its process was started again.
    pub restarts: u32,
    /// The fleet has it no more.
    pub gone: bool,
    /// It does not end a request that was given up.
    pub stuck: bool,
    /// Why it could not be frozen, and when.
    pub refused: Option<(Reason, Instant)>,
    /// How long the start took, to be told once.
    pub start: Option<Start>,
}

impl Member {
    /// An instance that was just seen.
    pub fn new(id: MemberId, instance: Arc<InstanceRef>, revision: Arc<str>, started: Started) -> Self {
        Self {
            id,
            instance,
            revision,
            node: None,
            target: Arc::default(),
            usage: Use::Starting,
            in_flight: 0,
            of_callers: 0,
            peak: 0,
            last_used: started.seen,
            started,
            restarts: 0,
            gone: false,
            stuck: false,
            refused: None,
            start: None,
        }
    }

    /// Whether it has a free slot for a new request.
    pub fn can_take(&self, limit: u32, now: Instant, retired_for: Duration) -> bool {
        let usable = match self.usage {
            Use::Ready => true,
            Use::Retired(since) => now.duration_since(since) > retired_for,
            Use::Starting | Use::Parking(_) | Use::Parked | Use::Thawing(_) | Use::Stopping => false,
        };
        usable && self.in_flight < limit
    }

    /// Takes a slot.
    pub fn take(&mut self, origin: Origin, epoch: u64, now: Instant) -> Box<Grant> {
        self.in_flight += 1;
        self.of_callers += u32::from(origin == Origin::Caller);
        self.peak = self.peak.max(self.in_flight);
        self.last_used = now;
        Box::new(Grant {
            member: self.id,
            instance: self.instance.clone(),
            target: self.target.clone(),
            revision: self.revision.clone(),
            started: self.started,
            origin,
            epoch,
        })
    }

    /// Gives a slot back.
    pub fn give_back(&mut self, origin: Origin) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.of_callers = self.of_callers.saturating_sub(u32::from(origin == Origin::Caller));
    }

    /// Whether it can be ended: it gets nothing new and has nothing left, or nothing that would end.
    pub fn drained(&self) -> Option<Drained> {
        let in_use = self.in_flight > 0;
        let over = self.usage == Use::Stopping && (self.stuck || !in_use);
        over.then(|| Drained { instance: InstanceRef::clone(&self.instance), stuck: self.stuck, in_use })
    }

    /// Adds it to the load of its Revision.
    pub fn add_to(&self, load: &mut Load) {
        load.in_flight += self.in_flight;
        load.peak_in_flight += self.peak;
        load.ready += u32::from(self.usage == Use::Ready);
        load.starting += u32::from(self.usage == Use::Starting);
        load.parked += u32::from(self.usage.is_parked());
        load.starts.extend(self.start);
    }
}
