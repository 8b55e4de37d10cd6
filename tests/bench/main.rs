//! `make bench`: the scoreboard. One table with a row for each metric: Lambent, the raw floor beneath
//! it, its peers, the ratio with its interval, and what was wanted.
//!
//! ```text
//! parts: Plan -> rows          load: closed and open loop      local: proxies side by side
//! stats: samples -> estimate   report: rows -> table, JSON, docs/benchmarks.md
//! ```

// One binary: what is public in a module is so for the others only.
#![allow(unreachable_pub)]

mod load;
mod local;
mod machine;
mod parts;
mod process;
mod progress;
mod report;
mod row;
mod stats;
mod train;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use clap::{Parser, Subcommand};
use lambent_tests::command::checkout;
use tokio::task::{self, LocalSet};

use crate::{
    machine::Machine,
    parts::{PARTS, Part, Plan},
    report::{Report, Section},
    row::Row,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Lambent against the raw floor and its peers, in interleaved slices of one run.
///
/// Some parts run on loopback alone, others on the cluster that LAMBENT_TEST_KUBECONFIG, REGISTRY and
/// GATEWAY name; `make bench` brings up the test cluster and sets them. Leave the machine alone
/// meanwhile: the report says how busy it was before. The gateway on loopback has this environment,
/// so that a setting can be tried: LAMBENT_LOG_LEVEL=info,access=off.
#[derive(Debug, Parser)]
#[command(max_term_width = 100, after_help = parts_in_words())]
struct Args {
    /// Only these parts, as in `make bench ONLY=warm,cold` [default: all]
    #[arg(long, env = "ONLY", value_delimiter = ',', value_name = "PART")]
    only: Vec<String>,
    /// A few short slices, to try it out; docs/benchmarks.md stays as it is
    #[arg(long, env = "QUICK", value_parser = clap::builder::FalseyValueParser::new())]
    quick: bool,
    /// How long the overload lasts
    #[arg(long, env = "OVERLOAD_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    overload_seconds: u64,
    /// Folder for bench.json and the logs of local processes [default: bench-report beside this binary]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The function behind the local proxies
    #[command(hide = true)]
    Backend {
        /// Where it listens
        address: SocketAddr,
        /// Speaks HTTP/2 by prior knowledge
        #[arg(long)]
        http2: bool,
    },
    /// The least that a proxy on hyper can be, beside the others
    #[command(hide = true)]
    BareProxy {
        /// Where it listens
        address: SocketAddr,
        /// Where it sends to
        backend: SocketAddr,
    },
    /// Calls a gateway in all ways that are worth to be fast, for the profile that it is built with
    #[command(hide = true)]
    Train,
    /// Succeeds if one of the chosen parts needs a cluster: `make bench` brings one up then
    #[command(hide = true)]
    NeedsCluster,
}

fn parts_in_words() -> String {
    let line = |part: &Part| format!("  {:9} {} (about {} min)\n", part.name, part.about, part.minutes);
    format!("Parts:\n{}", PARTS.iter().map(line).collect::<String>())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.role {
        Some(Role::Backend { address, http2 }) => local::backend::run(*address, *http2).map(|()| true),
        Some(Role::BareProxy { address, backend }) => local::bare::run(*address, *backend).map(|()| true),
        Some(Role::NeedsCluster) => chosen(&args.only).map(|parts| parts.iter().any(|part| part.on_cluster)),
        Some(Role::Train) | None => measure(args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn measure(args: Args) -> anyhow::Result<bool> {
    let tasks = LocalSet::new();
    let work = async {
        match args.role {
            Some(Role::Train) => train::run(&folder(args.out)?).await.map(|()| true),
            _ => measure_all(args).await,
        }
    };
    // Dropping what runs ends the processes that it started.
    tokio::select! {
        outcome = tasks.run_until(work) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    }
}

/// Whether all parts could be measured.
async fn measure_all(args: Args) -> anyhow::Result<bool> {
    let chosen = chosen(&args.only)?;
    let folder = folder(args.out)?;
    let file = folder.join("bench.json");
    let overload = Duration::from_secs(if args.quick { 10 } else { args.overload_seconds });
    let plan = Plan { quick: args.quick, overload, folder };
    let machine = Machine::look();
    progress::say(&machine.to_string());
    let mut report = report::read(&file);
    let (mut sections, mut failed) = (Report::new(), Vec::new());
    for part in chosen {
        progress::say(&format!("{}: {}", part.name, part.about));
        match run(part, plan.clone()).await {
            Ok(rows) => {
                progress::say(&format!("{} is measured", part.name));
                let section = Section { machine: machine.clone(), quick: plan.quick, rows };
                sections.insert(part.name.to_owned(), section.clone());
                report.insert(part.name.to_owned(), section);
                report::write_json(&file, &report)?;
            }
            Err(error) => {
                progress::say(&format!("{} failed: {error:#}", part.name));
                failed.push(part.name);
            }
        }
    }
    let measured = PARTS.iter().filter_map(|part| sections.get(part.name));
    let rows: Vec<Row> = measured.flat_map(|section| section.rows.clone()).collect();
    print!("{}", report::table(&rows));
    if !plan.quick {
        report::write_document(&checkout("docs/benchmarks.md"), &sections)?;
    }
    progress::say(&format!("as JSON in {}", file.display()));
    if !failed.is_empty() {
        eprintln!("bench: not measured: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// Where files of a run go.
fn folder(out: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let folder = match out {
        Some(folder) => folder,
        None => std::env::current_exe()?.with_file_name("bench-report"),
    };
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder.canonicalize()?)
}

/// On a task of its own, so that a part's panic is that part's failure.
async fn run(part: &Part, plan: Plan) -> anyhow::Result<Vec<Row>> {
    task::spawn_local((part.run)(plan)).await.map_err(|error| anyhow!("{error}"))?
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<&'static Part>> {
    let only: Vec<&str> = only.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    let known: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
    for name in &only {
        ensure!(known.contains(name), "there is no part {name:?}; there are {}", known.join(", "));
    }
    Ok(PARTS.iter().filter(|part| only.is_empty() || only.contains(&part.name)).collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        assert_eq!(chosen(&[]).unwrap().len(), PARTS.len());
        assert_eq!(chosen(&["warm".into()]).unwrap()[0].name, "warm");
        assert!(chosen(&["wram".into()]).is_err());
        let needs_cluster = |part: &str| chosen(&[part.into()]).unwrap()[0].on_cluster;
        assert!(!needs_cluster("dev") && needs_cluster("cold"));
    }

    #[test]
    fn the_document_has_a_place_for_each_part() {
        let text = std::fs::read_to_string(checkout("docs/benchmarks.md")).unwrap();
        for part in PARTS {
            assert!(text.contains(&format!("<!-- bench: {} -->\n", part.name)), "{}", part.name);
            assert!(text.contains(&format!("\n<!-- end of {} -->", part.name)), "{}", part.name);
        }
    }
}
