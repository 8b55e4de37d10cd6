//! A watch: what changed after a version, then what changes, with bookmarks in between.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::json;
use tokio::{
    sync::watch::Receiver,
    time::{Instant, timeout_at},
};

use super::{
    Kind, Refusal,
    objects::Store,
    request::Query,
    state::{Change, ChangeType},
};

/// A bookmark tells who watches what to begin with after a break.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts if it does not say.
const LASTS: Duration = Duration::from_secs(300);
/// Changes that are taken at once.
const BATCH: usize = 64;

struct Watch {
    store: Store,
    versions: Receiver<u64>,
    kind: Kind,
    namespace: Option<String>,
    query: Query,
    /// All changes up to this one were looked at.
    seen: u64,
    ready: VecDeque<Bytes>,
    until: Instant,
    bookmark: Instant,
    ended: bool,
}

/// The lines of a watch.
pub(super) fn watch(
    store: Store,
    kind: Kind,
    namespace: Option<String>,
    query: Query,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let versions = store.versions();
    let now = Instant::now();
    let until = now + query.timeout_seconds.map_or(LASTS, Duration::from_secs);
    let mut watch = Watch {
        versions,
        kind,
        namespace,
        seen: 0,
        ready: VecDeque::new(),
        until,
        bookmark: now + BOOKMARK_EVERY,
        ended: false,
        store,
        query,
    };
    match watch.query.version {
        Some(version) => watch.seen = version,
        // Without a version: everything that there is, and then what changes.
        None => watch.begin_with_all(),
    }
    stream::unfold(watch, |mut watch| async move { watch.next().await.map(|line| (Ok(line), watch)) })
}

impl Watch {
    fn begin_with_all(&mut self) {
        let (objects, version) = self.store.list(self.kind, self.namespace.as_deref());
        self.seen = version;
        let texts = objects.iter().filter_map(|object| object.text().ok());
        self.ready = texts.filter(|text| self.is_meant(text)).map(|text| line("ADDED", &text)).collect();
    }

    fn is_meant(&self, object: &str) -> bool {
        self.query.selector.matches(object) && self.query.fields.matches(object)
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            // Marked as seen before it is looked, so that nothing falls in between.
            self.versions.borrow_and_update();
            match self.store.changes(self.seen, BATCH) {
                Ok(changes) if changes.is_empty() => self.wait().await?,
                Ok(changes) => self.take(&changes),
                Err(refusal) => {
                    self.ended = true;
                    return Some(error(&refusal));
                }
            }
        }
    }

    fn take(&mut self, changes: &[Change]) {
        for change in changes {
            self.seen = change.version;
            let key = &change.key;
            let here = key.kind == self.kind && self.namespace.as_ref().is_none_or(|only| *only == key.namespace);
            if here
                && let Ok(text) = change.object.text()
                && self.is_meant(&text)
            {
                let type_ = match change.change {
                    ChangeType::Added => "ADDED",
                    ChangeType::Modified => "MODIFIED",
                    ChangeType::Deleted => "DELETED",
                };
                self.ready.push_back(line(type_, &text));
            }
        }
    }

    /// Until something changed or a bookmark is due; nothing when the watch is over.
    async fn wait(&mut self) -> Option<()> {
        let due = if self.query.bookmarks { self.bookmark.min(self.until) } else { self.until };
        match timeout_at(due, self.versions.changed()).await {
            Ok(changed) => changed.ok(),
            Err(_) if Instant::now() >= self.until => None,
            Err(_) => {
                self.bookmark += BOOKMARK_EVERY;
                self.ready.push_back(self.bookmark_line());
                Some(())
            }
        }
    }

    fn bookmark_line(&self) -> Bytes {
        let object = json!({
            "apiVersion": self.kind.api_version(),
            "kind": self.kind.name(),
            "metadata": {"resourceVersion": self.seen.to_string(), "creationTimestamp": null},
        });
        line("BOOKMARK", &object.to_string())
    }
}

fn line(type_: &str, object: &str) -> Bytes {
    format!("{{\"type\":\"{type_}\",\"object\":{object}}}\n").into()
}

fn error(refusal: &Refusal) -> Bytes {
    line("ERROR", &refusal.status().to_string())
}
