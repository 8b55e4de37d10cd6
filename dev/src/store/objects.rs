//! The store as the rest sees it: behind a lock that nobody holds while waiting. Who watches reads what
//! changed since the last version that it has seen.

use std::sync::Arc;

use lambent_api::Name;
use lambent_compact::Packed;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Kind, Refusal,
    patch::Patch,
    state::{Change, Page, Part, State},
};

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

    pub(super) fn in_words(&self) -> String {
        format!("{} \"{}\"", self.kind.plural(), self.name)
    }
}

/// All objects. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    version: watch::Sender<u64>,
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
        self.0.state.lock().page(kind, namespace, after, limit)
    }

    /// The keys of all objects of a kind.
    pub fn keys(&self, kind: Kind) -> Vec<Key> {
        self.0.state.lock().keys(kind)
    }

    /// The keys of the objects of a kind whose names begin so.
    pub fn keys_from(&self, kind: Kind, namespace: &str, prefix: &str) -> Vec<Key> {
        self.0.state.lock().keys_from(kind, namespace, prefix)
    }

    /// At most `limit` changes after a version, in their order.
    ///
    /// # Errors
    /// If they are not remembered any more.
    pub(super) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, Refusal> {
        self.0.state.lock().changes(after, limit)
    }

    /// Packs the texts of all objects beside each other anew, and leaves no gaps in the tables: after
    /// much was written, what is there takes a third less. Takes some milliseconds for a thousand objects.
    pub(crate) fn tidy(&self) {
        self.0.state.lock().tidy();
    }

    /// The version of the last change.
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
        let version = state.version();
        drop(state);
        self.0.version.send_if_modified(|known| std::mem::replace(known, version) != version);
        result
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
