//! What a watch has told, by name.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

/// All that is known to be there.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    all: BTreeMap<String, V>,
    /// While everything is being said again: what was said so far.
    said: BTreeMap<String, V>,
    complete: bool,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), said: BTreeMap::new(), complete: false }
    }
}

impl<V> Cache<V> {
    /// What is there.
    pub(crate) fn all(&self) -> &BTreeMap<String, V> {
        &self.all
    }

    /// Whether everything was said at least once.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes in an event. Whether it changes anything: not if the new one is like the old one.
    pub(crate) fn take_in(&mut self, event: Event<(String, V)>, is_like: impl Fn(&V, &V) -> bool) -> bool {
        match event {
            Event::Init => {
                self.said.clear();
                false
            }
            Event::InitApply((name, value)) => {
                self.said.insert(name, value);
                false
            }
            Event::InitDone => {
                self.all = std::mem::take(&mut self.said);
                self.complete = true;
                true
            }
            Event::Apply((name, value)) => {
                let same = self.all.get(&name).is_some_and(|old| is_like(old, &value));
                self.all.insert(name, value);
                !same
            }
            Event::Delete((name, _)) => self.all.remove(&name).is_some(),
        }
    }

    /// One is there that the watch has yet to tell of.
    pub(crate) fn note(&mut self, name: String, value: V) {
        self.all.entry(name).or_insert(value);
    }

    /// Changes one if it is there.
    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut V)) {
        if let Some(value) = self.all.get_mut(name) {
            change(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, value: u8) -> (String, u8) {
        (name.to_owned(), value)
    }

    #[test]
    fn what_is_not_said_again_is_gone_once_all_is_said() {
        let mut cache = Cache::default();
        let mut take_in = |event| {
            let changed = cache.take_in(event, u8::eq);
            (changed, cache.is_complete(), cache.all().len())
        };
        assert_eq!(take_in(Event::Init), (false, false, 0));
        assert_eq!(take_in(Event::InitApply(named("a", 1))), (false, false, 0));
        assert_eq!(take_in(Event::InitDone), (true, true, 1));
        assert_eq!(take_in(Event::Apply(named("b", 1))), (true, true, 2));
        assert_eq!(take_in(Event::Apply(named("b", 1))), (false, true, 2));
        assert_eq!(take_in(Event::Init), (false, true, 2));
        assert_eq!(take_in(Event::InitApply(named("b", 2))), (false, true, 2));
        assert_eq!(take_in(Event::InitDone), (true, true, 1));
        assert_eq!(take_in(Event::Delete(named("b", 2))), (true, true, 0));
        assert_eq!(take_in(Event::Delete(named("b", 2))), (false, true, 0));
    }

    #[test]
    fn what_the_watch_has_told_goes_before_what_was_noted() {
        let mut cache = Cache::default();
        cache.take_in(Event::Apply(named("a", 2)), u8::eq);
        cache.note("a".to_owned(), 1);
        cache.note("b".to_owned(), 1);
        cache.change("c", |value| *value = 3);
        assert_eq!(cache.all().values().collect::<Vec<_>>(), [&2, &1]);
    }
}
