//! The status of a Function, with conditions as kstatus reads them: `Ready` always, `Reconciling`
//! and `Stalled` only while they are True.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use lambent_api::{
    ConditionType, Conditions, FunctionStatus, Reason,
    meta::{ANNOTATION_REDEPLOY, LABEL_FUNCTION},
};

use super::Counts;

/// The reason of a Revision that is not tried any more.
const GIVEN_UP: &str = "RolloutDeadlineExceeded";

/// How far the current spec of a Function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its settings can't be served.
    Invalid(String),
    /// Its image is being looked up.
    Resolving,
    /// Its image can't be had; asked again if the registry just could not be reached.
    NoImage(Reason),
    /// Its Revision has not answered yet.
    Starting,
    /// Its Revision can't start.
    Failing(Reason),
    /// So many of the instances that the load needs answer; then it serves.
    RollingOut { ready: u32, need: u32 },
    /// It was not ready at `rollout.deadline`, with what was wrong, if that is known.
    GivenUp(Option<Reason>),
    /// Its Revision serves.
    Serving,
}

/// What became of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// Known as this, with a remark.
    ByDigest(String, Option<String>),
    /// As written, with the reason why.
    ByTag(String, Option<String>),
    /// It can't be had.
    Missing(Reason),
    /// Not known yet.
    Unknown,
}

/// What became of `scale.parked`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parking {
    /// Nothing is to be parked.
    Off,
    /// Nothing was there to be parked, so far.
    Unknown,
    /// Instances are parked.
    Parked,
    /// They can't be.
    Impossible(Reason),
}

/// What there is to say about a Function.
pub(crate) struct View<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// metadata.generation
    pub(crate) generation: Option<i64>,
    /// Where to call it.
    pub(crate) url: String,
    /// The Revision that serves.
    pub(crate) serving: Option<String>,
    /// The Revision of the current spec.
    pub(crate) latest: Option<String>,
    /// How far the current spec is.
    pub(crate) progress: Progress,
    /// What became of the image.
    pub(crate) image: Image,
    /// What became of `scale.parked`.
    pub(crate) parking: Parking,
    /// Its instances.
    pub(crate) counts: Counts,
    /// Of a Function that runs from files of this machine: how many instances of the Revision that
    /// serves answer. They are all that is left of it once the files have changed.
    pub(crate) from_files: Option<i32>,
    /// Whether the rollout begins anew.
    pub(crate) restarted: bool,
}

/// The status that follows from the old one.
pub(crate) fn status(old: &FunctionStatus, view: View<'_>, now: Timestamp) -> FunctionStatus {
    let mut conditions = old.conditions.clone();
    let reason = reason(&view);
    let mut set = |type_, is| conditions.put(type_, is, &reason, view.generation, now);
    set(ConditionType::Ready, view.progress == Progress::Serving);
    let mut only_if = |type_, is: bool| match is {
        true => conditions.put(type_, true, &reason, view.generation, now),
        false => Conditions::take_away(&mut conditions, type_),
    };
    only_if(ConditionType::Reconciling, is_working(&view.progress));
    only_if(ConditionType::Stalled, is_stuck(&view.progress));
    if let Some((resolved, reason)) = image_reason(&view.image, old) {
        conditions.put(ConditionType::ImageResolved, resolved, &reason, view.generation, now);
    }
    say_parked(&mut conditions, &view, now);
    FunctionStatus {
        rollout_since: rollout_since(old, &view, now),
        conditions,
        observed_generation: view.generation,
        url: Some(view.url),
        revision: view.serving,
        latest_revision: view.latest,
        instances: view.counts.live(),
        ready: view.counts.ready,
        parked: view.counts.parked,
        selector: format!("{LABEL_FUNCTION}={}", view.name),
    }
}

/// While the load needs all that there are, what was said before holds.
fn say_parked(conditions: &mut Vec<Condition>, view: &View<'_>, now: Timestamp) {
    let parked = || Reason::new("Parked", "instances that the load does not need are frozen");
    let mut put = |is, why: &Reason| conditions.put(ConditionType::Parked, is, why, view.generation, now);
    match &view.parking {
        Parking::Off => Conditions::take_away(conditions, ConditionType::Parked),
        Parking::Unknown => {}
        Parking::Parked => put(true, &parked()),
        Parking::Impossible(why) => put(false, why),
    }
}

/// Since when the latest Revision is to take the place of the one that serves.
fn rollout_since(old: &FunctionStatus, view: &View<'_>, now: Timestamp) -> Option<Time> {
    let goes_on = old.latest_revision == view.latest && !view.restarted;
    let begun = old.rollout_since.clone().filter(|_| goes_on).unwrap_or(Time(now));
    (view.serving.is_some() && view.latest.is_some() && view.serving != view.latest).then_some(begun)
}

/// Whether a status says of its latest Revision that it is not tried any more.
pub(crate) fn is_given_up(status: &FunctionStatus) -> bool {
    status.conditions.find(ConditionType::Ready).is_some_and(|c| c.reason == GIVEN_UP)
}

/// | progress               | Ready | Reconciling | Stalled | reason              |
/// | ---------------------- | ----- | ----------- | ------- | ------------------- |
/// | Serving                | True  |             |         | Serving             |
/// | Resolving              | False | True        |         | Resolving           |
/// | Starting               | False | True        |         | Starting            |
/// | RollingOut             | False | True        |         | RollingOut          |
/// | NoImage: unreachable   | False | True        |         | RegistryUnreachable |
/// | NoImage: anything else | False |             | True    | ImageNotFound, ..   |
/// | Failing                | False |             | True    | the instance's own  |
/// | GivenUp                | False |             | True    | RolloutDeadlineExceeded |
/// | Invalid                | False |             | True    | InvalidSpec         |
fn is_stuck(progress: &Progress) -> bool {
    match progress {
        Progress::Invalid(_) | Progress::Failing(_) | Progress::GivenUp(_) => true,
        Progress::NoImage(reason) => !is_transient(reason),
        Progress::Resolving | Progress::Starting | Progress::RollingOut { .. } | Progress::Serving => false,
    }
}

fn is_working(progress: &Progress) -> bool {
    *progress != Progress::Serving && !is_stuck(progress)
}

fn is_transient(reason: &Reason) -> bool {
    reason.reason == "RegistryUnreachable"
}

fn reason(view: &View<'_>) -> Reason {
    let latest = view.latest.as_deref().unwrap_or("the new Revision");
    let (reason, words) = match &view.progress {
        Progress::Serving => return Reason::new("Serving", format!("{latest} serves")),
        Progress::Invalid(words) => ("InvalidSpec", words.clone()),
        Progress::Resolving if view.from_files.is_some() => ("Resolving", "it is being built".to_owned()),
        Progress::Resolving => ("Resolving", "the image is being looked up".to_owned()),
        Progress::NoImage(reason) => (reason.reason.as_str(), reason.message.clone()),
        Progress::Starting => ("Starting", format!("{latest} has not answered yet")),
        Progress::Failing(reason) => (reason.reason.as_str(), format!("{latest} can't start: {}", reason.message)),
        Progress::RollingOut { ready, need } => {
            ("RollingOut", format!("{ready} of {need} instances of {latest} answer"))
        }
        Progress::GivenUp(reason) => (GIVEN_UP, given_up(latest, reason.as_ref())),
    };
    // Whoever reads that the new one fails wants to know whether callers notice.
    let other = view.serving.as_ref().filter(|serving| Some(*serving) != view.latest.as_ref());
    let still = |other: &String| match view.from_files {
        None => format!("{words}; {other} still serves"),
        Some(0) => format!("{words}; nothing runs of {other}"),
        Some(_) => format!("{words}; what runs of {other} still serves"),
    };
    Reason::new(reason, other.map_or_else(|| words.clone(), still))
}

fn given_up(latest: &str, reason: Option<&Reason>) -> String {
    let why = reason.map_or_else(String::new, |reason| format!(" ({}: {})", reason.reason, reason.message));
    format!(
        "{latest} was not ready within rollout.deadline{why} and is not tried any more; change the spec, or the \
         annotation {ANNOTATION_REDEPLOY} to try it again"
    )
}

/// What was found out at the registry is told once and then known only from the old condition, as
/// the Revision itself says no more than how it names the image.
fn image_reason(image: &Image, old: &FunctionStatus) -> Option<(bool, Reason)> {
    let (resolved, reason, told, default) = match image {
        Image::ByDigest(image, note) => {
            (true, "Resolved", note.as_ref().map(|note| format!("{image}: {note}")), image.clone())
        }
        Image::ByTag(image, why) => (false, "TagUsed", why.clone(), format!("{image} is used as written")),
        Image::Missing(reason) => return Some((false, reason.clone())),
        Image::Unknown => return None,
    };
    let before = old.conditions.find(ConditionType::ImageResolved).filter(|c| c.reason == reason);
    let remembered = before.map(|c| c.message.clone()).filter(|message| message.starts_with(&default) || !resolved);
    Some((resolved, Reason::new(reason, told.or(remembered).unwrap_or(default))))
}

/// Whether two differ in nothing but numbers.
pub(crate) fn same_words(one: &FunctionStatus, other: &FunctionStatus) -> bool {
    let words = |s: &FunctionStatus| FunctionStatus { instances: 0, ready: 0, parked: 0, ..s.clone() };
    words(one) == words(other)
}

#[cfg(test)]
mod tests;
