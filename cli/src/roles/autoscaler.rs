//! `lambent autoscaler`.

use lambent_autoscaler::Config;

use super::{Runtime, start};
use crate::{args::AutoscalerArgs, lease::Candidate};

/// Runs, while it leads, until it is told to stop.
pub async fn run(args: AutoscalerArgs) -> anyhow::Result<()> {
    let Runtime { client, registry, ready, shutdown, identity } = start("autoscaler", &args.common).await?;
    let AutoscalerArgs { common, link } = args;
    let config = Config {
        namespace: common.namespace,
        system_namespace: common.system_namespace.clone(),
        internal_port: link.gateway_internal_port,
        token_path: link.token_file,
    };
    ready.send_replace(true);
    let candidate = Candidate::new(client.clone(), &common.system_namespace, "lambent-autoscaler", identity);
    let work = |stop| lambent_autoscaler::run(config, client, &registry, stop);
    candidate.lead(shutdown, work).await.transpose()?;
    Ok(())
}
