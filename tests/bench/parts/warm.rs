//! A warm request: what a hop through each proxy costs in time and in processor.

use std::time::Duration;

use super::{
    Plan, Rows,
    shape::{Columns, shuffled},
};
use crate::{
    load::{self, Closed},
    local::{Contestant, Lab},
    process::cpu_seconds,
    progress,
    row::{Row, Wanted},
    stats::{Estimate, differences, paired},
};

const CONNECTIONS: [usize; 2] = [1, 32];
const OURS: &str = "Lambent";
const FLOOR: &str = "direct";
const GO: &str = "Go";
const NGINX: &str = "nginx";

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    let lab = Lab::start(&plan.folder).await?;
    let columns = measure(&lab.contestants, &plan).await?;
    let names: Vec<&str> = lab.contestants.iter().map(|c| c.name).collect();
    rows(&columns, &names)
}

/// Slices of all contestants at each number of connections, in another order in each round.
pub(super) async fn measure(contestants: &[Contestant], plan: &Plan) -> anyhow::Result<Columns> {
    // Short slices and many: what disturbs the machine for seconds disturbs all sides of a round.
    let rounds = plan.rounds(45, 7);
    let window = Duration::from_millis(400);
    let mut columns = Columns::default();
    for round in 0..rounds {
        if round % 5 == 0 {
            progress::say(&format!("round {} of {rounds}", round + 1));
        }
        for at in shuffled(contestants.len() * CONNECTIONS.len()) {
            let contestant = &contestants[at / CONNECTIONS.len()];
            slice(contestant, CONNECTIONS[at % CONNECTIONS.len()], window, &mut columns).await?;
        }
    }
    Ok(columns)
}

async fn slice(
    contestant: &Contestant,
    connections: usize,
    window: Duration,
    columns: &mut Columns,
) -> anyhow::Result<()> {
    let pids = contestant.pids.clone();
    let plan = Closed { connections, warm_up: Duration::from_millis(100), window };
    let slice = load::closed(&contestant.target, plan, move || cpu_seconds(&pids)).await?;
    anyhow::ensure!(slice.failed == 0, "{} calls of {} failed", slice.failed, contestant.name);
    let mut push = |what: &str, value: f64| columns.push(key(what, connections, contestant.name), value);
    push("p50", slice.micros(0.5));
    push("p99", slice.micros(0.99));
    push("rate", slice.rate());
    push("cpu", slice.cpu_micros());
    Ok(())
}

fn key(what: &str, connections: usize, name: &str) -> String {
    format!("{what} {connections} {name}")
}

pub(super) fn rows(columns: &Columns, names: &[&str]) -> Rows {
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let words = in_words(connections);
        for what in ["p50", "p99"] {
            rows.push(with_all(
                Row::new(format!("{what}, {words}"), "µs", ours(columns, what, connections)?),
                columns,
                what,
                connections,
                names,
            )?);
        }
    }
    rows.push(added(columns, names)?);
    let connections = 32;
    let of = |what: &str, name: &str| columns.of(&key(what, connections, name));
    let rate = Row::new("requests/s, 32 connections", "1/s", ours(columns, "rate", connections)?)
        .ratio(FLOOR, paired(of("rate", OURS), of("rate", FLOOR))?)
        .wanted(Wanted::AtLeast(0.35));
    rows.push(with_all(rate, columns, "rate", connections, names)?);
    rows.push(per_cpu_second(columns, names)?);
    Ok(rows)
}

fn ours(columns: &Columns, what: &str, connections: usize) -> anyhow::Result<Estimate> {
    columns.median(&key(what, connections, OURS))
}

fn with_all(mut row: Row, columns: &Columns, what: &str, connections: usize, names: &[&str]) -> anyhow::Result<Row> {
    row = row.floor(FLOOR, columns.median(&key(what, connections, FLOOR))?);
    for name in peers(names) {
        row = row.peer(name, columns.median(&key(what, connections, name))?);
    }
    Ok(row)
}

fn peers<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().filter(|name| ![OURS, FLOOR].contains(name)).collect()
}

pub(super) fn in_words(connections: usize) -> String {
    format!("{connections} connection{}", if connections == 1 { "" } else { "s" })
}

/// What a hop adds at one connection.
fn added(columns: &Columns, names: &[&str]) -> anyhow::Result<Row> {
    let of = |name: &str| differences(columns.of(&key("p50", 1, name)), columns.of(&key("p50", 1, FLOOR)));
    let mut row = Row::new("added to p50, 1 connection", "µs", Estimate::median(&of(OURS))?);
    for name in peers(names) {
        row = row.peer(name, Estimate::median(&of(name))?);
    }
    if names.contains(&GO) {
        row = row.ratio(GO, paired(&of(OURS), &of(GO))?).wanted(Wanted::AtMost(0.5));
    }
    Ok(row)
}

/// What one processor carries.
fn per_cpu_second(columns: &Columns, names: &[&str]) -> anyhow::Result<Row> {
    let of = |name: &str| columns.of(&key("cpu", 32, name)).iter().map(|us| 1e6 / us).collect::<Vec<f64>>();
    let mut row = Row::new("requests per processor second, 32 connections", "1/s", Estimate::median(&of(OURS))?);
    for name in peers(names) {
        row = row.peer(name, Estimate::median(&of(name))?);
    }
    if names.contains(&NGINX) {
        row = row.ratio(NGINX, paired(&of(OURS), &of(NGINX))?).wanted(Wanted::AtLeast(0.7));
    }
    Ok(row)
}
