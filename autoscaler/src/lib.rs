//! The autoscaler: signals in, wanted counts out.
//!
//! ```text
//! gateways --Load--> link --.
//! Functions, Revisions ------+--> core: book (window, start model, decide) --> write Revision.spec.instances
//!                                         `-- down: ask the gateways to retire --> write count and names
//! ```
//!
//! The book decides and knows neither clock nor socket; the core carries out what it says through a
//! [`core::Writer`] and a [`core::Retirer`]. [`run`] puts a cluster's around it.

pub mod arrivals;
pub mod book;
pub mod core;
pub mod decide;
pub mod kube;
pub mod link;
pub mod metrics;
pub mod order;
pub mod record;
pub mod revision;
pub mod start_model;
pub mod window;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc};

use ::kube::{Api, Client};
use lambent_api::signal::{Retire, Retired};
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    book::Input,
    core::{Retirer, run_core},
    kube::KubeWriter,
    link::{FromGateways, client, connect_all, discover},
    record::Record,
};

/// News that wait to be taken; whoever brings them waits when it is full.
const NEWS: usize = 1024;

/// How an autoscaler runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Watch this namespace only; all without.
    pub namespace: Option<String>,
    /// Where the gateways are.
    pub system_namespace: String,
    /// Their internal port.
    pub internal_port: u16,
    /// A token of the audience `lambent-gateway`.
    pub token_path: PathBuf,
}

/// Runs until `shutdown`. Only one may run at a time: the caller holds a Lease. What is decided is
/// kept in `record`.
pub async fn run(config: Config, client: Client, record: Record, shutdown: CancellationToken) {
    let Config { namespace, system_namespace, internal_port, token_path } = config;
    let (news, receiver) = mpsc::channel(NEWS);
    let gateways = Arc::new(Mutex::new(BTreeSet::new()));
    let retirer = LinkRetirer { token: token_path.clone(), gateways: gateways.clone() };
    let links = connect_all(discover::gateways(client.clone(), &system_namespace, internal_port), token_path);
    // All background work ends with this set.
    let mut tasks = JoinSet::new();
    tasks.spawn(pass_on(links, gateways, news.clone()));
    tasks.spawn(kube::functions(scoped(&client, namespace.as_deref()), news.clone()));
    tasks.spawn(kube::revisions(scoped(&client, namespace.as_deref()), news));
    run_core(receiver, KubeWriter(client), retirer, record, shutdown).await;
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: ::kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn pass_on(
    mut links: mpsc::Receiver<FromGateways>,
    known: Arc<Mutex<BTreeSet<SocketAddr>>>,
    to: mpsc::Sender<Input>,
) {
    while let Some(event) = links.recv().await {
        let input = match event {
            FromGateways::One(gateway, event) => Input::Link(gateway, event),
            FromGateways::All(all) => {
                known.lock().clone_from(&all);
                Input::Gateways(all)
            }
        };
        if to.send(input).await.is_err() {
            return;
        }
    }
}

/// Asks the gateway that owns the Function: the others say that they do not.
struct LinkRetirer {
    token: PathBuf,
    gateways: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Retirer for LinkRetirer {
    async fn retire(&self, order: &Retire) -> Option<Retired> {
        let gateways: Vec<SocketAddr> = self.gateways.lock().iter().copied().collect();
        let answers = gateways.iter().map(|gateway| client::retire(*gateway, &self.token, order));
        let answers = futures::future::join_all(answers).await;
        for (gateway, error) in gateways.iter().zip(&answers).filter_map(|(g, a)| Some((g, a.as_ref().err()?))) {
            debug!(%gateway, %error, "a gateway did not retire instances");
        }
        answers.into_iter().flatten().next()
    }
}
