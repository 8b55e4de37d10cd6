//! The objects as they are, each as JSON text that is packed beside others of its kind, and in which
//! order they changed. Every write gets the next resourceVersion. Of an object that is there only its
//! last change is known, which costs no memory; of deleted ones a bounded number, and who is behind
//! these starts anew.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use jiff::Timestamp;
use lambent_compact::{Packed, Packer};
use serde_json::{Value, json};

use super::{Key, Kind, Refusal, defaults, scale};

/// Deletions that are remembered for those who watch.
pub(super) const DELETIONS: usize = 256;

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

/// A part of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) objects: Vec<Packed>,
    /// The last one of them, if there are more.
    pub(super) last: Option<Key>,
    /// At which that holds.
    pub(super) version: u64,
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

/// All objects.
#[derive(Debug, Default)]
pub(super) struct State {
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

impl State {
    /// The version of the last write.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn page(&self, kind: Kind, namespace: Option<&str>, after: Option<&Key>, limit: usize) -> Page {
        let mut rest = self.after(kind, namespace, after);
        let part: Vec<_> = rest.by_ref().take(limit).collect();
        let last = rest.next().and_then(|_| part.last()).map(|(key, _)| Key::clone(key));
        let objects = part.into_iter().map(|(_, stored)| stored.text.clone()).collect();
        Page { objects, last, version: self.version }
    }

    pub(super) fn keys(&self, kind: Kind) -> Vec<Key> {
        self.of_kind(kind, None).map(|(key, _)| Key::clone(key)).collect()
    }

    pub(super) fn keys_from(&self, kind: Kind, namespace: &str, prefix: &str) -> Vec<Key> {
        let first = Arc::new(Key::new(kind, namespace, prefix));
        let all = self.objects.range((Bound::Included(first), Bound::Unbounded)).map(|(key, _)| key);
        let is_meant = |key: &&Arc<Key>| key.kind == kind && key.namespace == namespace && key.name.starts_with(prefix);
        all.take_while(is_meant).map(|key| Key::clone(key)).collect()
    }

    pub(super) fn get(&self, key: &Key) -> Result<Value, Refusal> {
        let stored = self.objects.get(key).ok_or_else(|| Refusal::NotFound(key.in_words()))?;
        stored.text.value().map_err(|error| Refusal::Invalid(error.to_string()))
    }

    fn pack(&mut self, kind: Kind, object: &Value) -> Packed {
        self.packers.entry(kind).or_default().pack(&object.to_string())
    }

    pub(super) fn tidy(&mut self) {
        let mut packers: BTreeMap<Kind, Packer> = BTreeMap::new();
        let again = |(key, stored): (Arc<Key>, Stored)| {
            let text = stored.text.text().map(|text| packers.entry(key.kind).or_default().pack(&text));
            let text = text.unwrap_or(stored.text);
            (key, Stored { text, ..stored })
        };
        // Collected in order, a tree's nodes are full; grown one by one, they are half empty.
        self.objects = std::mem::take(&mut self.objects).into_iter().map(again).collect();
        self.changed = std::mem::take(&mut self.changed).into_iter().collect();
        self.packers = packers;
    }

    pub(super) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, Refusal> {
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

    pub(super) fn create(&mut self, key: Key, mut object: Value) -> Result<Value, Refusal> {
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

    pub(super) fn update(
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

    pub(super) fn delete(&mut self, key: &Key, uid: Option<&str>) -> Result<Value, Refusal> {
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
