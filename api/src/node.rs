//! What gateways and node agents say to each other. An agent connects to each gateway; from then on each
//! side sends one JSON object a line. Names that a version doesn't know are passed over, so that old and
//! new ones run side by side in an update.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Where an agent asks a gateway's internal port for the connection.
pub const PATH: &str = "/internal/v1/node";
/// What that connection is upgraded to.
pub const PROTOCOL: &str = "lambent-node/1";

/// One line from a gateway to the agent of a node. What it is about runs, or will, on that node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToNode {
    /// A pod of the node has no address yet: say it as soon as its sandbox has one.
    Where {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        name: String,
        /// Its unique id.
        uid: String,
    },
    /// Nobody waits for this pod any more.
    Forget {
        /// The pod's unique id.
        uid: String,
    },
    /// Freeze this pod's function: answered by `Parked` or `CantPark`. One that is frozen already is meant to
    /// stay so.
    Park {
        /// The pod's unique id.
        uid: String,
    },
    /// Let this pod's function go on: answered by `Running`.
    Thaw {
        /// The pod's unique id.
        uid: String,
    },
    /// A sign of life.
    Alive,
    /// Something from a newer version.
    #[serde(other)]
    Unknown,
}

/// One line from an agent to a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum FromNode {
    /// The pod's sandbox has this address.
    At {
        /// The pod's unique id.
        uid: String,
        /// Its address.
        ip: IpAddr,
    },
    /// The pod's function is frozen. Said to all gateways, and of everything that is frozen to one that has
    /// just been connected to.
    Parked {
        /// The pod's unique id.
        uid: String,
    },
    /// The pod's function runs, or has ended. Said to all gateways.
    Running {
        /// The pod's unique id.
        uid: String,
    },
    /// The pod's function could not be frozen, and runs.
    CantPark {
        /// The pod's unique id.
        uid: String,
        /// For people.
        why: String,
    },
    /// All that is frozen was said.
    Synced,
    /// A sign of life.
    Alive,
    /// Something from a newer version.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, json, to_value};

    use super::*;

    #[test]
    fn each_message_is_one_small_object() {
        let uid = || "u-1".to_owned();
        let asked = ToNode::Where { namespace: "shop".into(), name: "hello-1".into(), uid: uid() };
        assert_eq!(
            to_value(&asked).unwrap(),
            json!({"type": "where", "namespace": "shop", "name": "hello-1", "uid": "u-1"})
        );
        assert_eq!(to_value(ToNode::Forget { uid: uid() }).unwrap(), json!({"type": "forget", "uid": "u-1"}));
        let told = FromNode::At { uid: uid(), ip: "fd00::7".parse().unwrap() };
        assert_eq!(to_value(&told).unwrap(), json!({"type": "at", "uid": "u-1", "ip": "fd00::7"}));
        assert_eq!(to_value(ToNode::Park { uid: uid() }).unwrap(), json!({"type": "park", "uid": "u-1"}));
        let refused = FromNode::CantPark { uid: uid(), why: "no freezer".into() };
        assert_eq!(to_value(&refused).unwrap(), json!({"type": "cantPark", "uid": "u-1", "why": "no freezer"}));
        assert_eq!(to_value(FromNode::Alive).unwrap(), json!({"type": "alive"}));
    }

    #[test]
    fn messages_of_newer_versions_are_understood_as_such() {
        assert_eq!(from_str::<ToNode>(r#"{"type": "sing", "song": 3}"#).unwrap(), ToNode::Unknown);
        assert_eq!(from_str::<FromNode>(r#"{"type": "hum"}"#).unwrap(), FromNode::Unknown);
        let told: FromNode = from_str(r#"{"type": "at", "uid": "u", "ip": "10.0.0.7", "by": "cri"}"#).unwrap();
        assert_eq!(told, FromNode::At { uid: "u".into(), ip: "10.0.0.7".parse().unwrap() });
    }

    #[test]
    fn what_is_no_address_is_no_message() {
        assert!(from_str::<FromNode>(r#"{"type": "at", "uid": "u", "ip": "10.0.0.7:80"}"#).is_err());
    }
}
