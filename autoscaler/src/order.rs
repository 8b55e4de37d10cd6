//! What the autoscaler wants done, and why.

use lambent_api::{FunctionKey, InstanceRef, RevisionKey};
use serde::Serialize;

/// Why a count is changed. The variants are the words in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// Requests wait.
    Backlog,
    /// The gateway lets parked instances go on, and more run than are asked for.
    Thawed,
    /// `scale.min` is more than there is.
    WarmMinimum,
    /// The load has been lower for `scale.idle`.
    IdleWindow,
    /// `scale.max` is less than there is.
    MaximumLowered,
    /// Another Revision serves.
    Superseded,
}

impl Reason {
    /// The variant's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backlog => "Backlog",
            Self::Thawed => "Thawed",
            Self::WarmMinimum => "WarmMinimum",
            Self::IdleWindow => "IdleWindow",
            Self::MaximumLowered => "MaximumLowered",
            Self::Superseded => "Superseded",
        }
    }
}

/// A change of a Revision's wanted count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Of which Function.
    pub function: FunctionKey,
    /// Which Revision.
    pub revision: RevisionKey,
    /// Only if it still says this.
    pub from: u32,
    /// What it is to say.
    pub to: u32,
    /// On the way down: the instances to stop.
    pub stopping: Option<Vec<InstanceRef>>,
    /// Why.
    pub reason: Reason,
    /// The load then.
    pub seen: Seen,
}

/// The load that was decided upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Requests waiting.
    pub queued: u32,
    /// Requests at instances.
    pub in_flight: u32,
    /// Instances that answer.
    pub ready: u32,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Change a count.
    Write(Write),
    /// Ask the gateways to use only `keep` instances; the answer comes back as `Input::Retired`.
    Retire {
        /// Which Revision.
        revision: RevisionKey,
        /// How many stay in use.
        keep: u32,
    },
}
