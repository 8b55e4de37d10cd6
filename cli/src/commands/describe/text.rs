//! A description as text.

use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use lambent_api::{ConditionType, Conditions, Function, PulledImages, Revision, meta::LABEL_REVISION};

use super::{Description, Part, last_seen};
use crate::client::{
    decisions::Decision,
    table::{age, one_line, table},
};

/// Before each line of a section.
const INDENT: usize = 2;

pub(super) fn text(description: &Description, now: Timestamp) -> String {
    let Description { function, revisions, instances, events, decisions } = description;
    let serving = function.status.as_ref().and_then(|status| status.revision.as_deref());
    let mut text = head(function, now);
    text += &section("Conditions", &Ok(conditions(function, now)));
    text += &section("Revisions", &of(revisions, |all| revisions_table(all, serving, now)));
    text += &section("Instances", &of(instances, |all| instances_table(all, now)));
    text += &section("Events", &of(events, |all| events_table(all, now)));
    text +=
        &section("Decisions of the autoscaler, the last one first", &of(decisions, |all| decisions_table(all, now)));
    text
}

/// A table of what there is; empty if there is nothing.
fn of<T>(part: &Part<T>, show: impl Fn(&[T]) -> String) -> Result<String, String> {
    match part {
        Ok(all) if all.is_empty() => Ok(String::new()),
        Ok(all) => Ok(show(all)),
        Err(words) => Err(words.clone()),
    }
}

fn section(name: &str, content: &Result<String, String>) -> String {
    match content {
        Ok(lines) if lines.is_empty() => format!("\n{name}: none\n"),
        Ok(lines) => format!("\n{name}:\n{lines}"),
        Err(words) => format!("\n{name}: not shown: {words}\n"),
    }
}

fn head(function: &Function, now: Timestamp) -> String {
    let (key, spec, status) = (function.key(), &function.spec, function.status.clone().unwrap_or_default());
    let template = &spec.template;
    let ready = status.conditions.find(ConditionType::Ready);
    let created = function.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let command: Vec<&str> = template.command.iter().chain(&template.args).map(String::as_str).collect();
    let scale = &spec.scale;
    let rows = [
        ("Name", key.name.into()),
        ("Namespace", key.namespace.into()),
        ("URL", status.url.unwrap_or_default()),
        (
            "Ready",
            ready.map_or_else(|| "Unknown".to_owned(), |c| format!("{} ({}): {}", c.status, c.reason, c.message)),
        ),
        ("Age", age(created, now)),
        ("Image", template.image.clone()),
        ("Command", command.join(" ")),
        ("Instances", instances(status.ready, status.parked, status.instances)),
        ("Scale", format!("{} to {}, down after {} of less load", scale.min, scale.max, scale.idle)),
        ("Concurrency", format!("{} per instance", spec.concurrency)),
        ("Queue", format!("{} at most, for {} at most", spec.queue.depth, spec.queue.timeout)),
        ("Timeouts", format!("request {}, stream {}, start {}", spec.timeout, spec.stream_timeout, spec.start_timeout)),
        ("Body", format!("{} at most", spec.max_body)),
    ];
    let mut text = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{:<13} {}", format!("{name}:"), one_line(value));
    }
    text
}

fn conditions(function: &Function, now: Timestamp) -> String {
    let conditions = function.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if conditions.is_empty() {
        return String::new();
    }
    let row = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        [
            c.type_.clone(),
            c.status.clone(),
            age(Some(c.last_transition_time.0), now),
            c.reason.clone(),
            c.message.clone(),
        ]
    };
    let rows: Vec<_> = conditions.iter().map(row).collect();
    table(["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"], &rows, INDENT)
}

fn revisions_table(revisions: &[Revision], serving: Option<&str>, now: Timestamp) -> String {
    let row = |revision: &Revision| {
        let status = revision.status.clone().unwrap_or_default();
        let name = revision.metadata.name.clone().unwrap_or_default();
        // What stops it from starting says more than that it is not ready.
        let trouble = status.conditions.find(ConditionType::Startable).filter(|c| c.status == "False");
        let state = trouble.or_else(|| status.conditions.find(ConditionType::Ready));
        [
            name.clone(),
            if Some(&*name) == serving { "yes" } else { "no" }.to_owned(),
            state.map(|c| c.reason.clone()).unwrap_or_default(),
            revision.spec.instances.to_string(),
            format!("{}/{}", status.ready, status.instances),
            status.images.map_or_else(|| "-".to_owned(), |images| pulled(&images)),
            age(revision.metadata.creation_timestamp.as_ref().map(|time| time.0), now),
            revision.spec.template.image.clone(),
        ]
    };
    let rows: Vec<_> = revisions.iter().map(row).collect();
    table(["NAME", "SERVES", "REASON", "WANTED", "INSTANCES", "PULLED", "AGE", "IMAGE"], &rows, INDENT)
}

/// On how many of its nodes the image is.
fn pulled(images: &PulledImages) -> String {
    let PulledImages { nodes, pulled, failed, .. } = images;
    match failed {
        0 => format!("{pulled}/{nodes}"),
        failed => format!("{pulled}/{nodes}, {failed} failed"),
    }
}

fn instances_table(instances: &[Pod], now: Timestamp) -> String {
    let row = |pod: &Pod| {
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        [
            pod.metadata.name.clone().unwrap_or_default(),
            pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_REVISION)).cloned().unwrap_or_default(),
            state(pod),
            restarts(pod).to_string(),
            age(started.or(created), now),
        ]
    };
    let rows: Vec<_> = instances.iter().map(row).collect();
    table(["NAME", "REVISION", "STATE", "RESTARTS", "AGE"], &rows, INDENT)
}

fn instances(ready: i32, parked: i32, all: i32) -> String {
    match parked {
        0 => format!("{ready} that answer, of {all}"),
        parked => format!("{ready} that answer and {parked} parked, of {all}"),
    }
}

/// | pod | state |
/// | --- | --- |
/// | is deleted | Stopping |
/// | Succeeded | Ended |
/// | Failed | its reason |
/// | a container waits to be started, or can't be | the kubelet's reason |
/// | a container runs, not ready yet, or nothing is known | Starting |
/// | ready | Ready |
fn state(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let waiting = containers.iter().find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let ready = !containers.is_empty() && containers.iter().all(|container| container.ready);
    match status.phase.as_deref() {
        _ if pod.metadata.deletion_timestamp.is_some() => "Stopping".to_owned(),
        Some("Succeeded") => "Ended".to_owned(),
        Some("Failed") => status.reason.unwrap_or_else(|| "Failed".to_owned()),
        _ if let Some(reason) = waiting => reason,
        _ if ready => "Ready".to_owned(),
        _ => "Starting".to_owned(),
    }
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().map(|container| container.restart_count).sum()
}

fn events_table(events: &[Event], now: Timestamp) -> String {
    let row = |event: &Event| {
        let count = event.series.as_ref().map(|series| series.count).filter(|count| *count > 1);
        let times = count.map_or_else(String::new, |count| format!(" (x{count})"));
        [
            format!("{}{times}", age(last_seen(event), now)),
            event.type_.clone().unwrap_or_default(),
            event.reason.clone().unwrap_or_default(),
            event.note.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = events.iter().map(row).collect();
    table(["AGE", "TYPE", "REASON", "MESSAGE"], &rows, INDENT)
}

fn decisions_table(decisions: &[Decision], now: Timestamp) -> String {
    let row = |decision: &Decision| {
        let load = decision.load;
        [
            age(Some(decision.at), now),
            decision.revision.clone(),
            format!("{} to {}", decision.from, decision.to),
            decision.reason.clone(),
            format!("{} queued, {} in flight, {} ready", load.queued, load.in_flight, load.ready),
        ]
    };
    let rows: Vec<_> = decisions.iter().map(row).collect();
    table(["AGE", "REVISION", "INSTANCES", "REASON", "LOAD"], &rows, INDENT)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
