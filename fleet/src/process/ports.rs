//! Free ports. Not those that the kernel gives to outgoing connections: a connection to a port of
//! that range on which nobody listens yet may be given the same port as its own, and so reach itself.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::Ipv4Addr,
    ops::Range,
};

use parking_lot::Mutex;
use tokio::net::TcpSocket;

/// Where ports are taken from, less what the kernel takes.
const RANGE: Range<u16> = 10_000..32_000;
/// Where Linux says which ports outgoing connections get.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Gives out ports; none twice at once.
pub(super) struct Ports {
    range: Range<u16>,
    state: Mutex<State>,
}

struct State {
    next: u16,
    taken: HashSet<u16>,
}

/// A port, as long as this lives.
pub(super) struct Port<'a> {
    ports: &'a Ports,
    /// Its number.
    pub(super) number: u16,
}

impl Default for Ports {
    fn default() -> Self {
        let range = below_outgoing(std::fs::read_to_string(OUTGOING).ok().as_deref());
        // Elsewhere for each fleet, so that two rarely want the same one at once.
        let offset = RandomState::new().hash_one(()) % range.len() as u64;
        let next = range.start + u16::try_from(offset).unwrap_or(0);
        Self { range, state: Mutex::new(State { next, taken: HashSet::new() }) }
    }
}

#[cfg(test)]
impl From<Range<u16>> for Ports {
    fn from(range: Range<u16>) -> Self {
        let state = Mutex::new(State { next: range.start, taken: HashSet::new() });
        Self { range, state }
    }
}

fn below_outgoing(told: Option<&str>) -> Range<u16> {
    let first = told.and_then(|text| text.split_whitespace().next()).and_then(|word| word.parse().ok());
    let end = first.map_or(RANGE.end, |first: u16| first.min(RANGE.end));
    // Where outgoing connections take nearly everything there is no better choice.
    if end >= RANGE.start + 1000 { RANGE.start..end } else { RANGE }
}

impl Ports {
    /// A port on which nobody listens; none if there is none.
    pub(super) fn take(&self) -> Option<Port<'_>> {
        let mut state = self.state.lock();
        let number = (0..self.range.len()).find_map(|_| {
            let candidate = state.next;
            state.next = if candidate + 1 >= self.range.end { self.range.start } else { candidate + 1 };
            (!state.taken.contains(&candidate) && is_free(candidate)).then_some(candidate)
        })?;
        state.taken.insert(number);
        Some(Port { ports: self, number })
    }
}

/// Whether it can be listened on. Does not listen itself: another one that asks at the same moment would take
/// that for a process on the port.
pub(super) fn is_free(port: u16) -> bool {
    let bound = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())
    });
    bound.is_ok()
}

impl Drop for Port<'_> {
    fn drop(&mut self) {
        self.ports.state.lock().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn asking_whether_a_port_is_free_disturbs_nobody_who_asks_too() {
        let port = Ports::default().take().unwrap().number;
        let all_free = || (0..2000).all(|_| is_free(port));
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..4).map(|_| scope.spawn(all_free)).collect();
            assert!(others.into_iter().all(|other| other.join().unwrap()));
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }

    #[test]
    fn ports_are_below_those_of_outgoing_connections() {
        assert_eq!(below_outgoing(Some("32768\t60999\n")), RANGE);
        assert_eq!(below_outgoing(Some("20000 60999")), 10_000..20_000);
        assert_eq!(below_outgoing(Some("1024 65535")), RANGE);
        assert_eq!(below_outgoing(None), RANGE);
    }

    #[test]
    fn when_all_are_taken_there_is_none_until_one_is_given_back() {
        let ports = Ports::from(RANGE.start..RANGE.start + 40);
        let taken: Vec<_> = std::iter::from_fn(|| ports.take()).collect();
        assert!(taken.len() <= 40);
        assert!(ports.take().is_none());
        drop(taken);
        assert!(ports.take().is_some());
    }

    #[test]
    fn no_port_is_given_twice_or_while_someone_listens() {
        let ports = Ports::default();
        let first = ports.take().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ports.state.lock().next));
        let second = ports.take().unwrap();
        assert_ne!(first.number, second.number);
        if let Ok(listener) = listener {
            assert_ne!(second.number, listener.local_addr().unwrap().port());
        }
        let number = first.number;
        drop(first);
        assert!(!ports.state.lock().taken.contains(&number));
    }
}
