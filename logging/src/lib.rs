//! How log lines are written: as JSON, and in batches. Every request of the gateway writes one, so this
//! is a crate of its own, which is compiled for speed.

mod batch;
mod json;
mod timestamp;

pub use self::{batch::Batch, json::Json};
