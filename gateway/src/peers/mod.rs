//! Several gateways, exact concurrency: each Function has one owner among them, which grants the
//! slots of its instances. The others ask it for a slot and then send to the instance themselves
//! (docs/decisions/0004).
//!
//! ```text
//! caller -> gateway A --acquire--> gateway B (owner: queue, permits)
//!                     <--granted--
//!           gateway A ==request==> instance            then --release--> B
//! ```
//!
//! A gateway grants only after every other one that may be running has agreed: it *claims* the
//! Functions that rendezvous hashing gives it, the others stop granting those, and say in the same
//! breath which slots their own callers still use. What is claimed by two goes to the later one,
//! and both claim again until they know the same members.

pub mod accept;
pub mod coordinator;
pub mod lease;
pub mod lent;
pub mod link;
pub mod message;
pub mod ring;
pub mod session;

pub use coordinator::{Coordinator, Event, PeerPod};

/// What the internal port's peer connections are upgraded to.
pub const PROTOCOL: &str = "lambent-peer";
