//! `lambent dev`: a cold start against starting the same process by hand, a warm request, many
//! Functions asleep, and many that are called at once.

use std::{
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::json;

use super::{
    Plan, Rows,
    shape::{Columns, random_pause, shuffled},
    warm,
};
use crate::{
    local::{
        Lab,
        dev::{ByHand, Dev, blocking, call},
    },
    process, progress,
    row::{Row, Wanted},
    stats::{Estimate, differences},
};

const BY_HAND: &str = "by hand";
const OURS: &str = "Lambent";
/// Whose memory is measured.
const ASLEEP: usize = 1000;
/// That are called at once.
const CROWD: usize = 100;
/// So long nothing of a Function is left that is only waited for to be asleep.
const ASLEEP_FOR: Duration = Duration::from_millis(300);
/// Longer than any pause between two of a thousand first starts, and than anything of them is remembered.
const SETTLED_FOR: Duration = Duration::from_secs(35);
/// The same for one that has next to nothing to do.
const BEGUN_WITHIN: Duration = Duration::from_secs(4);

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    let mut rows = cold(&plan).await?;
    rows.extend(crowd(&plan).await?);
    rows.extend(memory(&plan).await?);
    Ok(rows)
}

async fn cold(plan: &Plan) -> Rows {
    let dev = Dev::start(&plan.folder, 1, &json!({"scale": {"idle": "1s"}})).await?;
    dev.answers(0..1).await;
    let program = ByHand::program()?;
    let rounds = plan.rounds(30, 5);
    let mut columns = Columns::default();
    for round in 0..rounds {
        progress::say(&format!("cold start: round {} of {rounds}", round + 1));
        for way in shuffled(2) {
            dev.sleeps(ASLEEP_FOR).await;
            random_pause().await;
            match way {
                0 => columns.push(BY_HAND, by_hand(program.clone()).await?),
                _ => columns.push(OURS, through(&dev, 0).await?),
            }
        }
    }
    let (ours, floor) = (columns.of(OURS), columns.of(BY_HAND));
    let at = |p: f64| -> anyhow::Result<Row> {
        let row = Row::new(format!("dev: cold start, p{:.0}", p * 100.0), "ms", Estimate::quantile(ours, p)?);
        Ok(row.floor(BY_HAND, Estimate::quantile(floor, p)?))
    };
    let more = Estimate::median(&differences(ours, floor))?;
    let more = Row::new("dev: cold start beyond a start by hand, p50", "ms", more).wanted(Wanted::AtMost(5.0));
    Ok(vec![at(0.5)?, at(0.95)?, more])
}

/// Milliseconds until a process that is started now has answered.
async fn by_hand(program: PathBuf) -> anyhow::Result<f64> {
    let address = process::free_address()?;
    let (_process, took) = blocking(move || ByHand::start(&program, address)).await?;
    Ok(millis(took))
}

/// Milliseconds until a Function has answered.
async fn through(dev: &Dev, number: usize) -> anyhow::Result<f64> {
    let target = dev.target(number);
    let work = move || {
        let begun = Instant::now();
        call(TcpStream::connect(target.address)?, &target.path)?;
        Ok(millis(begun.elapsed()))
    };
    blocking(work).await
}

/// Measures a warm request as through the gateway, which by itself is one of the peers here.
pub async fn hop(plan: Plan) -> Rows {
    let mut lab = Lab::start(&plan.folder).await?;
    lab.contestants.iter_mut().filter(|way| way.name == OURS).for_each(|way| way.name = "gateway");
    let warm = json!({"concurrency": 1000, "maxBody": "1Gi", "scale": {"min": 1, "max": 1}});
    let dev = Dev::start(&plan.folder, 1, &warm).await?;
    dev.answers(0..1).await;
    lab.contestants.insert(1, dev.contestant());
    let columns = warm::measure(&lab.contestants, &plan).await?;
    let names: Vec<&str> = lab.contestants.iter().map(|way| way.name).collect();
    let mut rows = warm::rows(&columns, &names)?;
    rows.iter_mut().for_each(|row| row.metric.insert_str(0, "dev: "));
    Ok(rows)
}

async fn crowd(plan: &Plan) -> Rows {
    let dev = Dev::start(&plan.folder, CROWD, &json!({"scale": {"idle": "1s"}})).await?;
    dev.answers(0..CROWD).await;
    let program = ByHand::program()?;
    let rounds = plan.rounds(6, 2);
    let (mut columns, mut failed) = (Columns::default(), 0);
    for round in 0..rounds {
        progress::say(&format!("{CROWD} at once: round {} of {rounds}", round + 1));
        for way in shuffled(2) {
            dev.sleeps(ASLEEP_FOR).await;
            let begun = Instant::now();
            if way == 0 {
                let addresses = (0..CROWD).map(|_| process::free_address()).collect::<anyhow::Result<Vec<_>>>()?;
                let starts = addresses.into_iter().map(|address| {
                    let program = program.clone();
                    blocking(move || ByHand::start(&program, address))
                });
                let started = join_all(starts).await;
                columns.push(BY_HAND, millis(begun.elapsed()));
                started.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
            } else {
                let answers = join_all((0..CROWD).map(|number| through(&dev, number))).await;
                columns.push(OURS, millis(begun.elapsed()));
                for error in answers.into_iter().filter_map(Result::err) {
                    progress::say(&format!("a call failed: {error:#}"));
                    failed += 1;
                }
            }
        }
    }
    let calls = rounds * CROWD;
    Ok(vec![
        Row::new(format!("dev: {CROWD} Functions at once from zero, failed of {calls} calls"), "", count(failed))
            .wanted(Wanted::AtMost(0.0)),
        Row::new(format!("dev: {CROWD} Functions at once from zero, the last answer"), "ms", columns.median(OURS)?)
            .floor(BY_HAND, columns.median(BY_HAND)?),
    ])
}

async fn memory(plan: &Plan) -> Rows {
    let rounds = plan.rounds(6, 1);
    let mut columns = Columns::default();
    for round in 0..rounds {
        progress::say(&format!("{ASLEEP} asleep: round {} of {rounds}", round + 1));
        for (name, functions) in [("none", 0), ("one", 1), ("asleep", ASLEEP)] {
            let begun = Instant::now();
            let dev = Dev::start(&plan.folder, functions, &json!({"scale": {"idle": "1s"}})).await?;
            dev.answers(functions.saturating_sub(1)..functions).await;
            columns.push(format!("{name}, load"), begun.elapsed().as_secs_f64());
            dev.sleeps(if functions == ASLEEP { SETTLED_FOR } else { BEGUN_WITHIN }).await;
            columns.push(name, process::resident(&[dev.pid()]));
            columns.push(format!("{name}, heap"), process::anonymous(dev.pid())?);
        }
    }
    let each = |what: &str, base: &str, functions: usize| {
        let more = differences(columns.of(&format!("asleep{what}")), columns.of(&format!("{base}{what}")));
        Estimate::median(&more.iter().map(|kib| kib / functions as f64).collect::<Vec<_>>())
    };
    let empty: Vec<f64> = columns.of("none").iter().map(|kib| kib / 1024.0).collect();
    let bound = Wanted::AtMost(10.0);
    Ok(vec![
        Row::new(
            "dev: memory for each of 1,000 Functions at zero, above an empty one",
            "KiB",
            each("", "none", ASLEEP)?,
        )
        .wanted(bound),
        Row::new("dev: the same, above one with one Function", "KiB", each("", "one", ASLEEP - 1)?).wanted(bound),
        Row::new("dev: of that heap, without pages of the program's file", "KiB", each(", heap", "one", ASLEEP - 1)?),
        Row::new("dev: memory without any Function", "MiB", Estimate::median(&empty)?),
        Row::new("dev: from start to the first answer, with 1,000 manifests", "s", columns.median("asleep, load")?),
    ])
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn count(count: usize) -> Estimate {
    Estimate::exact(count as f64)
}
