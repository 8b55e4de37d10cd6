//! Makes true in the store what the files ask for, and again whenever they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use lambent_api::{Function, FunctionKey};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};
use tracing::{error, info, warn};

use crate::{
    files::{self, Known, Wanted},
    manifest::{Manifest, Problem},
    news::Places,
    source::Source,
    store::{Key, Kind, Store},
};

/// An editor writes several times when it saves.
const SETTLES_WITHIN: Duration = Duration::from_millis(50);
/// What could not be read is read again after this, as nothing may tell when it can be.
const AGAIN: Duration = Duration::from_secs(2);
/// Who writes all the time is not waited for.
const AT_MOST: Duration = Duration::from_secs(1);

/// Follows the files into the store.
pub(crate) struct Loader {
    paths: Vec<PathBuf>,
    /// Whether commands are run; else images are.
    processes: bool,
    store: Store,
    known: Known,
    told: BTreeSet<Problem>,
    /// Why nothing could be read the last time.
    failed: Option<String>,
    /// Of Functions that are built: the digest of the source as it is now, and how often it has changed.
    changes: BTreeMap<FunctionKey, (String, u64)>,
    /// Where each Function stands, for those who complain about it.
    places: Places,
}

impl Loader {
    pub(crate) fn new(paths: Vec<PathBuf>, processes: bool, store: Store, places: Places) -> Self {
        Self {
            paths,
            processes,
            store,
            known: Known::new(),
            told: BTreeSet::new(),
            failed: None,
            changes: BTreeMap::new(),
            places,
        }
    }

    /// Looks at the files, on a thread where that keeps nobody waiting: a thousand take a second.
    ///
    /// # Errors
    /// If one of the paths can't be read.
    pub(crate) async fn look(&mut self) -> std::io::Result<Wanted> {
        let (paths, processes, mut known) = (self.paths.clone(), self.processes, self.known.clone());
        let look = move || files::look(&paths, processes, &mut known).map(|wanted| (wanted, known));
        let wanted;
        (wanted, self.known) = spawn_blocking(look).await.map_err(std::io::Error::other)??;
        for problem in wanted.problems.difference(&self.told) {
            error!("{problem}");
        }
        if wanted.problems.is_empty() && !self.told.is_empty() {
            info!("all manifests are well again");
        }
        self.told.clone_from(&wanted.problems);
        Ok(wanted)
    }

    /// Carries out what was found first, so that whoever calls at once finds it.
    pub(crate) fn begin(&mut self, first: &Wanted) {
        for (manifest, source) in first.functions.values() {
            self.put(manifest, source.as_ref());
        }
    }

    /// Carries out what was found, and what follows from every change. Never ends.
    pub(crate) async fn run(mut self, first: Wanted) {
        let (sender, mut changes) = mpsc::channel(1);
        let mut watcher = watcher(sender.clone());
        let mut watched = Watched::new();
        let mut wanted = first;
        loop {
            if let Some(watcher) = &mut watcher
                && watch(watcher, &mut watched, &wanted.watched)
            {
                // It may have changed before it was watched.
                let _ = sender.try_send(());
            }
            self.apply(&wanted);
            let partial = wanted.partial;
            // The store has it all; what was read is not kept for the hours until the next change.
            drop(wanted);
            wanted = self.next(&mut changes, partial).await;
        }
    }

    /// What the files ask for after the next change, or soon, where changes may not be told of.
    async fn next(&mut self, changes: &mut mpsc::Receiver<()>, mut soon: bool) -> Wanted {
        loop {
            let _ = timeout(if soon { AGAIN } else { Duration::MAX }, changes.recv()).await;
            let settled =
                async { while timeout(SETTLES_WITHIN, changes.recv()).await.is_ok_and(|change| change.is_some()) {} };
            let _ = timeout(AT_MOST, settled).await;
            match self.look().await {
                Ok(wanted) => {
                    self.failed = None;
                    return wanted;
                }
                Err(error) => {
                    let words = Some(error.to_string());
                    if self.failed != words {
                        error!(%error, "the files can't be read; what runs goes on");
                    }
                    (self.failed, soon) = (words, true);
                }
            }
        }
    }

    fn apply(&mut self, wanted: &Wanted) {
        let keep = |key: &FunctionKey| wanted.functions.contains_key(key) || wanted.kept.contains(key);
        for key in self.store.keys(Kind::Function) {
            let function = FunctionKey::new(key.namespace.clone(), key.name.clone());
            if !keep(&function) {
                info!("{function} is gone");
                // Gone already is as good.
                let _ = self.store.delete(&key, None);
                self.changes.remove(&function);
                self.places.lock().remove(&function);
            }
        }
        for (manifest, source) in wanted.functions.values() {
            self.put(manifest, source.as_ref());
        }
    }

    /// What was built from an earlier source has been built over since: going back to that makes a new
    /// Revision, and a new build.
    fn number(&mut self, manifest: &Manifest, source: &Source) -> Source {
        let (digest, changes) = self.changes.entry(manifest.function.key()).or_default();
        if *digest != source.digest {
            (*digest, *changes) = (source.digest.clone(), *changes + 1);
        }
        source.after_changes(*changes)
    }

    fn put(&mut self, manifest: &Manifest, source: Option<&Source>) {
        let numbered =
            source.filter(|_| manifest.annotations.build.is_some()).map(|source| self.number(manifest, source));
        let source = numbered.as_ref().or(source);
        self.places.lock().insert(manifest.function.key(), (manifest.file.clone(), manifest.line));
        let function = source.map_or_else(|| manifest.function.clone(), |source| source.run_by(manifest));
        if let Err(words) = put(&self.store, &function) {
            error!("{}:{}: {}: {words}", manifest.file.display(), manifest.line, function.key());
        }
    }
}

/// Creates a Function or replaces it. One that is the same makes no change.
fn put(store: &Store, function: &Function) -> Result<(), String> {
    let FunctionKey { namespace, name } = function.key();
    let key = Key::new(Kind::Function, namespace, name);
    let object = serde_json::to_value(function).map_err(|error| error.to_string())?;
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
