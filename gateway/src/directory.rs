//! All Functions, by name: what the request path looks up. Of the watches' changes the [`Applier`] makes it.

mod applier;
mod change;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use arc_swap::ArcSwap;
use lambent_api::FunctionKey;

pub use self::{
    applier::{AgentNews, Applier},
    change::{Change, FunctionView, RevisionView},
};
use crate::function::Function;

/// So many that one of 10,000 Functions shares its shelf with some ten others.
const SHELVES: usize = 1024;

/// Functions whose names have the same hash; replaced as a whole.
type Shelf = ArcSwap<Vec<Arc<Function>>>;

/// The Functions that there are; looked up without a lock and without an allocation.
#[derive(Debug)]
pub struct Directory {
    shelves: Box<[Shelf]>,
    hasher: RandomState,
}

impl Default for Directory {
    fn default() -> Self {
        let empty = Arc::default();
        let shelves = (0..SHELVES).map(|_| ArcSwap::new(Arc::clone(&empty))).collect();
        Self { shelves, hasher: RandomState::new() }
    }
}

impl Directory {
    /// The Function of this name, if it can be called.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Function>> {
        self.any(namespace, name).filter(|f| f.is_callable())
    }

    /// The Function of this name, or what is left of it.
    pub fn any(&self, namespace: &str, name: &str) -> Option<Arc<Function>> {
        let shelf = self.shelf(namespace, name).load();
        shelf.iter().find(|f| f.key.name == name && f.key.namespace == namespace).cloned()
    }

    /// Everything, also what is left of deleted ones.
    pub fn all(&self) -> Vec<Arc<Function>> {
        self.shelves.iter().flat_map(|shelf| Vec::clone(&shelf.load())).collect()
    }

    fn shelf(&self, namespace: &str, name: &str) -> &Shelf {
        let hash = self.hasher.hash_one((namespace, name));
        &self.shelves[hash as usize % SHELVES]
    }

    fn insert(&self, function: Arc<Function>) {
        self.replace(&function.key.clone(), Some(function));
    }

    fn remove(&self, key: &FunctionKey) {
        self.replace(key, None);
    }

    /// Called by the one [`Applier`] only.
    fn replace(&self, key: &FunctionKey, by: Option<Arc<Function>>) {
        let shelf = self.shelf(&key.namespace, &key.name);
        let others = shelf.load().iter().filter(|f| f.key != *key).cloned().collect::<Vec<_>>();
        shelf.store(Arc::new(others.into_iter().chain(by).collect()));
    }
}
