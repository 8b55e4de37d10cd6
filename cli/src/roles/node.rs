//! `lambent node`.

use axum::Router;
use lambent_node::Config;
use prometheus::Registry;

use super::{Process, start_process};
use crate::args::NodeArgs;

/// Runs until it is told to stop.
pub async fn run(args: NodeArgs) -> anyhow::Result<()> {
    let NodeArgs { process, runtime_endpoints, gateways, token_file, cgroups, push_out } = args;
    let Process { registry, ready, shutdown } = start_process("node", &process, Registry::new(), Router::new()).await?;
    let config = Config { runtime_endpoints, gateways, token: token_file, cgroups, push_out };
    Ok(lambent_node::run(config, &registry, ready, shutdown).await?)
}
