//! What gateways say to each other: one JSON object a line. Names that a version doesn't know are
//! passed over, so that old and new ones run side by side in an update.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lambent_api::{FunctionKey, InstanceRef, Name, Protocol};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{cold_start::Started, pool::Grant, refusal::Refusal};

/// One line. The side that has connected sends the first half, the other side the second.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Message {
    /// Who connects. `boot` tells one process of that name from the next.
    Hello { name: String, boot: u64 },
    /// "Among these members, what is mine is granted by me": answered with what is in use
    /// (`Yielded`) and then `Acked`.
    Claim { seq: u64, members: Vec<String> },
    /// It stops: others are to claim what it has.
    Leaving,
    /// Nobody grants the slots of a Function that is not the sender's: the others are to claim again.
    Unclaimed,
    /// A slot is wanted for a request that has waited for `waited` seconds.
    Acquire { id: u64, namespace: Name, function: Name, waited: f64, again: bool },
    /// It isn't wanted any more.
    Cancel { id: u64 },
    /// A slot is free again.
    Release { id: u64 },
    /// The instance did not accept a connection.
    Away { id: u64 },
    /// The instance does not end its request.
    Stuck { id: u64 },

    /// Slots of one Function that this gateway's callers use, and instances named for stopping.
    Yielded { namespace: Name, function: Name, busy: Vec<Busy>, retired: Vec<InstanceRef> },
    /// The claim holds. Slots that were granted for ids below `fence` are all in what was yielded.
    Acked { seq: u64, fence: u64 },
    /// One of the yielded slots is free.
    Released { namespace: Name, function: Name, uid: String },
    /// A slot.
    Granted(Granted),
    /// No slot, for good.
    Refused { id: u64, refusal: Refusal },
    /// No slot here: this gateway does not own the Function.
    Elsewhere { id: u64 },

    /// A sign of life, from both.
    Alive,
    /// Something from a newer version.
    #[serde(other)]
    Unknown,
}

/// Slots in use at one instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Busy {
    #[serde(flatten)]
    pub instance: InstanceRef,
    pub revision: String,
    pub requests: u32,
}

/// A slot of an instance, granted to another gateway. Ages are in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Granted {
    pub id: u64,
    pub name: String,
    pub uid: String,
    pub revision: String,
    pub address: SocketAddr,
    /// The address is only an agent's word.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
    #[serde(default)]
    pub protocol: Protocol,
    pub seen: f64,
    #[serde(default)]
    pub placed: Option<f64>,
    pub addressed: Option<f64>,
    pub answered: Option<f64>,
    /// When it was asked to go on after it was frozen, and when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thawed: Option<(f64, f64)>,
}

impl Granted {
    /// What another gateway needs of a grant; none without an address, which is never so.
    pub fn new(id: u64, grant: &Grant, now: Instant) -> Option<Self> {
        let age = |at: Instant| now.duration_since(at).as_secs_f64();
        Some(Self {
            id,
            name: grant.instance.name.clone(),
            uid: grant.instance.uid.clone(),
            revision: grant.revision.to_string(),
            address: grant.target.address()?,
            early: grant.target.is_early(),
            protocol: grant.target.protocol(),
            seen: age(grant.started.seen),
            placed: grant.started.placed.map(age),
            addressed: grant.started.addressed.map(age),
            answered: grant.started.answered.map(age),
            thawed: grant.started.thawed.map(|(asked, ran)| (age(asked), age(ran))),
        })
    }

    /// Milestones of the start, by this gateway's clock.
    pub fn started(&self, now: Instant) -> Started {
        let at = |age: f64| {
            let age = Duration::try_from_secs_f64(age).unwrap_or_default();
            now.checked_sub(age).unwrap_or(now)
        };
        Started {
            asked: None,
            seen: at(self.seen),
            placed: self.placed.map(at),
            addressed: self.addressed.map(at),
            answered: self.answered.map(at),
            thawed: self.thawed.map(|(asked, ran)| (at(asked), at(ran))),
        }
    }
}

impl Message {
    /// See [`Message::Yielded`].
    pub fn yielded(
        key: &FunctionKey,
        busy: Vec<(Arc<InstanceRef>, Arc<str>, u32)>,
        retired: &[Arc<InstanceRef>],
    ) -> Self {
        let busy = busy.into_iter().map(|(instance, revision, requests)| Busy {
            instance: InstanceRef::clone(&instance),
            revision: revision.to_string(),
            requests,
        });
        Self::Yielded {
            namespace: key.namespace.clone(),
            function: key.name.clone(),
            busy: busy.collect(),
            retired: retired.iter().map(|r| InstanceRef::clone(r)).collect(),
        }
    }

    /// See [`Message::Released`].
    pub fn released(key: &FunctionKey, instance: &InstanceRef) -> Self {
        let FunctionKey { namespace, name } = key.clone();
        Self::Released { namespace, function: name, uid: instance.uid.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_newer_versions_are_understood_as_such() {
        let message: Message = serde_json::from_str(r#"{"type": "sing", "song": 3}"#).unwrap();
        assert!(matches!(message, Message::Unknown));
        let message: Message = serde_json::from_str(r#"{"type": "release", "id": 3, "why": "done"}"#).unwrap();
        assert!(matches!(message, Message::Release { id: 3 }));
    }
}
