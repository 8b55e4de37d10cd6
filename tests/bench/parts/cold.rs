//! A cold start: from a call while nothing runs to its answer. Ways take turns in random order, each
//! after a random pause.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use lambent_tests::{Context, Deployed, await_condition};
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
const OURS: &str = "Lambent";
const PARKED: &str = "parked";
/// After a cold start the kubelet is still busy with what was cleaned up.
const CALM: Duration = Duration::from_secs(1);

/// A way from nothing to an answer. One with a node agent, or with a parked instance, is one more
/// [`Way::Function`] in [`ways`], with its own spec and its own row.
enum Way {
    /// A bare pod, called at its address every millisecond from when the API shows that.
    Raw,
    /// What `kubectl run` and a Service give.
    Service,
    /// A Function at zero.
    Function(&'static str, Box<Deployed>),
    /// A Function whose one instance is parked.
    Parked(Box<Deployed>),
}

async fn ways(cx: &Context) -> Vec<Way> {
    let mut ways = vec![Way::Raw, Way::Service];
    ways.push(Way::Function(OURS, Box::new(cx.deploy("cold", asleep(cx, "hello")).await)));
    let mut parked = asleep(cx, "hello");
    parked["scale"]["parked"] = json!(1);
    ways.push(Way::Parked(Box::new(cx.deploy(raw::STAYS, parked).await)));
    ways
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
            Self::Function(name, _) => name,
            Self::Parked(_) => PARKED,
        }
    }

    async fn start(&self, cx: &Context, round: usize) -> anyhow::Result<Stages> {
        match self {
            Self::Raw => raw::pod(cx, &format!("raw-{round}"), &cx.image("hello"), "/").await,
            Self::Service => raw::through_service(cx, &format!("service-{round}"), &cx.image("hello")).await,
            Self::Function(_, function) => call(cx, function).await,
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
        let ways = ways(&cx).await;
        raw::nothing_runs(&cx).await;
        let rounds = plan.rounds(20, 3);
        let mut columns = Columns::default();
        for round in 0..rounds {
            progress::say(&format!("round {} of {rounds}", round + 1));
            for at in shuffled(ways.len()) {
                let way = &ways[at];
                sleep(CALM).await;
                random_pause().await;
                let stages = way.start(&cx, round).await.with_context(|| way.name())?;
                columns.push(format!("answered {}", way.name()), stages.answered);
                columns.push(format!("process {}", way.name()), stages.process);
                columns.push(format!("after {}", way.name()), stages.answered - stages.process);
                if stages.address.is_finite() {
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
    let row = |metric: &str, what: &str, p: f64| -> anyhow::Result<Row> {
        let estimate = |way: &str| Estimate::quantile(&of(what, way), p);
        Ok(Row::new(metric, "ms", estimate(OURS)?).floor(RAW, estimate(RAW)?).peer(SERVICE, estimate(SERVICE)?))
    };
    let (ours, raw) = (of("answered", OURS), of("answered", RAW));
    Ok(vec![
        row("cold start, p50", "answered", 0.5)?.ratio(RAW, paired(&ours, &raw)?),
        row("cold start, p95", "answered", 0.95)?.ratio(RAW, unpaired(&ours, &raw, 0.95)?),
        row("of it until the process runs, p50", "process", 0.5)?,
        row("of it after the process runs, p50", "after", 0.5)?,
        Row::new("cold start after a raw pod's process start, p50", "ms", beyond(&ours, &of("process", RAW))?)
            .wanted(Wanted::AtMost(30.0)),
        Row::new("call of a parked instance, p50", "ms", Estimate::median(&of("answered", PARKED))?)
            .floor(RAW, Estimate::median(&raw)?)
            .wanted(Wanted::AtMost(10.0)),
        Row::new("call of a parked instance, p95", "ms", Estimate::quantile(&of("answered", PARKED), 0.95)?)
            .floor(RAW, Estimate::quantile(&raw, 0.95)?)
            .wanted(Wanted::AtMost(25.0)),
        Row::new("API shows a raw pod's address, p50", "ms", columns.median("address")?),
    ])
}

/// The difference of what was measured in the same round.
fn beyond(ours: &[f64], process: &[f64]) -> anyhow::Result<Estimate> {
    Estimate::median(&crate::stats::differences(ours, process))
}
