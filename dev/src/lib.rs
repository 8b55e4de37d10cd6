//! Lambent on one machine: the cluster's controller, gateway and autoscaler, unchanged, over an API
//! server in memory ([`store`]) and processes.
#![warn(missing_docs)]

pub mod store;
