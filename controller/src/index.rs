//! What a watch has told, by Function: reading all that belongs to one Function costs nothing,
//! however many others there are.

use std::collections::{BTreeMap, HashMap, HashSet};

use lambent_api::{FunctionKey, Revision};
use lambent_fleet::Instance;

/// What belongs to a Function and has a name.
pub(crate) trait Member: Clone {
    /// Whose it is.
    fn function(&self) -> FunctionKey;
    /// Its name, unique within the namespace.
    fn name(&self) -> &str;
}

impl Member for std::sync::Arc<Revision> {
    fn function(&self) -> FunctionKey {
        FunctionKey::new(self.metadata.namespace.clone().unwrap_or_default(), &self.spec.function)
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl Member for Instance {
    fn function(&self) -> FunctionKey {
        self.function_key()
    }

    fn name(&self) -> &str {
        &self.id.name
    }
}

/// All members that are known, by Function.
#[derive(Debug)]
pub(crate) struct Index<V> {
    members: HashMap<FunctionKey, BTreeMap<String, V>>,
    /// While everything is being said again: what was said so far.
    said: Option<HashSet<(FunctionKey, String)>>,
    complete: bool,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self { members: HashMap::new(), said: None, complete: false }
    }
}

impl<V: Member> Index<V> {
    /// All of one Function, by name.
    pub(crate) fn of(&self, function: &FunctionKey) -> Vec<V> {
        self.members.get(function).map(|all| all.values().cloned().collect()).unwrap_or_default()
    }

    /// One by its name.
    pub(crate) fn get(&self, function: &FunctionKey, name: &str) -> Option<&V> {
        self.members.get(function)?.get(name)
    }

    /// Whether everything was said at least once.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Everything will be said again. Until that is complete, what was known stays: the present
    /// state is more likely the last one known than none.
    pub(crate) fn restarted(&mut self) {
        self.said = Some(HashSet::new());
    }

    /// One is there or has changed.
    pub(crate) fn apply(&mut self, member: V) -> FunctionKey {
        let function = member.function();
        if let Some(said) = &mut self.said {
            said.insert((function.clone(), member.name().to_owned()));
        }
        self.members.entry(function.clone()).or_default().insert(member.name().to_owned(), member);
        function
    }

    /// One is gone.
    pub(crate) fn gone(&mut self, member: &V) -> FunctionKey {
        let function = member.function();
        self.remove(&function, member.name());
        function
    }

    /// Everything was said: what was not is gone. Returns the Functions that lost something.
    pub(crate) fn completed(&mut self) -> Vec<FunctionKey> {
        self.complete = true;
        let Some(said) = self.said.take() else { return Vec::new() };
        let all = self.members.iter().flat_map(|(f, all)| all.keys().map(|name| (f.clone(), name.clone())));
        let lost: Vec<_> = all.filter(|key| !said.contains(key)).collect();
        for (function, name) in &lost {
            self.remove(function, name);
        }
        lost.into_iter().map(|(function, _)| function).collect()
    }

    fn remove(&mut self, function: &FunctionKey, name: &str) {
        if let Some(all) = self.members.get_mut(function) {
            all.remove(name);
            if all.is_empty() {
                self.members.remove(function);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Thing(&'static str, &'static str);

    impl Member for Thing {
        fn function(&self) -> FunctionKey {
            key(self.0)
        }

        fn name(&self) -> &str {
            self.1
        }
    }

    fn key(function: &str) -> FunctionKey {
        FunctionKey::new("shop", function)
    }

    #[test]
    fn members_are_found_by_their_function() {
        let mut index = Index::default();
        assert_eq!(index.apply(Thing("a", "a-1")), key("a"));
        index.apply(Thing("b", "b-1"));
        assert_eq!(index.of(&key("a")), [Thing("a", "a-1")]);
        assert_eq!(index.get(&key("b"), "b-1"), Some(&Thing("b", "b-1")));
        index.gone(&Thing("a", "a-1"));
        assert!(index.of(&key("a")).is_empty());
    }

    #[test]
    fn what_is_not_said_again_is_gone_once_all_is_said() {
        let mut index = Index::default();
        index.apply(Thing("a", "a-1"));
        index.apply(Thing("a", "a-2"));
        index.restarted();
        index.apply(Thing("a", "a-2"));
        assert_eq!(index.of(&key("a")).len(), 2);
        assert!(!index.is_complete());
        assert_eq!(index.completed(), [key("a")]);
        assert_eq!(index.of(&key("a")), [Thing("a", "a-2")]);
        assert!(index.is_complete());
    }
}
