//! The supervisor: a small process of our own program around each instance. It starts the
//! instance in a session of its own, so that a terminal's Ctrl-C reaches only us; it is the reaper of
//! all that the instance forks, so that nothing is left when the instance ends; and when the
//! connection to the fleet breaks, because that was killed in whatever way, it kills everything.
//! It has neither a runtime nor an allocation worth mentioning: it is in the way of a cold start.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};

use super::control::{Run, Said, Terminate};

/// The argument that leads here.
pub const ARGUMENT: &str = "supervise";
/// While killing: how often it is looked whether something is left, such as what a fork had just begun.
const LOOK_EVERY: Duration = Duration::from_millis(20);

enum News {
    Order(Terminate),
    FleetGone,
    Reaped(Pid, WaitStatus),
    NoneLeft,
}

/// Runs a supervisor. Standard input is the connection to the fleet, which says what to run when
/// there is something.
pub fn main() -> ExitCode {
    let Ok(fleet) = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    let Ok(listener) = fleet.try_clone().map(BufReader::new) else { return ExitCode::FAILURE };
    if fleet.peer_addr().is_err() {
        eprintln!("lambent supervise is how `lambent dev` runs its functions; it is of no use by itself");
        return ExitCode::FAILURE;
    }
    detach();
    run(fleet, listener);
    ExitCode::SUCCESS
}

fn run(mut fleet: UnixStream, mut listener: BufReader<UnixStream>) {
    // The fleet is gone, and nothing was to be run.
    let Ok(run) = Run::read(&mut listener) else { return };
    let Some((program, arguments)) = run.command.split_first() else { return };
    if let Some(directory) = &run.directory
        && let Err(error) = std::env::set_current_dir(directory)
    {
        let words = format!("{}: {error}", directory.to_string_lossy());
        let _ = write!(fleet, "{}", Said::NotStarted(words));
        return;
    }
    let mut command = Command::new(program);
    command.args(arguments).envs(run.env).stdin(Stdio::null()).process_group(0);
    supervise(fleet, listener, program, command);
    if let Some(after) = run.after.and_then(|words| shell_words::split(&words.to_string_lossy()).ok()) {
        clean_up(&after);
    }
}

/// Each step makes it sturdier, and none is needed to run.
fn detach() {
    let _ = rustix::process::setsid();
    #[cfg(target_os = "linux")]
    {
        // Whatever loses its parent becomes our child.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        // `killall lambent` means the one that would be missed.
        let _ = std::fs::write("/proc/self/comm", "fn-supervisor");
    }
}

fn supervise(mut fleet: UnixStream, listener: BufReader<UnixStream>, program: &OsString, mut command: Command) {
    let main = match command.spawn() {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            let words = format!("{}: {error}", program.to_string_lossy());
            let _ = write!(fleet, "{}", Said::NotStarted(words));
            return;
        }
    };
    let _ = write!(fleet, "{}", Said::Started(main.as_raw_nonzero().get()));
    // What it was given is the child's alone now.
    drop(command);
    let (sender, news) = mpsc::channel();
    let (orders, signals) = (sender.clone(), sender.clone());
    thread::spawn(move || listen(listener, &orders));
    thread::spawn(move || follow_signals(&signals));
    thread::spawn(move || reap(&sender));
    let status = until_all_ended(&news, main);
    let said = match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(code), _)) => Said::Code(code),
        Some((_, Some(signal))) => Said::Signal(signal),
        _ => Said::NotStarted("lost sight of it".to_owned()),
    };
    let _ = write!(fleet, "{said}");
}

fn listen(fleet: BufReader<UnixStream>, to: &Sender<News>) {
    for line in fleet.lines() {
        let Ok(line) = line else { break };
        if let Ok(order) = line.parse() {
            let _ = to.send(News::Order(order));
        }
    }
    let _ = to.send(News::FleetGone);
}

/// Somebody means us: everything ends.
fn follow_signals(to: &Sender<News>) {
    let Ok(mut signals) = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP]) else { return };
    if signals.forever().next().is_some() {
        let _ = to.send(News::FleetGone);
    }
}

/// Takes the end of every child, own and adopted, until there is none.
fn reap(to: &Sender<News>) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => drop(to.send(News::Reaped(pid, status))),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                let _ = to.send(News::NoneLeft);
                return;
            }
        }
    }
}

/// How long what still runs is left to itself.
enum Mercy {
    Unlimited,
    Until(Instant),
    None,
}

/// Returns how the main process ended, when nothing is left.
fn until_all_ended(news: &Receiver<News>, main: Pid) -> Option<WaitStatus> {
    let mut mercy = Mercy::Unlimited;
    let mut status = None;
    loop {
        let wait = match mercy {
            Mercy::Unlimited => Duration::from_secs(3600),
            Mercy::Until(deadline) => deadline.saturating_duration_since(Instant::now()),
            Mercy::None => LOOK_EVERY,
        };
        match news.recv_timeout(wait) {
            Ok(News::NoneLeft) | Err(RecvTimeoutError::Disconnected) => return status,
            // What it leaves behind goes with it, as with a container's first process.
            Ok(News::Reaped(pid, how)) if pid == main => (status, mercy) = (Some(how), Mercy::None),
            Ok(News::Reaped(..)) => {}
            Ok(News::Order(Terminate(grace))) => {
                if !matches!(mercy, Mercy::None) {
                    mercy = Mercy::Until(Instant::now() + grace);
                    // The whole group: a shell in between does not pass it on.
                    let _ = kill_process_group(main, Signal::TERM);
                }
            }
            Ok(News::FleetGone) => mercy = Mercy::None,
            Err(RecvTimeoutError::Timeout) => {
                if matches!(mercy, Mercy::Until(_)) {
                    mercy = Mercy::None;
                }
            }
        }
        if matches!(mercy, Mercy::None) {
            kill_all(status.is_none().then_some(main));
        }
    }
}

/// Kills all children; theirs become ours and are killed the next time. `main` names the main
/// process while it is not reaped: later its number may be another's.
fn kill_all(main: Option<Pid>) {
    if let Some(main) = main {
        let _ = kill_process_group(main, Signal::KILL);
    }
    for child in children() {
        let _ = kill_process(child, Signal::KILL);
    }
}

/// Own and adopted. Only Linux tells.
fn children() -> Vec<Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let all: String = lists.collect::<Vec<_>>().join(" ");
    all.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
}

/// What a container engine would leave behind.
fn clean_up(command: &[String]) {
    let Some((program, arguments)) = command.split_first() else { return };
    let quiet = || Stdio::null();
    let _ = Command::new(program).args(arguments).stdin(quiet()).stdout(quiet()).stderr(quiet()).status();
}
