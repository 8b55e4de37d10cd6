//! Parked instances: those that the load does not need are frozen by the agent of their node, and thawed
//! when a request needs one.
//!
//! ```text
//!         park              Parked
//! Ready ------> Parking ------------> Parked
//!   ^              | CantPark           | thaw: somebody waits, or more are wanted
//!   +--------------+                    v
//!   +----------- Running ----------- Thawing
//! ```
//!
//! What is frozen is known from the agent, never guessed: the kernel accepts connections for a process
//! that does not run.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use lambent_api::{InstanceRef, Reason};
use tokio::time::Instant;

use super::{Pool, Serving};
use crate::member::{Member, Use};

/// An instance that the load does not need goes on running for so long after its last request, or after
/// its first answer: many a process is not done with starting when it listens.
const IDLE_FOR: Duration = Duration::from_secs(1);
/// An agent thaws within a millisecond; what was not heard of for so long is said again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Without its node's agent, or without an answer of it, an instance counts as lost after this, once a
/// request needs it.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// An instance that could not be frozen is tried again after this.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// A gateway that has just started gives the agents this time to find it, before it says that they are
/// missing.
const AGENTS_COME_WITHIN: Duration = Duration::from_secs(10);

/// How a node stands with its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// It is connected and has said what is frozen.
    Linked,
    /// It is not, since then.
    Away(Instant),
}

/// What is known of the nodes' agents.
pub trait Agents: Send + Sync {
    /// How a node stands with its agent.
    fn of(&self, node: &str) -> Agent;

    /// Says something to the agent of a node; lost if there is none.
    fn tell(&self, node: &str, order: &Order);
}

/// Something for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Freeze this instance.
    Park(Arc<InstanceRef>),
    /// Let it go on.
    Thaw(Arc<InstanceRef>),
}

/// What an agent is to be told, by node.
pub type Orders = Vec<(Arc<str>, Order)>;

impl<W> Pool<W> {
    /// Whether anything is, or may be, frozen.
    fn any_parked(&self) -> bool {
        self.members.iter().any(|m| m.usage.is_parked())
    }

    /// What is to be thawed now: as many as those who wait need, and as many as are wanted. Nothing for
    /// a request that an instance on its way out of the freezer will take.
    pub fn thaw_needed(&mut self, now: Instant, agents: &dyn Agents) -> Orders {
        if !self.granting || !self.any_parked() {
            return Orders::new();
        }
        let Some(serving) = self.serving.clone() else { return Orders::new() };
        let missing = self.missing(&serving);
        let linked = |m: &Member| m.node.as_ref().is_some_and(|node| agents.of(node) == Agent::Linked);
        let mut parked: Vec<&mut Member> = self
            .members
            .iter_mut()
            .filter(|m| matches!(m.usage, Use::Parked | Use::Parking(_)) && serving.includes(&m.revision) && linked(m))
            .collect();
        parked.sort_by_key(|m| (m.usage != Use::Parked, Reverse(m.last_used)));
        parked.into_iter().take(missing).filter_map(|m| m.thaw(now)).collect()
    }

    /// Instances of the serving Revision that have to be thawed.
    fn missing(&self, serving: &Serving) -> usize {
        let of_it = || self.members.iter().filter(|m| serving.includes(&m.revision));
        let thawing = of_it().filter(|m| matches!(m.usage, Use::Thawing(_))).count();
        let running = of_it().filter(|m| matches!(m.usage, Use::Ready | Use::Starting)).count();
        let at_once = self.settings.concurrency.get() as usize;
        let for_queue = self.queue.len().div_ceil(at_once).saturating_sub(thawing);
        let for_wanted = (serving.wanted as usize).saturating_sub(running + thawing);
        for_queue.max(for_wanted)
    }

    /// What is to be frozen now: idle instances that the load does not need, the one used last at last.
    /// None during a rollout.
    pub fn park_idle(&mut self, now: Instant, agents: &dyn Agents) -> Orders {
        let most = self.settings.parked as usize;
        let parked = self.members.iter().filter(|m| m.usage.is_parked()).count();
        let Some(serving) = self.serving.clone().filter(|s| s.next.is_none()) else { return Orders::new() };
        if !self.granting || parked >= most || !self.queue.is_empty() {
            return Orders::new();
        }
        let of_it = |m: &&mut Member| m.usage == Use::Ready && *m.revision == *serving.revision;
        let mut ready: Vec<&mut Member> = self.members.iter_mut().filter(of_it).collect();
        let surplus = ready.len().saturating_sub(serving.wanted as usize).min(most - parked);
        ready.sort_by_key(|m| m.last_used);
        let idle = ready.into_iter().filter(|m| m.is_long_idle(now) && m.can_park(now, agents));
        idle.take(surplus).filter_map(|m| m.park(now)).collect()
    }

    /// Each second: thaws that were not heard of are said again, and what nobody can thaw while somebody
    /// waits is given up, to be replaced.
    pub fn mend_parked(&mut self, now: Instant, agents: &dyn Agents) -> Orders {
        if !self.granting || !self.any_parked() {
            return Orders::new();
        }
        let mut orders = Orders::new();
        let mut needed = self.lacking(now);
        for member in self.members.iter_mut().filter(|m| m.usage.is_parked()) {
            let away = member.node.as_ref().is_none_or(|node| match agents.of(node) {
                Agent::Linked => false,
                Agent::Away(since) => now.duration_since(since) > LOST_AFTER,
            });
            let thawing = match member.usage {
                Use::Thawing(since) => now.duration_since(since),
                _ => Duration::ZERO,
            };
            if needed > 0 && (away || thawing > LOST_AFTER) {
                (member.usage, member.stuck) = (Use::Stopping, true);
                needed -= 1;
            } else if thawing > AGAIN_AFTER {
                orders.extend(member.order(Order::Thaw));
            }
        }
        orders
    }

    /// Instances that those who wait need, and that nothing under way will bring.
    fn lacking(&self, now: Instant) -> usize {
        let comes = |m: &&Member| match m.usage {
            Use::Starting => true,
            Use::Thawing(since) => now.duration_since(since) <= LOST_AFTER,
            // Its successor is not known yet.
            Use::Stopping => m.stuck && !m.gone,
            _ => false,
        };
        let coming = self.members.iter().filter(comes).count();
        self.queue.len().div_ceil(self.settings.concurrency.get() as usize).saturating_sub(coming)
    }

    /// The agent has frozen an instance. What is to be said to it.
    pub fn parked(&mut self, uid: &str, now: Instant) -> Orders {
        let unwanted = self.settings.parked == 0;
        let Some(member) = self.find_mut(uid) else { return Orders::new() };
        let before = member.usage;
        match before {
            // It is said anew, lest the two have crossed.
            Use::Stopping => return member.order(Order::Thaw).into_iter().collect(),
            Use::Thawing(_) => return Orders::new(),
            Use::Starting | Use::Ready | Use::Retired(_) | Use::Parking(_) | Use::Parked => member.usage = Use::Parked,
        }
        member.refused = None;
        member.started.answered.get_or_insert(now);
        member.target.clear();
        let order = match before {
            // Another gateway owned the Function when it was ordered.
            _ if unwanted || member.in_flight > 0 => member.thaw(now),
            Use::Parking(_) | Use::Parked => None,
            // An agent that has just begun finds what the last one has frozen, and lets go of what nobody
            // asks for.
            _ => member.order(Order::Park),
        };
        order.into_iter().collect()
    }

    /// The agent says that an instance runs.
    pub fn running(&mut self, uid: &str, now: Instant) {
        let Some(member) = self.find_mut(uid).filter(|m| m.usage.is_parked()) else { return };
        if let Use::Thawing(since) = member.usage {
            member.started.thawed = Some((since, now));
        }
        member.started.answered.get_or_insert(now);
        member.usage = Use::Ready;
        member.last_used = now;
    }

    /// The agent could not freeze an instance: it goes on.
    pub fn cannot_park(&mut self, uid: &str, why: Reason, now: Instant) {
        let Some(member) = self.find_mut(uid) else { return };
        member.refused = Some((why, now));
        if matches!(member.usage, Use::Parking(_)) {
            member.usage = Use::Ready;
        }
    }

    /// The agent of a node has said all that is frozen there; whatever else was taken for it runs. What the one
    /// before could not freeze this one may.
    pub fn agent_synced(&mut self, node: &str, frozen: impl Fn(&str) -> bool, now: Instant) {
        self.members.iter_mut().filter(|m| m.node.as_deref() == Some(node)).for_each(|m| m.refused = None);
        let there = self.members.iter().filter(|m| m.node.as_deref() == Some(node) && m.usage.is_parked());
        let running = there.filter(|m| !frozen(&m.instance.uid)).map(|m| m.instance.uid.clone());
        for uid in running.collect::<Vec<_>>() {
            self.running(&uid, now);
        }
    }

    /// Why instances that the load does not need are not frozen, if that is so.
    pub(super) fn not_parkable(&self, now: Instant, agents: &dyn Agents) -> Option<Reason> {
        let serving = self.serving.as_ref().filter(|s| s.next.is_none())?;
        let of_it = || self.members.iter().filter(|m| *m.revision == *serving.revision);
        let ready = of_it().filter(|m| m.usage == Use::Ready).count();
        let parked = of_it().filter(|m| m.usage.is_parked()).count();
        if ready <= serving.wanted as usize || parked >= self.settings.parked as usize {
            return None;
        }
        of_it().filter(|m| m.usage == Use::Ready && m.is_long_idle(now)).find_map(|m| m.not_parkable(now, agents))
    }
}

impl Member {
    fn order(&self, order: impl FnOnce(Arc<InstanceRef>) -> Order) -> Option<(Arc<str>, Order)> {
        Some((self.node.clone()?, order(self.instance.clone())))
    }

    /// What lets it go on.
    fn thaw(&mut self, now: Instant) -> Option<(Arc<str>, Order)> {
        self.usage = Use::Thawing(now);
        self.order(Order::Thaw)
    }

    /// Its idle connections are closed: the process could not answer to what happens on them.
    fn park(&mut self, now: Instant) -> Option<(Arc<str>, Order)> {
        self.usage = Use::Parking(now);
        self.target.clear();
        self.order(Order::Park)
    }

    fn is_long_idle(&self, now: Instant) -> bool {
        let since = self.started.answered.map_or(self.last_used, |answered| answered.max(self.last_used));
        self.in_flight == 0 && now.duration_since(since) >= IDLE_FOR
    }

    fn can_park(&self, now: Instant, agents: &dyn Agents) -> bool {
        let refused = self.refused.as_ref().is_some_and(|(_, at)| now.duration_since(*at) < REFUSED_FOR);
        !refused && self.node.as_ref().is_some_and(|node| agents.of(node) == Agent::Linked)
    }

    fn not_parkable(&self, now: Instant, agents: &dyn Agents) -> Option<Reason> {
        let node = self.node.as_deref().unwrap_or_default();
        match agents.of(node) {
            Agent::Away(since) if now.duration_since(since) > AGENTS_COME_WITHIN => {
                let there = if node.is_empty() { "here".to_owned() } else { format!("on node {node}") };
                Some(Reason::new("NoNodeAgent", format!("no agent {there} that could freeze instances: they run")))
            }
            Agent::Away(_) => None,
            Agent::Linked => self.refused.as_ref().map(|(why, _)| why.clone()),
        }
    }
}

/// Where nothing can be frozen.
#[derive(Debug)]
pub struct NoAgents {
    /// Since when there are none.
    pub since: Instant,
}

impl Agents for NoAgents {
    fn of(&self, _: &str) -> Agent {
        Agent::Away(self.since)
    }

    fn tell(&self, _: &str, _: &Order) {}
}

#[cfg(test)]
#[path = "parking_tests.rs"]
mod tests;
