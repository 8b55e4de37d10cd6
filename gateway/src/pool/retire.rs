//! Scale-down: idle instances are named, and not used from then on.

use lambent_api::{InstanceRef, signal::Retired};
use tokio::time::Instant;

use super::Pool;
use crate::member::{Member, Use};

impl<W> Pool<W> {
    /// Stops using all but `keep` instances of a Revision, only idle ones, and names them. Named
    /// ones that nobody has stopped yet are named again, so that a lost answer costs nothing. While
    /// another Revision takes its place, that one's instances count, and are not named.
    ///
    /// Nor are those named that are to be parked: they go out of use, and stay.
    pub fn retire(&mut self, revision: &str, keep: u32, now: Instant) -> Retired {
        let serves = self.serving.as_ref().filter(|s| *s.revision == *revision);
        let counts = |m: &&Member| serves.map_or(*m.revision == *revision, |s| s.includes(&m.revision));
        let parked = self.members.iter().filter(counts).filter(|m| m.usage.is_parked()).count();
        let all = self.members.iter().filter(counts).filter(|m| is_running(m)).count();
        let kept = serves.map_or(0, |_| self.settings.kept() as usize).saturating_sub(parked);
        let keep = keep as usize;
        let waiting = !self.queue.is_empty() && serves.is_some();
        let surplus = if waiting { 0 } else { all.saturating_sub(keep.max(kept)) };
        let of_it = |m: &&mut Member| *m.revision == *revision && is_running(m);
        let mut mine: Vec<&mut Member> = self.members.iter_mut().filter(of_it).collect();
        mine.sort_by_key(|m| (!matches!(m.usage, Use::Retired(_)), m.usage == Use::Ready, m.last_used));
        let idle = mine.iter().filter(|m| m.in_flight == 0).count();
        let named = mine.into_iter().filter(|m| m.in_flight == 0).take(surplus).map(|member| {
            member.usage = Use::Retired(now);
            InstanceRef::clone(&member.instance)
        });
        let instances: Vec<_> = named.collect();
        let left = all - instances.len();
        let can_be_parked = if waiting || kept <= keep { 0 } else { idle - instances.len() };
        let left = left - can_be_parked.min(left.saturating_sub(keep));
        Retired { instances, left: u32::try_from(left).unwrap_or(u32::MAX) }
    }
}

fn is_running(member: &Member) -> bool {
    member.usage != Use::Stopping && !member.usage.is_parked()
}
