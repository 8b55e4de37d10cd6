//! Between the gateway and the autoscaler of one process: what is a connection on a cluster is a
//! channel here.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use lambent_api::{
    Function, Revision,
    signal::{Message, Retire, Retired},
};
use lambent_autoscaler::{book::Input, core::Retirer, link::LinkEvent};
use lambent_fleet::process::launch::is_process;
use lambent_gateway::{Inside, directory::Directory};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tracing::debug;

use crate::store::{Key, Kind, Store};

/// What the one gateway is called; nobody connects there.
const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Passes the gateway's signals on for as long as it runs.
pub(crate) async fn follow(inside: Inside, autoscaler: mpsc::Sender<Input>, controller: mpsc::Sender<Message>) {
    let link = |event| autoscaler.send(Input::Link(GATEWAY, event));
    if autoscaler.send(Input::Gateways(BTreeSet::from([GATEWAY]))).await.is_err() {
        return;
    }
    loop {
        let (now, mut later) = inside.signals.subscribe();
        let _ = link(LinkEvent::Up).await;
        pass_on(&now, &link, &controller).await;
        loop {
            match later.recv().await {
                Ok(batch) => pass_on(&batch, &link, &controller).await,
                // Too slow: the present state is told anew.
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
        let _ = link(LinkEvent::Down).await;
    }
}

async fn pass_on<F>(batch: &Bytes, link: &impl Fn(LinkEvent) -> F, controller: &mpsc::Sender<Message>)
where
    F: Future<Output = Result<(), mpsc::error::SendError<Input>>>,
{
    for line in batch.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Message>(line) {
            Ok(message) => {
                let _ = controller.send(message.clone()).await;
                let _ = link(LinkEvent::Message(message)).await;
            }
            Err(error) => debug!(%error, "a signal is not understood"),
        }
    }
}

/// Asks the gateway directly, unless what runs has to stay.
pub(crate) struct DirectRetirer {
    pub(crate) directory: Arc<Directory>,
    pub(crate) store: Store,
}

impl Retirer for DirectRetirer {
    async fn retire(&self, order: &Retire) -> Option<Retired> {
        let (name, _) = order.revision.rsplit_once('-')?;
        let function: Function = read(&self.store, Kind::Function, &order.namespace, name)?;
        let revision: Revision = read(&self.store, Kind::Revision, &order.namespace, &order.revision)?;
        if is_irreplaceable(&function, &revision) {
            // The autoscaler asks again.
            return None;
        }
        self.directory.any(&order.namespace, name)?.retire(&order.revision, order.keep)
    }
}

fn read<T: serde::de::DeserializeOwned>(store: &Store, kind: Kind, namespace: &str, name: &str) -> Option<T> {
    serde_json::from_value(store.get(&Key::new(kind, namespace, name)).ok()?).ok()
}

/// Whether its running processes are all that there ever will be of it: its files have changed, a new process
/// would start from what they are now, and that has not taken over.
fn is_irreplaceable(function: &Function, revision: &Revision) -> bool {
    let serves = function.status.as_ref().is_some_and(|status| status.revision == revision.metadata.name);
    let template = &revision.spec.template;
    serves && is_process(template) && template.image != function.spec.template.image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_stay_while_what_their_files_are_now_has_not_taken_over() {
        let head = "apiVersion: lambent.dev/v1alpha1";
        let revision = |image: &str| -> Revision {
            let spec = format!("spec: {{function: hello, template: {{image: '{image}'}}}}");
            serde_yaml::from_str(&format!("{{{head}, kind: Revision, metadata: {{name: hello-1}}, {spec}}}")).unwrap()
        };
        let function = |image: &str, serving: &str| -> Function {
            let rest = format!("spec: {{image: '{image}'}}, status: {{revision: {serving}}}");
            serde_yaml::from_str(&format!("{{{head}, kind: Function, metadata: {{name: hello}}, {rest}}}")).unwrap()
        };
        let (one, two) = ("process.lambent.dev/hello@sha256:1", "process.lambent.dev/hello@sha256:2");
        assert!(is_irreplaceable(&function(two, "hello-1"), &revision(one)));
        assert!(!is_irreplaceable(&function(two, "hello-2"), &revision(one)), "another one serves");
        assert!(!is_irreplaceable(&function(one, "hello-1"), &revision(one)), "its files are what they were");
        assert!(!is_irreplaceable(&function("b", "hello-1"), &revision("a")), "an image stays as it is");
    }
}
