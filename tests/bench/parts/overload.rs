//! Five times more than a Function can serve: what is still served, what is refused and how fast,
//! what a neighbour notices, what it costs the gateway's memory, and how soon it is over.

use std::time::Duration;

use anyhow::ensure;
use lambent_tests::Context;
use serde_json::json;
use tokio::time::{interval, sleep};

use super::{Plan, Rows, hop, on_cluster};
use crate::{
    load::{self, Call, Closed, Loop, Open, Target},
    process, progress,
    row::{Row, Wanted},
    stats::{Estimate, unpaired},
};

const TIMES: f64 = 5.0;
/// Goodput and capacity are compared in windows of so many seconds.
const WINDOW: f64 = 2.0;
/// 2 instances, 4 at once each, of 50 ms: what they can serve is far below what the machine can.
const SLOTS: usize = 8;
const WORK: &str = "/?ms=50";
/// Normal is an answer with 200 in less than this.
const NORMAL: f64 = 0.1;
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a caller who looks whether all is well: enough to see an end to 50 ms.
const LOOK: Open = Open { rate: 20.0, connections: 50, patience: PATIENCE };

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    on_cluster("overload", async |cx: Context| {
        let scale = json!({"min": 2, "max": 2});
        let queue = json!({"depth": 200, "timeout": "2s"});
        let spec = json!({"image": cx.image("slow"), "concurrency": 4, "scale": scale, "queue": queue});
        let busy = cx.deploy("busy", spec).await;
        let neighbour = json!({"image": cx.image("hello"), "concurrency": 10, "scale": {"min": 1, "max": 1}});
        let neighbour = cx.deploy("neighbour", neighbour).await;
        let target = hop::target(&cx, &busy.path(WORK)).await?;
        let next_door = hop::target(&cx, &neighbour.path("/")).await?;
        let gateways = hop::processes(&cx, "gateway").await?;
        let seen = observe(&target, &next_door, &gateways, plan.overload).await?;
        rows(&seen)
    })
    .await
}

/// What was seen.
struct Seen {
    /// Answers with 200 a second, in windows.
    capacity: Vec<f64>,
    goodput: Vec<f64>,
    calls: Vec<Call>,
    calm_neighbour: Vec<Call>,
    neighbour: Vec<Call>,
    /// MiB.
    memory_before: f64,
    memory: f64,
    /// Seconds.
    recovery: f64,
}

async fn observe(target: &Target, next_door: &Target, gateways: &[u32], length: Duration) -> anyhow::Result<Seen> {
    let windows = (length.as_secs_f64() / WINDOW / 4.0).ceil() as usize;
    progress::say("capacity, and a neighbour in peace");
    let neighbour = Loop::start(next_door, LOOK);
    let mut capacity = measure_capacity(target, windows).await?;
    let calm_neighbour = neighbour.end().await?;
    let rate = TIMES * Estimate::median(&capacity)?.value;
    progress::say(&format!("{rate:.0} requests/s for {} s", length.as_secs()));
    let memory_before = process::resident(gateways) / 1024.0;
    let neighbour = Loop::start(next_door, LOOK);
    let overload = Loop::start(target, Open { rate, connections: 4000, patience: PATIENCE });
    let memory = most_memory(gateways, length).await;
    let looked_from = neighbour.now();
    overload.stop();
    let look = Loop::start(target, LOOK);
    sleep(Duration::from_secs(5)).await;
    let recovery = recovery(&look.end().await?)?;
    let calls = overload.end().await?;
    let mut neighbour = neighbour.end().await?;
    neighbour.retain(|call| call.due < looked_from);
    progress::say("capacity again");
    capacity.extend(measure_capacity(target, windows).await?);
    let goodput = goodput(&calls, length.as_secs_f64());
    Ok(Seen { capacity, goodput, calls, calm_neighbour, neighbour, memory_before, memory, recovery })
}

/// As many connections as there are slots and a few more: always busy, hardly a queue.
async fn measure_capacity(target: &Target, windows: usize) -> anyhow::Result<Vec<f64>> {
    let plan = Closed {
        connections: SLOTS + SLOTS / 2,
        warm_up: Duration::from_millis(500),
        window: Duration::from_secs_f64(WINDOW),
    };
    let mut rates = Vec::new();
    for _ in 0..windows.max(1) {
        let slice = load::closed(target, plan, || 0.0).await?;
        ensure!(slice.failed == 0, "{} calls failed at capacity", slice.failed);
        rates.push(slice.rate());
    }
    Ok(rates)
}

/// MiB, looked at ten times a second.
async fn most_memory(pids: &[u32], length: Duration) -> f64 {
    let mut ticks = interval(Duration::from_millis(100));
    let mut most: f64 = 0.0;
    for _ in 0..length.as_millis() / 100 {
        ticks.tick().await;
        most = most.max(process::resident(pids) / 1024.0);
    }
    most
}

/// Answers with 200 a second by when they came; the first window is the queue's filling up.
fn goodput(calls: &[Call], length: f64) -> Vec<f64> {
    let windows = (length / WINDOW).floor() as usize;
    let in_window = |n: usize| {
        let (from, to) = (n as f64 * WINDOW, (n + 1) as f64 * WINDOW);
        calls.iter().filter(|call| call.is_good() && (from..to).contains(&call.done())).count() as f64 / WINDOW
    };
    (1..windows).map(in_window).collect()
}

/// Seconds until the first call from which on all were normal.
fn recovery(calls: &[Call]) -> anyhow::Result<f64> {
    let bad = |call: &&Call| !call.is_good() || call.took > NORMAL;
    let last_bad = calls.iter().rposition(|call| bad(&call));
    let first_normal = last_bad.map_or(0, |at| at + 1);
    let call = calls.get(first_normal);
    call.map(|call| call.due).ok_or_else(|| anyhow::anyhow!("not normal after 5 s: {:?}", calls.last()))
}

fn rows(seen: &Seen) -> Rows {
    let of_status = |status: u16| -> Vec<f64> {
        let chosen = seen.calls.iter().filter(|call| call.outcome == Ok(status));
        chosen.map(|call| call.took * 1e3).collect()
    };
    let (good, refused) = (of_status(200), of_status(429));
    let all = seen.calls.len();
    let others = all - good.len() - refused.len();
    let millis = |calls: &[Call], p: f64| load::quantile(calls, p).map(|s| Estimate::exact(s * 1e3));
    let not_good = seen.neighbour.iter().filter(|call| !call.is_good()).count();
    let mut rows = vec![
        Row::new("goodput at 5 times the capacity", "1/s", Estimate::median(&seen.goodput)?)
            .floor("capacity", Estimate::median(&seen.capacity)?)
            .ratio("capacity", unpaired(&seen.goodput, &seen.capacity, 0.5)?)
            .wanted(Wanted::AtLeast(0.95)),
        Row::new("share of 429", "%", Estimate::exact(refused.len() as f64 / all as f64 * 100.0)),
        Row::new("neither 200 nor 429", "requests", Estimate::exact(others as f64)).wanted(Wanted::AtMost(0.0)),
        Row::new("time of a 200, p50", "ms", Estimate::quantile(&good, 0.5)?),
        Row::new("time of a 200, p99", "ms", Estimate::quantile(&good, 0.99)?),
    ];
    if !refused.is_empty() {
        rows.push(Row::new("time of a 429, p50", "ms", Estimate::quantile(&refused, 0.5)?));
        rows.push(Row::new("time of a 429, p99", "ms", Estimate::quantile(&refused, 0.99)?));
    }
    rows.extend([
        Row::new("neighbour's p50 meanwhile", "ms", millis(&seen.neighbour, 0.5)?)
            .floor("in peace", millis(&seen.calm_neighbour, 0.5)?),
        Row::new("neighbour's p99 meanwhile", "ms", millis(&seen.neighbour, 0.99)?)
            .floor("in peace", millis(&seen.calm_neighbour, 0.99)?),
        Row::new("neighbour's failed requests", "requests", Estimate::exact(not_good as f64))
            .wanted(Wanted::AtMost(0.0)),
        Row::new("gateway's most memory", "MiB", Estimate::exact(seen.memory))
            .floor("before", Estimate::exact(seen.memory_before)),
        Row::new("until all is normal again", "s", Estimate::exact(seen.recovery)),
    ]);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(due: f64, took: f64, status: u16) -> Call {
        Call { due, took, outcome: Ok(status) }
    }

    #[test]
    fn it_is_over_when_no_later_call_is_bad() {
        let calls = [call(0.0, 0.06, 200), call(0.1, 0.5, 200), call(0.2, 0.0, 429), call(0.3, 0.06, 200)];
        assert_eq!(recovery(&calls).unwrap(), 0.3);
        assert_eq!(recovery(&calls[..1]).unwrap(), 0.0);
        assert!(recovery(&calls[..3]).is_err());
    }

    #[test]
    fn goodput_counts_answers_when_they_come() {
        let calls = [call(1.0, 1.5, 200), call(2.0, 0.1, 429), call(3.0, 0.5, 200), call(3.9, 1.0, 200)];
        assert_eq!(goodput(&calls, 6.0), [1.0, 0.5]);
    }
}
