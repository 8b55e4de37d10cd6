//! What a Pod means: from its status to an [`Instance`], purely.
//!
//! | the Pod                                              | phase    |
//! | ---------------------------------------------------- | -------- |
//! | has a deletionTimestamp                              | Stopping |
//! | phase Failed or Succeeded                            | Ended    |
//! | can't be scheduled, or its container can't start     | Failing  |
//! | has a readiness probe and is on its way or failed it | Unready  |
//! | its container runs                                   | Running  |
//! | anything else                                        | Starting |

use std::net::{IpAddr, SocketAddr};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodStatus,
};
use lambent_api::{
    InstanceRef, Reason,
    meta::{LABEL_FUNCTION, LABEL_REVISION},
};

use super::pod::CONTAINER;
use crate::{Instance, Phase, Placed};

/// Waiting for one of these is a failure; for anything else it's a start under way.
const FAILURES: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    CRASH_LOOP,
];
const CRASH_LOOP: &str = "CrashLoopBackOff";
/// A process that served for longer than this and then ended is started again at once.
const CRASHES_WITHIN: SignedDuration = SignedDuration::from_secs(10);
/// A container that ended for one of these never ran: another try won't go better.
const NEVER_RAN: [&str; 2] = ["StartError", "ContainerCannotRun"];

/// The instance that a Pod is; none if it isn't one of ours.
pub fn instance(pod: &Pod) -> Option<Instance> {
    let labels = pod.metadata.labels.as_ref()?;
    let address = address(pod);
    Some(Instance {
        id: InstanceRef { name: pod.metadata.name.clone()?, uid: pod.metadata.uid.clone()? },
        namespace: pod.metadata.namespace.clone()?,
        function: labels.get(LABEL_FUNCTION)?.clone(),
        revision: labels.get(LABEL_REVISION)?.clone(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        placed: if address.is_none() { placed(pod) } else { None },
        address,
        phase: phase(pod),
        restarts: container_status(pod).map_or(0, |c| u32::try_from(c.restart_count).unwrap_or(0)),
        created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    })
}

fn address(pod: &Pod) -> Option<SocketAddr> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(ip, port(pod)?))
}

fn port(pod: &Pod) -> Option<u16> {
    u16::try_from(container(pod)?.ports.as_ref()?.first()?.container_port).ok()
}

/// None for a Pod that has the address of its node, and for one whose author wants its probe to be
/// waited for: its address would be of no use before the API tells it.
fn placed(pod: &Pod) -> Option<Placed> {
    let spec = pod.spec.as_ref()?;
    let of_its_own = spec.host_network != Some(true) && container(pod)?.readiness_probe.is_none();
    let node = spec.node_name.clone().filter(|_| of_its_own)?;
    Some(Placed { node, port: port(pod)? })
}

fn phase(pod: &Pod) -> Phase {
    if pod.metadata.deletion_timestamp.is_some() {
        return Phase::Stopping;
    }
    let Some(status) = &pod.status else { return Phase::Starting };
    if let Some(reason) = ended(pod, status) {
        return Phase::Ended(reason);
    }
    if let Some(reason) = unschedulable(status).or_else(|| failure(container_status(pod)?)) {
        return Phase::Failing(reason);
    }
    let runs = container_status(pod).and_then(|c| c.state.as_ref()).is_some_and(|state| state.running.is_some());
    let probed = container(pod).is_some_and(|c| c.readiness_probe.is_some());
    match (runs, probed) {
        (true, false) => Phase::Running,
        (true, true) if is_true(status, "Ready") => Phase::Running,
        // With an address it could be connected to, which its author doesn't want yet.
        (_, true) if runs || status.pod_ip.is_some() => Phase::Unready,
        _ => Phase::Starting,
    }
}

/// Evicted, lost with its node, refused by the kubelet: a Pod doesn't come back from these.
fn ended(pod: &Pod, status: &PodStatus) -> Option<Reason> {
    let phase = status.phase.as_deref().filter(|phase| ["Failed", "Succeeded"].contains(phase))?;
    let exit = container_status(pod).and_then(|c| c.state.as_ref()?.terminated.as_ref());
    let reason = status.reason.clone().or_else(|| exit.and_then(|exit| exit.reason.clone()));
    let message = status.message.clone().or_else(|| exit.map(in_words));
    Some(Reason::new(reason.unwrap_or_else(|| phase.to_owned()), message.unwrap_or_default()))
}

fn unschedulable(status: &PodStatus) -> Option<Reason> {
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let reason = condition.reason.as_deref().filter(|reason| *reason == "Unschedulable")?;
    Some(Reason::new(reason, condition.message.clone().unwrap_or_default()))
}

fn failure(container: &ContainerStatus) -> Option<Reason> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        return waiting_failure(waiting, container);
    }
    let exit = state.terminated.as_ref()?;
    if let Some(reason) = exit.reason.as_deref().filter(|reason| NEVER_RAN.contains(reason)) {
        return Some(Reason::new(reason, in_words(exit)));
    }
    // The first exit is no failure, as the kubelet starts the process again at once. After the
    // second one it will wait, but takes a while to say so.
    let again = container.restart_count > 0 && was_short(exit);
    again.then(|| Reason::new(CRASH_LOOP, in_words(exit)))
}

/// Whether it ended so soon that it doesn't look like a mere accident.
fn was_short(exit: &ContainerStateTerminated) -> bool {
    let times = exit.started_at.as_ref().zip(exit.finished_at.as_ref());
    times.is_none_or(|(started, finished)| finished.0.duration_since(started.0) < CRASHES_WITHIN)
}

fn waiting_failure(waiting: &ContainerStateWaiting, container: &ContainerStatus) -> Option<Reason> {
    let reason = waiting.reason.as_deref().filter(|reason| FAILURES.contains(reason))?;
    let words = waiting.message.clone().unwrap_or_default();
    let exit = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let message = match exit {
        Some(exit) if words.is_empty() => in_words(exit),
        Some(exit) if reason == CRASH_LOOP => format!("{}; {words}", in_words(exit)),
        _ => words,
    };
    Some(Reason::new(reason, message))
}

/// `OOMKilled (exit code 137)`, `exit code 1`, and what the runtime or the process left as message.
fn in_words(exit: &ContainerStateTerminated) -> String {
    let code = exit.signal.map_or_else(|| format!("exit code {}", exit.exit_code), |signal| format!("signal {signal}"));
    // These two say no more than the exit code does.
    let reason = exit.reason.as_deref().filter(|reason| !["Error", "Completed"].contains(reason));
    let what = reason.map_or_else(|| code.clone(), |reason| format!("{reason} ({code})"));
    match exit.message.as_deref().map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => format!("{what}: {message}"),
        None => what,
    }
}

fn is_true(status: &PodStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == type_ && c.status == "True")
}

fn container(pod: &Pod) -> Option<&Container> {
    pod.spec.as_ref()?.containers.iter().find(|c| c.name == CONTAINER)
}

fn container_status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.iter().flatten().find(|c| c.name == CONTAINER)
}

#[cfg(test)]
mod tests;
