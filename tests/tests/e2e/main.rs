//! The end-to-end tests: one binary, so that it is linked once. Run them with `make e2e`.
// A test that can't go on panics with what it was doing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod apply_refused;
mod chart;
mod check_agrees;
mod cli;
mod cold_start;
mod corpus;
mod errors;
mod failures_to_start;
mod fleet_contract;
mod http2;
mod images_ahead;
mod kubectl;
mod lifecycle;
mod metrics_and_logs;
mod network_policies;
mod node_agent;
mod overload;
mod parked;
mod part_failures;
mod part_restarts;
mod queueing;
mod rbac;
mod replaced_pods;
mod revisions;
mod rollouts;
mod routing;
mod scale_down;
mod scaling;
mod several_gateways;
mod streaming;
mod upgrades;
mod warm_instances;
