//! Which images to pull where next, and how far each is: decided from values alone, for all Functions at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lambent_api::{FunctionKey, PulledImages, Reason, RevisionKey};

use super::{
    nodes::Node,
    pods::{DEADLINE_SECONDS, PullPod, State},
    target::Target,
};

/// For another try of the kubelet, ten seconds after the first one.
const SECOND_TRY: Duration = Duration::from_secs(20);
/// A node that has joined so short a time ago may still become ready, or lose the taint that it starts with.
const YOUNG: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(DEADLINE_SECONDS.unsigned_abs());
/// Of a message in a status.
const LONGEST_MESSAGE: usize = 1000;

/// What became of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The image is there.
    Pulled,
    /// It can't be had there.
    Failed(Reason),
    /// No pod comes there at present: it is full, say.
    NotPlaced,
}

/// Why a pod is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has come to its end.
    Done(Outcome),
    /// Nobody needs it any more.
    Cancelled,
}

/// Whether a pod is to be deleted. `wanted` tells whether its image still is.
pub(crate) fn judge(pod: &PullPod, wanted: bool, at: Timestamp) -> Option<Verdict> {
    let failed = |reason: &Reason| Some(Verdict::Done(Outcome::Failed(reason.clone())));
    match &pod.state {
        State::Stopping => None,
        _ if !wanted => Some(Verdict::Cancelled),
        State::Pulled => Some(Verdict::Done(Outcome::Pulled)),
        State::Failed(reason) => failed(reason),
        State::Failing(reason) => failed(reason).filter(|_| age(pod.created, at) >= SECOND_TRY),
        State::NotPlaced => Some(Verdict::Done(Outcome::NotPlaced)),
        State::Pulling if age(pod.created, at) >= DEADLINE => {
            failed(&Reason::new("DeadlineExceeded", format!("not pulled within {DEADLINE:?}")))
        }
        State::Pulling => None,
    }
}

fn age(created: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(created)).unwrap_or_default()
}

/// What is decided upon.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    /// The time.
    pub(crate) at: Timestamp,
    /// Pods that may pull at once.
    pub(crate) at_once: usize,
    /// All nodes.
    pub(crate) nodes: &'a BTreeMap<String, Node>,
    /// What is to be pulled.
    pub(crate) goals: Vec<Goal<'a>>,
    /// The pods that there are, but for those that are about to be deleted.
    pub(crate) pods: Vec<&'a PullPod>,
}

/// A Revision whose image is to be on the nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal<'a> {
    /// Which.
    pub(crate) target: &'a Target,
    /// What became of it on which nodes.
    pub(crate) done: &'a BTreeMap<String, Outcome>,
    /// Why no pod for it was taken the last time.
    pub(crate) refused: Option<&'a Reason>,
    /// Whether it is too early to try that again.
    pub(crate) held_back: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Pods to start: the goal by its index, and the node.
    pub(crate) start: Vec<(usize, String)>,
    /// How far each is.
    pub(crate) progress: HashMap<RevisionKey, PulledImages>,
    /// When to look again if nothing changes.
    pub(crate) again: Option<Duration>,
}

/// Decides.
pub(crate) fn plan(input: &Input<'_>) -> Plan {
    let surveys: Vec<Survey<'_>> = input.goals.iter().map(|goal| survey(input, goal)).collect();
    let progress = input.goals.iter().zip(&surveys).map(|(goal, survey)| (goal.target.key(), survey.told.clone()));
    let ages = input.pods.iter().filter_map(|pod| match pod.state {
        State::Failing(_) => Some(SECOND_TRY.saturating_sub(age(pod.created, input.at))),
        State::Pulling => Some(DEADLINE.saturating_sub(age(pod.created, input.at))),
        _ => None,
    });
    let again = surveys.iter().filter_map(|survey| survey.expects).chain(ages).min();
    Plan { progress: progress.collect(), again, start: share_out(input, surveys) }
}

/// One goal beside all nodes.
struct Survey<'a> {
    told: PulledImages,
    missing: Vec<&'a str>,
    /// Until a node that has just joined is not waited for any more.
    expects: Option<Duration>,
}

/// | a node that the Revision may run on                        | counts as             |
/// | ---------------------------------------------------------- | --------------------- |
/// | joined before `nodesUntil`                                 | what it was           |
/// | was pulled to, or has the image anyway                     | pulled                |
/// | could not pull it                                          | failed                |
/// | takes no pod now: full, cordoned, tainted, not ready       | none: it is left out  |
/// | the same, but it joined just now                           | none, but waited for  |
/// | is pulling, for a pod of ours or an instance               | not pulled yet        |
/// | anything else                                              | missing: pulled next  |
fn survey<'a>(input: &Input<'a>, goal: &Goal<'_>) -> Survey<'a> {
    let target = goal.target;
    let (template, until) = (&target.revision.spec.template, target.until());
    let (mut older, mut pulled, mut failed, mut under_way) = (0, 0, Vec::new(), 0);
    let (mut missing, mut expects) = (Vec::new(), None);
    for (name, node) in input.nodes.iter().filter(|(name, node)| node.suits(name, &template.pod)) {
        let fresh = until.is_none_or(|until| node.created > until);
        let left = YOUNG.saturating_sub(age(node.created, input.at));
        match goal.done.get(name) {
            _ if !node.admits(&template.pod) => {
                if fresh && !left.is_zero() && !goal.done.contains_key(name) {
                    expects = Some(expects.map_or(left, |other: Duration| other.max(left)));
                }
            }
            _ if !fresh => older += 1,
            Some(Outcome::Pulled) => pulled += 1,
            Some(Outcome::Failed(reason)) => failed.push((name, reason)),
            Some(Outcome::NotPlaced) => {}
            None if has_image(target, node) => pulled += 1,
            None if is_under_way(input, target, name) => under_way += 1,
            None => missing.push(name.as_str()),
        }
    }
    let before = target.told().cloned().unwrap_or_default();
    let failed_before = before.failed.clamp(0, older);
    let complete = missing.is_empty() && under_way == 0 && expects.is_none();
    let newest = input.nodes.values().map(|node| node.created).max();
    let refused = goal.refused.filter(|_| !missing.is_empty()).map(words);
    let why = failed.first().map(|(node, reason)| format!("{node}: {}", words(reason)));
    let message = refused.or(why).or(before.message.filter(|_| failed_before > 0));
    let (missing_count, failed_count) = (count(missing.len()), count(failed.len()));
    let told = PulledImages {
        nodes: older + pulled + failed_count + under_way + missing_count,
        pulled: older - failed_before + pulled,
        failed: failed_before + failed_count,
        message: message.map(|text| text.chars().take(LONGEST_MESSAGE).collect()),
        nodes_until: if complete { until.max(newest) } else { until }.map(Time),
    };
    Survey { told, missing, expects }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn words(reason: &Reason) -> String {
    format!("{}: {}", reason.reason, reason.message)
}

/// What a kubelet lists under a tag may be another image by now, for whoever wants it looked up always.
fn has_image(target: &Target, node: &Node) -> bool {
    let template = &target.revision.spec.template;
    let fixed = template.image.contains("@sha256:") || template.image_pull_policy.as_deref() != Some("Always");
    fixed && node.lists(&template.image)
}

fn is_under_way(input: &Input<'_>, target: &Target, node: &str) -> bool {
    let mut pods = input.pods.iter();
    target.on.contains_key(node) || pods.any(|pod| pod.revision_uid == target.uid() && pod.node == node)
}

/// Up to `at_once` pods in all, up to half of it for one Function, and one for a node: kubelets pull one image after
/// the other, and an instance that starts there must not wait for more than one of ours. In turns, lest one
/// Function with many nodes holds up all others; Functions that have instances come first in each turn.
fn share_out(input: &Input<'_>, mut surveys: Vec<Survey<'_>>) -> Vec<(usize, String)> {
    let pulling = || input.pods.iter().filter(|pod| pod.state != State::Stopping);
    let mut free = input.at_once.saturating_sub(pulling().count());
    let mut busy: HashSet<String> = pulling().map(|pod| pod.node.clone()).collect();
    let owners: HashMap<&str, FunctionKey> =
        input.goals.iter().map(|g| (g.target.uid(), g.target.function())).collect();
    let mut of_function: HashMap<FunctionKey, usize> = HashMap::new();
    for owner in pulling().filter_map(|pod| owners.get(pod.revision_uid.as_str())) {
        *of_function.entry(owner.clone()).or_default() += 1;
    }
    let mut turn: Vec<usize> = (0..surveys.len()).filter(|&i| !input.goals[i].held_back).collect();
    turn.sort_by_key(|&i| (input.goals[i].target.on.is_empty(), i));
    let mut start = Vec::new();
    loop {
        let before = start.len();
        for &i in &turn {
            let own = of_function.entry(input.goals[i].target.function()).or_default();
            if free == 0 || *own >= input.at_once.div_ceil(2) {
                continue;
            }
            let missing = &mut surveys[i].missing;
            let Some(next) = missing.iter().position(|node| !busy.contains(*node)) else { continue };
            let node = missing.remove(next).to_owned();
            busy.insert(node.clone());
            (*own, free) = (*own + 1, free - 1);
            start.push((i, node));
        }
        if start.len() == before {
            return start;
        }
    }
}

#[cfg(test)]
mod tests;
