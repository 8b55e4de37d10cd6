//! The store as a `kube::Client` sees it.

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch as KubePatch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::watcher,
};
use lambent_api::{Function, FunctionStatus, Revision};

use super::{super::Kind, *};

fn function(name: &str) -> Function {
    serde_json::from_value(json!({
        "apiVersion": "lambent.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": name, "namespace": "shop"}, "spec": {"image": "a"},
    }))
    .unwrap()
}

fn api<K>(store: &Store) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client(store.clone()), "shop")
}

async fn next<S: futures::Stream + Unpin>(stream: &mut S) -> S::Item {
    tokio::time::timeout(std::time::Duration::from_secs(30), stream.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_watcher_sees_what_is_there_and_what_changes() {
    let store = Store::default();
    let functions: Api<Function> = api(&store);
    functions.create(&PostParams::default(), &function("one")).await.unwrap();
    let mut events = Box::pin(watcher(functions.clone(), watcher::Config::default()));
    assert!(matches!(next(&mut events).await.unwrap(), watcher::Event::Init));
    assert!(matches!(next(&mut events).await.unwrap(), watcher::Event::InitApply(f) if f.name_any() == "one"));
    assert!(matches!(next(&mut events).await.unwrap(), watcher::Event::InitDone));
    functions.create(&PostParams::default(), &function("two")).await.unwrap();
    assert!(matches!(next(&mut events).await.unwrap(), watcher::Event::Apply(f) if f.name_any() == "two"));
    functions.delete("one", &DeleteParams::default()).await.unwrap();
    assert!(matches!(next(&mut events).await.unwrap(), watcher::Event::Delete(f) if f.name_any() == "one"));
}

#[tokio::test]
async fn a_long_list_comes_in_parts_and_nothing_that_changes_meanwhile_is_missed() {
    let store = Store::default();
    let functions: Api<Function> = api(&store);
    for name in ["a", "b", "c", "d", "e"] {
        functions.create(&PostParams::default(), &function(name)).await.unwrap();
    }
    let names = |items: &[Function]| items.iter().map(ResourceExt::name_any).collect::<String>();
    let first = functions.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((names(&first.items), first.metadata.resource_version.as_deref()), ("ab".to_owned(), Some("5")));
    for name in ["a", "c"] {
        functions.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let rest = ListParams::default().limit(500).continue_token(first.metadata.continue_.as_deref().unwrap());
    let rest = functions.list(&rest).await.unwrap();
    assert_eq!((names(&rest.items), rest.metadata.continue_.as_deref()), ("de".to_owned(), None));
    let mut events = functions
        .watch(&WatchParams::default(), rest.metadata.resource_version.as_deref().unwrap())
        .await
        .unwrap()
        .boxed();
    for name in ["a", "c"] {
        let event = events.try_next().await.unwrap().unwrap();
        assert!(matches!(event, WatchEvent::Deleted(function) if function.name_any() == name));
    }
    for number in 0..PART {
        functions.create(&PostParams::default(), &function(&format!("f-{number}"))).await.unwrap();
    }
    assert_eq!(functions.list(&ListParams::default().limit(500)).await.unwrap().items.len(), PART);
    assert_eq!(functions.list(&ListParams::default()).await.unwrap().items.len(), PART + 3);
}

#[tokio::test]
async fn a_status_is_applied_with_the_clients_own_words() {
    let store = Store::default();
    let functions: Api<Function> = api(&store);
    let created = functions.create(&PostParams::default(), &function("one")).await.unwrap();
    let status = FunctionStatus { url: Some("http://x".to_owned()), ..FunctionStatus::default() };
    let patch = json!({
        "apiVersion": "lambent.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": "one", "uid": created.metadata.uid}, "status": status,
    });
    let params = PatchParams::apply("test").force();
    let written = functions.patch_status("one", &params, &KubePatch::Apply(patch)).await.unwrap();
    assert_eq!(written.status.unwrap().url.as_deref(), Some("http://x"));
    assert_eq!(written.metadata.generation, Some(1));
}

#[tokio::test]
async fn a_count_is_raised_from_zero_once() {
    let store = Store::default();
    let revision = json!({"spec": {"function": "one", "instances": 0, "template": {"image": "a"}}});
    store.create(super::super::Key::new(Kind::Revision, "shop", "one-1"), revision).unwrap();
    let revisions: Api<Revision> = api(&store);
    let raise: json_patch::Patch = serde_json::from_value(json!([
        {"op": "test", "path": "/spec", "value": {}}, {"op": "add", "path": "/spec/replicas", "value": 1},
    ]))
    .unwrap();
    let patch = KubePatch::<()>::Json(raise);
    let scale = revisions.patch_scale("one-1", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    assert_eq!(revisions.get("one-1").await.unwrap().spec.instances, 1);
    let again = revisions.patch_scale("one-1", &PatchParams::default(), &patch).await;
    assert!(matches!(again, Err(kube::Error::Api(status)) if status.code == 422));
}

#[tokio::test]
async fn what_is_too_long_ago_is_gone() {
    let store = Store::default();
    let functions: Api<Function> = api(&store);
    // More deletions than are remembered.
    for _ in 0..300 {
        functions.create(&PostParams::default(), &function("f")).await.unwrap();
        functions.delete("f", &DeleteParams::default()).await.unwrap();
    }
    let mut events = functions.watch(&WatchParams::default(), "1").await.unwrap().boxed();
    let event = events.try_next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Error(status) if status.code == 410), "a watch from version 1");
    assert!(events.try_next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_sends_bookmarks_and_ends_in_time() {
    let store = Store::default();
    let functions: Api<Function> = api(&store);
    functions.create(&PostParams::default(), &function("one")).await.unwrap();
    let mut events = functions.watch(&WatchParams::default().timeout(100), "1").await.unwrap().boxed();
    let event = events.try_next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Bookmark(bookmark) if bookmark.metadata.resource_version == "1"));
    assert!(events.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn lists_are_selected_by_label_and_other_kinds_are_not_found() {
    let store = Store::default();
    let functions: Api<Function> = api(&store);
    let mut labelled = function("one");
    labelled.labels_mut().insert("team".to_owned(), "a".to_owned());
    functions.create(&PostParams::default(), &labelled).await.unwrap();
    functions.create(&PostParams::default(), &function("two")).await.unwrap();
    let found = functions.list(&ListParams::default().labels("team=a")).await.unwrap();
    assert_eq!(found.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["one"]);
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = api(&store);
    assert!(secrets.get_opt("any").await.unwrap().is_none());
    let again = functions.create(&PostParams::default(), &function("two")).await;
    assert!(matches!(again, Err(kube::Error::Api(status)) if status.is_already_exists()));
}
