//! Keeps the caches true and says which Functions to look at: one endless task per watch.

use std::{collections::BTreeMap, sync::Arc};

use futures::{Stream, StreamExt, TryStreamExt, future, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store, store::Writer},
        watcher,
    },
};
use lambent_api::{FunctionKey, Revision, meta::GROUP};
use lambent_fleet::{Event, Fleet};
use serde::de::DeserializeOwned;

use crate::context::{Context, Watched, reference};

/// Follows the Functions.
pub(crate) async fn functions<F: Fleet>(context: Arc<Context<F>>, writer: Writer<Watched>) {
    let store = writer.as_reader();
    let events = watched(&context, "Functions").map(Ok::<_, watcher::Error>);
    let mut events = reflector::reflector(writer, events).filter_map(|event| future::ready(event.ok())).boxed();
    while let Some(event) = events.next().await {
        match event {
            watcher::Event::Apply(function) => context.queue.touch(key(&function)),
            watcher::Event::Delete(_) => forget_the_gone(&context, &store),
            // Not one by one while they are said: the store shows them only when all are.
            watcher::Event::Init | watcher::Event::InitApply(_) => {}
            watcher::Event::InitDone => {
                forget_the_gone(&context, &store);
                store.state().iter().for_each(|function| context.queue.touch(key(function.as_ref())));
            }
        }
    }
}

fn forget_the_gone<F>(context: &Context<F>, store: &Store<Watched>) {
    context.keep_only(|function| store.get(&reference(function)).is_some());
}

fn key(object: &impl ResourceExt) -> FunctionKey {
    FunctionKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// Follows the Revisions.
pub(crate) async fn revisions<F: Fleet>(context: Arc<Context<F>>) {
    let mut events = watched::<DeserializeGuard<Revision>, _>(&context, "Revisions");
    while let Some(event) = events.next().await {
        let touched = {
            let mut index = context.revisions.lock();
            match event {
                watcher::Event::Init => {
                    index.restarted();
                    Vec::new()
                }
                watcher::Event::InitDone => index.completed(),
                watcher::Event::InitApply(revision) | watcher::Event::Apply(revision) => {
                    readable(revision).map(|revision| index.apply(revision)).into_iter().collect()
                }
                watcher::Event::Delete(revision) => {
                    readable(revision).map(|revision| index.gone(&revision)).into_iter().collect()
                }
            }
        };
        touch(&context, touched);
    }
}

/// One that can't be read stays as it was known last.
fn readable(revision: DeserializeGuard<Revision>) -> Option<Arc<Revision>> {
    match revision.0 {
        Ok(revision) => Some(Arc::new(revision)),
        Err(invalid) => {
            let (namespace, name) = (&invalid.metadata.namespace, &invalid.metadata.name);
            tracing::warn!(?namespace, ?name, error = invalid.error, "Revision can't be read");
            None
        }
    }
}

/// Follows the instances.
pub(crate) async fn instances<F: Fleet>(context: Arc<Context<F>>) {
    let mut events = std::pin::pin!(context.fleet.watch());
    while let Some(event) = events.next().await {
        let touched = take_in(&context, event);
        touch(&context, touched);
    }
}

fn take_in<F>(context: &Context<F>, event: Event) -> Vec<FunctionKey> {
    let mut index = context.instances.lock();
    match event {
        Event::Restarted => {
            index.restarted();
            Vec::new()
        }
        Event::Complete => index.completed(),
        Event::Applied(instance) => {
            settle(context, &instance);
            vec![index.apply(instance)]
        }
        Event::Gone(instance) => {
            settle(context, &instance);
            vec![index.gone(&instance)]
        }
    }
}

fn settle<F>(context: &Context<F>, instance: &lambent_fleet::Instance) {
    context.remember_if_known(&instance.function_key(), |memory| memory.order_settled(&instance.id.name));
}

fn touch<F>(context: &Context<F>, functions: Vec<FunctionKey>) {
    functions.into_iter().for_each(|function| context.queue.touch(function));
    context.completed.notify_waiters();
}

/// Waits until both caches know everything: before, every Function seems to lack all its instances.
pub(crate) async fn complete<F>(context: &Context<F>) {
    loop {
        let news = context.completed.notified();
        if context.revisions.lock().is_complete() && context.instances.lock().is_complete() {
            return;
        }
        news.await;
    }
}

fn watched<K, F>(context: &Context<F>, what: &'static str) -> BoxStream<'static, watcher::Event<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    K: Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let api: Api<K> = match &context.config.namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    mended(watcher::watcher(api, watcher::Config::default()), what).boxed()
}

/// Endless: what is lost is watched again.
fn mended<K: ResourceExt + Send>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    what: &'static str,
) -> impl Stream<Item = watcher::Event<K>> + Send {
    events
        .default_backoff()
        .modify(leave_out)
        .inspect_err(move |error| tracing::warn!(what, %error, "watch lost; trying again"))
        .filter_map(|event| future::ready(event.ok()))
}

/// What no look needs is not kept: kubectl's copy of the whole object, say, is in an annotation.
fn leave_out(object: &mut impl ResourceExt) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    meta.labels = None;
    let ours = |name: &str| name.split('/').next() == Some(GROUP);
    let annotations = meta.annotations.take().into_iter().flatten().filter(|(name, _)| ours(name));
    meta.annotations = Some(annotations.collect()).filter(|left: &BTreeMap<_, _>| !left.is_empty());
}

#[cfg(test)]
mod tests {
    use lambent_api::{Function, meta::ANNOTATION_REDEPLOY};

    use super::*;

    #[test]
    fn only_what_a_look_needs_is_kept() {
        let text = format!(
            "{{apiVersion: {GROUP}/v1alpha1, kind: Function, spec: {{image: a}}, metadata: {{name: f, labels: {{a: b}},
            annotations: {{kubectl.kubernetes.io/last-applied-configuration: x, {ANNOTATION_REDEPLOY}: now}}}}}}"
        );
        let mut function: Function = serde_yaml::from_str(&text).unwrap();
        leave_out(&mut function);
        let left: Vec<&String> = function.annotations().keys().collect();
        assert_eq!(left, [ANNOTATION_REDEPLOY]);
        assert!(function.metadata.labels.is_none());
        function.annotations_mut().clear();
        leave_out(&mut function);
        assert!(function.metadata.annotations.is_none());
    }
}
