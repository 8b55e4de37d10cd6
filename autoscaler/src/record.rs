//! What was decided, for people: logged and counted once, and the last decisions about each
//! Function kept for whoever asks why it has as many instances as it has.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use lambent_api::{FunctionKey, Name};
use parking_lot::Mutex;
use serde::Serialize;
use tracing::info;

use crate::{
    book::Input,
    metrics::Metrics,
    order::{Reason, Seen, Write},
};

/// Decisions kept of each Function.
const KEPT: usize = 20;

/// A change of a count that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// Of which Revision.
    pub revision: Name,
    /// The count before.
    pub from: u32,
    /// The count after.
    pub to: u32,
    /// Why.
    pub reason: Reason,
    /// The load that was decided upon.
    pub load: Seen,
}

/// Keeps the record. Clones share it.
#[derive(Clone, Debug)]
pub struct Record {
    metrics: Metrics,
    decisions: Arc<Mutex<BTreeMap<FunctionKey, Vec<Decision>>>>,
}

impl Record {
    /// Nothing was decided yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, decisions: Arc::default() }
    }

    /// News that change what is shown.
    pub fn seen(&self, input: &Input) {
        match input {
            Input::Revision(view) => self.metrics.wanted(&view.key, view.wanted),
            Input::RevisionGone(key) => self.metrics.gone(key),
            Input::OnlyRevisions(listed) => self.metrics.keep_only(listed),
            Input::FunctionGone(key) => drop(self.decisions.lock().remove(key)),
            Input::OnlyFunctions(listed) => self.decisions.lock().retain(|key, _| listed.contains(key)),
            _ => {}
        }
    }

    /// A count was written.
    pub fn written(&self, write: &Write) {
        let Write { function, revision, from, to, stopping: _, reason, seen } = write;
        let Seen { queued, in_flight, ready } = *seen;
        info!(%function, %revision, from, to, reason = reason.as_str(), queued, in_flight, ready, "scaled");
        self.metrics.decided(write);
        let decision = Decision {
            at: Timestamp::now(),
            revision: revision.name.clone(),
            from: *from,
            to: *to,
            reason: *reason,
            load: *seen,
        };
        let mut decisions = self.decisions.lock();
        let last = decisions.entry(function.clone()).or_default();
        last.truncate(KEPT - 1);
        // Thousands of Functions sleep with one decision or two: room for more comes with more.
        last.reserve_exact(1);
        last.insert(0, decision);
    }

    /// The last decisions about a Function as JSON, the newest first.
    ///
    /// # Errors
    /// If they can't be written as JSON, which they always can.
    pub fn decisions(&self, function: &FunctionKey) -> serde_json::Result<String> {
        let decisions = self.decisions.lock();
        serde_json::to_string(&decisions.get(function).into_iter().flatten().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use lambent_api::RevisionKey;
    use prometheus::Registry;

    use super::*;

    #[test]
    fn the_last_decisions_are_kept_until_the_function_goes() {
        let record = Record::new(Metrics::register(&Registry::new()).unwrap());
        let function = FunctionKey::new("shop", "f");
        for to in 1..=30 {
            record.written(&Write {
                function: function.clone(),
                revision: RevisionKey::new("shop", "f-1"),
                from: 0,
                to,
                stopping: None,
                reason: Reason::Backlog,
                seen: Seen { queued: to, ..Seen::default() },
            });
        }
        let kept: serde_json::Value = serde_json::from_str(&record.decisions(&function).unwrap()).unwrap();
        assert_eq!(kept.as_array().unwrap().len(), KEPT);
        assert_eq!(
            (&kept[0]["to"], &kept[0]["reason"], &kept[0]["load"]["queued"]),
            (&30.into(), &"Backlog".into(), &30.into())
        );
        record.seen(&Input::OnlyFunctions([function.clone()].into()));
        assert_ne!(record.decisions(&function).unwrap(), "[]");
        record.seen(&Input::FunctionGone(function.clone()));
        assert_eq!(record.decisions(&function).unwrap(), "[]");
    }
}
