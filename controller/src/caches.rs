//! Keeps the caches true and says which Functions to look at: one endless task per watch.

use std::{collections::BTreeMap, sync::Arc};

use futures::{Stream, StreamExt, TryStreamExt, future, stream::BoxStream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use lambent_api::{Function, FunctionKey, Guarded, Revision, Settings, Unreadable, meta::GROUP};
use lambent_compact::{Packed, Packer};
use lambent_fleet::{Event, Fleet};
use serde::de::DeserializeOwned;

use crate::context::{Context, Watched};

/// A Function as it is kept between two looks, packed: nearly all of them sleep nearly all the time.
#[derive(Clone)]
pub(crate) enum Kept {
    /// Its JSON.
    Readable(Packed),
    /// It can't be read.
    Unreadable(Arc<Unreadable>),
}

impl Kept {
    fn new(function: Watched, packer: &mut Packer) -> Self {
        let invalid = match function.0 {
            Err(invalid) => invalid,
            Ok(function) => match packer.pack_value(&function) {
                Ok(packed) => return Self::Readable(packed),
                Err(error) => Unreadable { error: error.to_string(), metadata: function.metadata },
            },
        };
        Self::Unreadable(Arc::new(invalid))
    }

    /// The Function.
    pub(crate) fn unpacked(&self) -> Watched {
        let invalid = match self {
            Self::Unreadable(invalid) => Unreadable::clone(invalid),
            Self::Readable(packed) => match packed.value::<Function>() {
                Ok(function) => return Guarded(Ok(function)),
                Err(error) => Unreadable { error: error.to_string(), metadata: ObjectMeta::default() },
            },
        };
        Guarded(Err(invalid))
    }
}

/// Follows the Functions.
pub(crate) async fn functions<F: Fleet>(context: Arc<Context<F>>) {
    let mut packer = Packer::default();
    let mut events = watched::<Watched, _>(&context, "Functions");
    while let Some(event) = events.next().await {
        match event {
            // Not looked at one by one while they are listed.
            watcher::Event::Init => context.functions.lock().restarted(),
            watcher::Event::InitApply(function) => drop(keep(&context, function, &mut packer)),
            watcher::Event::Apply(function) => context.queue.touch(keep(&context, function, &mut packer)),
            watcher::Event::Delete(function) => {
                let key = FunctionKey::of(function.meta());
                context.functions.lock().gone(&key, &key.name);
                context.forget(&key);
            }
            watcher::Event::InitDone => {
                let gone = context.functions.lock().completed();
                gone.iter().for_each(|function| context.forget(function));
                context.functions.lock().functions().for_each(|function| context.queue.touch(function.clone()));
            }
        }
    }
}

fn keep<F>(context: &Context<F>, function: Watched, packer: &mut Packer) -> FunctionKey {
    let key = FunctionKey::of(function.meta());
    keep_valid_settings(context, &key, &function);
    let kept = Kept::new(function, packer);
    context.functions.lock().apply(&key, &key.name, kept);
    key
}

/// When settings become invalid: what they were goes on.
fn keep_valid_settings<F>(context: &Context<F>, key: &FunctionKey, now: &Watched) {
    let settings = |watched: &Watched| Settings::try_from(&watched.0.as_ref().ok()?.spec).ok();
    if settings(now).is_none()
        && let Some(before) = context.function(key).as_ref().and_then(settings)
    {
        context.remember(key, |memory| memory.last_valid = Some(Arc::new(before)));
    }
}

/// Follows the Revisions.
pub(crate) async fn revisions<F: Fleet>(context: Arc<Context<F>>) {
    let mut packer = Packer::default();
    let mut events = watched::<Guarded<Revision>, _>(&context, "Revisions");
    while let Some(event) = events.next().await {
        let touched = match event {
            watcher::Event::Init => {
                context.revisions.lock().restarted();
                Vec::new()
            }
            watcher::Event::InitDone => context.revisions.lock().completed(),
            watcher::Event::InitApply(revision) | watcher::Event::Apply(revision) => readable(revision)
                .and_then(|revision| take_in_revision(&context, &revision, &mut packer))
                .into_iter()
                .collect(),
            watcher::Event::Delete(revision) => {
                let gone = readable(revision).map(|revision| {
                    let function = owner(&revision);
                    context.revisions.lock().gone(&function, revision.metadata.name.as_deref().unwrap_or_default());
                    function
                });
                gone.into_iter().collect()
            }
        };
        touch(&context, touched);
    }
}

fn take_in_revision<F>(context: &Context<F>, revision: &Revision, packer: &mut Packer) -> Option<FunctionKey> {
    let function = owner(revision);
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    let packed = packer.pack_value(revision);
    let packed = packed.inspect_err(|error| tracing::warn!(name, %error, "Revision can't be kept")).ok()?;
    context.revisions.lock().apply(&function, name, packed);
    Some(function)
}

fn owner(revision: &Revision) -> FunctionKey {
    FunctionKey::new(revision.metadata.namespace.clone().unwrap_or_default(), &revision.spec.function)
}

/// One that can't be read stays as it was known last.
fn readable(revision: Guarded<Revision>) -> Option<Revision> {
    let invalid = match revision.0 {
        Ok(revision) => return Some(revision),
        Err(invalid) => invalid,
    };
    let (namespace, name) = (&invalid.metadata.namespace, &invalid.metadata.name);
    tracing::warn!(?namespace, ?name, error = invalid.error, "Revision can't be read");
    None
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
            let function = settle(context, &instance);
            let name = instance.id.name.clone();
            index.apply(&function, &name, instance);
            vec![function]
        }
        Event::Gone(instance) => {
            let function = settle(context, &instance);
            index.gone(&function, &instance.id.name);
            vec![function]
        }
    }
}

fn settle<F>(context: &Context<F>, instance: &lambent_fleet::Instance) -> FunctionKey {
    let function = instance.function_key();
    context.remember_if_known(&function, |memory| memory.order_settled(&instance.id.name));
    function
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
    use lambent_api::meta::ANNOTATION_REDEPLOY;

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

    #[test]
    fn a_function_is_kept_whole_and_one_that_can_not_be_read_with_its_reason() {
        let text = format!(
            r#"{{"apiVersion": "{GROUP}/v1alpha1", "kind": "Function", "metadata": {{"name": "f", "namespace": "shop"}},
            "spec": {{"image": "a", "env": [{{"name": "A", "value": "b"}}]}}, "status": {{"url": "http://x"}}}}"#
        );
        let mut packer = Packer::default();
        let function: Watched = serde_json::from_str(&text).unwrap();
        let kept = Kept::new(function.clone(), &mut packer);
        assert_eq!(kept.unpacked().0.unwrap(), function.0.unwrap());
        let broken: Watched = serde_json::from_str(&text.replace(r#""a""#, "[]")).unwrap();
        let invalid = Kept::new(broken, &mut packer).unpacked().0.unwrap_err();
        assert_eq!(invalid.metadata.name.as_deref(), Some("f"));
        assert!(!invalid.error.is_empty());
    }
}
