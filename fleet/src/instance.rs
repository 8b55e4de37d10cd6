//! One running copy of a Revision, as all kinds of fleet show it.

use std::net::SocketAddr;

use jiff::Timestamp;
use lambent_api::{FunctionKey, InstanceRef, Reason, RevisionKey};

/// What is known of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Name and unique id.
    pub id: InstanceRef,
    /// Namespace of its Function.
    pub namespace: String,
    /// Name of its Function.
    pub function: String,
    /// Name of its Revision.
    pub revision: String,
    /// The node where it runs, where there are nodes and that is known.
    pub node: Option<String>,
    /// Where it will listen, as soon as that is known; it need not listen yet.
    pub address: Option<SocketAddr>,
    /// While that is not known: where it is being started, if someone there may be asked for it.
    pub placed: Option<Placed>,
    /// How far it is.
    pub phase: Phase,
    /// How often its process was started again in place.
    pub restarts: u32,
    /// When it was ordered.
    pub created: Timestamp,
}

/// Where an instance without an address is being started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The name of the node.
    pub node: String,
    /// The port at which it will listen.
    pub port: u16,
}

/// How far an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// On its way. With an address it may be answering already: find out by connecting.
    Starting,
    /// Not to be used before its own readiness probe succeeds; what a probe says goes before
    /// a connection.
    Unready,
    /// Its process runs (and its readiness probe, if any, succeeds).
    Running,
    /// It can't start for now, with the fleet's own reason; the fleet keeps trying.
    Failing(Reason),
    /// It will not come back and must be replaced.
    Ended(Reason),
    /// It is being stopped, by us or by someone else: no new request.
    Stopping,
}

impl Instance {
    /// Which Function.
    pub fn function_key(&self) -> FunctionKey {
        FunctionKey::new(&self.namespace, &self.function)
    }

    /// Which Revision.
    pub fn revision_key(&self) -> RevisionKey {
        RevisionKey::new(&self.namespace, &self.revision)
    }

    /// Whether it counts towards the wanted number.
    pub fn counts(&self) -> bool {
        !matches!(self.phase, Phase::Stopping | Phase::Ended(_))
    }

    /// Where to try a connection, if that makes sense now.
    pub fn connectable(&self) -> Option<SocketAddr> {
        match self.phase {
            Phase::Starting | Phase::Running => self.address,
            Phase::Unready | Phase::Failing(_) | Phase::Ended(_) | Phase::Stopping => None,
        }
    }
}
