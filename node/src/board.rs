//! Which pods are awaited, and by which gateways. No clock and no socket in it: time comes in as an argument,
//! and what is to be told goes into channels.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use lambent_api::node::FromNode;
use tokio::sync::mpsc::UnboundedSender;

/// A gateway that has not said `Forget` by then has forgotten it itself.
const AWAITED_FOR: Duration = Duration::from_secs(300);
/// More than pods of one node start at once.
const MAX_AWAITED: usize = 1000;

/// What there is to look for.
#[derive(Debug, Default)]
pub struct Board {
    /// By the pod's unique id.
    awaited: HashMap<String, Vec<Asker>>,
}

/// A gateway that waits for a pod's address.
#[derive(Debug)]
struct Asker {
    link: u64,
    to: UnboundedSender<FromNode>,
    since: Instant,
}

impl Board {
    /// A gateway asks for a pod's address. Whether it is looked for.
    pub fn ask(&mut self, uid: String, link: u64, to: UnboundedSender<FromNode>, now: Instant) -> bool {
        if self.awaited.len() >= MAX_AWAITED && !self.awaited.contains_key(&uid) {
            return false;
        }
        let askers = self.awaited.entry(uid).or_default();
        askers.retain(|asker| asker.link != link);
        askers.push(Asker { link, to, since: now });
        true
    }

    /// A gateway does not wait for a pod any more.
    pub fn forget(&mut self, uid: &str, link: u64) {
        let Some(askers) = self.awaited.get_mut(uid) else { return };
        askers.retain(|asker| asker.link != link);
        if askers.is_empty() {
            self.awaited.remove(uid);
        }
    }

    /// A connection to a gateway has ended.
    pub fn leave(&mut self, link: u64) {
        self.retain(|asker| asker.link != link);
    }

    /// The pods to look for.
    pub fn awaited(&mut self, now: Instant) -> Vec<String> {
        self.retain(|asker| now.duration_since(asker.since) < AWAITED_FOR);
        self.awaited.keys().cloned().collect()
    }

    /// How long the one has waited that came last.
    pub fn youngest(&self, now: Instant) -> Duration {
        let last = self.awaited.values().flatten().map(|asker| asker.since).max();
        last.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// Tells a pod's address to all who wait for it: how long each has.
    pub fn found(&mut self, uid: &str, ip: IpAddr, now: Instant) -> Vec<Duration> {
        let askers = self.awaited.remove(uid).unwrap_or_default().into_iter();
        let tell = |asker: Asker| {
            let _ = asker.to.send(FromNode::At { uid: uid.to_owned(), ip });
            now.duration_since(asker.since)
        };
        askers.map(tell).collect()
    }

    fn retain(&mut self, mut keep: impl FnMut(&Asker) -> bool) {
        self.awaited.retain(|_, askers| {
            askers.retain(&mut keep);
            !askers.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 7));

    #[test]
    fn all_gateways_that_wait_are_told_once_and_no_other() {
        let (mut board, now) = (Board::default(), Instant::now());
        let (a, mut to_a) = mpsc::unbounded_channel();
        let (b, mut to_b) = mpsc::unbounded_channel();
        assert!(board.ask("u-1".into(), 1, a.clone(), now));
        assert!(board.ask("u-1".into(), 2, b, now + Duration::from_millis(30)));
        assert!(board.ask("u-1".into(), 1, a, now), "asked again");
        let mut waited = board.found("u-1", IP, now + Duration::from_millis(50));
        waited.sort();
        assert_eq!(waited, [20, 50].map(Duration::from_millis));
        for to in [&mut to_a, &mut to_b] {
            assert_eq!(to.try_recv(), Ok(FromNode::At { uid: "u-1".into(), ip: IP }));
            assert!(to.try_recv().is_err());
        }
        assert!(board.found("u-1", IP, now).is_empty());
        assert!(board.awaited(now).is_empty());
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_looked_for() {
        let (mut board, now) = (Board::default(), Instant::now());
        let (to, _told) = mpsc::unbounded_channel();
        for (uid, link) in [("u-1", 1), ("u-1", 2), ("u-2", 2), ("u-3", 3)] {
            board.ask(uid.into(), link, to.clone(), now);
        }
        board.forget("u-1", 1);
        board.forget("u-9", 1);
        let awaited = |board: &mut Board, now| {
            let mut uids = board.awaited(now);
            uids.sort();
            uids
        };
        assert_eq!(awaited(&mut board, now), ["u-1", "u-2", "u-3"]);
        board.leave(2);
        assert_eq!(awaited(&mut board, now), ["u-3"]);
        assert_eq!(board.youngest(now + Duration::from_secs(3)), Duration::from_secs(3));
        assert!(awaited(&mut board, now + AWAITED_FOR).is_empty());
    }

    #[test]
    fn no_more_are_looked_for_than_a_node_can_start() {
        let (mut board, now) = (Board::default(), Instant::now());
        let (to, _told) = mpsc::unbounded_channel();
        for n in 0..MAX_AWAITED {
            assert!(board.ask(format!("u-{n}"), 1, to.clone(), now));
        }
        assert!(!board.ask("one more".into(), 1, to.clone(), now));
        assert!(board.ask("u-0".into(), 2, to, now));
    }
}
