//! Many cold starts at once, against as many raw pods that are created in parallel.

use std::time::Duration;

use anyhow::ensure;
use futures::future::join_all;
use lambent_tests::{Answer, Context, Deployed};
use serde_json::json;
use tokio::time::sleep;

use super::{
    Plan, Rows,
    cold::asleep,
    on_cluster,
    raw::{self, millis},
    shape::{Columns, random_pause, shuffled},
};
use crate::{
    progress,
    row::{Row, Wanted},
    stats::{Estimate, paired},
};

const CROWD: usize = 20;
/// Work of each call where all go to one Function, so that one instance can't serve them all.
const WORK: &str = "/?ms=1000";
const CALM: Duration = Duration::from_secs(1);
const RAW: &str = "raw pods";

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    on_cluster("crowd", async |cx: Context| {
        let mut spec = asleep(&cx, "slow");
        spec["queue"] = json!({"depth": 1000, "timeout": "60s"});
        let one = cx.deploy("one", spec).await;
        progress::say(&format!("deploying {CROWD} Functions"));
        let many = join_all((0..CROWD).map(|n| {
            let cx = cx.clone();
            async move { cx.deploy(&format!("many-{n}"), asleep(&cx, "slow")).await }
        }))
        .await;
        raw::nothing_runs(&cx).await;
        let rounds = plan.rounds(6, 2);
        let mut columns = Columns::default();
        for round in 0..rounds {
            progress::say(&format!("round {} of {rounds}", round + 1));
            for at in shuffled(4) {
                sleep(CALM).await;
                random_pause().await;
                let (name, times) = match at {
                    0 => ("one ours", calls(one.call_at_once(CROWD, WORK).await)?),
                    1 => ("one raw", raw::pods_at_once(&cx, CROWD, &cx.image("slow"), WORK).await?),
                    2 => ("many ours", calls(call_each(&many).await)?),
                    _ => ("many raw", raw::pods_at_once(&cx, CROWD, &cx.image("slow"), "/").await?),
                };
                columns.push(format!("p50 {name}"), Estimate::quantile(&times, 0.5)?.value);
                columns.push(format!("last {name}"), Estimate::quantile(&times, 1.0)?.value);
                raw::clean_up(&cx).await?;
            }
        }
        rows(&columns)
    })
    .await
}

async fn call_each(functions: &[Deployed]) -> Vec<Answer> {
    join_all(functions.iter().map(|function| function.call("/"))).await
}

/// Milliseconds of each call, all of them with 200.
fn calls(answers: Vec<Answer>) -> anyhow::Result<Vec<f64>> {
    let time = |answer: Answer| {
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(millis(answer.took))
    };
    answers.into_iter().map(time).collect()
}

fn rows(columns: &Columns) -> Rows {
    let row = |metric: &str, what: &str, which: &str| -> anyhow::Result<Row> {
        let of = |side: &str| columns.median(&format!("{what} {which} {side}"));
        Ok(Row::new(metric, "ms", of("ours")?).floor(RAW, of("raw")?))
    };
    let both = |key: &str| (columns.of(&format!("{key} ours")), columns.of(&format!("{key} raw")));
    let (one, one_raw) = both("last one");
    let (many, many_raw) = both("last many");
    let per_second = |times: &[f64]| times.iter().map(|ms| CROWD as f64 / ms * 1e3).collect::<Vec<f64>>();
    let (started, started_raw) = (per_second(many), per_second(many_raw));
    Ok(vec![
        row("20 calls of 1 s at once on one Function at zero, p50", "p50", "one")?,
        row("the same, the last one", "last", "one")?.ratio(RAW, paired(one, one_raw)?),
        row("20 Functions at zero called at once, p50", "p50", "many")?,
        Row::new("the same, started per second", "1/s", Estimate::median(&started)?)
            .floor(RAW, Estimate::median(&started_raw)?)
            .ratio(RAW, paired(&started, &started_raw)?)
            .wanted(Wanted::AtLeast(0.9)),
    ])
}
