//! `lambent autoscaler`.

use lambent_autoscaler::{Config, metrics::Metrics, record::Record};
use prometheus::Registry;

use super::{Runtime, start_with};
use crate::{admin, args::AutoscalerArgs, lease::Candidate};

/// Runs, while it leads, until it is told to stop.
pub async fn run(args: AutoscalerArgs) -> anyhow::Result<()> {
    let registry = Registry::new();
    let record = Record::new(Metrics::register(&registry)?);
    let routes = admin::decisions(record.clone());
    let Runtime { client, registry: _, ready, shutdown, identity } =
        start_with("autoscaler", &args.common, registry, routes).await?;
    let AutoscalerArgs { common, link } = args;
    let config = Config {
        namespace: common.namespace,
        system_namespace: common.system_namespace.clone(),
        internal_port: link.gateway_internal_port,
        token_path: link.token_file,
    };
    ready.send_replace(true);
    let candidate = Candidate::new(client.clone(), &common.system_namespace, "lambent-autoscaler", identity);
    let work = |stop| lambent_autoscaler::run(config, client, record, stop);
    candidate.lead(shutdown, work).await;
    Ok(())
}
