//! The status of a Revision: `Ready` once an instance of it has answered, for ever after;
//! `Startable` False while none can start.

use jiff::Timestamp;
use lambent_api::{ConditionType, Conditions, PulledImages, Reason, RevisionStatus, meta::LABEL_REVISION};

use super::Counts;
use crate::memory::{Seen, State};

/// What there is to say about a Revision.
pub(crate) struct View<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// metadata.generation
    pub(crate) generation: Option<i64>,
    /// Whether an instance of it ever answered.
    pub(crate) proven: bool,
    /// Why none can start, if so.
    pub(crate) trouble: Option<&'a Reason>,
    /// Its instances.
    pub(crate) counts: Counts,
    /// How far its image is, where it is pulled ahead.
    pub(crate) images: Option<PulledImages>,
}

/// Why no instance of a Revision can start: nothing if one answers. What an instance says now goes
/// before what the last attempt came to.
pub(crate) fn trouble(seen: &[Seen], last: Option<&Reason>) -> Option<Reason> {
    if seen.iter().any(|s| s.state == State::Ready) {
        return None;
    }
    let failing = seen.iter().filter_map(|s| match &s.state {
        State::Failing(reason) => Some((s.created, &s.id.name, reason)),
        _ => None,
    });
    failing.max_by_key(|(created, name, _)| (*created, *name)).map(|(_, _, reason)| reason.clone()).or(last.cloned())
}

/// The status that follows from the old one.
pub(crate) fn status(old: &RevisionStatus, view: &View<'_>, now: Timestamp) -> RevisionStatus {
    let mut conditions = old.conditions.clone();
    let waiting = Reason::new("Starting", "no instance has answered yet");
    let answered = Reason::new("Answered", "an instance has answered");
    let ready = if view.proven { &answered } else { view.trouble.unwrap_or(&waiting) };
    conditions.put(ConditionType::Ready, view.proven, ready, view.generation, now);
    match view.trouble {
        Some(reason) => conditions.put(ConditionType::Startable, false, reason, view.generation, now),
        None => Conditions::take_away(&mut conditions, ConditionType::Startable),
    }
    RevisionStatus {
        conditions,
        observed_generation: view.generation,
        instances: view.counts.live(),
        ready: view.counts.ready,
        parked: view.counts.parked,
        selector: format!("{LABEL_REVISION}={}", view.name),
        images: view.images.clone(),
    }
}

/// Whether two differ in nothing but numbers.
pub(crate) fn same_words(one: &RevisionStatus, other: &RevisionStatus) -> bool {
    let done = |s: &RevisionStatus| s.images.as_ref().and_then(|images| images.nodes_until.clone());
    // How many nodes have the image is a number too; that all have it is not.
    let same_images = done(one) == done(other);
    let words = |s: &RevisionStatus| RevisionStatus { instances: 0, ready: 0, parked: 0, images: None, ..s.clone() };
    same_images && without_generation(words(one)) == without_generation(words(other))
}

/// The generation changes with every change of the wanted count.
fn without_generation(mut status: RevisionStatus) -> RevisionStatus {
    status.observed_generation = None;
    status.conditions.iter_mut().for_each(|c| c.observed_generation = None);
    status
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use lambent_api::InstanceRef;

    use super::*;

    fn seen(name: &str, state: State) -> Seen {
        Seen { id: InstanceRef { name: name.into(), uid: name.into() }, created: Timestamp::UNIX_EPOCH, state }
    }

    fn view(proven: bool, trouble: Option<&Reason>) -> View<'_> {
        View {
            name: "r",
            generation: Some(2),
            proven,
            trouble,
            counts: Counts { ready: 1, starting: 2, ..Counts::default() },
            images: None,
        }
    }

    #[test]
    fn one_answering_instance_outweighs_all_failing_ones() {
        let why = Reason::new("CrashLoopBackOff", "exit code 1");
        let failing = seen("a", State::Failing(why.clone()));
        assert_eq!(trouble(std::slice::from_ref(&failing), None), Some(why));
        assert_eq!(trouble(&[failing, seen("b", State::Ready)], None), None);
    }

    #[test]
    fn what_an_instance_says_now_goes_before_the_last_attempt() {
        let (last, present) = (Reason::new("StartTimeout", ""), Reason::new("ErrImagePull", ""));
        assert_eq!(trouble(&[seen("a", State::Failing(present.clone()))], Some(&last)), Some(present));
        assert_eq!(trouble(&[], Some(&last)), Some(last));
    }

    #[test]
    fn a_revision_is_ready_for_ever_after_its_proof() {
        let status = status(&RevisionStatus::default(), &view(true, None), Timestamp::UNIX_EPOCH);
        assert!(status.conditions.is_true(ConditionType::Ready));
        assert_eq!((status.instances, status.ready), (3, 1));
        assert_eq!(status.selector, "lambent.dev/revision=r");
        let why = Reason::new("Unschedulable", "no room");
        let later = super::status(&status, &view(true, Some(&why)), Timestamp::UNIX_EPOCH);
        assert!(later.conditions.is_true(ConditionType::Ready));
        assert!(later.conditions.is_false(ConditionType::Startable));
        assert_eq!(super::status(&later, &view(true, None), Timestamp::UNIX_EPOCH).conditions.len(), 1);
    }

    #[test]
    fn an_unproven_revision_says_what_is_in_the_way() {
        let why = Reason::new("ErrImagePull", "no such image");
        let status = status(&RevisionStatus::default(), &view(false, Some(&why)), Timestamp::UNIX_EPOCH);
        for type_ in [ConditionType::Ready, ConditionType::Startable] {
            let condition = status.conditions.find(type_).unwrap();
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "ErrImagePull"));
        }
    }

    #[test]
    fn a_new_wanted_count_alone_is_no_news() {
        let one = status(&RevisionStatus::default(), &view(true, None), Timestamp::UNIX_EPOCH);
        let mut other = status(&one, &View { generation: Some(3), ..view(true, None) }, Timestamp::UNIX_EPOCH);
        other.instances = 9;
        assert_ne!(one, other);
        assert!(same_words(&one, &other));
    }

    #[test]
    fn one_more_node_with_the_image_is_no_news_and_the_last_one_is() {
        let images = |pulled, until: Option<i64>| {
            let nodes_until = until.map(|second| Time(Timestamp::from_second(second).unwrap()));
            let images = PulledImages { nodes: 3, pulled, nodes_until, ..PulledImages::default() };
            status(
                &RevisionStatus::default(),
                &View { images: Some(images), ..view(true, None) },
                Timestamp::UNIX_EPOCH,
            )
        };
        assert_ne!(images(1, None), images(2, None));
        assert!(same_words(&images(1, None), &images(2, None)));
        assert!(!same_words(&images(2, None), &images(3, Some(1))));
    }
}
