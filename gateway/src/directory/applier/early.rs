//! Addresses that an agent has told, until the API shows them.

use std::net::{IpAddr, SocketAddr};

use lambent_fleet::{Instance, Phase};
use tracing::warn;

use super::{Applier, KnownInstance};
use crate::nodes::{Nodes, Outcome};

/// An address as an agent tells it, for an instance of which this is known.
enum Word {
    /// It is used.
    Good(SocketAddr),
    /// The API was faster, or the instance is not to be connected to.
    Late,
    /// Another instance has it.
    Held,
}

impl Applier {
    /// Connects to an instance at an address that an agent has told.
    pub(super) fn early(&mut self, uid: &str, ip: IpAddr) {
        let word = self.word(uid, ip);
        let Some(known) = self.instances.get_mut(uid) else { return };
        let outcome = match word {
            Word::Good(address) => {
                (known.instance.address, known.early) = (Some(address), true);
                Outcome::Believed
            }
            Word::Late => Outcome::Late,
            Word::Held => {
                warn!(instance = known.instance.id.name, %ip, "an agent tells an address that another instance has");
                Outcome::Refused
            }
        };
        if let Some(nodes) = &self.nodes {
            nodes.count(outcome);
            nodes.gone(uid);
        }
        self.show(uid);
    }

    fn word(&self, uid: &str, ip: IpAddr) -> Word {
        let Some(KnownInstance { instance, .. }) = self.instances.get(uid) else { return Word::Late };
        let Some(placed) = instance.placed.as_ref().filter(|_| instance.address.is_none()) else { return Word::Late };
        if instance.phase != Phase::Starting {
            return Word::Late;
        }
        // The list of pods by address may be older than what was believed a moment ago.
        let lives =
            |known: &&KnownInstance| known.instance.id.uid != uid && !matches!(known.instance.phase, Phase::Ended(_));
        let mut others = self.instances.values().filter(lives).filter_map(|known| known.instance.address);
        match others.any(|other| other.ip() == ip) {
            true => Word::Held,
            false => Word::Good(SocketAddr::new(ip, placed.port)),
        }
    }
}

/// Puts the address that an agent told into what a watch shows, as long as that has none. Whether the API has
/// had its say.
pub(super) fn settle(known: &KnownInstance, shown: &mut Instance, nodes: Option<&Nodes>) -> bool {
    let Some(address) = shown.address else {
        shown.address = known.instance.address;
        return false;
    };
    let instance = &*shown.id.name;
    let outcome = if known.instance.address == Some(address) {
        Outcome::Confirmed
    } else {
        let told = known.instance.address;
        warn!(instance, ?told, shown = %address, "an agent told an address that the API contradicts; nothing more goes there");
        Outcome::Contradicted
    };
    if let Some(nodes) = nodes {
        nodes.count(outcome);
    }
    true
}
