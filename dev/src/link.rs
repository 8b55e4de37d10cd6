//! Between the gateway and the autoscaler of one process: what is a connection on a cluster is a
//! channel here.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use lambent_api::signal::{Drained, Message, Retire, Retired};
use lambent_autoscaler::{book::Input, core::Retirer, link::LinkEvent};
use lambent_gateway::{Inside, directory::Directory};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tracing::debug;

/// What the one gateway is called; nobody connects there.
const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Passes the gateway's signals on for as long as it runs.
pub(crate) async fn follow(inside: Inside, autoscaler: mpsc::Sender<Input>, drained: mpsc::Sender<Drained>) {
    let link = |event| autoscaler.send(Input::Link(GATEWAY, event));
    if autoscaler.send(Input::Gateways(BTreeSet::from([GATEWAY]))).await.is_err() {
        return;
    }
    loop {
        let (now, mut later) = inside.signals.subscribe();
        let _ = link(LinkEvent::Up).await;
        for line in now {
            pass_on(&line, &link, &drained).await;
        }
        loop {
            match later.recv().await {
                Ok(line) => pass_on(&line, &link, &drained).await,
                // Too slow: the present state is told anew.
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
        let _ = link(LinkEvent::Down).await;
    }
}

async fn pass_on<F>(line: &Bytes, link: &impl Fn(LinkEvent) -> F, drained: &mpsc::Sender<Drained>)
where
    F: Future<Output = Result<(), mpsc::error::SendError<Input>>>,
{
    match serde_json::from_slice(line) {
        Ok(message) => {
            if let Message::Drained(instance) = &message {
                let _ = drained.send(instance.clone()).await;
            }
            let _ = link(LinkEvent::Message(message)).await;
        }
        Err(error) => debug!(%error, "a signal is not understood"),
    }
}

/// Asks the gateway directly.
pub(crate) struct DirectRetirer(pub(crate) Arc<Directory>);

impl Retirer for DirectRetirer {
    async fn retire(&self, order: &Retire) -> Option<Retired> {
        let (name, _) = order.revision.rsplit_once('-')?;
        self.0.any(&order.namespace, name)?.retire(&order.revision, order.keep)
    }
}
