//! The store by itself.

use serde_json::json;

use super::{
    super::state::{ChangeType, DELETIONS},
    *,
};

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, "shop", name)
}

fn store() -> (Store, Value) {
    let store = Store::default();
    let function = store.create(key(Kind::Function, "hello"), json!({"spec": {"image": "a"}, "status": {"url": "x"}}));
    (store, function.unwrap())
}

fn revision(store: &Store, name: &str, owner: &Value) -> Value {
    let owner = json!([{"uid": owner["metadata"]["uid"]}]);
    let revision =
        json!({"metadata": {"ownerReferences": owner}, "spec": {"function": "hello", "template": {"image": "a"}}});
    store.create(key(Kind::Revision, name), revision).unwrap()
}

#[test]
fn a_status_is_written_apart_and_a_spec_counts_generations() {
    let (store, function) = store();
    assert_eq!((&function["status"], &function["metadata"]["generation"]), (&Value::Null, &json!(1)));
    let key = key(Kind::Function, "hello");
    let status = Patch::Apply(json!({"status": {"url": "http://x"}, "spec": {"image": "b"}}));
    let function = store.patch(&key, Part::Status, &status).unwrap();
    assert_eq!((&function["status"]["url"], &function["spec"]["image"]), (&json!("http://x"), &json!("a")));
    assert_eq!(function["metadata"]["generation"], 1);
    let spec =
        Patch::Merge(json!({"spec": {"image": "c"}, "status": {"url": "y"}, "metadata": {"annotations": {"k": "v"}}}));
    let function = store.patch(&key, Part::Main, &spec).unwrap();
    assert_eq!((&function["status"]["url"], &function["metadata"]["generation"]), (&json!("http://x"), &json!(2)));
    let again = store.patch(&key, Part::Main, &spec).unwrap();
    assert_eq!(again["metadata"]["resourceVersion"], function["metadata"]["resourceVersion"]);
}

#[test]
fn nothing_is_lost_when_it_is_tidied_up() {
    let store = Store::default();
    let names: Vec<String> = (0..100).map(|number| format!("f-{number}")).collect();
    let function = |name: &str| key(Kind::Function, name);
    names.iter().for_each(|name| drop(store.create(function(name), json!({"spec": {"image": "a"}})).unwrap()));
    let after = store.version();
    store.replace(&function("f-7"), &json!({"spec": {"image": "b"}})).unwrap();
    let all = |store: &Store| names.iter().map(|name| store.get(&function(name)).unwrap()).collect::<Vec<_>>();
    let before = all(&store);
    store.tidy();
    assert_eq!(all(&store), before);
    assert_eq!(store.changes(after, 9).unwrap().len(), 1);
    assert_eq!(store.version(), after + 1);
}

#[test]
fn who_replaces_must_know_the_present_version() {
    let (store, mut function) = store();
    let key = key(Kind::Function, "hello");
    function["spec"]["image"] = "b".into();
    store.replace(&key, &function).unwrap();
    assert!(matches!(store.replace(&key, &function), Err(Refusal::Conflict(_))));
}

#[test]
fn a_function_takes_its_revisions_along_and_no_other() {
    let (store, function) = store();
    revision(&store, "hello-1", &function);
    revision(&store, "other-1", &json!({"metadata": {"uid": "other"}}));
    assert!(matches!(store.delete(&key(Kind::Function, "hello"), Some("past")), Err(Refusal::Conflict(_))));
    store.delete(&key(Kind::Function, "hello"), None).unwrap();
    assert_eq!(store.keys(Kind::Revision), [key(Kind::Revision, "other-1")]);
    assert!(store.keys(Kind::Function).is_empty());
}

#[test]
fn of_what_is_there_the_last_change_is_told_and_in_order() {
    let (store, function) = store();
    let seen = |after, limit| -> Vec<(u64, ChangeType, String)> {
        let changes = store.changes(after, limit).unwrap();
        changes.into_iter().map(|change| (change.version, change.change, change.key.name.to_string())).collect()
    };
    let told = |version, change, name: &str| (version, change, name.to_owned());
    revision(&store, "r-0", &function);
    let count = Patch::Merge(json!({"spec": {"instances": 1}}));
    store.patch(&key(Kind::Function, "hello"), Part::Main, &Patch::Merge(json!({"spec": {"image": "b"}}))).unwrap();
    revision(&store, "r-1", &function);
    store.delete(&key(Kind::Revision, "r-0"), None).unwrap();
    store.patch(&key(Kind::Revision, "r-1"), Part::Main, &count).unwrap();
    let hello = |change| told(3, change, "hello");
    let all = [hello(ChangeType::Added), told(5, ChangeType::Deleted, "r-0"), told(6, ChangeType::Added, "r-1")];
    assert_eq!(seen(0, 10), all);
    assert_eq!(seen(1, 1), [hello(ChangeType::Modified)]);
    assert_eq!(seen(4, 10), [told(5, ChangeType::Deleted, "r-0"), told(6, ChangeType::Modified, "r-1")]);
    assert!(seen(6, 10).is_empty());
}

#[test]
fn deletions_are_not_remembered_for_ever() {
    let (store, function) = store();
    for number in 0..=DELETIONS {
        revision(&store, "r", &function);
        store.delete(&key(Kind::Revision, "r"), None).unwrap();
        assert_eq!(store.changes(0, 10).is_ok(), number < DELETIONS);
    }
    assert_eq!(store.changes(2, 10).unwrap_err(), Refusal::Expired(2));
    assert_eq!(store.changes(3, 1).unwrap()[0].change, ChangeType::Deleted);
}

#[test]
fn events_are_bounded() {
    let store = Store::default();
    let limit = Kind::Event.limit().unwrap();
    for number in 0..limit + 10 {
        store.create(key(Kind::Event, &format!("e-{number}")), json!({})).unwrap();
    }
    assert_eq!(store.keys(Kind::Event).len(), limit);
    assert!(store.get(&key(Kind::Event, "e-9")).is_err() && store.get(&key(Kind::Event, "e-10")).is_ok());
}
