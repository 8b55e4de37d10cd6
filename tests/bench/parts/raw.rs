//! What a cluster gives without any platform: a pod, from its creation to its first answer.

use std::{
    net::SocketAddr,
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt, future::join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, ListParams, LogParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use lambent_api::meta::LABEL_FUNCTION;
use lambent_tests::{Context, Gateway, Request, wait::await_condition_for};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

const PORT: u16 = 8080;
/// Between two tries of an instance that does not answer yet.
const TRY_EVERY: Duration = Duration::from_millis(1);
/// Between two questions for a log that is not there yet.
const LOG_EVERY: Duration = Duration::from_millis(50);
/// No pod takes this long.
const LIMIT: Duration = Duration::from_secs(60);
/// The Function whose instances stay.
pub const STAYS: &str = "parked";
/// Label of all pods of this kind.
const LABEL: &str = "bench.lambent.dev/raw";

/// Stages of a start, each in milliseconds from the pod's creation.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    /// The process wrote its first line.
    pub process: f64,
    /// The API showed its address.
    pub address: f64,
    /// It had answered.
    pub answered: f64,
}

/// The cheapest pod that meets Pod Security `restricted`: no volume, no probe.
fn bare(name: &str, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {LABEL: name}},
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "function", "image": image,
                "env": [{"name": "PORT", "value": PORT.to_string()}],
                "ports": [{"containerPort": PORT}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// As `kubectl run` makes it: with the token of its service account.
fn as_kubectl_runs_it(name: &str, image: &str) -> Value {
    let mut pod = bare(name, image);
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.remove("automountServiceAccountToken");
        spec.remove("enableServiceLinks");
    }
    pod
}

/// Starts a bare pod and calls it at its own address as soon as the API tells that.
pub async fn pod(cx: &Context, name: &str, image: &str, path: &str) -> anyhow::Result<Stages> {
    created(cx, name, bare(name, image), path).await
}

/// The same on a node that is chosen beforehand: no scheduler looks at it.
pub async fn pod_on(cx: &Context, node: &str, name: &str, image: &str, path: &str) -> anyhow::Result<Stages> {
    let mut pod = bare(name, image);
    pod["spec"]["nodeName"] = node.into();
    created(cx, name, pod, path).await
}

async fn created(cx: &Context, name: &str, pod: Value, path: &str) -> anyhow::Result<Stages> {
    let pods: Api<Pod> = cx.api();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(watcher::watcher(pods.clone(), config).default_backoff());
    // Lists first, so that nothing is missed of what comes after it.
    while !matches!(events.next().await, Some(Ok(watcher::Event::InitDone)) | None) {}
    let (begun, clock) = (Instant::now(), SystemTime::now());
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let address = timeout(LIMIT, async {
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event
                && let Some(ip) = pod.status.and_then(|status| status.pod_ip)
            {
                return Ok(SocketAddr::new(ip.parse()?, PORT));
            }
        }
        bail!("the watch of {name} ended")
    });
    let address = address.await.context("no address")??;
    let known = begun.elapsed();
    answers(&address.to_string(), path).await?;
    let answered = begun.elapsed();
    Ok(Stages { process: process_start(cx, name, clock).await?, address: millis(known), answered: millis(answered) })
}

/// Starts a pod as a user would, and calls it through its Service once that has an endpoint.
pub async fn through_service(cx: &Context, name: &str, image: &str) -> anyhow::Result<Stages> {
    let service: k8s_openapi::api::core::v1::Service = cx
        .create(json!({
            "metadata": {"name": name},
            "spec": {"selector": {LABEL: name}, "ports": [{"port": 80, "targetPort": PORT}]},
        }))
        .await;
    let ip = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
    let pods: Api<Pod> = cx.api();
    let (begun, clock) = (Instant::now(), SystemTime::now());
    pods.create(&PostParams::default(), &serde_json::from_value(as_kubectl_runs_it(name, image))?).await?;
    answers(&format!("{ip}:80"), "/").await?;
    let answered = millis(begun.elapsed());
    Ok(Stages { process: process_start(cx, name, clock).await?, address: f64::NAN, answered })
}

/// Calls until there is an answer with 200.
async fn answers(authority: &str, path: &str) -> anyhow::Result<()> {
    let target = Gateway::new(&format!("http://{authority}"));
    let begun = Instant::now();
    loop {
        match target.try_send(Request::get(path)).await {
            Ok(answer) if answer.status == 200 => return Ok(()),
            outcome => ensure!(begun.elapsed() < LIMIT, "{authority} does not answer: {outcome:?}"),
        }
        sleep(TRY_EVERY).await;
    }
}

/// When a pod's process wrote its first line, by the container runtime's clock, which is this
/// machine's; in milliseconds since `from`.
pub async fn process_start(cx: &Context, pod: &str, from: SystemTime) -> anyhow::Result<f64> {
    let params = LogParams { timestamps: true, ..LogParams::default() };
    let begun = Instant::now();
    // With an agent it has answered before its kubelet knows that it runs.
    let log = loop {
        match cx.api::<Pod>().logs(pod, &params).await {
            Ok(log) if !log.is_empty() => break log,
            outcome => ensure!(begun.elapsed() < LIMIT, "{pod} has no log: {outcome:?}"),
        }
        sleep(LOG_EVERY).await;
    };
    let stamp = log.split_whitespace().next().with_context(|| format!("{pod} has logged nothing"))?;
    let at: jiff::Timestamp = stamp.parse().with_context(|| stamp.to_owned())?;
    let since = at.duration_since(jiff::Timestamp::try_from(from)?);
    Ok(since.as_secs_f64() * 1e3)
}

/// Milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Starts so many bare pods at once; milliseconds until each had answered, counted from the first.
pub async fn pods_at_once(cx: &Context, count: usize, image: &str, path: &str) -> anyhow::Result<Vec<f64>> {
    let starts = (0..count).map(|n| async move {
        let name = format!("raw-{n}");
        pod(cx, &name, image, path).await.map(|stages| stages.answered)
    });
    join_all(starts).await.into_iter().collect()
}

/// Deletes all of these pods and waits until no pod at all is left in the namespace.
pub async fn clean_up(cx: &Context) -> anyhow::Result<()> {
    let all = ListParams::default().labels(LABEL);
    cx.api::<Pod>().delete_collection(&DeleteParams::default(), &all).await?;
    nothing_runs(cx).await;
    Ok(())
}

/// Waits until no pod is left in the namespace, but for those of the Function that keeps some.
pub async fn nothing_runs(cx: &Context) {
    let others = ListParams::default().labels(&format!("{LABEL_FUNCTION}!={STAYS}"));
    await_condition_for(Duration::from_secs(120), "all pods to be gone", async || {
        let left = cx.api::<Pod>().list_metadata(&others).await?.items.len();
        ensure!(left == 0, "{left} pods");
        Ok(())
    })
    .await;
}
