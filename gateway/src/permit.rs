//! A slot of an instance, taken for one request and given back when dropped.

use std::sync::Arc;

use lambent_api::FunctionKey;
use tokio::time::Instant;

use crate::{
    function::Function,
    peers::lease::Lease,
    pool::{Grant, Origin},
    target::Target,
};

/// A slot of an instance; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    function: Arc<Function>,
    /// What was granted.
    pub grant: Box<Grant>,
    since: Instant,
    /// From the gateway that granted it, if that was another one.
    lease: Option<Lease>,
}

impl Permit {
    /// What was granted here, or with a lease by another gateway.
    pub(crate) fn new(function: Arc<Function>, grant: Box<Grant>, lease: Option<Lease>) -> Self {
        // One that is lent is counted by the gateway that uses it.
        if grant.origin == Origin::Caller {
            function.metrics.in_flight().inc();
        }
        Self { function, grant, since: Instant::now(), lease }
    }

    /// Of which Function.
    pub fn function_key(&self) -> &FunctionKey {
        &self.function.key
    }

    /// The instance's connections.
    pub fn target(&self) -> &Arc<Target> {
        &self.grant.target
    }

    /// The instance did not accept a connection: it is not used until it answers again.
    pub fn instance_is_away(&self) {
        self.lease.iter().for_each(Lease::instance_is_away);
        self.function.instance_is_away(self.grant.member);
    }

    /// The instance does not end its request: nothing new is sent there.
    pub fn instance_is_stuck(&self) {
        self.lease.iter().for_each(Lease::instance_is_stuck);
        self.function.instance_is_stuck(self.grant.member);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.grant.origin == Origin::Caller {
            self.function.metrics.in_flight().dec();
        }
        self.function.release(&self.grant, self.since);
    }
}
