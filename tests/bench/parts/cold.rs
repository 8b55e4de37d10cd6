//! A cold start: from a call while nothing runs to its answer. Ways take turns in random order, each
//! after a random pause.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};
use lambent_tests::{Context, Deployed, agents::Agents, await_condition};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Plan, Rows, on_cluster,
    raw::{self, Stages, millis},
    shape::{Columns, random_pause, shuffled},
};
use crate::{
    progress,
    row::{Row, Wanted},
    stats::{Estimate, paired, unpaired},
};

const RAW: &str = "raw pod";
const SERVICE: &str = "pod and Service";
const PLACED: &str = "raw pod, node chosen";
const OURS: &str = "without agent";
const AGENT: &str = "with agent";
const PARKED: &str = "parked";
/// After a cold start the kubelet is still busy with what was cleaned up.
const CALM: Duration = Duration::from_secs(1);

/// Longer than any start: the agents are stopped for no longer.
const LIMIT: Duration = Duration::from_secs(60);

/// A way from nothing to an answer.
enum Way {
    /// A bare pod, called at its address every millisecond from when the API shows that.
    Raw,
    /// The same on this node, chosen beforehand.
    Placed(String),
    /// What `kubectl run` and a Service give.
    Service,
    /// A Function at zero, while no agent tells its instance's address.
    Ours(Box<Deployed>),
    /// A Function at zero.
    WithAgent(Box<Deployed>),
    /// A Function whose one instance is parked.
    Parked(Box<Deployed>),
}

async fn ways(cx: &Context) -> anyhow::Result<Vec<Way>> {
    let nodes: Api<Node> = Api::all(cx.client.clone());
    let node = nodes.list(&ListParams::default()).await?.items.pop().context("no node")?.name_any();
    let function = async |name| Box::new(cx.deploy(name, asleep(cx, "hello")).await);
    let (ours, with_agent) = (function("without").await, function("with").await);
    let mut parked = asleep(cx, "hello");
    parked["scale"]["parked"] = json!(1);
    let parked = Box::new(cx.deploy(raw::STAYS, parked).await);
    let ours = [Way::Ours(ours), Way::WithAgent(with_agent), Way::Parked(parked)];
    Ok([Way::Raw, Way::Placed(node), Way::Service].into_iter().chain(ours).collect())
}

/// A Function that goes to zero as soon as it may, and whose pods go quickly.
pub(super) fn asleep(cx: &Context, example: &str) -> Value {
    json!({"image": cx.image(example), "timeout": "5s", "scale": {"min": 0, "max": 20, "idle": "1s"}})
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Raw => RAW,
            Self::Service => SERVICE,
            Self::Placed(_) => PLACED,
            Self::Ours(_) => OURS,
            Self::WithAgent(_) => AGENT,
            Self::Parked(_) => PARKED,
        }
    }

    async fn start(&self, cx: &Context, agents: &Agents, round: usize) -> anyhow::Result<Stages> {
        match self {
            Self::Raw => raw::pod(cx, &format!("raw-{round}"), &cx.image("hello"), "/").await,
            Self::Service => raw::through_service(cx, &format!("service-{round}"), &cx.image("hello")).await,
            Self::Placed(node) => raw::pod_on(cx, node, &format!("placed-{round}"), &cx.image("hello"), "/").await,
            Self::Ours(function) => {
                // Stopped, not taken away: that would be a change of the cluster in each round.
                let _stopped = agents.freeze(LIMIT).await;
                call(cx, function).await
            }
            Self::WithAgent(function) => call(cx, function).await,
            Self::Parked(function) => thaw(function).await,
        }
    }
}

async fn call(cx: &Context, function: &Deployed) -> anyhow::Result<Stages> {
    let clock = SystemTime::now();
    let answer = function.call("/").await;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    ensure!(answer.was_cold(), "an instance was there already");
    let pod = function.instances().await?.pop().and_then(|pod| pod.metadata.name).context("no instance")?;
    let process = raw::process_start(cx, &pod, clock).await?;
    Ok(Stages { process, address: f64::NAN, answered: millis(answer.took) })
}

/// A call of an instance that is frozen.
async fn thaw(function: &Deployed) -> anyhow::Result<Stages> {
    await_condition("a parked instance", async || {
        let status = function.status().await?;
        ensure!((status.parked, status.ready) == (1, 0), "{} parked, {} ready", status.parked, status.ready);
        Ok(())
    })
    .await;
    random_pause().await;
    let answer = function.call("/").await;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    ensure!(!answer.was_cold() && answer.timing("thaw").is_some(), "it was not thawed: {:?}", answer.headers);
    Ok(Stages { process: f64::NAN, address: f64::NAN, answered: millis(answer.took) })
}

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    on_cluster("cold", async |cx: Context| {
        let (ways, agents) = (ways(&cx).await?, Agents::new(&cx));
        raw::nothing_runs(&cx).await;
        let rounds = plan.rounds(15, 3);
        let mut columns = Columns::default();
        for round in 0..rounds {
            progress::say(&format!("round {} of {rounds}", round + 1));
            for at in shuffled(ways.len()) {
                let way = &ways[at];
                agents.connected().await;
                sleep(CALM).await;
                random_pause().await;
                let stages = way.start(&cx, &agents, round).await.with_context(|| way.name())?;
                columns.push(format!("answered {}", way.name()), stages.answered);
                columns.push(format!("process {}", way.name()), stages.process);
                columns.push(format!("after {}", way.name()), stages.answered - stages.process);
                if matches!(way, Way::Raw) {
                    columns.push("address", stages.address);
                }
                raw::clean_up(&cx).await?;
            }
        }
        rows(&columns)
    })
    .await
}

fn rows(columns: &Columns) -> Rows {
    let of = |what: &str, way: &str| columns.of(&format!("{what} {way}")).to_vec();
    let estimate = |what: &str, way: &str, p: f64| Estimate::quantile(&of(what, way), p);
    let beside = |metric: String, what: &str, way: &str, p: f64| -> anyhow::Result<Row> {
        let row = Row::new(metric, "ms", estimate(what, way, p)?).floor(RAW, estimate(what, RAW, p)?);
        Ok(row.peer(SERVICE, estimate(what, SERVICE, p)?))
    };
    let process = of("process", RAW);
    let mut rows = Vec::new();
    for way in [OURS, AGENT] {
        let (ours, raw) = (of("answered", way), of("answered", RAW));
        let mut median =
            beside(format!("cold start {way}, p50"), "answered", way, 0.5)?.ratio(RAW, paired(&ours, &raw)?);
        let after = beyond(&ours, &process)?;
        let mut after = Row::new(format!("cold start {way} beyond a raw pod's process start, p50"), "ms", after);
        if way == AGENT {
            (median, after) = (median.wanted(Wanted::AtMost(0.4)), after.wanted(Wanted::AtMost(30.0)));
        }
        let p95 = beside(format!("cold start {way}, p95"), "answered", way, 0.95)?;
        rows.extend([median, p95.ratio(RAW, unpaired(&ours, &raw, 0.95)?), after]);
        rows.push(beside(format!("of it until the process runs, {way}, p50"), "process", way, 0.5)?);
        rows.push(beside(format!("of it after the process runs, {way}, p50"), "after", way, 0.5)?);
    }
    let placed = of("process", PLACED);
    let chosen = Row::new("process start of a raw pod on a chosen node, p50", "ms", Estimate::quantile(&placed, 0.5)?);
    rows.push(chosen.floor(RAW, estimate("process", RAW, 0.5)?).ratio(RAW, paired(&placed, &process)?));
    for (metric, p, wanted) in
        [("call of a parked instance, p50", 0.5, 10.0), ("call of a parked instance, p95", 0.95, 25.0)]
    {
        let row = Row::new(metric, "ms", estimate("answered", PARKED, p)?);
        rows.push(row.floor(RAW, estimate("answered", RAW, p)?).wanted(Wanted::AtMost(wanted)));
    }
    rows.push(Row::new("API shows a raw pod's address, p50", "ms", columns.median("address")?));
    Ok(rows)
}

/// The difference of what was measured in the same round.
fn beyond(ours: &[f64], process: &[f64]) -> anyhow::Result<Estimate> {
    Estimate::median(&crate::stats::differences(ours, process))
}
