//! Makes true in the store what the files ask for, and again whenever they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use lambent_api::FunctionKey;
use lambent_compact::Packed;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::Value;
use tokio::{sync::mpsc, task::yield_now, time::timeout};
use tracing::{error, info, warn};

use crate::{
    manifest::Problem,
    reader::{self, Asked, Ground, Look, Remembered, Request},
    source,
    store::{Key, Kind, Refusal, Store},
};

/// An editor writes several times when it saves.
const SETTLES_WITHIN: Duration = Duration::from_millis(50);
/// What could not be read is read again after this, as nothing may tell when it can be, then later and later.
const AGAIN: Duration = Duration::from_secs(2);
/// Up to this.
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// A change will be told of.
const NEVER: Duration = Duration::MAX;
/// So many Functions are put before all else that waits has its turn.
const AT_ONCE: usize = 16;
/// Who writes all the time is not waited for.
const AT_MOST: Duration = Duration::from_secs(1);

/// Follows the files into the store.
pub(crate) struct Loader {
    paths: Vec<PathBuf>,
    /// Whether commands are run; else images are.
    processes: bool,
    /// What reads: this program.
    program: PathBuf,
    store: Store,
    remembered: Remembered,
    told: BTreeSet<Problem>,
    noticed: BTreeSet<String>,
    /// Whether nothing could be read the last time.
    failed: bool,
    /// Of Functions that are built: the digest of the source as it is now, and how often it has changed.
    changes: BTreeMap<FunctionKey, (String, u64)>,
}

impl Loader {
    pub(crate) fn new(paths: Vec<PathBuf>, processes: bool, program: PathBuf, store: Store) -> Self {
        Self {
            paths,
            processes,
            program,
            store,
            remembered: Remembered::default(),
            told: BTreeSet::new(),
            noticed: BTreeSet::new(),
            failed: false,
            changes: BTreeMap::new(),
        }
    }

    /// Looks at the files.
    ///
    /// # Errors
    /// If one of the paths can't be read, or the process that reads fails.
    pub(crate) async fn look(&mut self) -> Result<Look, reader::Error> {
        let request = Request::new(&self.paths, self.processes, &self.remembered);
        let look;
        (look, self.remembered) = reader::look(&self.program, &request).await?;
        for problem in look.problems.difference(&self.told) {
            error!("{problem}");
        }
        if look.problems.is_empty() && !self.told.is_empty() {
            info!("all manifests are well again");
        }
        self.told.clone_from(&look.problems);
        look.notices.difference(&self.noticed).for_each(|notice| info!("{notice}"));
        self.noticed.clone_from(&look.notices);
        Ok(look)
    }

    /// Carries out what follows from every change. Never ends.
    pub(crate) async fn run(mut self, mut ground: Ground) {
        let (sender, mut changes) = mpsc::channel(1);
        let mut watcher = watcher(sender.clone());
        let mut watched = Watched::new();
        let mut pause = if ground.partial { AGAIN } else { NEVER };
        loop {
            if let Some(watcher) = &mut watcher
                && watch(watcher, &mut watched, &ground.watched)
            {
                // It may have changed before it was watched.
                let _ = sender.try_send(());
            }
            let look = self.next(&mut changes, &mut pause).await;
            ground = self.apply(look).await;
        }
    }

    /// What the files ask for after the next change, or after a while, where changes may not be told of.
    async fn next(&mut self, changes: &mut mpsc::Receiver<()>, pause: &mut Duration) -> Look {
        loop {
            let changed = timeout(*pause, changes.recv()).await.is_ok();
            let settled =
                async { while timeout(SETTLES_WITHIN, changes.recv()).await.is_ok_and(|change| change.is_some()) {} };
            let _ = timeout(AT_MOST, settled).await;
            let before = self.told.clone();
            let look = self.look().await;
            let extent = look.as_ref().map_or(Extent::Nothing, |look| match look.ground.partial {
                false => Extent::All,
                true => Extent::Part { as_before: look.problems == before },
            });
            *pause = pause_after(*pause, changed, extent);
            let failed_before = std::mem::replace(&mut self.failed, look.is_err());
            match look {
                Ok(look) => return look,
                // What fails again by itself has been said.
                Err(_) if failed_before && !changed => {}
                Err(error) => {
                    error!(%error, "the files can't be read; what runs goes on; start lambent dev again if that stays so");
                }
            }
        }
    }

    /// Makes it true. Where changes matter from now on.
    pub(crate) async fn apply(&mut self, look: Look) -> Ground {
        let keep = |key: &FunctionKey| look.functions.contains_key(key) || look.kept.contains(key);
        for key in self.store.keys(Kind::Function) {
            let function = FunctionKey::new(key.namespace.clone(), key.name.clone());
            if !keep(&function) {
                info!("{function} is gone");
                // Gone already is as good.
                let _ = self.store.delete(&key, None);
                self.changes.remove(&function);
            }
        }
        for (number, (key, (asked, object))) in look.functions.into_iter().enumerate() {
            if number % AT_ONCE == AT_ONCE - 1 {
                // A thousand take a while, and callers' first instances have this thread too.
                yield_now().await;
            }
            self.put(&key, asked, &object);
        }
        look.ground
    }

    /// What was built from an earlier source has been built over since: going back to that makes a new
    /// Revision, and a new build.
    fn number(&mut self, key: &FunctionKey, source: &str) -> String {
        let (digest, changes) = self.changes.entry(key.clone()).or_default();
        if digest != source {
            (*digest, *changes) = (source.to_owned(), *changes + 1);
        }
        source::after_changes(source, *changes)
    }

    fn put(&mut self, key: &FunctionKey, asked: Asked, object: &Packed) {
        let number = asked.built_from.map(|source| self.number(key, &source));
        if let Err(words) = put(&self.store, key, object, number) {
            error!("{}: {key}: {words}", asked.place);
        }
    }
}

/// How much of the files a look has seen.
#[derive(Clone, Copy)]
enum Extent {
    All,
    /// Not all of it, and whether the same was wrong the last time.
    Part {
        as_before: bool,
    },
    Nothing,
}

/// Until the next look, if no change is told of; `before` that, it was this.
fn pause_after(before: Duration, changed: bool, extent: Extent) -> Duration {
    match extent {
        Extent::All => NEVER,
        Extent::Part { as_before: false } => AGAIN,
        Extent::Part { .. } | Extent::Nothing if changed => AGAIN,
        Extent::Part { .. } | Extent::Nothing => before.saturating_mul(2).clamp(AGAIN, AGAIN_AT_MOST),
    }
}

/// Creates a Function or replaces it. One that is the same makes no change.
fn put(store: &Store, function: &FunctionKey, object: &Packed, number: Option<String>) -> Result<(), String> {
    let mut object: Value = object.value().map_err(|error| error.to_string())?;
    if let Some(number) = number {
        object["spec"]["image"] = source::image(&function.name, &number).into();
    }
    let key = Key::new(Kind::Function, function.namespace.clone(), function.name.clone());
    let result = match store.replace(&key, &object) {
        Err(Refusal::NotFound(_)) => store.create(key, object),
        result => result,
    };
    result.map(drop).map_err(|refusal| refusal.to_string())
}

/// Tells of changes, several as one.
fn watcher(to: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        // Reading is no change; a fault may hide one.
        if event.map_or(true, |event| !matches!(event.kind, EventKind::Access(_))) {
            let _ = to.try_send(());
        }
    };
    notify::recommended_watcher(tell)
        .inspect_err(|error| warn!(%error, "files can't be watched; start lambent dev again after a change"))
        .ok()
}

/// What is watched, and which directory it was: one that takes its place is another.
type Watched = BTreeMap<PathBuf, (u64, u64)>;

/// Watches these and no others. Whether there is a new one.
fn watch(watcher: &mut impl Watcher, watched: &mut Watched, wanted: &BTreeSet<PathBuf>) -> bool {
    let identity = |path: &PathBuf| fs::metadata(path).ok().map(|meta| (path.clone(), (meta.dev(), meta.ino())));
    let now: Watched = wanted.iter().filter_map(identity).collect();
    for (path, _) in watched.iter().filter(|(path, identity)| now.get(*path) != Some(identity)) {
        // One that was deleted is not watched anyway.
        let _ = watcher.unwatch(path);
    }
    let new: Vec<&PathBuf> =
        now.iter().filter(|(path, id)| watched.get(*path) != Some(id)).map(|(path, _)| path).collect();
    for path in &new {
        if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
            warn!(path = %path.display(), %error, "can't be watched; start lambent dev again after a change in it");
        }
    }
    let any = !new.is_empty();
    *watched = now;
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_read_is_read_again_later_and_later_until_something_changes() {
        let mut pause = pause_after(NEVER, true, Extent::Nothing);
        assert_eq!(pause, AGAIN);
        for _ in 0..20 {
            let next = pause_after(pause, false, Extent::Part { as_before: true });
            assert!(next > pause || next == AGAIN_AT_MOST, "{next:?}");
            assert_eq!(next, pause_after(pause, false, Extent::Nothing));
            pause = next;
        }
        assert_eq!(pause, AGAIN_AT_MOST);
        assert_eq!(pause_after(pause, true, Extent::Part { as_before: true }), AGAIN);
        assert_eq!(pause_after(pause, false, Extent::Part { as_before: false }), AGAIN);
        assert_eq!(pause_after(pause, false, Extent::All), NEVER);
    }
}
