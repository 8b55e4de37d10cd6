//! What the commands for users have in common: whom they ask, how they call, and how they tell.
//!
//! ```text
//! command line -> target: the running `lambent dev`, or a cluster -> one client of an API server
//!                   |-> functions: by name        |-> decisions: the autoscaler's, through its pod
//!                   `-> route: status.url, or a forwarded port -> call: one HTTP request
//! ```

pub mod call;
pub mod decisions;
pub mod functions;
pub mod output;
pub mod refusal;
pub mod route;
pub mod table;
pub mod target;

pub use target::{Place, Target};
