//! What a watch has told, by Function: reading all that belongs to one Function costs nothing,
//! however many others there are.

use std::collections::HashSet;

use lambent_api::{FunctionKey, Name};
use lambent_compact::Table;

/// All members that are known, by Function and name. Of the few that a Function has.
#[derive(Debug)]
pub(crate) struct Index<V> {
    members: Table<FunctionKey, Vec<(Name, V)>>,
    /// While everything is being said again: what was said so far.
    said: Option<HashSet<(FunctionKey, Name)>>,
    complete: bool,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self { members: Table::default(), said: None, complete: false }
    }
}

impl<V: Clone> Index<V> {
    /// All of one Function, by name.
    pub(crate) fn of(&self, function: &FunctionKey) -> Vec<V> {
        self.members.get(function).into_iter().flatten().map(|(_, member)| member.clone()).collect()
    }

    /// One by its name.
    pub(crate) fn get(&self, function: &FunctionKey, name: &str) -> Option<&V> {
        self.members.get(function)?.iter().find(|(known, _)| known == name).map(|(_, member)| member)
    }

    /// The Functions that have any.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &FunctionKey> {
        self.members.keys()
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
    pub(crate) fn apply(&mut self, function: &FunctionKey, name: &str, member: V) {
        if let Some(said) = &mut self.said {
            said.insert((function.clone(), name.into()));
        }
        // Most Functions have one member or none.
        let all = self.members.get_or_insert_with(function.clone(), || Vec::with_capacity(1));
        match all.binary_search_by(|(known, _)| known.as_str().cmp(name)) {
            Ok(at) => all[at].1 = member,
            Err(at) => all.insert(at, (name.into(), member)),
        }
    }

    /// One is gone.
    pub(crate) fn gone(&mut self, function: &FunctionKey, name: &str) {
        if let Some(all) = self.members.get_mut(function) {
            all.retain(|(known, _)| known != name);
            if all.is_empty() {
                self.members.remove(function);
            }
        }
    }

    /// Everything was said: what was not is gone. Returns the Functions that lost something.
    pub(crate) fn completed(&mut self) -> Vec<FunctionKey> {
        self.complete = true;
        let Some(said) = self.said.take() else { return Vec::new() };
        let all = self.members.iter().flat_map(|(f, all)| all.iter().map(|(name, _)| (f.clone(), name.clone())));
        let lost: Vec<_> = all.filter(|key| !said.contains(key)).collect();
        for (function, name) in &lost {
            self.gone(function, name);
        }
        lost.into_iter().map(|(function, _)| function).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(function: &str) -> FunctionKey {
        FunctionKey::new("shop", function)
    }

    #[test]
    fn members_are_found_by_their_function() {
        let mut index = Index::default();
        index.apply(&key("a"), "a-2", 2);
        index.apply(&key("a"), "a-1", 1);
        index.apply(&key("b"), "b-1", 3);
        assert_eq!(index.of(&key("a")), [1, 2]);
        assert_eq!(index.get(&key("b"), "b-1"), Some(&3));
        index.apply(&key("a"), "a-2", 4);
        assert_eq!(index.of(&key("a")), [1, 4]);
        index.gone(&key("a"), "a-1");
        index.gone(&key("a"), "a-2");
        assert!(index.of(&key("a")).is_empty());
        assert_eq!(index.functions().collect::<Vec<_>>(), [&key("b")]);
    }

    #[test]
    fn what_is_not_said_again_is_gone_once_all_is_said() {
        let mut index = Index::default();
        index.apply(&key("a"), "a-1", 1);
        index.apply(&key("a"), "a-2", 2);
        index.restarted();
        index.apply(&key("a"), "a-2", 2);
        assert_eq!(index.of(&key("a")).len(), 2);
        assert!(!index.is_complete());
        assert_eq!(index.completed(), [key("a")]);
        assert_eq!(index.of(&key("a")), [2]);
        assert!(index.is_complete());
    }
}
