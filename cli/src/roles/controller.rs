//! `lambent controller`.

use super::{Runtime, start};
use crate::{args::ControllerArgs, lease::Candidate};

/// Runs, while it leads, until it is told to stop.
pub async fn run(args: ControllerArgs) -> anyhow::Result<()> {
    let Runtime { client, registry, ready, shutdown, identity } = start("controller", &args.common).await?;
    let _ = (&registry, &args);
    ready.send_replace(true);
    let candidate = Candidate::new(client.clone(), &args.common.system_namespace, "lambent-controller", identity);
    candidate.lead(shutdown, |stop| async move { stop.cancelled().await }).await;
    Ok(())
}
