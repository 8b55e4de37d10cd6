//! Events on Functions: what changed from one status to the next, and the task that publishes it.
//! A status that stays the same makes no Event, so none is repeated.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use lambent_api::{ConditionType, Conditions, Function, FunctionStatus, Revision};
use tokio::sync::mpsc::{Receiver, Sender, error::TrySendError};

/// Events that wait to be published. More are dropped: Events are best effort for everybody.
pub(crate) const WAITING: usize = 1024;
/// The API server's limit for a note.
const LONGEST_NOTE: usize = 1000;

/// Something worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A Revision was made.
    RevisionCreated(String),
    /// Traffic goes to this Revision now.
    Serving(String),
    /// The current spec can't be served, with the reason and its words.
    StartFailed(String, String),
    /// The image could not be resolved, with the reason and its words.
    ImageNotResolved(String, String),
    /// The object can't be read.
    InvalidSpec(String),
    /// The image of this Revision is on so many nodes of so many.
    ImagePulled(String, i32, i32),
    /// The image of this Revision can't be pulled ahead everywhere, with the words for one node.
    ImagePullFailed(String, String),
}

/// What a new status tells that the old one didn't.
pub(crate) fn between(old: &FunctionStatus, new: &FunctionStatus) -> Vec<News> {
    let serving = new.revision.clone().filter(|_| new.revision != old.revision).map(News::Serving);
    let failed = turned(old, new, ConditionType::Stalled, "True");
    let image = turned(old, new, ConditionType::ImageResolved, "False");
    let failed = failed.filter(|(reason, _)| image.as_ref().is_none_or(|(image, _)| image != reason));
    let failed = failed.map(|(reason, words)| match reason.as_str() {
        "InvalidSpec" => News::InvalidSpec(words),
        _ => News::StartFailed(reason, words),
    });
    serving
        .into_iter()
        .chain(image.map(|(reason, words)| News::ImageNotResolved(reason, words)))
        .chain(failed)
        .collect()
}

/// The condition's reason and words, if it has this status and had not, or for another reason.
fn turned(old: &FunctionStatus, new: &FunctionStatus, type_: ConditionType, status: &str) -> Option<(String, String)> {
    let find = |s: &FunctionStatus| {
        let condition = s.conditions.find(type_).filter(|c| c.status == status);
        condition.map(|c| (c.reason.clone(), c.message.clone()))
    };
    let (before, after) = (find(old), find(new)?);
    (before.map(|(reason, _)| reason).as_ref() != Some(&after.0)).then_some(after)
}

impl News {
    fn event(&self) -> Event {
        let (type_, reason, action, note) = match self {
            Self::RevisionCreated(name) => (EventType::Normal, "RevisionCreated", "Create", format!("made {name}")),
            Self::Serving(name) => (EventType::Normal, "Serving", "Serve", format!("{name} serves")),
            Self::StartFailed(reason, words) => {
                (EventType::Warning, "StartFailed", "Start", format!("{reason}: {words}"))
            }
            Self::ImageNotResolved(reason, words) => {
                (EventType::Warning, "ImageNotResolved", "Resolve", format!("{reason}: {words}"))
            }
            Self::InvalidSpec(words) => (EventType::Warning, "InvalidSpec", "Parse", words.clone()),
            Self::ImagePulled(name, pulled, nodes) => (
                EventType::Normal,
                "ImagePulled",
                "Pull",
                format!("{pulled} of {nodes} nodes have the image of {name}"),
            ),
            Self::ImagePullFailed(name, words) => {
                (EventType::Warning, "ImagePullFailed", "Pull", format!("image of {name}: {words}"))
            }
        };
        let note = Some(note.chars().take(LONGEST_NOTE).collect());
        Event { type_, reason: reason.to_owned(), note, action: action.to_owned(), secondary: None }
    }
}

/// News and the object that it is about.
pub(crate) type About = (News, ObjectReference);

/// Hands news to the publishing task without waiting for it.
pub(crate) fn tell(sender: &Sender<About>, news: News, about: &impl Resource<DynamicType = ()>) {
    let mut reference = about.object_ref(&());
    reference.api_version = Some(Function::api_version(&()).into_owned());
    reference.kind = Some(Function::kind(&()).into_owned());
    send(sender, news, reference);
}

/// As [`tell`], about the Function that a Revision belongs to.
pub(crate) fn tell_function_of(sender: &Sender<About>, news: News, revision: &Revision) {
    let Some(owner) = revision.metadata.owner_references.iter().flatten().find(|o| o.kind == Function::kind(&()))
    else {
        return;
    };
    let reference = ObjectReference {
        api_version: Some(owner.api_version.clone()),
        kind: Some(owner.kind.clone()),
        name: Some(owner.name.clone()),
        uid: Some(owner.uid.clone()),
        namespace: revision.metadata.namespace.clone(),
        ..ObjectReference::default()
    };
    send(sender, news, reference);
}

fn send(sender: &Sender<About>, news: News, reference: ObjectReference) {
    if let Err(TrySendError::Full((news, _))) = sender.try_send((news, reference)) {
        tracing::warn!(?news, "too many Events wait; this one is dropped");
    }
}

/// Publishes what comes. An Event that can't be published is only worth a line.
pub(crate) async fn publish(client: Client, reporter: Reporter, mut news: Receiver<About>) {
    while let Some((news, about)) = news.recv().await {
        // A recorder keeps each Event for minutes, to count repetitions; here none is repeated.
        let recorder = Recorder::new(client.clone(), reporter.clone());
        if let Err(error) = recorder.publish(&news.event(), &about).await {
            tracing::debug!(?news, %error, "Event not published");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use lambent_api::Reason;

    use super::*;

    fn status(type_: ConditionType, is: bool, reason: &str) -> FunctionStatus {
        let mut status = FunctionStatus::default();
        status.conditions.put(type_, is, &Reason::new(reason, "words"), None, Timestamp::UNIX_EPOCH);
        status
    }

    #[test]
    fn traffic_that_moves_is_news_once() {
        let new = FunctionStatus { revision: Some("r".into()), ..FunctionStatus::default() };
        assert_eq!(between(&FunctionStatus::default(), &new), [News::Serving("r".into())]);
        assert_eq!(between(&new, &new), []);
    }

    #[test]
    fn a_failure_is_news_when_its_reason_changes() {
        let old = status(ConditionType::Stalled, true, "ErrImagePull");
        let new = status(ConditionType::Stalled, true, "CrashLoopBackOff");
        assert_eq!(between(&old, &new), [News::StartFailed("CrashLoopBackOff".into(), "words".into())]);
        assert_eq!(between(&new, &new), []);
    }

    #[test]
    fn a_missing_image_is_told_as_such_alone() {
        let mut new = status(ConditionType::Stalled, true, "ImageNotFound");
        new.conditions.extend(status(ConditionType::ImageResolved, false, "ImageNotFound").conditions);
        let news = between(&FunctionStatus::default(), &new);
        assert_eq!(news, [News::ImageNotResolved("ImageNotFound".into(), "words".into())]);
    }

    #[test]
    fn a_long_note_is_cut_to_what_the_server_takes() {
        let event = News::InvalidSpec("ü".repeat(5000)).event();
        assert_eq!(event.note.unwrap().chars().count(), LONGEST_NOTE);
    }
}
