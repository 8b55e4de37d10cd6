//! What a gateway tells: the load of each Revision, and which stopping instances are drained.
//! Sent as one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::{FunctionKey, InstanceRef, Name, Reason};

/// One line from a gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Message {
    /// The load of one Revision now.
    Load(Load),
    /// A stopping instance has no request any more and can be ended at once.
    Drained(Drained),
    /// Everything about the present state was said; repeated each second as a sign of life.
    Synced,
}

/// The load of one Revision as the gateway that owns its Function sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Namespace of the Function.
    pub namespace: Name,
    /// Name of the Function.
    pub function: Name,
    /// Name of the Revision.
    pub revision: Name,
    /// Whether new requests go to this Revision.
    pub serving: bool,
    /// Requests at instances now.
    pub in_flight: u32,
    /// Requests waiting now.
    pub queued: u32,
    /// The most requests in flight at once since the last message about this Revision.
    pub peak_in_flight: u32,
    /// Requests that have arrived since the gateway started.
    #[serde(default)]
    pub arrived: u64,
    /// Instances that answer.
    pub ready: u32,
    /// Instances known that do not answer yet.
    pub starting: u32,
    /// Instances that are frozen, or on the way into that or out of it: neither ready nor starting.
    #[serde(default)]
    pub parked: u32,
    /// Why instances that should be frozen are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_parkable: Option<Reason>,
    /// How long a request has an instance, in seconds, as a moving average; absent until one was served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_seconds: Option<f64>,
    /// Starts that ended since the last message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<Start>,
}

impl Load {
    /// Which Function.
    pub fn function_key(&self) -> FunctionKey {
        FunctionKey::new(self.namespace.clone(), self.function.clone())
    }
}

/// How long one instance took from its creation until it answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// From creation to the first accepted connection.
    pub seconds: f64,
    /// The most other instances, of any Function, that were starting at the same time.
    pub others: u32,
}

/// An instance that no new request uses any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Nobody is stopping it, but it does not end a request that was given up: replace it.
    #[serde(default)]
    pub stuck: bool,
    /// Other requests still run there, and may come to their end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_use: bool,
    /// Namespace of the instance.
    pub namespace: Name,
    /// Which instance.
    #[serde(flatten)]
    pub instance: InstanceRef,
}

/// Asks the owner of a Function to stop using all but `keep` instances of a Revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    /// Namespace of the Revision.
    pub namespace: Name,
    /// Name of the Revision.
    pub revision: Name,
    /// How many instances stay in use.
    pub keep: u32,
}

/// The instances that the gateway has stopped using: all of them idle, and fewer than asked for
/// when fewer were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Safe to stop.
    pub instances: Vec<InstanceRef>,
    /// How many instances stay in use.
    pub left: u32,
}
