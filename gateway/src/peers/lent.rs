//! Slots that this gateway has granted to others, until they are given back.

use std::{collections::HashMap, sync::Arc};

use lambent_api::FunctionKey;
use parking_lot::Mutex;

use crate::permit::Permit;

type Slots = HashMap<u64, Arc<Permit>>;

/// Slots lent, by gateway and by the id under which it asked.
#[derive(Debug, Default)]
pub struct Lent {
    by_peer: Mutex<HashMap<Arc<str>, Slots>>,
}

impl Lent {
    /// A slot goes to a gateway.
    pub fn put(&self, peer: &Arc<str>, id: u64, permit: Permit) {
        self.by_peer.lock().entry(peer.clone()).or_default().insert(id, Arc::new(permit));
    }

    /// A slot that a gateway has.
    pub fn get(&self, peer: &str, id: u64) -> Option<Arc<Permit>> {
        self.by_peer.lock().get(peer)?.get(&id).cloned()
    }

    /// It has given the slot back.
    pub fn take_back(&self, peer: &str, id: u64) {
        let permit = self.by_peer.lock().get_mut(peer).and_then(|slots| slots.remove(&id));
        // Not under the lock: the next in line is served by this.
        drop(permit);
    }

    /// Of these Functions, slots with ids below `fence` are known in another way, or to be over.
    pub fn take_back_before(&self, peer: &str, fence: u64, of: impl Fn(&FunctionKey) -> bool) {
        let mut by_peer = self.by_peer.lock();
        let Some(slots) = by_peer.get_mut(peer) else { return };
        let over: Vec<_> = slots.extract_if(|id, permit| *id < fence && of(permit.function_key())).collect();
        drop(by_peer);
        drop(over);
    }

    /// The gateway is no more.
    pub fn forget(&self, peer: &str) {
        let slots = self.by_peer.lock().remove(peer);
        drop(slots);
    }
}
