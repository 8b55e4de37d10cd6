//! What callers notice of changes while 200 requests a second come: rollouts, and instances that go.

use std::{ops::RangeInclusive, time::Duration};

use anyhow::ensure;
use lambent_tests::{Context, Deployed, function::revision_of, wait::await_condition_for};
use serde_json::json;
use tokio::time::sleep;

use super::{Plan, Rows, hop, on_cluster};
use crate::{
    load::{self, Call, Loop, Open},
    progress,
    row::{Row, Wanted},
    stats::Estimate,
};

const LOAD: Open = Open { rate: 200.0, connections: 1000, patience: Duration::from_secs(30) };
/// 200 requests/s of 20 ms keep 4 slots busy: one instance would do, and a few share it.
const WORK: &str = "/?ms=20";
const MANY: usize = 5;
/// A stall of the load may ask for a second instance.
const FEW: usize = 2;
const MOST: usize = 10;
const PATIENCE: Duration = Duration::from_secs(120);
const CALM: Duration = Duration::from_secs(2);

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    on_cluster("rollout", async |cx: Context| {
        let spec = json!({
            "image": cx.image("slow"), "concurrency": 20, "timeout": "5s",
            "scale": {"min": 2, "max": MOST, "idle": "1s"},
        });
        let function = cx.deploy("changing", spec).await;
        function.await_instances(2).await;
        let times = plan.rounds(5, 1);
        let mut rows = Vec::new();
        for (what, change) in [("rollouts", Change::Rollout), ("scale-downs from 5 instances", Change::ScaleDown)] {
            let running = Loop::start(&hop::target(&cx, &function.path(WORK)).await?, LOAD);
            sleep(CALM).await;
            for n in 0..times {
                progress::say(&format!("{what}: {} of {times}", n + 1));
                change.make(&function, n).await;
                sleep(CALM).await;
            }
            rows.extend(rows_of(&format!("{times} {what}"), &running.end().await?)?);
        }
        Ok(rows)
    })
    .await
}

#[derive(Clone, Copy)]
enum Change {
    Rollout,
    ScaleDown,
}

impl Change {
    /// Makes it and waits until it is done.
    async fn make(self, function: &Deployed, number: usize) {
        match self {
            Self::Rollout => roll_out(function, number).await,
            Self::ScaleDown => {
                function.change(json!({"scale": {"min": MANY}})).await;
                instances(function, MANY..=MOST).await;
                sleep(CALM).await;
                function.change(json!({"scale": {"min": 1}})).await;
                instances(function, 0..=FEW).await;
            }
        }
    }
}

/// Until only the new Revision has instances.
async fn roll_out(function: &Deployed, number: usize) {
    let old = function.serving().await;
    function.change(json!({"env": [{"name": "ROLLOUT", "value": number.to_string()}]})).await;
    await_condition_for(PATIENCE, "the new Revision to be alone", async || {
        let serving = function.status().await?.revision;
        let pods = function.all_pods().await?;
        let of_old = pods.iter().filter(|pod| revision_of(pod) == old).count();
        ensure!(serving.as_ref().is_some_and(|name| *name != old) && of_old == 0, "{serving:?}, {of_old} old pods");
        Ok(())
    })
    .await;
}

async fn instances(function: &Deployed, wanted: RangeInclusive<usize>) {
    await_condition_for(PATIENCE, format!("{wanted:?} instances"), async || {
        let found = function.instances().await?.len();
        ensure!(wanted.contains(&found), "{found}");
        Ok(())
    })
    .await;
}

fn rows_of(what: &str, calls: &[Call]) -> Rows {
    let bad: Vec<&Call> = calls.iter().filter(|call| !call.is_good()).collect();
    if let Some(call) = bad.first() {
        progress::say(&format!(
            "{} of {} failed, such as {:?} at {:.1} s",
            bad.len(),
            calls.len(),
            call.outcome,
            call.due
        ));
    }
    let millis = |p: f64| load::quantile(calls, p).map(|s| Estimate::exact(s * 1e3));
    Ok(vec![
        Row::new(
            format!("failed of {} requests in {what}", calls.len()),
            "requests",
            Estimate::exact(bad.len() as f64),
        )
        .wanted(Wanted::AtMost(0.0)),
        Row::new(format!("p99 in {what}"), "ms", millis(0.99)?),
        Row::new(format!("longest in {what}"), "ms", millis(1.0)?),
    ])
}
