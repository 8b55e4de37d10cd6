//! `lambent`: all roles and all commands in one binary.

// One binary: what is public in a module is so for the others only.
#![allow(unreachable_pub)]

mod admin;
mod args;
mod client;
mod commands;
mod healthcheck;
mod lease;
mod logging;
mod roles;

use std::process::ExitCode;

use clap::Parser;
use lambent_dev::reader;
use lambent_fleet::process::supervise;
use tokio::runtime::{Builder, Runtime};

use crate::{
    args::{Cli, Command},
    client::output::{self, ReaderGone},
};

// Without huge pages (its feature `no_thp`): of 2 MiB that a small heap touches a bit of, the kernel
// would give all, which were 12 of an idle gateway's 28 MiB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Parts of `lambent dev`, which are no commands. Before all else: the first is in the way of each cold start.
    match std::env::args_os().nth(1) {
        Some(first) if first == supervise::ARGUMENT => return supervise::main(),
        Some(first) if first == reader::ARGUMENT => return reader::main(),
        _ => {}
    }
    let cli = Cli::parse();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("lambent: a TLS provider was installed already");
    }
    let outcome = runtime(&cli).and_then(|runtime| runtime.block_on(run(cli)));
    // What ended with the runtime has been logged by now.
    logging::flush();
    match outcome {
        Ok(code) => code,
        // As `lambent list | head` would have it.
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lambent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `lambent dev` has one thread for all roles, as their work is little and each thread has a heap of its own:
/// what one has freed another can't use. Callers have the gateway's threads.
fn runtime(cli: &Cli) -> anyhow::Result<Runtime> {
    let mut builder = match cli.command {
        Command::Dev(_) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    Ok(builder.enable_all().build()?)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = match cli.command {
        Command::Invoke(args) => return commands::invoke::run(args).await,
        Command::Dev(args) => roles::dev::run(args).await,
        Command::New(args) => commands::new::run(&args),
        Command::List(args) => commands::list::run(args).await,
        Command::Describe(args) => commands::describe::run(args).await,
        Command::Logs(args) => commands::logs::run(args).await,
        Command::Check(args) => commands::check::run(&args),
        Command::Controller(args) => roles::controller::run(args).await,
        Command::Gateway(args) => roles::gateway::run(args).await,
        Command::Autoscaler(args) => roles::autoscaler::run(args).await,
        Command::Node(args) => roles::node::run(args).await,
        Command::Completions(args) => commands::completions::run(&args),
        Command::Crds => print_crds(),
        Command::Healthcheck(args) => healthcheck::run(&args).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn print_crds() -> anyhow::Result<()> {
    for crd in lambent_api::crd::all() {
        output::print(&format!("---\n{}", serde_yaml::to_string(&crd)?))?;
    }
    Ok(())
}
