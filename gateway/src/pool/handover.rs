//! A Function goes from one gateway to another: the one stops granting and says what it knows, the
//! other takes the slots that are still in use into its own count.

use std::sync::Arc;

use lambent_api::InstanceRef;
use tokio::time::Instant;

use super::{Grant, Origin, Pool};
use crate::member::Use;

/// What is left of a Function that another gateway takes over.
pub struct Estate<W> {
    /// Everyone who waits.
    pub waiters: Vec<W>,
    /// Instances that have requests of this gateway's callers, with their number.
    pub busy: Vec<(Arc<InstanceRef>, Arc<str>, u32)>,
    /// Instances that were named for stopping: the autoscaler may be about to stop them.
    pub retired: Vec<Arc<InstanceRef>>,
}

impl<W> Pool<W> {
    /// Grants slots, as the only one.
    pub fn start_granting(&mut self) {
        self.granting = true;
        // What another gateway has granted and is still on its way was not among what all say is in use.
        self.epoch += 1;
    }

    /// Makes everyone wait.
    pub fn stop_granting(&mut self) {
        self.granting = false;
    }

    /// How often it changed who grants.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Stops granting, and says what its heir has to know.
    pub fn hand_over(&mut self) -> Estate<W> {
        self.granting = false;
        self.epoch += 1;
        let busy = self.members.iter().filter(|m| m.of_callers > 0);
        let retired = self.members.iter().filter(|m| matches!(m.usage, Use::Retired(_)));
        Estate {
            busy: busy.map(|m| (m.instance.clone(), m.revision.clone(), m.of_callers)).collect(),
            retired: retired.map(|m| m.instance.clone()).collect(),
            waiters: self.queue.drain(..).map(|waiting| waiting.waiter).collect(),
        }
    }

    /// A slot that another gateway has granted, be it over the limit: it is taken all the same.
    pub fn occupy(
        &mut self,
        instance: &Arc<InstanceRef>,
        revision: &Arc<str>,
        origin: Origin,
        now: Instant,
    ) -> Box<Grant> {
        let epoch = self.epoch;
        let at = self.members.iter().position(|m| m.instance.uid == instance.uid).unwrap_or_else(|| {
            let id = self.add(instance.clone(), revision.clone(), now);
            // Until our own watch shows it.
            if let Some(member) = self.members.iter_mut().find(|m| m.id == id) {
                (member.usage, member.gone) = (Use::Stopping, true);
            }
            self.members.len() - 1
        });
        let grant = self.members[at].take(origin, epoch, now);
        self.peak = self.peak.max(self.in_flight());
        grant
    }

    /// Another gateway has named the instance for stopping.
    pub fn mark_retired(&mut self, uid: &str, now: Instant) {
        if let Some(member) = self.find_mut(uid).filter(|m| m.usage == Use::Ready) {
            member.usage = Use::Retired(now);
        }
    }
}
