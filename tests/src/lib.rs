//! What the end-to-end tests stand on: a namespace of their own on a real cluster, waiting with a
//! deadline, an HTTP client that shows every byte, and what is known when a test fails.
//!
//! ```text
//! with_temp_ns(|cx| async move { .. })
//!     cx.deploy("calm", json!({"image": cx.image("slow")}))  -> Deployed: call it, patch it, look at it
//!     await_condition("two instances", async || { .. })      -> what was seen last, if it never comes
//! ```
#![warn(missing_docs)]
// A test that can't go on panics with what it was doing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod agents;
pub mod cluster;
pub mod command;
pub mod context;
pub mod control_plane;
pub mod dump;
pub mod examples;
pub mod freezer;
pub mod function;
pub mod http;
pub mod in_flight;
pub mod load;
pub mod locked_registry;
pub mod process;
pub mod raw;
pub mod registry;
pub mod system;
pub mod wait;

pub use cluster::Cluster;
pub use context::{Context, alone_on_the_cluster, with_temp_ns};
pub use function::Deployed;
pub use http::{Answer, Gateway, Request};
pub use wait::{await_condition, holds_while};
