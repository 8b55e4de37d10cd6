//! 100 requests at once on a Function at zero that may have 20 instances: how long until the last
//! answer, against somebody who knows the load and chooses the number of pods by hand. That one sets
//! `min` and `max` at the moment in which the requests come.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::join;
use lambent_tests::{Answer, Context, Deployed};
use serde_json::json;
use tokio::time::sleep;

use super::{
    Plan, Rows, on_cluster, raw,
    shape::{Columns, random_pause, shuffled},
};
use crate::{
    progress,
    row::{Row, Wanted},
    stats::paired,
};

const REQUESTS: usize = 100;
const MOST: usize = 20;
const CALM: Duration = Duration::from_secs(2);

/// A kind of work and the numbers of pods to try for it.
struct Work {
    milliseconds: u64,
    pods: Vec<usize>,
    /// The shorter it is, the more the kubelet's second shows.
    rounds: usize,
}

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    let short = |pods| Work { milliseconds: 10, pods, rounds: 10 };
    let long = |pods| Work { milliseconds: 1000, pods, rounds: 6 };
    let works = match plan.quick {
        true => [short(vec![1, 4]), long(vec![20])],
        false => [short(vec![1, 2, 3, 5, 10]), long(vec![10, 15, 20])],
    };
    on_cluster("burst", async |cx: Context| {
        let mut rows = Vec::new();
        for work in &works {
            rows.push(one_kind(&cx, work, plan.rounds(work.rounds, 2)).await?);
        }
        Ok(rows)
    })
    .await
}

async fn one_kind(cx: &Context, work: &Work, rounds: usize) -> anyhow::Result<Row> {
    let milliseconds = work.milliseconds;
    // Two Functions, so that ours doesn't learn from what was done by hand.
    let ours = deploy(cx, &format!("ours-{milliseconds}")).await;
    let by_hand = deploy(cx, &format!("by-hand-{milliseconds}")).await;
    let mut columns = Columns::default();
    for round in 0..rounds {
        progress::say(&format!("{milliseconds} ms: round {} of {rounds}", round + 1));
        for at in shuffled(work.pods.len() + 1) {
            raw::nothing_runs(cx).await;
            sleep(CALM).await;
            random_pause().await;
            let (name, seconds) = match work.pods.get(at) {
                None => ("ours".to_owned(), all_at_once(&ours, milliseconds).await?),
                Some(pods) => (pods.to_string(), fixed(&by_hand, *pods, milliseconds).await?),
            };
            columns.push(name, seconds);
        }
    }
    row(work, &columns)
}

async fn deploy(cx: &Context, name: &str) -> Deployed {
    let spec = json!({
        "image": cx.image("slow"), "concurrency": 1, "timeout": "5s", "queue": {"depth": 1000, "timeout": "120s"},
        "scale": {"min": 0, "max": MOST, "idle": "1s"},
    });
    cx.deploy(name, spec).await
}

/// Seconds from the first request to the last answer.
async fn all_at_once(function: &Deployed, milliseconds: u64) -> anyhow::Result<f64> {
    let started = Instant::now();
    let answers = function.call_at_once(REQUESTS, &format!("/?ms={milliseconds}")).await;
    let seconds = started.elapsed().as_secs_f64();
    let bad: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
    ensure!(bad.is_empty(), "{} of {REQUESTS} failed, such as {:?} {}", bad.len(), bad[0].status, bad[0].text());
    Ok(seconds)
}

async fn fixed(function: &Deployed, pods: usize, milliseconds: u64) -> anyhow::Result<f64> {
    let order = function.change(json!({"scale": {"min": pods, "max": pods}}));
    let ((), seconds) = join(order, all_at_once(function, milliseconds)).await;
    function.change(json!({"scale": {"min": 0, "max": MOST}})).await;
    seconds
}

fn row(work: &Work, columns: &Columns) -> anyhow::Result<Row> {
    let mut best: Option<(usize, f64)> = None;
    for pods in &work.pods {
        let median = columns.median(&pods.to_string())?.value;
        if best.is_none_or(|(_, least)| median < least) {
            best = Some((*pods, median));
        }
    }
    let (best, _) = best.ok_or_else(|| anyhow::anyhow!("no number of pods was tried"))?;
    let metric = format!("100 requests of {} ms at once from zero, the last answer", work.milliseconds);
    let name = |pods: usize| if pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") };
    let mut row = Row::new(metric, "s", columns.median("ours")?);
    for pods in &work.pods {
        row = row.peer(&name(*pods), columns.median(&pods.to_string())?);
    }
    Ok(row.ratio(&name(best), paired(columns.of("ours"), columns.of(&best.to_string()))?).wanted(Wanted::AtMost(1.2)))
}
