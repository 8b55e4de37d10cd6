//! `lambent dev`.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use lambent_dev::{Config, EngineChoice, screen::Screen, state_dir};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::interval,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::args::{DevArgs, Engine};

/// How a process ends that was interrupted for good.
const INTERRUPTED: i32 = 130;

/// Runs until Ctrl-C, and then until what runs has ended; a second Ctrl-C does not wait.
pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    let DevArgs { paths, listen, engine, state_dir, drain_seconds, log_level } = args;
    let screen = Screen::default();
    crate::logging::init_screen(screen.clone(), &log_level)?;
    raise_file_limit();
    let config = Config {
        paths,
        listen,
        engine: match engine {
            Engine::Auto => EngineChoice::Auto,
            Engine::Process => EngineChoice::Process,
            Engine::Podman => EngineChoice::Named("podman".to_owned()),
            Engine::Nerdctl => EngineChoice::Named("nerdctl".to_owned()),
            Engine::Docker => EngineChoice::Named("docker".to_owned()),
        },
        state: state_dir::bases(state_dir.as_deref()),
        drain: drain_seconds,
        program: this_program().context("finding this program's own file")?,
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(follow_signals(Signals::new()?, shutdown.clone()));
    tokio::spawn(give_back_memory());
    Ok(lambent_dev::run(config, screen, shutdown).await?)
}

/// For parts of it in processes of their own. It may be installed or built anew while it runs all day, and its
/// parts must understand each other: Linux starts what runs, whatever has become of its file.
fn this_program() -> std::io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() }
}

/// The allocator gives pages that have come free back to the system a second later, and only while it hands out others:
/// after a thousand starts there may be none for hours.
async fn give_back_memory() {
    let mut tick = interval(Duration::from_secs(5));
    loop {
        tick.tick().await;
        // Never touched, so it costs no memory; large enough for pages of its own.
        drop(black_box(Vec::<u8>::with_capacity(1 << 20)));
    }
}

struct Signals {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [int, term, hup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self { int: int?, term: term?, hup: hup? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
            _ = self.hup.recv() => {}
        }
    }
}

async fn follow_signals(mut signals: Signals, shutdown: CancellationToken) {
    signals.next().await;
    info!("stopping when what runs has ended; once more to stop now");
    shutdown.cancel();
    signals.next().await;
    // The supervisors kill all that is left when we are gone.
    std::process::exit(INTERRUPTED);
}

/// Each instance takes a few descriptors; many systems allow 1024 unless asked.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it there are only fewer instances.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
