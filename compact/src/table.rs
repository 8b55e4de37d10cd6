//! A table of things of which there may be thousands.

use std::{
    borrow::Borrow,
    fmt::{self, Debug},
    hash::{BuildHasher, Hash, RandomState},
};

use hashbrown::{HashTable, hash_table};

use crate::enough_room;

/// A map of hashes whose slots take nine bytes each: an entry is an allocation of its own. In a `HashMap` each
/// slot takes as much as an entry, and after growing more than half of them are empty.
pub struct Table<K, V> {
    entries: HashTable<Box<(K, V)>>,
    hasher: RandomState,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { entries: HashTable::new(), hasher: RandomState::new() }
    }
}

impl<K: Debug, V: Debug> Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|entry| (&entry.0, &entry.1))).finish()
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// What there is of this key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.find(self.hasher.hash_one(key), |entry| entry.0.borrow() == key).map(|entry| &entry.1)
    }

    /// The same, to be changed.
    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.find_mut(self.hasher.hash_one(key), |entry| entry.0.borrow() == key);
        entry.map(|entry| &mut entry.1)
    }

    /// What there is of this key, or what is made for it now.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        match self.entry(&key) {
            hash_table::Entry::Occupied(entry) => &mut entry.into_mut().1,
            hash_table::Entry::Vacant(entry) => &mut entry.insert(Box::new((key, make()))).into_mut().1,
        }
    }

    /// Puts it there. What was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.entry(&key) {
            hash_table::Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().1, value)),
            hash_table::Entry::Vacant(entry) => {
                entry.insert(Box::new((key, value)));
                None
            }
        }
    }

    fn entry(&mut self, key: &K) -> hash_table::Entry<'_, Box<(K, V)>> {
        let hasher = &self.hasher;
        self.entries.entry(hasher.hash_one(key), |entry| entry.0 == *key, |entry| hasher.hash_one(&entry.0))
    }

    /// Takes it away. A table that has become nearly empty takes no more room than it needs.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let found = self.entries.find_entry(self.hasher.hash_one(key), |entry| entry.0.borrow() == key).ok()?;
        let (_, value) = *found.remove().0;
        self.give_back();
        Some(value)
    }

    /// Takes away what is not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.entries.retain(|entry| {
            let (key, value) = &mut **entry;
            keep(key, value)
        });
        self.give_back();
    }

    fn give_back(&mut self) {
        if let Some(room) = enough_room(self.entries.len(), self.entries.capacity()) {
            let hasher = &self.hasher;
            self.entries.shrink_to(room, |entry| hasher.hash_one(&entry.0));
        }
    }
}

impl<K, V> Table<K, V> {
    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|entry| (&entry.0, &entry.1))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|entry| {
            let (key, value) = &mut **entry;
            (&*key, value)
        })
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in no order, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_as_a_hash_map(steps in prop::collection::vec((0..6_u8, 0..40_u8, 0..100_u32), 1..300)) {
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for (step, key, value) in steps {
                match step {
                    0 | 1 => prop_assert_eq!(table.insert(key, value), map.insert(key, value)),
                    2 => prop_assert_eq!(table.remove(&key), map.remove(&key)),
                    3 => prop_assert_eq!(table.get_or_insert_with(key, || value), map.entry(key).or_insert(value)),
                    4 => {
                        table.retain(|key, all| u32::from(*key) + *all > value);
                        map.retain(|key, all| u32::from(*key) + *all > value);
                    }
                    _ => {
                        table.values_mut().for_each(|all| *all += 1);
                        map.values_mut().for_each(|all| *all += 1);
                    }
                }
                prop_assert_eq!(table.get(&key), map.get(&key));
                prop_assert_eq!(table.iter().collect::<HashMap<_, _>>(), map.iter().collect::<HashMap<_, _>>());
            }
        }
    }

    #[test]
    fn a_table_gives_back_what_a_crowd_has_taken() {
        let mut table: Table<u32, u32> = Table::default();
        for number in 0..10_000 {
            table.insert(number, number);
        }
        for number in 5..10_000 {
            table.remove(&number);
        }
        assert!(table.entries.capacity() <= crate::SMALL, "{}", table.entries.capacity());
        assert_eq!(table.get(&4), Some(&4));
    }
}
