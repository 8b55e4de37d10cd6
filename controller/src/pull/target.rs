//! Whose images are to be on the nodes: what a look at a Function hands over, and what it takes back for the
//! status. In between, one task works for all Functions, as the bounds are of the whole cluster.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use lambent_api::{ConditionType, Conditions, FunctionKey, PulledImages, Revision, RevisionKey};
use lambent_fleet::{Instance, Phase};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A Revision whose image is to be pulled ahead.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Which.
    pub(crate) revision: Arc<Revision>,
    /// Nodes with instances of it, and whether one of them runs there, so that the image is there too.
    pub(crate) on: BTreeMap<String, bool>,
}

impl Target {
    /// Namespace and name.
    pub(crate) fn key(&self) -> RevisionKey {
        self.revision.key()
    }

    /// Its uid.
    pub(crate) fn uid(&self) -> &str {
        self.revision.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whose it is.
    pub(crate) fn function(&self) -> FunctionKey {
        FunctionKey::new(self.key().namespace, &self.revision.spec.function)
    }

    /// How far it was when the status was written.
    pub(crate) fn told(&self) -> Option<&PulledImages> {
        self.revision.status.as_ref()?.images.as_ref()
    }

    /// Nodes that joined up to then are done.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        Some(self.told()?.nodes_until.as_ref()?.0)
    }

    /// Whether there is nothing new in `other` for who pulls.
    fn is_like(&self, other: &Self) -> bool {
        (self.uid(), &self.on, self.until()) == (other.uid(), &other.on, other.until())
    }
}

/// The Revisions of a Function that are pulled ahead: the one that serves and the latest one, from when it is worth it.
pub(crate) fn targets<'a>(
    revisions: &'a [Arc<Revision>],
    instances: &[Instance],
    serving: Option<&'a str>,
    latest: Option<&'a str>,
) -> Vec<Target> {
    let wanted =
        |r: &&Arc<Revision>| r.metadata.name.as_deref().is_some_and(|name| [serving, latest].contains(&Some(name)));
    let worth_it = revisions.iter().filter(wanted).filter(|revision| is_worth_it(revision));
    worth_it.map(|revision| Target { revision: revision.clone(), on: on(&revision.key(), instances) }).collect()
}

/// | the Revision                                    | pulled ahead                                        |
/// | ----------------------------------------------- | --------------------------------------------------- |
/// | an instance of it has answered                  | yes: it is good, and its first start is not slowed  |
/// | no node has room or takes it at present         | yes: it starts the faster when one does             |
/// | it has begun                                    | yes                                                 |
/// | its first instance starts or fails              | no: it may not even have an image                   |
/// | its author wants nothing to be pulled           | no                                                  |
fn is_worth_it(revision: &Revision) -> bool {
    let Some(status) = &revision.status else { return false };
    let startable = status.conditions.find(ConditionType::Startable);
    let has_no_place = startable.is_some_and(|c| c.status == "False" && c.reason == "Unschedulable");
    let begun = status.conditions.is_true(ConditionType::Ready) || has_no_place || status.images.is_some();
    begun && revision.spec.template.image_pull_policy.as_deref() != Some("Never")
}

fn on(revision: &RevisionKey, instances: &[Instance]) -> BTreeMap<String, bool> {
    let mut on = BTreeMap::new();
    for instance in instances.iter().filter(|i| i.revision_key() == *revision && i.phase != Phase::Stopping) {
        // One that can't start has no image there for all we know, and is no reason to wait.
        let Some(node) =
            instance.node.clone().filter(|_| !matches!(instance.phase, Phase::Failing(_) | Phase::Ended(_)))
        else {
            continue;
        };
        *on.entry(node).or_default() |= instance.phase == Phase::Running;
    }
    on
}

/// Between the looks and the task that pulls.
#[derive(Default)]
pub(crate) struct Board {
    notes: Mutex<Notes>,
    /// There are other targets.
    pub(crate) news: Notify,
}

#[derive(Default)]
struct Notes {
    targets: HashMap<FunctionKey, Vec<Target>>,
    progress: HashMap<RevisionKey, PulledImages>,
}

impl Board {
    /// What is to be pulled for a Function from now on.
    pub(crate) fn want(&self, function: &FunctionKey, targets: Vec<Target>) {
        let mut notes = self.notes.lock();
        let alike = |(old, new): (&Target, &Target)| old.is_like(new);
        let before = notes.targets.get(function);
        if before.is_some_and(|before| before.len() == targets.len() && before.iter().zip(&targets).all(alike)) {
            return;
        }
        notes.targets.insert(function.clone(), targets);
        drop(notes);
        self.news.notify_one();
    }

    /// Nothing for a Function that is no more.
    pub(crate) fn forget(&self, function: &FunctionKey) {
        if self.notes.lock().targets.remove(function).is_some() {
            self.news.notify_one();
        }
    }

    /// Whether anything was said about a Function yet.
    pub(crate) fn knows(&self, function: &FunctionKey) -> bool {
        self.notes.lock().targets.contains_key(function)
    }

    /// All that are not done as far as the status tells, when the newest node joined at `newest`; by name.
    pub(crate) fn targets(&self, newest: Timestamp) -> Vec<Target> {
        let notes = self.notes.lock();
        let open = notes.targets.values().flatten().filter(|target| target.until() < Some(newest));
        let mut open: Vec<Target> = open.cloned().collect();
        drop(notes);
        open.sort_by_cached_key(Target::key);
        open
    }

    /// How far each is that is under way. Returns whose status there is to write.
    pub(crate) fn publish(&self, progress: HashMap<RevisionKey, PulledImages>, targets: &[Target]) -> Vec<FunctionKey> {
        let mut notes = self.notes.lock();
        let changed = targets.iter().filter(|target| {
            let key = target.key();
            progress.get(&key).is_some_and(|new| notes.progress.get(&key) != Some(new))
        });
        let changed = changed.map(Target::function).collect();
        notes.progress = progress;
        changed
    }

    /// How far one is, if it is under way.
    pub(crate) fn progress(&self, revision: &RevisionKey) -> Option<PulledImages> {
        self.notes.lock().progress.get(revision).cloned()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use futures::FutureExt;
    use lambent_api::{InstanceRef, Reason};

    use super::*;

    /// A Revision of `shop/f`, made of this YAML of template and status.
    pub(crate) fn revision(name: &str, template: &str, status: &str) -> Arc<Revision> {
        let text = format!(
            "{{apiVersion: lambent.dev/v1alpha1, kind: Revision, metadata: {{name: {name}, namespace: shop, uid: u-{name}}},
             spec: {{function: f, template: {template}}}, status: {status}}}"
        );
        Arc::new(serde_yaml::from_str(&text).unwrap())
    }

    pub(crate) fn condition(type_: &str, is: &str, reason: &str) -> String {
        format!(
            "{{conditions: [{{type: {type_}, status: '{is}', reason: {reason}, message: '', lastTransitionTime: 2026-01-01T00:00:00Z}}]}}"
        )
    }

    fn instance(revision: &str, node: Option<&str>, phase: Phase) -> Instance {
        Instance {
            id: InstanceRef { name: "i".into(), uid: "i".into() },
            namespace: "shop".into(),
            function: "f".into(),
            revision: revision.into(),
            node: node.map(str::to_owned),
            placed: None,
            address: None,
            phase,
            restarts: 0,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_revision_is_pulled_ahead_once_it_is_proven_or_has_no_place() {
        let worth_it = |template: &str, status: &str| is_worth_it(&revision("r", template, status));
        assert!(worth_it("{image: a}", &condition("Ready", "True", "Answered")));
        assert!(worth_it("{image: a}", &condition("Startable", "False", "Unschedulable")));
        assert!(worth_it("{image: a}", "{images: {nodes: 1}}"), "it goes on");
        assert!(!worth_it("{image: a}", &condition("Ready", "False", "Starting")));
        assert!(!worth_it("{image: a}", &condition("Startable", "False", "ErrImagePull")));
        assert!(!worth_it("{image: a, imagePullPolicy: Never}", &condition("Ready", "True", "Answered")));
    }

    #[test]
    fn old_revisions_are_left_alone() {
        let ready = condition("Ready", "True", "Answered");
        let all = ["a", "b", "c"].map(|name| revision(name, "{image: a}", &ready));
        let names = |serving, latest| -> Vec<String> {
            targets(&all, &[], serving, latest).iter().map(|t| t.key().name.to_string()).collect()
        };
        assert_eq!(names(Some("a"), Some("b")), ["a", "b"]);
        assert_eq!(names(Some("c"), Some("c")), ["c"]);
        assert!(names(None, None).is_empty());
    }

    #[test]
    fn an_instance_that_runs_has_its_image_and_one_that_starts_is_pulling() {
        let ready = condition("Ready", "True", "Answered");
        let failing = Phase::Failing(Reason::new("ErrImagePull", ""));
        let instances = [
            instance("r", Some("runs"), Phase::Running),
            instance("r", Some("runs"), Phase::Starting),
            instance("r", Some("starts"), Phase::Starting),
            instance("r", Some("fails"), failing),
            instance("r", Some("goes"), Phase::Stopping),
            instance("r", None, Phase::Starting),
            instance("other", Some("other"), Phase::Running),
        ];
        let found = targets(&[revision("r", "{image: a}", &ready)], &instances, Some("r"), None);
        let expected = BTreeMap::from([("runs".to_owned(), true), ("starts".to_owned(), false)]);
        assert_eq!(found[0].on, expected);
    }

    #[test]
    fn only_what_matters_is_news() {
        let (board, function) = (Board::default(), FunctionKey::new("shop", "f"));
        let told = |until: &str| {
            vec![Target {
                revision: revision("r", "{image: a}", &format!("{{images: {{{until}}}}}")),
                on: BTreeMap::new(),
            }]
        };
        let news = || board.news.notified().now_or_never().is_some();
        board.want(&function, told("nodes: 1"));
        assert!(news());
        board.want(&function, told("nodes: 2"));
        assert!(!news());
        board.want(&function, told("nodesUntil: 2026-01-01T00:00:00Z"));
        assert!(news());
        board.forget(&FunctionKey::new("shop", "another"));
        assert!(!news());
        board.forget(&function);
        assert!(news() && !board.knows(&function));
        board.want(&function, Vec::new());
        assert!(news() && board.knows(&function), "it may have pods of before");
        board.want(&function, Vec::new());
        assert!(!news());
    }

    #[test]
    fn what_is_done_is_open_again_when_a_node_joins() {
        let board = Board::default();
        let status = "{images: {nodesUntil: 1970-01-01T00:00:10Z}}";
        let target = Target { revision: revision("r", "{image: a}", status), on: BTreeMap::new() };
        board.want(&target.function(), vec![target]);
        let open = |second| board.targets(Timestamp::from_second(second).unwrap()).len();
        assert_eq!([open(9), open(10), open(11)], [0, 0, 1]);
    }

    #[test]
    fn a_status_is_written_for_progress_alone() {
        let board = Board::default();
        let target = [Target { revision: revision("r", "{image: a}", "{}"), on: BTreeMap::new() }];
        let progress = |pulled| HashMap::from([(target[0].key(), PulledImages { pulled, ..PulledImages::default() })]);
        assert_eq!(board.publish(progress(1), &target), [FunctionKey::new("shop", "f")]);
        assert!(board.publish(progress(1), &target).is_empty());
        assert_eq!(board.publish(progress(2), &target).len(), 1);
        assert_eq!(board.progress(&target[0].key()).unwrap().pulled, 2);
        assert!(board.publish(HashMap::new(), &target).is_empty());
        assert!(board.progress(&target[0].key()).is_none());
    }
}
