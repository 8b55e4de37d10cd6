//! What the watches tell the [`super::Applier`].

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use lambent_api::{FunctionKey, InstanceRef, Name, Protocol, Reason, RevisionKey, Settings};
use lambent_fleet::Event;
use tokio_util::sync::CancellationToken;

use super::AgentNews;
use crate::function::Function;

/// What the gateway needs of a Function.
#[derive(Clone, Debug)]
pub struct FunctionView {
    /// Which.
    pub key: FunctionKey,
    /// Settings of the path; none if they are invalid, and then the last good ones stay.
    pub settings: Option<Arc<Settings>>,
    /// The Revision that new requests go to: the serving one, else the one that is proving itself.
    pub revision: Option<Name>,
    /// The Revision that is to take its place, if there is one.
    pub next: Option<Name>,
    /// Why there will be no Revision unless something changes.
    pub stalled: Option<Reason>,
}

/// What the gateway needs of a Revision.
#[derive(Clone, Debug)]
pub struct RevisionView {
    /// Which.
    pub key: RevisionKey,
    /// Its wanted count.
    pub wanted: u32,
    /// What its instances speak.
    pub protocol: Protocol,
    /// Whether an instance of it has answered once.
    pub proven: bool,
    /// Why no instance of it can start.
    pub not_startable: Option<Reason>,
    /// Instances that are about to be stopped because a gateway has named them.
    pub stopping: Vec<InstanceRef>,
}

/// A change that a watch has seen.
#[derive(Debug)]
pub enum Change {
    /// A Function is there or has changed.
    Function(FunctionView),
    /// A Function is gone.
    FunctionGone(FunctionKey),
    /// There are no Functions but these.
    OnlyFunctions(HashSet<FunctionKey>),
    /// A Revision is there or has changed.
    Revision(RevisionView),
    /// A Revision is gone.
    RevisionGone(RevisionKey),
    /// There are no Revisions but these.
    OnlyRevisions(HashSet<RevisionKey>),
    /// Instances.
    Fleet(Event),
    /// The agent of an instance's node has told its address, which can be its.
    Early {
        /// Unique id of the instance.
        uid: String,
        /// Its address.
        ip: IpAddr,
    },
    /// An instance that answered before does not.
    Away(Arc<Function>, String),
    /// The agent of a node says something.
    Agent(Arc<str>, AgentNews),
    /// All that was listed has come before this: the token is cancelled when it is applied.
    Synced(CancellationToken),
}
