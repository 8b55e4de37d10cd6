//! What is remembered of one Revision while its image is being pulled ahead.

use std::{collections::BTreeMap, time::Instant};

use lambent_api::{PulledImages, Reason};

use super::plan::Outcome;
use crate::{backoff::Backoff, events::News};

/// Of one round: until all nodes that there are have been tried.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// What became of it on which nodes.
    pub(crate) done: BTreeMap<String, Outcome>,
    /// Why no pod was taken the last time.
    pub(crate) refused: Option<Reason>,
    /// When the next one may be tried.
    pub(crate) backoff: Backoff,
    /// Whether a pod was needed at all.
    pub(crate) worked: bool,
    told_trouble: bool,
    told_end: bool,
}

impl Record {
    /// Where an instance runs the image is, also when the instance has gone.
    pub(crate) fn take_note(&mut self, on: &BTreeMap<String, bool>) {
        let there = on.iter().filter(|(_, runs)| **runs).map(|(node, _)| (node.clone(), Outcome::Pulled));
        self.done.extend(there);
    }

    /// A pod was taken.
    pub(crate) fn taken(&mut self) {
        (self.worked, self.refused) = (true, None);
        self.backoff.reset();
    }

    /// No pod is taken: quota, admission, no such account.
    pub(crate) fn refused(&mut self, reason: Reason, now: Instant) {
        self.refused = Some(reason);
        self.backoff.failed(now);
    }

    /// What is worth an Event: the first trouble and the end, each once, however many nodes there are.
    pub(crate) fn news(&mut self, revision: &str, progress: &PulledImages, complete: bool) -> Option<News> {
        let trouble = self.refused.is_some() || self.done.values().any(|outcome| matches!(outcome, Outcome::Failed(_)));
        if trouble && !std::mem::replace(&mut self.told_trouble, true) {
            let words = progress.message.clone().unwrap_or_default();
            return Some(News::ImagePullFailed(revision.to_owned(), words));
        }
        let ends = complete && self.worked && progress.pulled > 0;
        let news = || News::ImagePulled(revision.to_owned(), progress.pulled, progress.nodes);
        (ends && !std::mem::replace(&mut self.told_end, true)).then(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(pulled: i32, nodes: i32, message: Option<&str>) -> PulledImages {
        PulledImages { nodes, pulled, message: message.map(str::to_owned), ..PulledImages::default() }
    }

    #[test]
    fn the_end_is_told_once_and_only_if_there_was_something_to_do() {
        let mut record = Record::default();
        assert_eq!(record.news("r", &progress(1, 1, None), true), None);
        record.taken();
        assert_eq!(record.news("r", &progress(1, 2, None), false), None);
        assert_eq!(record.news("r", &progress(2, 2, None), true), Some(News::ImagePulled("r".into(), 2, 2)));
        assert_eq!(record.news("r", &progress(2, 2, None), true), None);
    }

    #[test]
    fn many_failures_are_one_event() {
        let mut record = Record::default();
        for node in ["a", "b", "c"] {
            record.done.insert(node.to_owned(), Outcome::Failed(Reason::new("ErrImagePull", "no")));
        }
        let progress = progress(0, 3, Some("a: ErrImagePull: no"));
        let told = News::ImagePullFailed("r".into(), "a: ErrImagePull: no".into());
        assert_eq!(record.news("r", &progress, true), Some(told));
        assert_eq!(record.news("r", &progress, true), None);
    }

    #[test]
    fn a_refusal_holds_back_until_a_pod_is_taken() {
        let (mut record, now) = (Record::default(), Instant::now());
        record.refused(Reason::new("QuotaExceeded", ""), now);
        assert!(record.backoff.wait(now).is_some() && record.refused.is_some());
        record.taken();
        assert!(record.backoff.wait(now).is_none() && record.refused.is_none());
    }

    #[test]
    fn a_node_with_an_instance_stays_done_when_the_instance_goes() {
        let mut record = Record::default();
        record.take_note(&BTreeMap::from([("a".to_owned(), true), ("b".to_owned(), false)]));
        record.take_note(&BTreeMap::new());
        assert_eq!(record.done, BTreeMap::from([("a".to_owned(), Outcome::Pulled)]));
    }
}
