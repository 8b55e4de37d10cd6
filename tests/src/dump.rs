//! What is printed of a failed test's namespace, and what Lambent's parts say about it.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use lambent_api::{Function, Revision};

use crate::{
    Context,
    system::{COMPONENTS, System},
};

/// Enough to see what led to the failure.
const LOG_LINES: usize = 40;

/// Prints Functions, Revisions, pods, Events and the log lines that name the namespace.
pub async fn print(cx: &Context) {
    eprintln!("--- namespace {}", cx.namespace);
    functions(cx).await;
    pods(cx).await;
    events(cx).await;
    for component in COMPONENTS {
        logs(cx, component).await;
    }
}

async fn functions(cx: &Context) {
    for function in list::<Function>(cx).await {
        eprintln!("fn {}: {}", name(&function.metadata), json(&function.status));
    }
    for revision in list::<Revision>(cx).await {
        let wanted = revision.spec.instances;
        eprintln!("revision {}: wanted {wanted}, {}", name(&revision.metadata), json(&revision.status));
    }
}

async fn pods(cx: &Context) {
    for pod in list::<Pod>(cx).await {
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

async fn events(cx: &Context) {
    for event in list::<Event>(cx).await {
        let object = event.involved_object.name.unwrap_or_default();
        let (reason, message) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        eprintln!("event {object}: {reason}: {message}");
    }
}

async fn logs(cx: &Context, component: &str) {
    let text = System::new(cx).logs(component).await.unwrap_or_else(|error| error.to_string());
    let lines: Vec<_> = text.lines().filter(|line| line.contains(&cx.namespace)).collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("{component}: {line}");
    }
}

async fn list<K>(cx: &Context) -> Vec<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = cx.api();
    api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
}

fn name(metadata: &kube::api::ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
