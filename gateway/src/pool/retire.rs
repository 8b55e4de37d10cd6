//! Scale-down: idle instances are named, and not used from then on.

use lambent_api::{InstanceRef, signal::Retired};
use tokio::time::Instant;

use super::Pool;
use crate::member::{Member, Use};

impl<W> Pool<W> {
    /// Stops using all but `keep` instances of a Revision, only idle ones, and names them. Named
    /// ones that nobody has stopped yet are named again, so that a lost answer costs nothing.
    pub fn retire(&mut self, revision: &str, keep: u32, now: Instant) -> Retired {
        let mut mine: Vec<&mut Member> =
            self.members.iter_mut().filter(|m| *m.revision == *revision && m.usage != Use::Stopping).collect();
        let waiting = !self.queue.is_empty() && self.serving.as_ref().is_some_and(|s| *s.revision == *revision);
        let surplus = if waiting { 0 } else { mine.len().saturating_sub(keep as usize) };
        let all = mine.len();
        mine.sort_by_key(|m| (!matches!(m.usage, Use::Retired(_)), m.usage == Use::Ready, m.last_used));
        let idle = mine.into_iter().filter(|m| m.in_flight == 0).take(surplus);
        let named = idle.map(|member| {
            member.usage = Use::Retired(now);
            InstanceRef::clone(&member.instance)
        });
        let instances: Vec<_> = named.collect();
        let left = u32::try_from(all - instances.len()).unwrap_or(u32::MAX);
        Retired { instances, left }
    }
}
