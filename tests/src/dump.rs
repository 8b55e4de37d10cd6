//! What is printed of a failed test's namespace, what Lambent's parts say about it, and how they are.

use k8s_openapi::api::{
    core::v1::{Event, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use lambent_api::{Function, Revision};

use crate::{
    Context,
    system::{COMPONENTS, NAMESPACE, System},
};

/// Enough to see what led to the failure.
const LOG_LINES: usize = 40;
/// Events of Lambent's own parts: more are of other tests.
const EVENTS: usize = 30;

/// Prints Functions, Revisions, pods, Events and the log lines that name the namespace.
pub async fn print(cx: &Context) {
    eprintln!("--- namespace {} at {}", cx.namespace, jiff::Timestamp::now());
    functions(cx).await;
    pods(cx).await;
    events(&cx.api(), usize::MAX).await;
    for component in COMPONENTS {
        logs(cx, component).await;
    }
    system(cx).await;
}

/// Who could be reached, as the cluster sees it.
async fn system(cx: &Context) {
    eprintln!("--- namespace {NAMESPACE}");
    for pod in list(&of_system::<Pod>(cx)).await {
        let status = pod.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let ready = ready.map(|c| (c.status, c.last_transition_time.map(|at| at.0.to_string())));
        let deleted = pod.metadata.deletion_timestamp.as_ref().map(|at| at.0.to_string());
        let (name, ip) = (name(&pod.metadata), status.pod_ip);
        eprintln!("pod {name}: {ip:?} ready {ready:?} deleted {deleted:?} {}", json(&status.container_statuses));
    }
    for slice in list(&of_system::<EndpointSlice>(cx)).await {
        let changed = slice.metadata.managed_fields.iter().flatten().filter_map(|f| f.time.as_ref()).next_back();
        let changed = changed.map(|at| at.0.to_string());
        eprintln!("endpoints {}: {changed:?} {}", name(&slice.metadata), json(&slice.endpoints));
    }
    events(&of_system(cx), EVENTS).await;
}

fn of_system<K>(cx: &Context) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(cx.client.clone(), NAMESPACE)
}

async fn functions(cx: &Context) {
    for function in list(&cx.api::<Function>()).await {
        eprintln!("fn {}: {}", name(&function.metadata), json(&function.status));
    }
    for revision in list(&cx.api::<Revision>()).await {
        let wanted = revision.spec.instances;
        eprintln!("revision {}: wanted {wanted}, {}", name(&revision.metadata), json(&revision.status));
    }
}

async fn pods(cx: &Context) {
    for pod in list(&cx.api::<Pod>()).await {
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let status = pod.status.unwrap_or_default();
        let states: Vec<_> = status.container_statuses.iter().flatten().map(|c| json(&c.state)).collect();
        let (phase, ip) = (status.phase.unwrap_or_default(), status.pod_ip.unwrap_or_default());
        eprintln!("pod {}: {phase} {ip} deleted={deleted} {states:?}", name(&pod.metadata));
        log_of(cx, &name(&pod.metadata)).await;
    }
}

async fn log_of(cx: &Context, pod: &str) {
    let tail = LogParams { tail_lines: Some(10), ..LogParams::default() };
    if let Ok(text) = cx.api::<Pod>().logs(pod, &tail).await {
        text.lines().for_each(|line| eprintln!("    {line}"));
    }
}

/// The last ones.
async fn events(api: &Api<Event>, count: usize) {
    let mut all = list(api).await;
    let at = |event: &Event| event.last_timestamp.as_ref().map(|at| at.0);
    all.sort_by_key(at);
    for event in all.split_off(all.len().saturating_sub(count)) {
        let at = at(&event).map(|at| at.to_string()).unwrap_or_default();
        let object = event.involved_object.name.unwrap_or_default();
        let (reason, message) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        eprintln!("event {at} {object}: {reason}: {message}");
    }
}

async fn logs(cx: &Context, component: &str) {
    let text = System::new(cx).logs(component).await.unwrap_or_else(|error| error.to_string());
    let lines: Vec<_> = text.lines().filter(|line| line.contains(&cx.namespace)).collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("{component}: {line}");
    }
}

async fn list<K>(api: &Api<K>) -> Vec<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
}

fn name(metadata: &kube::api::ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
