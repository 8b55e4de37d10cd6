//! The autoscaler on a cluster: watches of Functions and Revisions, and writing counts.

use std::{collections::HashSet, hash::Hash, pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{WatchStreamExt, watcher},
};
use lambent_api::{ConditionType, Conditions, Function, Revision, Settings};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use tracing::{debug, warn};

use crate::{
    book::{FunctionView, Input, RevisionView},
    core::Writer,
    order::Write,
};

/// Shorter than a gateway waits before it uses retired instances again.
const CALL: Duration = Duration::from_secs(5);

/// Follows Functions until the receiver is gone.
pub async fn functions(api: Api<DeserializeGuard<Function>>, to: mpsc::Sender<Input>) {
    follow(api, to, Function::key, |f| Input::Function(function_view(f)), Input::FunctionGone).await;
}

/// Follows Revisions until the receiver is gone.
pub async fn revisions(api: Api<DeserializeGuard<Revision>>, to: mpsc::Sender<Input>) {
    follow(api, to, Revision::key, |r| Input::Revision(revision_view(r)), Input::RevisionGone).await;
}

/// What a new list does not have any more is gone, too.
async fn follow<K, Key>(
    api: Api<DeserializeGuard<K>>,
    to: mpsc::Sender<Input>,
    key: fn(&K) -> Key,
    there: fn(&K) -> Input,
    gone: fn(Key) -> Input,
) where
    K: Clone + std::fmt::Debug + Send + 'static,
    Key: Clone + Eq + Hash,
    DeserializeGuard<K>: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut known: HashSet<Key> = HashSet::new();
    let mut unsaid: HashSet<Key> = HashSet::new();
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        let inputs = match event {
            Ok(
                watcher::Event::Apply(DeserializeGuard(Ok(object)))
                | watcher::Event::InitApply(DeserializeGuard(Ok(object))),
            ) => {
                unsaid.remove(&key(&object));
                known.insert(key(&object));
                vec![there(&object)]
            }
            Ok(watcher::Event::Delete(DeserializeGuard(Ok(object)))) => {
                known.remove(&key(&object));
                vec![gone(key(&object))]
            }
            Ok(watcher::Event::Init) => {
                unsaid.clone_from(&known);
                Vec::new()
            }
            Ok(watcher::Event::InitDone) => {
                known.retain(|key| !unsaid.contains(key));
                unsaid.drain().map(gone).collect()
            }
            // An object that can't be read is the controller's to complain about.
            Ok(_) => Vec::new(),
            Err(error) => {
                warn!(%error, "a watch failed; it is tried again");
                Vec::new()
            }
        };
        for input in inputs {
            if to.send(input).await.is_err() {
                return;
            }
        }
    }
}

fn function_view(function: &Function) -> FunctionView {
    let status = function.status.clone().unwrap_or_default();
    FunctionView {
        key: function.key(),
        settings: Settings::try_from(&function.spec).ok(),
        serving: status.revision,
        latest: status.latest_revision,
    }
}

fn revision_view(revision: &Revision) -> RevisionView {
    RevisionView {
        key: revision.key(),
        function: revision.spec.function.clone(),
        wanted: u32::try_from(revision.spec.instances).unwrap_or(0),
        proven: revision.status.as_ref().is_some_and(|s| s.conditions.is_true(ConditionType::Ready)),
    }
}

/// Writes counts through the API server.
pub struct KubeWriter(pub Client);

impl Writer for KubeWriter {
    async fn write(&self, order: &Write) -> bool {
        write(&self.0, order).await
    }
}

async fn write(client: &Client, write: &Write) -> bool {
    let api: Api<Revision> = Api::namespaced(client.clone(), &write.revision.namespace);
    let mut operations = vec![
        json!({"op": "test", "path": "/spec/instances", "value": write.from}),
        json!({"op": "replace", "path": "/spec/instances", "value": write.to}),
    ];
    if let Some(stopping) = &write.stopping {
        operations.push(json!({"op": "add", "path": "/spec/stopping", "value": stopping}));
    }
    let Ok(patch) = serde_json::from_value(json!(operations)).map(Patch::<()>::Json) else { return false };
    let params = PatchParams::default();
    match timeout(CALL, api.patch(&write.revision.name, &params, &patch)).await {
        Ok(Ok(_)) => true,
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => {
            debug!(revision = %write.revision, status = status.code, "the count has changed meanwhile");
            false
        }
        Ok(Err(error)) => {
            warn!(revision = %write.revision, %error, "the count could not be written");
            false
        }
        Err(_) => {
            warn!(revision = %write.revision, "the API server did not answer in time");
            false
        }
    }
}
