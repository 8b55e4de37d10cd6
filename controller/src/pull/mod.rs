//! Images on the nodes before they are needed: short-lived pods through which the kubelets pull them, with the
//! Function's own pull secrets.
//!
//! ```text
//! looks --targets--> Board --+
//! nodes ---------------------+-> one pass: judge the pods, plan -> start and delete pods
//! pull pods -----------------+                                 `-> progress -> Board -> looks -> status
//! ```
//!
//! What is under way is in the pods, what is over is in the Revisions' status. What is only remembered here (which
//! nodes of a round are done) costs pods that find the image there when it is lost.

mod cache;
mod nodes;
mod plan;
mod pods;
mod record;
mod target;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as KubeNode, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
    runtime::{WatchStreamExt, watcher},
};
use lambent_api::{Revision, meta::LABEL_PULL};
use lambent_fleet::{StartError, kube::refusal};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, error::Elapsed, sleep_until, timeout};

use crate::{context::Context, events};
use cache::Cache;
use nodes::Node;
use plan::{Goal, Input, Plan};
pub(crate) use plan::{Outcome, Verdict};
use pods::{PullPod, State};
use record::Record;
pub(crate) use target::{Board, Target, targets};

/// A pass costs a look at all that is not done, so what comes meanwhile waits for the next one.
const PAUSE: Duration = Duration::from_millis(200);
/// Until something that failed for no reason of its own is tried again.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// What the API server may take for one call.
const CALL: Duration = Duration::from_secs(15);
const FIELD_MANAGER: &str = crate::apply::FIELD_MANAGER;

/// Pulls what is on the board, up to `at_once` images at a time. Endless. Where nothing is to be pulled, be it that it
/// was switched off, it takes away the pods of before.
pub(crate) async fn run<F>(context: Arc<Context<F>>, at_once: usize) {
    let mut work = Work::default();
    let mut pods = watched_pods(&context).boxed();
    let mut nodes =
        if context.pulls_ahead() { watched_nodes(&context.client).boxed() } else { stream::pending().boxed() };
    work.nodes_known = !context.pulls_ahead();
    let (mut last, mut due): (_, Option<Instant>) = (Instant::now(), None);
    loop {
        let changed = tokio::select! {
            Some(event) = pods.next() => work.pods.take_in(event, |_, _| false),
            Some(event) = nodes.next() => work.nodes.take_in(event, Node::is_like),
            () = context.pulls.news.notified() => true,
            () = sleep_until(due.unwrap_or(last)), if due.is_some() => {
                last = Instant::now();
                due = work.pass(&context, at_once).await.map(|wait| Instant::now() + wait.max(PAUSE));
                false
            }
        };
        if changed && work.is_complete() {
            let next = (last + PAUSE).max(Instant::now());
            due = Some(due.map_or(next, |due| due.min(next)));
        }
    }
}

fn watched_pods<F>(context: &Context<F>) -> impl Stream<Item = watcher::Event<(String, PullPod)>> + Send + 'static {
    let api: Api<Pod> = match &context.config.namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    watched(api, watcher::Config::default().labels(LABEL_PULL), "pods that pull images", |pod| {
        let pod = pods::pull_pod(&pod)?;
        Some((key(&pod), pod))
    })
}

fn watched_nodes(client: &Client) -> impl Stream<Item = watcher::Event<(String, Node)>> + Send + 'static {
    watched(Api::<KubeNode>::all(client.clone()), watcher::Config::default(), "nodes", |node| {
        Some((node.metadata.name.clone()?, Node::from(&node)))
    })
}

/// Endless: what is lost is watched again. Only what is read of an object is kept.
fn watched<K, V: Send + 'static>(
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
    read: impl Fn(K) -> Option<(String, V)> + Send + 'static,
) -> impl Stream<Item = watcher::Event<(String, V)>> + Send + 'static
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher::watcher(api, config)
        .default_backoff()
        .inspect_err(move |error| tracing::warn!(what, %error, "watch lost; trying again"))
        .filter_map(move |event| {
            future::ready(event.ok().and_then(|event| match event {
                watcher::Event::Init => Some(watcher::Event::Init),
                watcher::Event::InitDone => Some(watcher::Event::InitDone),
                watcher::Event::InitApply(object) => read(object).map(watcher::Event::InitApply),
                watcher::Event::Apply(object) => read(object).map(watcher::Event::Apply),
                watcher::Event::Delete(object) => read(object).map(watcher::Event::Delete),
            }))
        })
}

fn key(pod: &PullPod) -> String {
    format!("{}/{}", pod.revision.namespace, pod.name)
}

#[derive(Default)]
struct Work {
    nodes: Cache<Node>,
    nodes_known: bool,
    pods: Cache<PullPod>,
    /// By the Revision's uid.
    records: HashMap<String, Record>,
}

impl Work {
    fn is_complete(&self) -> bool {
        self.pods.is_complete() && (self.nodes_known || self.nodes.is_complete())
    }

    /// Returns when to come again, if nothing changes before.
    async fn pass<F>(&mut self, context: &Context<F>, at_once: usize) -> Option<Duration> {
        let (now, at) = (std::time::Instant::now(), Timestamp::now());
        let newest = self.nodes.all().values().map(|node| node.created).max();
        // Without a node nothing can be said of any.
        let targets = newest.map_or_else(Vec::new, |newest| context.pulls.targets(newest));
        self.take_note(&targets);
        let over = self.judge(context, at);
        let plan = self.plan(&targets, &over, at_once, now, at);
        for (target, news) in self.news(&targets, &plan) {
            tracing::info!(revision = %target.key(), ?news, "images");
            events::tell_function_of(&context.events, news, &target.revision);
        }
        let (start, again) = (plan.start, plan.again);
        let changed = context.pulls.publish(plan.progress, &targets);
        changed.into_iter().for_each(|function| context.queue.touch(function));
        let starts = start.iter().map(|(i, node)| create(&context.client, &targets[*i].revision, node));
        let stops = over.iter().map(|(_, pod, _)| delete(&context.client, pod));
        let (started, stopped) = future::join(future::join_all(starts), future::join_all(stops)).await;
        let mut failed = self.stopped(&over, &stopped);
        for ((i, node), result) in start.iter().zip(started) {
            failed |= self.started(&targets[*i], node, result);
        }
        let held_back = self.records.values().filter_map(|record| record.backoff.wait(now)).min();
        [again, held_back, failed.then_some(AFTER_ERROR)].into_iter().flatten().min()
    }

    /// Of what is on the board, and of nothing else.
    fn take_note(&mut self, targets: &[Target]) {
        let known: HashSet<&str> = targets.iter().map(Target::uid).collect();
        self.records.retain(|uid, _| known.contains(uid.as_str()));
        for target in targets {
            self.records.entry(target.uid().to_owned()).or_default().take_note(&target.on);
        }
    }

    /// The pods that are to be deleted. What became of them is noted here.
    fn judge<F>(&mut self, context: &Context<F>, at: Timestamp) -> Vec<(String, PullPod, Verdict)> {
        let mut over = Vec::new();
        for (key, pod) in self.pods.all() {
            let record = self.records.get_mut(&pod.revision_uid);
            // After a restart each Function is looked at once before it is known what is wanted.
            let wanted = record.is_some() || (context.pulls_ahead() && !context.pulls.knows(&pod.function()));
            let Some(verdict) = plan::judge(pod, wanted, at) else { continue };
            if let (Some(record), Verdict::Done(outcome)) = (record, &verdict) {
                record.done.insert(pod.node.clone(), outcome.clone());
                record.worked = true;
            }
            context.metrics.image_pull(&verdict);
            over.push((key.clone(), pod.clone(), verdict));
        }
        over
    }

    fn plan(
        &self,
        targets: &[Target],
        over: &[(String, PullPod, Verdict)],
        at_once: usize,
        now: std::time::Instant,
        at: Timestamp,
    ) -> Plan {
        let none = Record::default();
        let goal = |target| {
            let record = self.records.get(Target::uid(target)).unwrap_or(&none);
            let held_back = record.backoff.wait(now).is_some();
            Goal { target, done: &record.done, refused: record.refused.as_ref(), held_back }
        };
        // Plain to see in the plan's input: what is over takes no place any more.
        let over: HashSet<&str> = over.iter().map(|(key, ..)| key.as_str()).collect();
        let pods = self.pods.all().iter().filter(|(key, _)| !over.contains(key.as_str())).map(|(_, pod)| pod);
        plan::plan(&Input {
            at,
            at_once,
            nodes: self.nodes.all(),
            goals: targets.iter().map(goal).collect(),
            pods: pods.collect(),
        })
    }

    fn news<'a>(&mut self, targets: &'a [Target], plan: &Plan) -> Vec<(&'a Target, events::News)> {
        let mut all = Vec::new();
        for target in targets {
            let (Some(record), Some(progress)) = (self.records.get_mut(target.uid()), plan.progress.get(&target.key()))
            else {
                continue;
            };
            let complete = progress.nodes_until.as_ref().map(|time| time.0) > target.until();
            all.extend(record.news(&target.key().name, progress, complete).map(|news| (target, news)));
        }
        all
    }

    /// Whether one has to be deleted once more.
    fn stopped(&mut self, over: &[(String, PullPod, Verdict)], results: &[bool]) -> bool {
        for ((key, ..), _) in over.iter().zip(results).filter(|(_, deleted)| **deleted) {
            self.pods.change(key, |pod| pod.state = State::Stopping);
        }
        results.contains(&false)
    }

    /// Whether it has to be tried again for no reason of its own.
    fn started(&mut self, target: &Target, node: &str, result: Result<Option<PullPod>, StartError>) -> bool {
        let Some(record) = self.records.get_mut(target.uid()) else { return false };
        match result {
            Ok(pod) => {
                record.taken();
                // The watch may be late; without it more would be started than may be.
                if let Some(pod) = pod {
                    self.pods.note(key(&pod), pod);
                }
                false
            }
            Err(StartError::Refused(reason)) => {
                tracing::info!(revision = %target.key(), node, ?reason, "no pod may pull the image");
                record.refused(reason, std::time::Instant::now());
                false
            }
            Err(error) => {
                tracing::warn!(revision = %target.key(), node, %error, "no pod to pull the image");
                record.backoff.failed(std::time::Instant::now());
                true
            }
        }
    }
}

/// None if one of that name is there: the watch tells when it goes.
async fn create(client: &Client, revision: &Revision, node: &str) -> Result<Option<PullPod>, StartError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &revision.key().namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let pod = pods::pod(revision, node);
    match timeout(CALL, api.create(&params, &pod)).await.unwrap_or_else(|late| Err(too_late(late))) {
        Ok(pod) => Ok(pods::pull_pod(&pod)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(error) => Err(refusal::of(error)),
    }
}

/// Whether it is on its way out.
async fn delete(client: &Client, pod: &PullPod) -> bool {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.revision.namespace);
    let preconditions = Some(Preconditions { uid: Some(pod.uid.clone()), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    let error = match timeout(CALL, api.delete(&pod.name, &params)).await.unwrap_or_else(|late| Err(too_late(late))) {
        Ok(_) => return true,
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => return true,
        Err(error) => error,
    };
    tracing::warn!(pod = pod.name, %error, "a pod that pulled an image is not deleted; trying again");
    false
}

fn too_late(late: Elapsed) -> kube::Error {
    kube::Error::Service(Box::new(late))
}
