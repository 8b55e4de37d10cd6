//! `lambent gateway`.

use lambent_fleet::kube::KubeFleet;
use lambent_gateway::{Config, Peers, server::Drain};

use super::{Runtime, start};
use crate::args::GatewayArgs;

/// Runs until it is told to stop, and then until it is drained.
pub async fn run(args: GatewayArgs) -> anyhow::Result<()> {
    let Runtime { client, registry, ready, shutdown, identity: _ } = start("gateway", &args.common).await?;
    let GatewayArgs { common, listen, internal_listen, domain, trusted_accounts, .. } = args;
    let peers = args.pod.zip(args.peer_account);
    let config = Config {
        namespace: common.namespace.clone(),
        listen,
        internal_listen,
        domain,
        trusted_accounts,
        peers: peers.map(|(pod, account)| Peers {
            pod,
            namespace: common.system_namespace,
            account,
            token: args.token_file,
        }),
        node_account: args.node_account,
        drain: Drain { delay: args.drain_delay_seconds, grace: args.drain_seconds },
    };
    let fleet = KubeFleet::new(client.clone(), common.namespace);
    Ok(lambent_gateway::run(config, client, fleet, &registry, ready, shutdown).await?)
}
