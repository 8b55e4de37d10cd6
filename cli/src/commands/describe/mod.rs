//! `lambent describe`: all that is known about one Function. What may not be read, or can't be, is
//! said in its place; the rest is shown.

mod text;

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{Api, api::ListParams};
use lambent_api::{Function, Revision, meta::LABEL_FUNCTION};
use serde_json::{Value, json};

use crate::{
    args::{DescribeArgs, DescribeFormat},
    client::{Target, decisions::Decision, output},
};

/// Events that are shown, the last ones.
const EVENTS: usize = 10;
/// Objects of a kind in one answer; a Function has fewer.
const MOST: u32 = 1000;

/// A part of the description, or why it is not there.
type Part<T> = Result<Vec<T>, String>;

struct Description {
    function: Function,
    revisions: Part<Revision>,
    instances: Part<Pod>,
    events: Part<Event>,
    decisions: Part<Decision>,
}

/// Prints the description.
pub async fn run(args: DescribeArgs) -> anyhow::Result<()> {
    let mut target = Target::find(args.target).await?;
    let function = target.function(&args.name).await?;
    let description = Box::pin(gather(&target, function)).await;
    match args.output {
        DescribeFormat::Text => output::print(&text::text(&description, Timestamp::now())),
        DescribeFormat::Json => output::print_json(&description.value()),
        DescribeFormat::Yaml => output::print_yaml(&description.value()),
    }
}

async fn gather(target: &Target, function: Function) -> Description {
    let key = function.key();
    let namespace = key.namespace.as_str();
    let revisions: Api<Revision> = Api::namespaced(target.client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(target.client.clone(), namespace);
    let events: Api<Event> = Api::namespaced(target.client.clone(), namespace);
    let labelled = ListParams::default().labels(&format!("{LABEL_FUNCTION}={}", key.name)).limit(MOST);
    let regarding = format!("regarding.kind=Function,regarding.name={}", key.name);
    let about = ListParams::default().fields(&regarding).limit(MOST);
    let doing = |what: &str| format!("list the {what} of namespace {namespace}");
    let doing = [doing("Revisions"), doing("pods"), doing("Events")];
    let (revisions, instances, events, decisions) = tokio::join!(
        target.ask(&doing[0], revisions.list(&labelled)),
        target.ask(&doing[1], pods.list(&labelled)),
        target.ask(&doing[2], events.list(&about)),
        target.decisions(&key),
    );
    let words = |error: anyhow::Error| format!("{error:#}");
    Description {
        function,
        revisions: revisions.map(|list| newest_first(list.items)).map_err(words),
        instances: instances.map(|list| newest_first(list.items)).map_err(words),
        events: events.map(|list| last_events(list.items)).map_err(words),
        decisions: decisions.map_err(words),
    }
}

fn newest_first<K: kube::Resource>(mut objects: Vec<K>) -> Vec<K> {
    objects.sort_by_key(|object| std::cmp::Reverse(object.meta().creation_timestamp.as_ref().map(|time| time.0)));
    objects
}

/// The last ones, in the order in which they happened.
fn last_events(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(last_seen);
    events.split_off(events.len().saturating_sub(EVENTS))
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let once = event.event_time.as_ref().map(|time| time.0);
    let old = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    series.or(once).or(old).or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

impl Description {
    fn value(&self) -> Value {
        let Self { function, revisions, instances, events, decisions } = self;
        json!({
            "function": function,
            "revisions": part(revisions),
            "instances": part(instances),
            "events": part(events),
            "decisions": part(decisions),
        })
    }
}

/// The part, or an object with the words of why it is not there.
fn part<T: serde::Serialize>(part: &Part<T>) -> Value {
    match part {
        Ok(objects) => json!(objects),
        Err(words) => json!({"error": words}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_shown_in_their_order() {
        let event = |minute: usize| -> Event {
            let at = format!("2026-01-01T00:{minute:02}:00.000000Z");
            serde_json::from_value(json!({"metadata": {"name": minute.to_string()}, "eventTime": at})).unwrap()
        };
        let events = last_events((0..30).rev().map(event).collect());
        let names: Vec<&str> = events.iter().filter_map(|event| event.metadata.name.as_deref()).collect();
        assert_eq!((names.len(), names[0], names[9]), (EVENTS, "20", "29"));
    }

    #[test]
    fn an_event_that_goes_on_counts_when_it_was_seen_last() {
        let event: Event = serde_json::from_value(json!({
            "metadata": {}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "series": {"count": 3, "lastObservedTime": "2026-01-01T00:09:00.000000Z"},
        }))
        .unwrap();
        assert_eq!(last_seen(&event).unwrap().to_string(), "2026-01-01T00:09:00Z");
    }
}
