//! `lambent controller`.

use futures::{Stream, StreamExt, stream};
use lambent_api::signal::Message;
use lambent_autoscaler::link::{FromGateways, LinkEvent, connect_all, discover};
use lambent_controller::Config;
use lambent_fleet::kube::KubeFleet;

use super::{Runtime, start};
use crate::{
    args::{ControllerArgs, LinkArgs},
    lease::Candidate,
};

/// Functions that are looked at concurrently: nearly all of a look is waiting for the API server.
const LOOKS: usize = 32;

/// Runs, while it leads, until it is told to stop.
pub async fn run(args: ControllerArgs) -> anyhow::Result<()> {
    let Runtime { client, registry, ready, shutdown, identity } = start("controller", &args.common).await?;
    let ControllerArgs { common, link, public_url, plain_http_registries, pull_ahead } = args;
    let config = Config {
        namespace: common.namespace.clone(),
        system_namespace: common.system_namespace.clone(),
        public_url,
        plain_http_registries,
        pull_ahead: Some(pull_ahead),
        looks: LOOKS,
        builder: None,
    };
    let fleet = KubeFleet::new(client.clone(), common.namespace);
    ready.send_replace(true);
    let candidate = Candidate::new(client.clone(), &common.system_namespace, "lambent-controller", identity);
    let work = |stop| async move {
        let said = said(client.clone(), &common.system_namespace, link);
        lambent_controller::run(config, client, fleet, said, &registry, stop).await
    };
    candidate.lead(shutdown, work).await.transpose()?;
    Ok(())
}

/// What the gateways say.
fn said(client: kube::Client, namespace: &str, link: LinkArgs) -> impl Stream<Item = Message> + Send + 'static {
    let LinkArgs { gateway_internal_port, token_file } = link;
    let messages = connect_all(discover::gateways(client, namespace, gateway_internal_port), token_file);
    stream::unfold(messages, async |mut messages| messages.recv().await.map(|message| (message, messages))).filter_map(
        async |message| match message {
            FromGateways::One(_, LinkEvent::Message(message)) => Some(message),
            _ => None,
        },
    )
}
