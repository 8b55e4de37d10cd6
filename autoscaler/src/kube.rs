//! The autoscaler on a cluster: watches of Functions and Revisions, and writing counts.

use std::{pin::pin, time::Duration};

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
    order::Write,
};

/// Shorter than a gateway waits before it uses retired instances again.
const CALL: Duration = Duration::from_secs(5);

/// Follows Functions until the receiver is gone.
pub async fn functions(api: Api<DeserializeGuard<Function>>, to: mpsc::Sender<Input>) {
    follow(api, to, |f| Input::Function(function_view(f)), |f| Input::FunctionGone(f.key())).await;
}

/// Follows Revisions until the receiver is gone.
pub async fn revisions(api: Api<DeserializeGuard<Revision>>, to: mpsc::Sender<Input>) {
    follow(api, to, |r| Input::Revision(revision_view(r)), |r| Input::RevisionGone(r.key())).await;
}

/// An object that went unseen while a watch was broken is only remembered: nothing is decided about
/// it, because its gateway has no load of it.
async fn follow<K>(
    api: Api<DeserializeGuard<K>>,
    to: mpsc::Sender<Input>,
    there: fn(&K) -> Input,
    gone: fn(&K) -> Input,
) where
    K: Clone + std::fmt::Debug + Send + 'static,
    DeserializeGuard<K>: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        let input = match event {
            Ok(
                watcher::Event::Apply(DeserializeGuard(Ok(object)))
                | watcher::Event::InitApply(DeserializeGuard(Ok(object))),
            ) => there(&object),
            Ok(watcher::Event::Delete(DeserializeGuard(Ok(object)))) => gone(&object),
            // An object that can't be read is the controller's to complain about.
            Ok(_) => continue,
            Err(error) => {
                warn!(%error, "a watch failed; it is tried again");
                continue;
            }
        };
        if to.send(input).await.is_err() {
            return;
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

/// Writes a count, if it still is what was decided upon. Whether it was written.
pub async fn write(client: &Client, write: &Write) -> bool {
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
