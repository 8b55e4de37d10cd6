//! The autoscaler on a cluster: watches of Functions and Revisions, and writing counts.

use std::{fmt::Debug, hash::Hash, pin::pin, time::Duration};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use lambent_api::{
    ConditionType, Conditions, Follower, Function, FunctionKey, Guarded, Name, Revision, RevisionKey, Seen, Settings,
};
use lambent_compact::Shared;
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
pub async fn functions(api: Api<Guarded<Function>>, to: mpsc::Sender<Input>) {
    let mut shared = Shared::default();
    let input = |seen| match seen {
        Seen::There(function) => Input::Function(function_view(&function, &mut shared)),
        Seen::Gone(key) => Input::FunctionGone(key),
        Seen::Only(keys) => Input::OnlyFunctions(keys),
    };
    follow(api, to, FunctionKey::of, input).await;
}

/// Follows Revisions until the receiver is gone.
pub async fn revisions(api: Api<Guarded<Revision>>, to: mpsc::Sender<Input>) {
    let input = |seen| match seen {
        Seen::There(revision) => Input::Revision(revision_view(&revision)),
        Seen::Gone(key) => Input::RevisionGone(key),
        Seen::Only(keys) => Input::OnlyRevisions(keys),
    };
    follow(api, to, RevisionKey::of, input).await;
}

async fn follow<K, Key>(
    api: Api<Guarded<K>>,
    to: mpsc::Sender<Input>,
    key: fn(&ObjectMeta) -> Key,
    mut input: impl FnMut(Seen<K, Key>) -> Input,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    Key: Eq + Hash,
{
    let mut follower = Follower::new(key);
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        let seen = match event {
            Ok(event) => follower.take(event),
            Err(error) => {
                warn!(%error, "a watch failed; it is tried again");
                None
            }
        };
        if let Some(seen) = seen
            && to.send(input(seen)).await.is_err()
        {
            return;
        }
    }
}

fn function_view(function: &Function, shared: &mut Shared<Settings>) -> FunctionView {
    let status = function.status.clone().unwrap_or_default();
    FunctionView {
        key: function.key(),
        settings: Settings::try_from(&function.spec).ok().map(|settings| shared.share(settings)),
        serving: status.revision.map(Name::from),
        latest: status.latest_revision.map(Name::from),
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
