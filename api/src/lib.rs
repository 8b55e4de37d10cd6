//! The vocabulary of Lambent: the custom resources that users write and see, the validated form
//! that the rest of the code works with, names, labels and conditions. Nothing here does I/O.
//!
//! ```text
//! Function (what a user applies) -> Settings (of the request path; change at once)
//!                                -> Template (what runs) -> Revision (immutable snapshot)
//! ```
#![warn(missing_docs)]

pub mod bytes;
pub mod condition;
pub mod crd;
pub mod duration;
pub mod function;
pub mod guarded;
pub mod meta;
pub mod node;
pub mod revision;
pub mod seen;
pub mod settings;
pub mod signal;
pub mod template;

pub use bytes::ByteSize;
pub use condition::{ConditionType, Conditions, Reason};
pub use duration::Duration;
pub use function::{Function, FunctionSpec, FunctionStatus};
pub use guarded::{Guarded, Unreadable};
pub use meta::{FunctionKey, RevisionKey};
pub use revision::{InstanceRef, PulledImages, Revision, RevisionSpec, RevisionStatus};
pub use seen::{Follower, Seen};
pub use settings::{InvalidSettings, Settings};
/// A name: short ones, as nearly all are, take no allocation.
pub use smol_str::SmolStr as Name;
pub use template::{Protocol, Template};
