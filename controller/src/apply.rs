//! Carrying out what was decided: orders and stops at the fleet, Revisions and status at the API
//! server. Nothing is decided here.

use std::{sync::Arc, time::Instant};

use futures::{StreamExt, stream};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use lambent_api::{FunctionKey, Revision, Settings, meta::ANNOTATION_SOURCE};
use lambent_fleet::{Fleet, FleetError, Order, StartError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use thiserror::Error;

use crate::{
    context::Context,
    metrics::Ordered,
    plan::{Removal, RevisionPlan},
};

/// Orders of one Function that are under way at once or wait for their turn: a burst is one batch, and
/// still leaves room for others.
const AT_ONCE: usize = 32;
/// Who owns the fields that we apply.
pub(crate) const FIELD_MANAGER: &str = "lambent-controller";

/// What could not be carried out; all of it is tried again.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The API server did not take a change.
    #[error("{what}: {source}")]
    Api {
        /// What was to be changed.
        what: &'static str,
        /// The API server's words.
        source: kube::Error,
    },
    /// The fleet could not be asked.
    #[error("instances: {0}")]
    Fleet(#[from] FleetError),
}

fn api<T>(result: Result<T, kube::Error>, what: &'static str) -> Result<T, Error> {
    result.map_err(|source| Error::Api { what, source })
}

/// Starts and stops instances of a Revision, all at once, and returns the first failure.
pub(crate) async fn instances<F: Fleet>(
    context: &Context<F>,
    revision: &Arc<Revision>,
    settings: &Arc<Settings>,
    plan: &RevisionPlan,
) -> Result<(), Error> {
    let function = FunctionKey::new(revision.key().namespace, &revision.spec.function);
    let starts = stream::iter(plan.start.clone()).map(|name| start(context, &function, revision, settings, name));
    let stops = stream::iter(plan.stop.clone()).map(|removal| stop(context, &function, removal));
    let starts = starts.buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let stops = stops.buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let (started, stopped) = futures::future::join(starts, stops).await;
    learn(context, &function, &revision.key().name, &started);
    let failed = started.into_iter().filter_map(Result::err).filter_map(|error| match error {
        StartError::Fleet(error) => Some(Err(error.into())),
        // Told in the status; tried again after the Revision's back-off.
        StartError::Refused(_) => None,
    });
    failed.chain(stopped).collect()
}

/// A batch of which some were taken and some refused was refused: the quota is used up.
fn learn<F>(context: &Context<F>, function: &FunctionKey, revision: &str, started: &[Result<(), StartError>]) {
    let refused = started.iter().find_map(|result| match result {
        Err(StartError::Refused(reason)) => Some(reason.clone()),
        _ => None,
    });
    context.remember(function, |memory| match refused {
        Some(reason) => memory.revision(revision).refused(reason, Instant::now()),
        None if started.iter().any(Result::is_ok) => memory.revision(revision).taken(),
        None => {}
    });
}

async fn start<F: Fleet>(
    context: &Context<F>,
    function: &FunctionKey,
    revision: &Arc<Revision>,
    settings: &Arc<Settings>,
    name: String,
) -> Result<(), StartError> {
    let revision_name = revision.key().name;
    context.remember(function, |memory| memory.ordering(&revision_name, &name, Instant::now()));
    let order = Order { name, revision: revision.clone(), settings: settings.clone() };
    // Ends with the orders before it, each of which ends with the look that it belongs to.
    let place = context.orders.acquire().await;
    let result = context.fleet.start(&order).await;
    drop(place);
    if result.is_err() {
        context.remember(function, |memory| memory.order_settled(&order.name));
    }
    context.metrics.ordered(match &result {
        Ok(()) => Ordered::Started,
        Err(StartError::Refused(_)) => Ordered::Refused,
        Err(StartError::Fleet(_)) => Ordered::Failed,
    });
    result
}

async fn stop<F: Fleet>(context: &Context<F>, function: &FunctionKey, removal: Removal) -> Result<(), Error> {
    let uid = &removal.instance.uid;
    context.remember(function, |memory| memory.stopping(uid, Instant::now()));
    match context.fleet.stop(&function.namespace, &removal.instance, removal.how).await {
        Ok(()) => {
            context.metrics.stopped(removal.why);
            Ok(())
        }
        Err(error) => {
            context.remember(function, |memory| memory.stop_failed(uid));
            Err(error.into())
        }
    }
}

/// Creates a Revision. One of that name is the same one.
pub(crate) async fn create<F>(context: &Context<F>, revision: &Revision) -> Result<bool, Error> {
    let revisions: Api<Revision> = Api::namespaced(context.client.clone(), &revision.key().namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match revisions.create(&params, revision).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
        Err(source) => Err(Error::Api { what: "Revision", source }),
    }
}

/// Notes on a Revision that another source led to it.
pub(crate) async fn set_source<F>(context: &Context<F>, revision: &Revision, source: &str) -> Result<(), Error> {
    let key = revision.key();
    let revisions: Api<Revision> = Api::namespaced(context.client.clone(), &key.namespace);
    let patch = json!({"metadata": {"uid": revision.metadata.uid, "annotations": {ANNOTATION_SOURCE: source}}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api(revisions.patch_metadata(&key.name, &params, &Patch::Merge(patch)).await, "source of Revision").map(drop)
}

/// Sets the count of a Revision that does not serve yet: until it does, nobody else writes it.
pub(crate) async fn set_count<F>(context: &Context<F>, revision: &Revision, count: u32) -> Result<(), Error> {
    let key = revision.key();
    let revisions: Api<Revision> = Api::namespaced(context.client.clone(), &key.namespace);
    let patch = json!({"metadata": {"uid": revision.metadata.uid}, "spec": {"instances": count}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api(revisions.patch(&key.name, &params, &Patch::Merge(patch)).await, "count of Revision").map(drop)
}

/// Deletes a Revision that nothing uses any more.
pub(crate) async fn forget<F>(context: &Context<F>, revision: &Revision) -> Result<(), Error> {
    let key = revision.key();
    let revisions: Api<Revision> = Api::namespaced(context.client.clone(), &key.namespace);
    let preconditions = Some(Preconditions { uid: revision.metadata.uid.clone(), resource_version: None });
    match revisions.delete(&key.name, &DeleteParams { preconditions, ..DeleteParams::background() }).await {
        Ok(_) => tracing::info!(revision = %key, "old Revision deleted"),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
        Err(source) => return Err(Error::Api { what: "old Revision", source }),
    }
    Ok(())
}

/// Writes the status of a Function or a Revision. Applied, so that what it no longer says goes; the
/// uid keeps it from a later object of the same name.
pub(crate) async fn status<F, K>(context: &Context<F>, object: &K, status: &impl Serialize) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let meta = object.meta();
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name, "uid": meta.uid},
        "status": status,
    });
    let objects: Api<K> = Api::namespaced(context.client.clone(), namespace);
    match objects.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        // It went in the meantime, or is another one by now.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(Error::Api { what: "status", source }),
    }
}
