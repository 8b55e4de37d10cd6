//! A slot that another gateway has granted.

use std::sync::Arc;

use super::{
    link::Link,
    message::{Granted, Message},
};

/// A slot of another gateway's; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    link: Arc<Link>,
    id: u64,
}

/// A slot, and where it is.
#[derive(Debug)]
pub struct Leased {
    /// The slot.
    pub lease: Lease,
    /// Where it is.
    pub granted: Granted,
}

impl Lease {
    pub(super) fn new(link: Arc<Link>, id: u64) -> Self {
        Self { link, id }
    }

    /// Tells the owner that the instance did not accept a connection.
    pub fn instance_is_away(&self) {
        self.link.send(Message::Away { id: self.id });
    }

    /// Tells the owner that the instance does not end its request.
    pub fn instance_is_stuck(&self) {
        self.link.send(Message::Stuck { id: self.id });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.link.send(Message::Release { id: self.id });
    }
}
