//! Whether an address that an agent tells can be the pod's: by what the API server knows of its node and of
//! other pods. What can't be checked is not believed.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use ipnet::IpNet;
use parking_lot::Mutex;
use thiserror::Error;

/// A node's range never changes while the node is there.
const RANGES_FOR: Duration = Duration::from_secs(60);

/// Why an address is not believed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Doubt {
    /// Loopback, multicast and the like.
    #[error("no pod can have it")]
    NoPods,
    /// Its node has a range, and this is not in it.
    #[error("it is outside of the node's range")]
    Outside,
    /// It is another pod's.
    #[error("it is {0}'s")]
    Held(String),
    /// The API server did not say.
    #[error("it can't be checked: {0}")]
    Unknown(String),
}

/// A pod that has an address by the API server's word.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Unique id.
    pub uid: String,
    /// Namespace and name.
    pub name: String,
    /// It has ended, and its address may be another's by now.
    pub ended: bool,
}

/// What the API server says.
pub trait Facts: Send + Sync {
    /// The ranges that a node's pods have their addresses from; empty where nodes have none.
    fn ranges<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Vec<IpNet>, Doubt>>;

    /// All pods with this address.
    fn holders(&self, ip: IpAddr) -> BoxFuture<'_, Result<Vec<Holder>, Doubt>>;
}

/// Checks addresses, and remembers the ranges for a while.
pub struct Checks {
    facts: Box<dyn Facts>,
    ranges: Mutex<HashMap<String, Known>>,
}

/// The ranges of a node, and since when they are known.
type Known = (Arc<[IpNet]>, Instant);

impl Checks {
    /// By these facts.
    pub fn new(facts: Box<dyn Facts>) -> Self {
        Self { facts, ranges: Mutex::default() }
    }

    /// Whether the pod of this unique id, on this node, can have this address.
    ///
    /// # Errors
    /// Why it is not believed.
    pub async fn check(&self, uid: &str, node: &str, ip: IpAddr) -> Result<(), Doubt> {
        possible(ip)?;
        let (ranges, holders) = tokio::try_join!(self.ranges(node), self.facts.holders(ip))?;
        within(ip, &ranges)?;
        free(uid, &holders)
    }

    /// The ranges of a node.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn ranges(&self, node: &str) -> Result<Arc<[IpNet]>, Doubt> {
        let fresh = |known: &Known| known.1.elapsed() < RANGES_FOR;
        if let Some((ranges, _)) = self.ranges.lock().get(node).filter(|known| fresh(known)) {
            return Ok(ranges.clone());
        }
        let asked: Arc<[IpNet]> = self.facts.ranges(node).await?.into();
        let mut known = self.ranges.lock();
        known.retain(|_, known| fresh(known));
        known.insert(node.to_owned(), (asked.clone(), Instant::now()));
        Ok(asked)
    }
}

fn possible(ip: IpAddr) -> Result<(), Doubt> {
    let special = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if special || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() { Err(Doubt::NoPods) } else { Ok(()) }
}

fn within(ip: IpAddr, ranges: &[IpNet]) -> Result<(), Doubt> {
    if ranges.is_empty() || ranges.iter().any(|range| range.contains(&ip)) { Ok(()) } else { Err(Doubt::Outside) }
}

fn free(uid: &str, holders: &[Holder]) -> Result<(), Doubt> {
    let other = holders.iter().find(|holder| holder.uid != uid && !holder.ended);
    other.map_or(Ok(()), |holder| Err(Doubt::Held(holder.name.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_no_pod_can_have_is_refused() {
        for text in ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "169.254.169.254", "fe80::1"] {
            assert_eq!(possible(ip(text)), Err(Doubt::NoPods), "{text}");
        }
        assert_eq!(possible(ip("::ffff:127.0.0.1").to_canonical()), Err(Doubt::NoPods));
        for text in ["10.244.0.7", "100.64.3.4", "172.31.255.255", "fd00::7", "2001:db8::7"] {
            assert_eq!(possible(ip(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn an_address_lies_in_the_nodes_range_where_it_has_one() {
        let ranges = ["10.244.3.0/24".parse().unwrap(), "fd00:3::/64".parse().unwrap()];
        assert_eq!(within(ip("10.244.3.255"), &ranges), Ok(()));
        assert_eq!(within(ip("fd00:3::7"), &ranges), Ok(()));
        assert_eq!(within(ip("10.244.4.0"), &ranges), Err(Doubt::Outside));
        assert_eq!(within(ip("fd00:4::7"), &ranges), Err(Doubt::Outside));
        assert_eq!(within(ip("192.0.2.1"), &[]), Ok(()));
    }

    #[test]
    fn an_address_of_another_live_pod_is_refused() {
        let holder = |uid: &str, ended| Holder { uid: uid.into(), name: "shop/other".into(), ended };
        assert_eq!(free("u-1", &[]), Ok(()));
        assert_eq!(free("u-1", &[holder("u-1", false), holder("u-2", true)]), Ok(()));
        assert_eq!(free("u-1", &[holder("u-2", true), holder("u-3", false)]), Err(Doubt::Held("shop/other".into())));
    }

    struct Away;

    impl Facts for Away {
        fn ranges<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpNet>, Doubt>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn holders(&self, _: IpAddr) -> BoxFuture<'_, Result<Vec<Holder>, Doubt>> {
            Box::pin(async { Err(Doubt::Unknown("away".into())) })
        }
    }

    #[tokio::test]
    async fn what_cant_be_checked_is_not_believed() {
        let checks = Checks::new(Box::new(Away));
        assert_eq!(checks.check("u-1", "a", ip("10.0.0.1")).await, Err(Doubt::Unknown("away".into())));
    }
}
