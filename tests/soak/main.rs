//! `make soak`: a steady load on several Functions while faults come at random times, drawn from a
//! seed; checked all the time, decided by pure functions over what was recorded.
//!
//! ```text
//! plan: seed -> schedule -> faults        mix: Functions -> load -> calls
//!                             `-> happenings      |     watch -> samples
//!                                        `-> judge <------'
//!                                               `-> violations -> report
//! ```

// One binary: what is public in a module is so for the others only.
#![allow(unreachable_pub)]

mod book;
mod client;
mod faults;
mod judge;
mod load;
mod mix;
mod plan;
mod progress;
mod record;
mod report;
mod watch;
mod world;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use lambent_tests::{
    Cluster, Context,
    context::{LABEL_TEST, in_namespace},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{
    book::Book,
    load::{Callers, Load},
    plan::Kinds,
    record::{Call, Seconds},
    report::Report,
    world::{World, insist},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After the last fault the load goes on for so long, so that each recovery is seen.
const TAIL: Seconds = 12.0;
/// Calls that are under way at the end.
const LAST_CALLS: Duration = Duration::from_secs(70);
/// All instances are gone by then: idle, and a preStop sleep as long as the longest timeout.
const ZERO_WITHIN: Duration = Duration::from_secs(120);
/// Before the load and after it.
const AROUND: Duration = Duration::from_secs(15 * 60);

/// Puts a steady load on Functions while faults come, and tells what must not have happened.
///
/// Runs on the cluster that LAMBENT_TEST_KUBECONFIG, REGISTRY and GATEWAY name; `make soak` brings up
/// the test cluster and sets them. Processes are killed from the node, so that it must be this
/// machine, and root's. Ends with 1 if there was a violation.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// How long faults come
    #[arg(long, env = "MINUTES", default_value_t = 10.0, value_name = "MINUTES")]
    minutes: f64,
    /// Which schedule; the same seed gives the same faults [default: another one each time]
    #[arg(long, env = "SEED", value_name = "NUMBER")]
    seed: Option<u64>,
    /// Which faults
    #[arg(long, env = "FAULTS", value_enum, default_value = "all")]
    faults: Kinds,
    /// Only print the schedule
    #[arg(long)]
    show: bool,
    /// File for the result as JSON [default: soak.json beside this binary]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was well.
#[tokio::main]
async fn run(args: Args) -> anyhow::Result<bool> {
    let Args { minutes, seed, faults, show, out } = args;
    ensure!((0.1..=10_000.0).contains(&minutes), "--minutes must be between 0.1 and 10000");
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let length = minutes * 60.0;
    if show {
        print_schedule(seed, length, faults);
        return Ok(true);
    }
    progress::say(&format!("seed {seed}, {minutes} minutes, faults: {faults:?}"));
    remove_leftovers().await?;
    let limit = Duration::from_secs_f64(length) + AROUND;
    let report = in_namespace("soak", limit, async |cx: Context| soak(cx, seed, length, faults).await).await?;
    print!("{}", report.table());
    let file = match out {
        Some(file) => file,
        None => std::env::current_exe()?.with_file_name("soak.json"),
    };
    std::fs::write(&file, serde_json::to_vec_pretty(&report)?).with_context(|| file.display().to_string())?;
    progress::say(&format!("as JSON in {}", file.display()));
    Ok(report.violation_count == 0 && !report.interrupted)
}

fn print_schedule(seed: u64, length: Seconds, faults: Kinds) {
    let plan::Schedule { platform, functions } = plan::schedule(seed, length, faults);
    let mut all: Vec<_> = platform.into_iter().chain(functions).collect();
    all.sort_by_key(|planned| planned.number);
    for plan::Planned { number, at, fault } in all {
        println!("{at:>8.1} s  #{number:<4} {fault}");
    }
}

async fn soak(cx: Context, seed: u64, length: Seconds, kinds: Kinds) -> anyhow::Result<Report> {
    let profiles = mix::profiles(&cx);
    progress::say(&format!("{} Functions in {}", profiles.len(), cx.namespace));
    join_all(profiles.iter().map(|profile| cx.deploy(profile.name, profile.spec.clone()))).await;
    let world = Arc::new(World::new(cx, profiles, seed));
    faults::settled(&world).await.context("before the first fault")?;
    let book = Arc::new(Mutex::new(Book::new(world.clone())));
    let (ended, calls) = mpsc::unbounded_channel();
    let callers = Callers::new(world.clone(), ended);
    let watching = tokio::spawn(judge_all_the_time(world.clone(), book.clone(), callers.clone(), calls));
    let load: Vec<Load> = world.profiles.iter().map(|profile| callers.start(profile.name, profile)).collect();
    // Dropping the faults resumes what they have stopped.
    let interrupted = tokio::select! {
        () = faults_to_the_end(&world, &callers, seed, length, kinds) => false,
        _ = tokio::signal::ctrl_c() => true,
    };
    let seconds = world.now();
    drop(load);
    if interrupted {
        progress::say("interrupted: cleaning up");
    } else {
        quiet_again(&world, &callers, &book).await;
    }
    watching.abort();
    let _ = watching.await;
    let mut book = Arc::try_unwrap(book).ok().context("nobody else holds the book")?.into_inner();
    book.finish(world.now());
    Ok(Report::new(seed, seconds, interrupted, book, world.happenings()))
}

async fn faults_to_the_end(world: &Arc<World>, callers: &Arc<Callers>, seed: u64, length: Seconds, kinds: Kinds) {
    let plan::Schedule { platform, functions } = plan::schedule(seed, length, kinds);
    let lane = |planned| faults::inflict_all(world.clone(), callers.clone(), planned, length);
    tokio::join!(lane(platform), lane(functions), world.sleep_until(length));
    world.sleep_until(world.now() + TAIL).await;
}

/// No load: the last calls end, all Functions go to zero, the platform is whole.
async fn quiet_again(world: &Arc<World>, callers: &Arc<Callers>, book: &Mutex<Book>) {
    let ended = insist(LAST_CALLS, "the last calls to end", async || {
        ensure!(callers.under_way() == 0, "{} are under way", callers.under_way());
        Ok(())
    });
    let mut outcomes = vec![("the last calls", ended.await)];
    progress::say("no load any more: back to zero");
    for profile in &world.profiles {
        let change = json!({"scale": {"min": 0, "idle": "1s"}});
        let changed = insist(ZERO_WITHIN, "a change", async || world.change(profile.name, &change).await).await;
        outcomes.push(("back to zero", changed));
    }
    let zero = insist(ZERO_WITHIN, "all instances to go", async || {
        let samples = watch::instances(world).await.context("no answer")?;
        let left: Vec<_> = samples.into_iter().filter(|sample| sample.instances > 0).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    });
    outcomes.push(("back to zero", zero.await));
    outcomes.push(("the platform settles", faults::settled(world).await));
    let mut book = book.lock();
    for (rule, outcome) in outcomes {
        if let Err(error) = outcome {
            book.violation(world.now(), rule, None, format!("{error:#}"), &[]);
        }
    }
}

async fn judge_all_the_time(
    world: Arc<World>,
    book: Arc<Mutex<Book>>,
    callers: Arc<Callers>,
    mut calls: mpsc::UnboundedReceiver<Call>,
) {
    const PLATFORM_EVERY: u32 = 5;
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0u32.. {
        second.tick().await;
        // Looked at before the calls are taken: all that ended before are in the channel.
        let (now, known) = (world.now(), callers.known());
        while let Ok(call) = calls.try_recv() {
            book.lock().take(call);
        }
        book.lock().judge(now, known);
        if let Some(samples) = watch::instances(&world).await {
            book.lock().take_samples(samples);
        }
        if n.is_multiple_of(PLATFORM_EVERY) {
            let pods = watch::platform(&world).await;
            book.lock().platform.extend(pods.into_iter().flatten());
        }
    }
}

/// Namespaces of a run that was killed: what is left in them would go on.
async fn remove_leftovers() -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(Cluster::from_env().await.client);
    let ours = ListParams::default().labels(LABEL_TEST);
    for name in namespaces.list_metadata(&ours).await?.items.into_iter().filter_map(|n| n.metadata.name) {
        if name.starts_with("soak-") {
            namespaces.delete(&name, &DeleteParams::background()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
