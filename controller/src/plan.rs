//! Which Revision serves, how many instances each one gets, which of them to start and to stop and
//! which Revisions to forget: decided from values alone. Carrying it out twice changes nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
};

use jiff::Timestamp;
use lambent_api::InstanceRef;
use lambent_fleet::Stop;

use crate::{
    memory::{Seen, State},
    names,
    rollout::{Deadline, Rollout, Step},
};

/// What is decided upon.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// The Revision that serves so far.
    pub(crate) serving: Option<String>,
    /// The Revision of the current spec, once it is known.
    pub(crate) latest: Option<String>,
    /// scale.min
    pub(crate) min: u32,
    /// Instances to keep whatever the load: those of `scale.min`, and those of `scale.parked`.
    pub(crate) kept: u32,
    /// scale.max
    pub(crate) max: u32,
    /// rollout.maxSurge
    pub(crate) surge: u32,
    /// How the latest Revision stands with its time to take over.
    pub(crate) deadline: Deadline,
    /// Old Revisions to keep.
    pub(crate) history: usize,
    /// All Revisions of the Function.
    pub(crate) revisions: Vec<RevisionView>,
}

/// What matters of a Revision.
#[derive(Clone, Debug)]
pub(crate) struct RevisionView {
    /// Its name.
    pub(crate) name: String,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// Instances that its spec asks for.
    pub(crate) asked: u32,
    /// Instances that the gateway has stopped using.
    pub(crate) named: Vec<InstanceRef>,
    /// Whether an instance of it ever answered.
    pub(crate) proven: bool,
    /// Whether starting is held back after failures.
    pub(crate) held_back: bool,
    /// Its instances.
    pub(crate) instances: Vec<Seen>,
    /// Names of instances that were ordered and have not been seen yet.
    pub(crate) ordered: Vec<String>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The Revision that serves from now on.
    pub(crate) serving: Option<String>,
    /// What to do with each Revision, by name.
    pub(crate) revisions: BTreeMap<String, RevisionPlan>,
    /// Revisions beyond the history, oldest first.
    pub(crate) forget: Vec<String>,
    /// What comes next if the latest Revision is to take the place of the one that serves.
    pub(crate) step: Option<Step>,
    /// How many instances the latest Revision needs for that.
    pub(crate) need: u32,
}

/// What to do with the instances of one Revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RevisionPlan {
    /// How many it gets.
    pub(crate) wanted: u32,
    /// Names of those to start.
    pub(crate) start: Vec<String>,
    /// Those to stop.
    pub(crate) stop: Vec<Removal>,
}

/// An instance to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Which one.
    pub(crate) instance: InstanceRef,
    /// How.
    pub(crate) how: Stop,
    /// Why.
    pub(crate) why: Why,
}

/// Why an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The gateway has named it.
    Retired,
    /// It has ended and only its object is left.
    Ended,
    /// It did not answer in time.
    StartTimeout,
    /// There are more than wanted.
    Surplus,
}

/// Decides.
pub(crate) fn plan(input: &Input) -> Plan {
    let before = serving_so_far(input);
    let rollout = before.and_then(|old| rollout(input, old));
    let step = rollout.map(|rollout| rollout.step());
    let need = rollout.map_or(0, |rollout| rollout.need);
    let serving = if step == Some(Step::Done) { find(input, input.latest.as_ref()) } else { before };
    let serving = serving.map(|revision| revision.name.clone());
    let wanted = share_out(input, serving.as_deref(), step);
    let revisions: BTreeMap<_, _> =
        input.revisions.iter().zip(&wanted).map(|(r, wanted)| (r.name.clone(), make_true(r, *wanted))).collect();
    let forget = forget(input, serving.as_deref(), &wanted);
    Plan { serving, revisions, forget, step, need }
}

fn find<'a>(input: &'a Input, name: Option<&String>) -> Option<&'a RevisionView> {
    input.revisions.iter().find(|r| Some(&r.name) == name)
}

/// The Revision that serves unless the latest one takes its place: the same as before, while it is
/// there; else the latest if it is proven, else the newest that is.
fn serving_so_far(input: &Input) -> Option<&RevisionView> {
    let latest = find(input, input.latest.as_ref()).filter(|r| r.proven);
    let newest_proven = || input.revisions.iter().filter(|r| r.proven).max_by_key(|r| (r.created, &r.name));
    find(input, input.serving.as_ref()).or(latest).or_else(newest_proven)
}

/// How far the latest Revision is in taking the place of the one that serves.
fn rollout(input: &Input, old: &RevisionView) -> Option<Rollout> {
    let new = find(input, input.latest.as_ref()).filter(|new| new.name != old.name)?;
    Some(Rollout {
        need: need(input, old),
        surge: input.surge,
        old_live: there(old).saturating_sub(spare(input, old)),
        old_ready: ready(old),
        new_live: there(new),
        new_ready: ready(new),
        new_asked: new.asked,
        proven: new.proven,
        deadline: input.deadline,
    })
}

/// Instances that the load needs, as the autoscaler sees it.
fn need(input: &Input, serving: &RevisionView) -> u32 {
    serving.asked.max(input.min).min(input.max)
}

/// Instances that the load does not need and that are kept all the same, parked. While a new Revision
/// takes over they stay as they are, beside what the rollout has to say; the new one gets its own when it
/// serves.
fn spare(input: &Input, serving: &RevisionView) -> u32 {
    input.kept.min(input.max).saturating_sub(need(input, serving))
}

/// Instances for each Revision, in the order of the input: the one that serves comes first, then
/// the others from new to old, all together up to `scale.max`. Max 10, serving asks for 8 and two
/// old ones for 3 each: 8, 2, 0. A rollout has its own bounds ([`Rollout::step`]). Old Revisions
/// start nothing; they keep what they have until nobody uses it.
fn share_out(input: &Input, serving: Option<&str>, step: Option<Step>) -> Vec<u32> {
    let is_serving = |r: &RevisionView| Some(r.name.as_str()) == serving;
    let is_latest = |r: &RevisionView| Some(&r.name) == input.latest.as_ref();
    let mut order: Vec<usize> = (0..input.revisions.len()).collect();
    order.sort_by_key(|&i| {
        let revision = &input.revisions[i];
        (!is_serving(revision), !is_latest(revision), Reverse(revision.created))
    });
    let mut wanted = vec![0; input.revisions.len()];
    let mut left = input.max;
    for i in order {
        let revision = &input.revisions[i];
        wanted[i] = match step {
            Some(Step::Run { old, .. } | Step::GivenUp { old, .. }) if is_serving(revision) => {
                old + spare(input, revision)
            }
            Some(Step::Run { new, .. } | Step::GivenUp { new, .. }) if is_latest(revision) => new,
            // None that answers may go now.
            Some(Step::Ask { new }) if is_latest(revision) => there(revision).clamp(new, new + input.surge),
            Some(Step::Ask { .. }) if is_serving(revision) => 0,
            _ if is_serving(revision) => need(input, revision) + spare(input, revision),
            // It has to prove itself; if nothing serves, with all that it asks for.
            _ if is_latest(revision) && serving.is_some() => 1,
            _ if is_latest(revision) => revision.asked.max(1).min(input.max.max(1)),
            // Nobody is there who could use it, and nobody else would ever take it down.
            _ if !revision.proven => 0,
            _ => revision.asked.min(there(revision)).min(left),
        };
        left = left.saturating_sub(wanted[i]);
    }
    wanted
}

/// Instances that there are, or are about to be, and that nothing makes go.
fn there(revision: &RevisionView) -> u32 {
    let (_, live) = sort_out(revision);
    u32::try_from(live.len() + revision.ordered.len()).unwrap_or(u32::MAX)
}

/// Instances that answer and that nothing makes go.
fn ready(revision: &RevisionView) -> u32 {
    let (_, live) = sort_out(revision);
    u32::try_from(live.iter().filter(|seen| seen.state == State::Ready).count()).unwrap_or(u32::MAX)
}

fn make_true(revision: &RevisionView, wanted: u32) -> RevisionPlan {
    let wanted_count = usize::try_from(wanted).unwrap_or(usize::MAX);
    let (mut stop, live) = sort_out(revision);
    let there = live.len() + revision.ordered.len();
    let surplus = surplus(live, there.saturating_sub(wanted_count));
    stop.extend(surplus.map(|seen| removal(seen, how(revision, &seen.state), Why::Surplus)));
    let missing = if revision.held_back { 0 } else { wanted_count.saturating_sub(there) };
    let taken =
        revision.instances.iter().map(|i| i.id.name.as_str()).chain(revision.ordered.iter().map(String::as_str));
    let start = names::free(&revision.name, &taken.collect()).take(missing).collect();
    RevisionPlan { wanted, start, stop }
}

/// Those that go whatever is wanted, and those that count.
fn sort_out(revision: &RevisionView) -> (Vec<Removal>, Vec<&Seen>) {
    let named: HashSet<&str> = revision.named.iter().map(|i| i.uid.as_str()).collect();
    let (mut stop, mut live) = (Vec::new(), Vec::new());
    for seen in &revision.instances {
        match seen.state {
            State::Stopping => {}
            State::Ended => stop.push(removal(seen, Stop::Idle, Why::Ended)),
            _ if named.contains(seen.id.uid.as_str()) => stop.push(removal(seen, Stop::Idle, Why::Retired)),
            // The gateway may have found it answering in this very moment.
            State::Overdue => stop.push(removal(seen, how(revision, &seen.state), Why::StartTimeout)),
            State::Ready | State::Starting(_) | State::Unready | State::Failing(_) => live.push(seen),
        }
    }
    (stop, live)
}

/// Gracefully if a request may be there: a Revision that was never proven has never had one, and
/// nothing is sent to what fails.
fn how(revision: &RevisionView, state: &State) -> Stop {
    if revision.proven && !matches!(state, State::Failing(_)) { Stop::Gracefully } else { Stop::Idle }
}

/// Those that never answered go first, then the newest.
fn surplus(mut live: Vec<&Seen>, count: usize) -> impl Iterator<Item = &Seen> {
    let worth = |state: &State| match state {
        State::Failing(_) => 0,
        State::Starting(_) => 1,
        State::Unready => 2,
        _ => 3,
    };
    live.sort_by_key(|seen| (worth(&seen.state), Reverse(seen.created), Reverse(seen.id.name.clone())));
    live.into_iter().take(count)
}

fn removal(seen: &Seen, how: Stop, why: Why) -> Removal {
    Removal { instance: seen.id.clone(), how, why }
}

/// Old Revisions with nothing left of them. None while it's unknown which one is the latest: it may
/// be one of them.
fn forget(input: &Input, serving: Option<&str>, wanted: &[u32]) -> Vec<String> {
    let Some(latest) = input.latest.as_deref() else { return Vec::new() };
    let in_use = |r: &RevisionView| Some(r.name.as_str()) == serving || r.name == latest;
    let mut old: Vec<_> = input.revisions.iter().zip(wanted).filter(|(r, _)| !in_use(r)).collect();
    old.sort_by_key(|(r, _)| (r.created, &r.name));
    let beyond = old.len().saturating_sub(input.history);
    let empty = |r: &RevisionView| r.instances.is_empty() && r.ordered.is_empty();
    old[..beyond].iter().filter(|(r, wanted)| **wanted == 0 && empty(r)).map(|(r, _)| r.name.clone()).collect()
}

#[cfg(test)]
mod tests;
