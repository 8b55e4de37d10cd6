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
use tokio::{sync::mpsc, time::timeout};
use tracing::{error, info, warn};

use crate::{
    manifest::Problem,
    reader::{self, Asked, Ground, Look, Remembered, Request},
    source,
    store::{Key, Kind, Store},
};

/// An editor writes several times when it saves.
const SETTLES_WITHIN: Duration = Duration::from_millis(50);
/// What could not be read is read again after this, as nothing may tell when it can be.
const AGAIN: Duration = Duration::from_secs(2);
/// Where nothing could be read, later and later up to this.
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
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
    /// Why nothing could be read the last time.
    failed: Option<String>,
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
            failed: None,
            changes: BTreeMap::new(),
        }
    }

    /// Looks at the files.
    ///
    /// # Errors
    /// If one of the paths can't be read, or the process that reads fails.
    pub(crate) async fn look(&mut self) -> std::io::Result<Look> {
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
        Ok(look)
    }

    /// Carries out what follows from every change. Never ends.
    pub(crate) async fn run(mut self, mut ground: Ground) {
        let (sender, mut changes) = mpsc::channel(1);
        let mut watcher = watcher(sender.clone());
        let mut watched = Watched::new();
        loop {
            if let Some(watcher) = &mut watcher
                && watch(watcher, &mut watched, &ground.watched)
            {
                // It may have changed before it was watched.
                let _ = sender.try_send(());
            }
            let look = self.next(&mut changes, ground.partial).await;
            ground = self.apply(look);
        }
    }

    /// What the files ask for after the next change, or soon, where changes may not be told of.
    async fn next(&mut self, changes: &mut mpsc::Receiver<()>, partial: bool) -> Look {
        let mut pause = if partial { AGAIN } else { Duration::MAX };
        loop {
            let _ = timeout(pause, changes.recv()).await;
            let settled =
                async { while timeout(SETTLES_WITHIN, changes.recv()).await.is_ok_and(|change| change.is_some()) {} };
            let _ = timeout(AT_MOST, settled).await;
            match self.look().await {
                Ok(look) => {
                    self.failed = None;
                    return look;
                }
                Err(error) => {
                    let words = Some(error.to_string());
                    pause = if self.failed == words {
                        pause.min(AGAIN_AT_MOST / 2) * 2
                    } else {
                        error!(%error, "the files can't be read; what runs goes on");
                        AGAIN
                    };
                    self.failed = words;
                }
            }
        }
    }

    /// Makes it true. Where changes matter from now on.
    pub(crate) fn apply(&mut self, look: Look) -> Ground {
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
        for (key, (asked, object)) in look.functions {
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

/// Creates a Function or replaces it. One that is the same makes no change.
fn put(store: &Store, function: &FunctionKey, object: &Packed, number: Option<String>) -> Result<(), String> {
    let mut object: Value = object.value().map_err(|error| error.to_string())?;
    if let Some(number) = number {
        object["spec"]["image"] = source::image(&function.name, &number).into();
    }
    let key = Key::new(Kind::Function, function.namespace.clone(), function.name.clone());
    let result = match store.get(&key) {
        Ok(_) => store.replace(&key, &object),
        Err(_) => store.create(key, object),
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
