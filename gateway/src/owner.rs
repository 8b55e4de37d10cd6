//! Who grants the slots of a Function: this gateway, another one, or nobody for the moment.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::{
    function::{Function, Turned},
    peers::{link::Link, message::Message},
};

/// Who grants the slots of a Function.
#[derive(Clone, Debug)]
pub enum Owner {
    /// This gateway.
    Me,
    /// Nobody yet: who comes waits here until somebody does.
    Nobody,
    /// That one; it is asked for each slot.
    Peer(Arc<Link>),
}

impl Owner {
    /// Whether it is this gateway.
    pub fn is_me(&self) -> bool {
        matches!(self, Self::Me)
    }
}

/// Who is told of the end of requests that were sent before it became the owner.
pub type Heir = UnboundedSender<Message>;

impl Function {
    /// Slots are granted here from now on.
    pub fn take_over(self: &Arc<Self>) {
        self.change_state(|state| {
            (state.owner, state.heir) = (Owner::Me, None);
            state.pool.start_granting();
        });
        self.owner_changed.notify_waiters();
        self.tell();
    }

    /// Nobody grants slots, until somebody is known to be the only one who does.
    pub fn await_owner(self: &Arc<Self>) {
        self.change_state(|state| {
            state.owner = Owner::Nobody;
            state.pool.stop_granting();
        });
    }

    /// Another gateway grants the slots from now on. It is told over `heir` what is in use, in
    /// order with the ends of those requests; who waits here asks there.
    pub fn yield_to(self: &Arc<Self>, peer: Arc<Link>, heir: Heir) {
        let waiters = self.change_state(|state| {
            let estate = state.pool.hand_over();
            if !estate.busy.is_empty() || !estate.retired.is_empty() {
                let _ = heir.send(Message::yielded(&self.key, estate.busy, &estate.retired));
            }
            (state.owner, state.heir) = (Owner::Peer(peer), Some(heir));
            estate.waiters
        });
        for waiter in waiters {
            let _ = waiter.send(Err(Turned::Away));
        }
        self.owner_changed.notify_waiters();
    }

    /// Who grants the slots.
    pub fn owner(&self) -> Owner {
        self.state().owner.clone()
    }
}
