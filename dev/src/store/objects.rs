//! The objects, each as JSON text that is packed beside others of its kind, and in which order they changed. Every write gets
//! the next resourceVersion. Who watches reads what changed since the last one that it has seen:
//! of an object that is there only its last change, which costs no memory; of deleted ones a
//! bounded number, and who is behind these starts anew.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use jiff::Timestamp;
use lambent_api::Name;
use lambent_compact::{Packed, Packer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Kind, Refusal, defaults, patch::Patch, scale};

/// Deletions that are remembered for those who watch.
const DELETIONS: usize = 256;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    fn in_words(&self) -> String {
        format!("{} \"{}\"", self.kind.plural(), self.name)
    }
}

/// How an object changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeType {
    Added,
    Modified,
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Arc<Key>,
    /// As whoever has seen all before sees it: an object that was created and changed since is new.
    pub(super) change: ChangeType,
    pub(super) object: Packed,
}

/// An object that is there.
#[derive(Debug)]
struct Stored {
    text: Packed,
    /// Of its creation.
    created: u64,
    /// Of its last change.
    changed: u64,
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status, for kinds that have one.
    Main,
    /// The status alone.
    Status,
    /// The count, as a `Scale`.
    Scale,
}

/// A part of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) objects: Vec<Packed>,
    /// The last one of them, if there are more.
    pub(super) last: Option<Key>,
    /// At which that holds.
    pub(super) version: u64,
}

/// All objects. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    packers: BTreeMap<Kind, Packer>,
    objects: BTreeMap<Arc<Key>, Stored>,
    /// Each object that is there, by its last change.
    changed: BTreeMap<u64, Arc<Key>>,
    /// The oldest first.
    deletions: VecDeque<Change>,
    /// Deletions up to this version are not remembered any more.
    forgotten: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), version: watch::Sender::new(0) }))
    }
}

impl Store {
    /// One object.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, key: &Key) -> Result<Value, Refusal> {
        self.0.state.lock().get(key)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// If there is one of its name.
    pub fn create(&self, key: Key, object: Value) -> Result<Value, Refusal> {
        self.write(|state| state.create(key, object))
    }

    /// Replaces an object; of the fields that a server owns the old ones stay.
    ///
    /// # Errors
    /// If there is none, or another version than the new one says.
    pub fn replace(&self, key: &Key, object: &Value) -> Result<Value, Refusal> {
        self.write(|state| {
            let said = object["metadata"]["resourceVersion"].clone();
            state.update(key, Part::Main, |old| {
                if !said.is_null() && said != old["metadata"]["resourceVersion"] {
                    return Err(Refusal::Conflict(format!("{} has been modified", key.in_words())));
                }
                *old = object.clone();
                Ok(())
            })
        })
    }

    pub(super) fn patch(&self, key: &Key, part: Part, patch: &Patch) -> Result<Value, Refusal> {
        self.write(|state| state.update(key, part, |object| patch.apply(object)))
    }

    /// Deletes an object and all that belongs to it.
    ///
    /// # Errors
    /// If there is none, or another one than the one with this uid.
    pub fn delete(&self, key: &Key, uid: Option<&str>) -> Result<Value, Refusal> {
        self.write(|state| state.delete(key, uid))
    }

    /// All objects of a kind, in one namespace or all, and the version at which that holds.
    pub(super) fn list(&self, kind: Kind, namespace: Option<&str>) -> (Vec<Packed>, u64) {
        let Page { objects, version, .. } = self.page(kind, namespace, None, usize::MAX);
        (objects, version)
    }

    /// The next objects of a kind, in one namespace or all, after one that was the last so far.
    pub(super) fn page(&self, kind: Kind, namespace: Option<&str>, after: Option<&Key>, limit: usize) -> Page {
        let state = self.0.state.lock();
        let mut rest = state.after(kind, namespace, after);
        let part: Vec<_> = rest.by_ref().take(limit).collect();
        let last = rest.next().and_then(|_| part.last()).map(|(key, _)| Key::clone(key));
        let objects = part.into_iter().map(|(_, stored)| stored.text.clone()).collect();
        Page { objects, last, version: state.version }
    }

    /// The keys of all objects of a kind.
    pub fn keys(&self, kind: Kind) -> Vec<Key> {
        self.0.state.lock().of_kind(kind, None).map(|(key, _)| Key::clone(key)).collect()
    }

    /// The keys of the objects of a kind whose names begin so.
    pub fn keys_from(&self, kind: Kind, namespace: &str, prefix: &str) -> Vec<Key> {
        let state = self.0.state.lock();
        let first = Arc::new(Key::new(kind, namespace, prefix));
        let all = state.objects.range((Bound::Included(first), Bound::Unbounded)).map(|(key, _)| key);
        let is_meant = |key: &&Arc<Key>| key.kind == kind && key.namespace == namespace && key.name.starts_with(prefix);
        all.take_while(is_meant).map(|key| Key::clone(key)).collect()
    }

    /// At most `limit` changes after a version, in their order.
    ///
    /// # Errors
    /// If they are not remembered any more.
    pub(super) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, Refusal> {
        self.0.state.lock().changes(after, limit)
    }

    /// Packs the texts of all objects beside each other anew, and leaves no gaps in the tables: after much was written, what is
    /// there takes a third less. Takes some milliseconds for a thousand objects.
    pub(crate) fn tidy(&self) {
        self.0.state.lock().tidy();
    }

    /// Of the last change.
    pub(crate) fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    /// Tells the version whenever it changes.
    pub(super) fn versions(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    fn write<T>(&self, work: impl FnOnce(&mut State) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut state = self.0.state.lock();
        let result = work(&mut state);
        let version = state.version;
        drop(state);
        self.0.version.send_if_modified(|known| std::mem::replace(known, version) != version);
        result
    }
}

impl State {
    fn get(&self, key: &Key) -> Result<Value, Refusal> {
        let stored = self.objects.get(key).ok_or_else(|| Refusal::NotFound(key.in_words()))?;
        stored.text.value().map_err(|error| Refusal::Invalid(error.to_string()))
    }

    fn pack(&mut self, kind: Kind, object: &Value) -> Packed {
        self.packers.entry(kind).or_default().pack(&object.to_string())
    }

    fn tidy(&mut self) {
        let mut packers: BTreeMap<Kind, Packer> = BTreeMap::new();
        let again = |(key, stored): (Arc<Key>, Stored)| {
            let text = stored.text.text().map(|text| packers.entry(key.kind).or_default().pack(&text));
            let text = text.unwrap_or(stored.text);
            (key, Stored { text, ..stored })
        };
        // What a table is collected from comes in order, and fills it.
        self.objects = std::mem::take(&mut self.objects).into_iter().map(again).collect();
        self.changed = std::mem::take(&mut self.changed).into_iter().collect();
        self.packers = packers;
    }

    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, Refusal> {
        if after < self.forgotten {
            return Err(Refusal::Expired(after));
        }
        let there = self.changed.range(after + 1..).filter_map(|(version, key)| {
            let Stored { text, created, .. } = self.objects.get(key)?;
            let change = if *created > after { ChangeType::Added } else { ChangeType::Modified };
            Some(Change { version: *version, key: key.clone(), change, object: text.clone() })
        });
        let start = self.deletions.partition_point(|change| change.version <= after);
        let gone = self.deletions.range(start..).cloned();
        let mut changes: Vec<Change> = there.take(limit).chain(gone.take(limit)).collect();
        changes.sort_unstable_by_key(|change| change.version);
        changes.truncate(limit);
        Ok(changes)
    }

    fn of_kind(&self, kind: Kind, namespace: Option<&str>) -> impl Iterator<Item = (&Arc<Key>, &Stored)> {
        self.after(kind, namespace, None)
    }

    fn after(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        last: Option<&Key>,
    ) -> impl Iterator<Item = (&Arc<Key>, &Stored)> {
        let before_all = || Key::new(kind, namespace.unwrap_or_default(), "");
        let first = Arc::new(last.cloned().unwrap_or_else(before_all));
        let namespace = namespace.map(str::to_owned);
        // None has an empty name.
        self.objects.range((Bound::Excluded(first), Bound::Unbounded)).take_while(move |(key, _)| {
            key.kind == kind && namespace.as_ref().is_none_or(|only| *only == key.namespace)
        })
    }

    fn create(&mut self, key: Key, mut object: Value) -> Result<Value, Refusal> {
        if self.objects.contains_key(&key) {
            return Err(Refusal::AlreadyExists(key.in_words()));
        }
        if !object.is_object() {
            return Err(Refusal::BadRequest("the object is no object".to_owned()));
        }
        object["apiVersion"] = key.kind.api_version().into();
        object["kind"] = key.kind.name().into();
        if key.kind.has_status()
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        defaults::fill_in(key.kind, &mut object);
        let meta = &mut object["metadata"];
        meta["name"] = key.name.as_str().into();
        meta["namespace"] = key.namespace.as_str().into();
        meta["uid"] = uuid::Uuid::now_v7().to_string().into();
        meta["creationTimestamp"] = in_seconds(Timestamp::now()).into();
        meta["generation"] = 1.into();
        self.make_room(key.kind);
        Ok(self.put(Arc::new(key), object))
    }

    /// The oldest of a kind that is bounded.
    fn make_room(&mut self, kind: Kind) {
        let Some(limit) = kind.limit() else { return };
        if self.of_kind(kind, None).count() < limit {
            return;
        }
        let oldest = self.of_kind(kind, None).min_by_key(|(_, stored)| stored.created).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            let _ = self.delete(&key, None);
        }
    }

    fn update(
        &mut self,
        key: &Key,
        part: Part,
        change: impl FnOnce(&mut Value) -> Result<(), Refusal>,
    ) -> Result<Value, Refusal> {
        let old = self.get(key)?;
        let mut new = old.clone();
        match part {
            Part::Main | Part::Status => change(&mut new)?,
            Part::Scale => {
                let mut seen = scale::scale(key.kind, &new)?;
                change(&mut seen)?;
                scale::take_over(key.kind, &mut new, &seen)?;
            }
        }
        let new = settle(key.kind, part, &old, new);
        // A write that changes nothing is none.
        let new = if new == old { new } else { self.put(Arc::new(key.clone()), new) };
        if part == Part::Scale { scale::scale(key.kind, &new) } else { Ok(new) }
    }

    fn delete(&mut self, key: &Key, uid: Option<&str>) -> Result<Value, Refusal> {
        let mut object = self.get(key)?;
        let own = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        if let Some(meant) = uid.filter(|meant| *meant != own) {
            return Err(Refusal::Conflict(format!("UID in precondition: {meant}, UID in object meta: {own}")));
        }
        if let Some(stored) = self.objects.remove(key) {
            self.changed.remove(&stored.changed);
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let text = self.pack(key.kind, &object);
        self.remember_deletion(Arc::new(key.clone()), text);
        if key.kind == Kind::Function {
            self.collect(&key.namespace, &own);
        }
        Ok(object)
    }

    /// Deletes the Revisions that belonged to a Function.
    fn collect(&mut self, namespace: &str, owner: &str) {
        let owned = |revision: &Packed| {
            let text = revision.text().unwrap_or_default();
            // Nearly all are another's, and that is seen without parsing them.
            if !text.contains(owner) {
                return false;
            }
            let object: Value = serde_json::from_str(&text).unwrap_or_default();
            let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            owners.iter().any(|reference| reference["uid"] == owner)
        };
        let of_kind = self.of_kind(Kind::Revision, Some(namespace));
        let orphans: Vec<_> = of_kind.filter(|(_, stored)| owned(&stored.text)).map(|(key, _)| key.clone()).collect();
        for orphan in orphans {
            let _ = self.delete(&orphan, None);
        }
    }

    fn put(&mut self, key: Arc<Key>, mut object: Value) -> Value {
        self.version += 1;
        let changed = self.version;
        object["metadata"]["resourceVersion"] = changed.to_string().into();
        let text = self.pack(key.kind, &object);
        // The key that is there stays, and is shared.
        let (key, created) = match self.objects.get_key_value(&key) {
            Some((key, old)) => {
                self.changed.remove(&old.changed);
                (key.clone(), old.created)
            }
            None => (key, changed),
        };
        self.changed.insert(changed, key.clone());
        self.objects.insert(key, Stored { text, created, changed });
        object
    }

    fn remember_deletion(&mut self, key: Arc<Key>, object: Packed) {
        if self.deletions.len() == DELETIONS {
            self.forgotten = self.deletions.pop_front().map_or(self.forgotten, |oldest| oldest.version);
        }
        self.deletions.push_back(Change { version: self.version, key, change: ChangeType::Deleted, object });
    }
}

/// What follows when `new` was written over `old`: only the part that was meant, and of the
/// metadata only what is a writer's.
fn settle(kind: Kind, part: Part, old: &Value, mut new: Value) -> Value {
    if part == Part::Status {
        let mut settled = old.clone();
        settled["status"] = new["status"].take();
        return settled;
    }
    if kind.has_status()
        && let Some(fields) = new.as_object_mut()
    {
        fields.remove("status");
        fields.extend(old.get("status").map(|status| ("status".to_owned(), status.clone())));
    }
    for field in ["apiVersion", "kind"] {
        new[field] = old[field].clone();
    }
    defaults::fill_in(kind, &mut new);
    for field in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation"] {
        new["metadata"][field] = old["metadata"][field].clone();
    }
    if new["spec"] != old["spec"] {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = json!(generation + 1);
    }
    new
}

/// As servers write times: without fractions.
fn in_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind, name: &str) -> Key {
        Key::new(kind, "shop", name)
    }

    fn store() -> (Store, Value) {
        let store = Store::default();
        let function =
            store.create(key(Kind::Function, "hello"), json!({"spec": {"image": "a"}, "status": {"url": "x"}}));
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
        let spec = Patch::Merge(
            json!({"spec": {"image": "c"}, "status": {"url": "y"}, "metadata": {"annotations": {"k": "v"}}}),
        );
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
}
