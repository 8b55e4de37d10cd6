//! What the events of a watch come to, for those who know its objects by name.

use std::{collections::HashSet, hash::Hash};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, runtime::watcher::Event};

use crate::Guarded;

/// What has become of objects that are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<K, Key: Eq + Hash> {
    /// One is there, or has changed.
    There(K),
    /// The one of this name is gone.
    Gone(Key),
    /// There are none but these, each of which has been told of.
    Only(HashSet<Key>),
}

/// Reads the events of one watch.
#[derive(Debug)]
pub struct Follower<Key> {
    key: fn(&ObjectMeta) -> Key,
    /// In the list that is being told.
    listed: HashSet<Key>,
}

impl<Key: Eq + Hash> Follower<Key> {
    /// Of a watch whose objects have these names.
    pub fn new(key: fn(&ObjectMeta) -> Key) -> Self {
        Self { key, listed: HashSet::new() }
    }

    /// What the next event says. Of an object that can't be read nothing: it stays as it was known last, and
    /// the controller says so in its status.
    pub fn take<K>(&mut self, event: Event<Guarded<K>>) -> Option<Seen<K, Key>>
    where
        Guarded<K>: Resource,
    {
        match event {
            Event::Init => {
                self.listed.clear();
                None
            }
            Event::InitApply(object) => {
                self.listed.insert((self.key)(object.meta()));
                object.0.ok().map(Seen::There)
            }
            Event::InitDone => Some(Seen::Only(std::mem::take(&mut self.listed))),
            Event::Apply(object) => object.0.ok().map(Seen::There),
            Event::Delete(object) => Some(Seen::Gone((self.key)(object.meta()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Function, FunctionKey};

    fn function(name: &str, image: &Value) -> Guarded<Function> {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"image": image}}))
            .unwrap()
    }

    fn key(name: &str) -> FunctionKey {
        FunctionKey::new("shop", name)
    }

    /// What is said of which names.
    fn said(
        follower: &mut Follower<FunctionKey>,
        event: Event<Guarded<Function>>,
    ) -> Option<Seen<FunctionKey, FunctionKey>> {
        follower.take(event).map(|seen| match seen {
            Seen::There(function) => Seen::There(function.key()),
            Seen::Gone(key) => Seen::Gone(key),
            Seen::Only(keys) => Seen::Only(keys),
        })
    }

    #[test]
    fn after_a_list_it_is_known_what_there_is_and_what_can_not_be_read_stays() {
        let mut follower = Follower::new(FunctionKey::of);
        let mut said = |event| said(&mut follower, event);
        // A list that broke off says nothing.
        assert_eq!(said(Event::Init), None);
        assert_eq!(said(Event::InitApply(function("past", &json!("a")))), Some(Seen::There(key("past"))));
        assert_eq!(said(Event::Init), None);
        assert_eq!(said(Event::InitApply(function("well", &json!("a")))), Some(Seen::There(key("well"))));
        assert_eq!(said(Event::InitApply(function("odd", &json!(["a"])))), None);
        assert_eq!(said(Event::InitDone), Some(Seen::Only([key("well"), key("odd")].into())));
        assert_eq!(said(Event::Apply(function("odd", &json!(["a"])))), None);
        assert_eq!(said(Event::Apply(function("new", &json!("a")))), Some(Seen::There(key("new"))));
        assert_eq!(said(Event::Delete(function("odd", &json!(["a"])))), Some(Seen::Gone(key("odd"))));
        assert_eq!(said(Event::InitDone), Some(Seen::Only(HashSet::new())));
    }
}
