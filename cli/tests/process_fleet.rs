//! Processes of this machine keep the contract that every kind of fleet keeps, and leave nothing
//! behind. With the real binary as supervisor.

#![allow(clippy::unwrap_used)] // Helpers of tests.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lambent_api::{FunctionSpec, InstanceRef};
use lambent_fleet::{
    Fleet, Instance, Order, Phase, Stop, contract,
    contract::Watch,
    process::{
        Config, ProcessFleet,
        engine::Engines,
        output::{Channel, Output},
        task::{Task, TaskError},
    },
};
use parking_lot::Mutex;
use serde_json::json;

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3600);

/// Keeps what instances write.
#[derive(Default)]
struct Kept(Mutex<Vec<(Channel, String)>>);

impl Output for Kept {
    fn lines(&self, _: &Instance, channel: Channel, lines: &[String]) {
        self.0.lock().extend(lines.iter().map(|line| (channel, line.clone())));
    }
}

struct Machine {
    fleet: ProcessFleet,
    output: Arc<Kept>,
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let output = Arc::new(Kept::default());
        let supervisor = PathBuf::from(env!("CARGO_BIN_EXE_lambent"));
        let fleet = ProcessFleet::new(Config { supervisor, engine: Arc::new(Engines::Off), output: output.clone() });
        Self { fleet, output, directory: tempfile::tempdir().unwrap() }
    }

    /// An order for `sh -c SCRIPT` in a directory of its own. A dollar before a dollar is a
    /// cluster's way to write one.
    fn script(&self, number: u32, script: &str) -> Order {
        self.order(number, &["sh", "-c", &script.replace("$$", "$$$$")])
    }

    fn order(&self, number: u32, command: &[&str]) -> Order {
        let template = json!({
            "image": "process.lambent.dev/contract@sha256:0",
            "command": command,
            "workingDir": self.directory.path(),
        });
        let spec: FunctionSpec = serde_json::from_value(template.clone()).unwrap();
        let revision = json!({
            "apiVersion": "lambent.dev/v1alpha1",
            "kind": "Revision",
            "metadata": {"namespace": "shop", "name": "contract-0123456789", "uid": "u"},
            "spec": {"function": "contract", "template": template},
        });
        Order {
            name: format!("contract-0123456789-{number}"),
            revision: Arc::new(serde_json::from_value(revision).unwrap()),
            settings: Arc::new((&spec).try_into().unwrap()),
        }
    }

    fn sleeper(&self, number: u32) -> Order {
        self.order(number, &["sleep", "1000"])
    }

    async fn start(&self, order: &Order) -> (Watch, Instance) {
        let mut watch = Watch::new(&self.fleet);
        self.fleet.start(order).await.unwrap();
        let running = watch.until("it to run", |i| i.id.name == order.name && i.phase == Phase::Running).await;
        (watch, running)
    }

    /// The process ids that the script wrote into this file.
    async fn pids(&self, file: &str, count: usize) -> Vec<i32> {
        let path = self.directory.path().join(file);
        let pids = || -> Vec<i32> {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.lines().filter_map(|line| line.parse().ok()).collect()
        };
        until("the processes to say who they are", || pids().len() >= count).await;
        pids()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let search = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), search)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"));
}

fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with('Z')
}

#[tokio::test]
async fn an_ordered_process_is_shown_until_it_runs() {
    let machine = Machine::new();
    contract::an_ordered_instance_is_shown_until_it_runs(&machine.fleet, &machine.sleeper(0)).await;
}

#[tokio::test]
async fn a_repeated_order_makes_no_second_process() {
    let machine = Machine::new();
    contract::a_repeated_order_makes_no_second_instance(&machine.fleet, &machine.sleeper(0)).await;
}

#[tokio::test]
async fn a_stopped_process_is_shown_until_it_is_gone() {
    let machine = Machine::new();
    contract::a_stopped_instance_is_shown_until_it_is_gone(&machine.fleet, &machine.sleeper(0)).await;
}

#[tokio::test]
async fn stopping_a_past_process_spares_the_new_one_of_its_name() {
    let machine = Machine::new();
    contract::stopping_a_past_instance_spares_the_new_one_of_its_name(&machine.fleet, &machine.sleeper(0)).await;
}

#[tokio::test]
async fn a_new_watch_of_processes_says_everything_and_then_complete() {
    let machine = Machine::new();
    let (one, other) = (machine.sleeper(0), machine.sleeper(1));
    contract::a_new_watch_says_everything_and_then_complete(&machine.fleet, &one, &other).await;
}

#[tokio::test]
async fn a_process_killed_by_someone_else_is_shown_and_started_again() {
    let machine = Machine::new();
    let order = machine.script(0, "echo $$ >>pids; exec sleep 1000");
    let outside = async |_: InstanceRef| {
        let process = machine.pids("pids", 1).await[0];
        let process = rustix::process::Pid::from_raw(process).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    };
    let again = |instance: &Instance| (instance.phase == Phase::Running) && instance.restarts == 1;
    contract::an_instance_ended_by_someone_else_is_shown_so(&machine.fleet, &order, outside, again).await;
    assert!(machine.pids("pids", 1).await.iter().all(|pid| !runs(*pid)));
}

#[tokio::test]
async fn a_process_whose_port_is_taken_while_it_is_down_has_to_be_replaced() {
    let machine = Machine::new();
    // It does not listen, so that somebody else can.
    let script = "echo $PORT >port; while [ ! -e go ]; do sleep 0.01; done; exit 3";
    let (mut watch, running) = machine.start(&machine.script(0, script)).await;
    let port = machine.pids("port", 1).await[0];
    let listener = std::net::TcpListener::bind(("0.0.0.0", u16::try_from(port).unwrap())).unwrap();
    std::fs::write(machine.directory.path().join("go"), "").unwrap();
    let ended = watch.until("it to be given up", |i| matches!(i.phase, Phase::Ended(_))).await;
    let Phase::Ended(reason) = &ended.phase else { panic!() };
    assert_eq!(reason.reason, "PortTaken");
    assert!(reason.message.contains(&format!("port {port} was taken")), "{}", reason.message);
    assert!(!ended.counts() && ended.connectable().is_none());
    // The one that replaces it gets another.
    let (_, other) = machine.start(&machine.script(1, "exec sleep 1000")).await;
    assert_ne!(other.address.unwrap().port(), listener.local_addr().unwrap().port());
    for instance in [running, other] {
        machine.fleet.stop("shop", &instance.id, Stop::Idle).await.unwrap();
        watch.until_gone(&instance.id).await;
    }
}

#[tokio::test]
async fn nothing_that_was_forked_survives_a_stop() {
    let machine = Machine::new();
    // A child, and a grandchild in a session of its own whose parent is gone; none minds SIGTERM.
    let script = "trap '' TERM; sleep 1000 & echo $! >>pids; \
                  (setsid sh -c 'trap \"\" TERM; echo $$ >>pids; sleep 1000' &) ; echo $$ >>pids; wait; wait";
    let (mut watch, running) = machine.start(&machine.script(0, script)).await;
    let pids = machine.pids("pids", 3).await;
    assert!(pids.iter().all(|pid| runs(*pid)));
    machine.fleet.stop("shop", &running.id, Stop::Idle).await.unwrap();
    watch.until_gone(&running.id).await;
    assert_eq!(pids.iter().filter(|pid| runs(**pid)).count(), 0);
}

#[tokio::test]
async fn what_a_process_leaves_behind_when_it_ends_goes_with_it() {
    let machine = Machine::new();
    let (mut watch, running) = machine
        .start(
            &machine.script(0, "(setsid sleep 1000 & echo $! >>pids); [ -e go ] || { touch go; exit 3; }; sleep 1000"),
        )
        .await;
    let pids = machine.pids("pids", 1).await;
    watch.until("it to run again", |i| i.restarts == 1 && i.phase == Phase::Running).await;
    assert!(!runs(pids[0]));
    machine.fleet.stop("shop", &running.id, Stop::Idle).await.unwrap();
    watch.until_gone(&running.id).await;
}

#[tokio::test]
async fn a_process_that_keeps_crashing_fails_with_its_last_words_and_is_tried_again() {
    let machine = Machine::new();
    let (mut watch, running) = machine.start(&machine.script(0, "echo working; echo no database >&2; exit 7")).await;
    let failing = watch.until("it to fail", |i| matches!(i.phase, Phase::Failing(_))).await;
    let Phase::Failing(reason) = failing.phase else { panic!() };
    assert_eq!(reason.reason, "CrashLoopBackOff");
    assert!(reason.message.starts_with("exit code 7: no database; next try in"), "{}", reason.message);
    assert!(machine.output.0.lock().contains(&(Channel::Stdout, "working".to_owned())));
    watch.until("another try", |i| i.restarts == 2 && i.phase == Phase::Running).await;
    machine.fleet.stop("shop", &running.id, Stop::Idle).await.unwrap();
    watch.until_gone(&running.id).await;
}

#[tokio::test]
async fn a_command_that_is_not_there_fails_with_its_name() {
    let machine = Machine::new();
    let mut watch = Watch::new(&machine.fleet);
    machine.fleet.start(&machine.order(0, &["no-such-command"])).await.unwrap();
    let failing = watch.until("it to fail", |i| matches!(i.phase, Phase::Failing(_))).await;
    let Phase::Failing(reason) = failing.phase else { panic!() };
    assert_eq!(reason.reason, "CommandNotFound");
    assert!(reason.message.starts_with("no-such-command: no such program on PATH"), "{}", reason.message);
    machine.fleet.stop("shop", &failing.id, Stop::Idle).await.unwrap();
    watch.until_gone(&failing.id).await;
}

#[tokio::test]
async fn a_process_that_is_killed_is_told_by_its_signal() {
    let machine = Machine::new();
    let (mut watch, running) = machine.start(&machine.script(0, "kill -9 $$")).await;
    let failing = watch.until("it to fail", |i| matches!(i.phase, Phase::Failing(_))).await;
    let Phase::Failing(reason) = failing.phase else { panic!() };
    assert!(reason.message.starts_with("ended by signal 9"), "{}", reason.message);
    machine.fleet.stop("shop", &running.id, Stop::Idle).await.unwrap();
    watch.until_gone(&running.id).await;
}

#[tokio::test]
async fn the_end_of_the_fleet_waits_for_all_and_takes_no_order() {
    let machine = Machine::new();
    let script = "trap 'echo bye; exit 0' TERM; echo $$ >>pids; while :; do sleep 0.01; done";
    for number in 0..5 {
        machine.fleet.start(&machine.script(number, script)).await.unwrap();
    }
    let pids = machine.pids("pids", 5).await;
    machine.fleet.end(Duration::from_secs(30)).await;
    assert_eq!(pids.iter().filter(|pid| runs(**pid)).count(), 0);
    assert_eq!(machine.output.0.lock().iter().filter(|(_, line)| line == "bye").count(), 5);
    assert!(machine.fleet.start(&machine.sleeper(9)).await.is_err());
}

#[tokio::test]
async fn a_supervisor_that_is_killed_leaves_no_process() {
    let machine = Machine::new();
    let (mut watch, running) =
        machine.start(&machine.script(0, "echo $$ >>pids; echo $PPID >>supervisors; exec sleep 1000")).await;
    let process = machine.pids("pids", 1).await[0];
    let supervisor = machine.pids("supervisors", 1).await[0];
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    watch.until("it to run again", |i| i.restarts == 1 && i.phase == Phase::Running).await;
    until("the process to end", || !runs(process)).await;
    machine.fleet.stop("shop", &running.id, Stop::Idle).await.unwrap();
    watch.until_gone(&running.id).await;
}

/// As when it is killed before it could say what it has started.
#[tokio::test]
async fn a_supervisor_that_is_killed_leaves_no_process_that_it_has_not_told_of() {
    let machine = Machine::new();
    let program = "import os, time
open('supervisors', 'a').write(f'{os.getppid()}\\n')
os.fork() or os.setpgid(0, 0)
open('pids', 'a').write(f'{os.getpid()}\\n')
time.sleep(1000)";
    let (mut watch, running) = machine.start(&machine.order(0, &["python3", "-c", program])).await;
    let processes = machine.pids("pids", 2).await;
    let supervisor = machine.pids("supervisors", 1).await[0];
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    watch.until("it to run again", |i| i.restarts == 1 && i.phase == Phase::Running).await;
    until("the processes to end", || !processes.iter().any(|pid| runs(*pid))).await;
    machine.fleet.stop("shop", &running.id, Stop::Idle).await.unwrap();
    watch.until_gone(&running.id).await;
}

fn task(machine: &Machine, script: &str) -> Task {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    Task { program: "sh".to_owned(), arguments, directory: machine.directory.path().to_owned() }
}

#[tokio::test]
async fn a_task_ends_with_its_code_and_its_lines_are_told() {
    let machine = Machine::new();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = lines.clone();
    let output = move |channel, new: &[String]| kept.lock().extend(new.iter().map(|line| (channel, line.clone())));
    let run = machine.fleet.run_task(task(&machine, "echo a; echo b >&2; exit 3"), HOUR, output, ());
    assert_eq!(run.await, Err(TaskError::Failed("exit code 3".to_owned())));
    let mut lines = lines.lock().clone();
    lines.sort_by_key(|(_, line)| line.clone());
    assert_eq!(lines, [(Channel::Stdout, "a".to_owned()), (Channel::Stderr, "b".to_owned())]);
    let good = machine.fleet.run_task(task(&machine, "true"), HOUR, |_, _: &[String]| {}, ());
    assert_eq!(good.await, Ok(()));
}

#[tokio::test]
async fn a_task_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    let machine = Machine::new();
    let script = "trap : TERM; setsid sleep 1000 & echo $! > pids; echo $$ >> pids; while :; do sleep 1; done";
    let limit = Duration::from_secs(1);
    let run = machine.fleet.run_task(task(&machine, script), limit, |_, _: &[String]| {}, ());
    assert_eq!(run.await, Err(TaskError::TooLong(limit)));
    assert!(machine.pids("pids", 2).await.into_iter().all(|pid| !runs(pid)));
}

#[tokio::test]
async fn of_a_task_that_nobody_waits_for_nothing_is_left_before_the_next_has_its_turn() {
    let machine = Machine::new();
    let turns = Arc::new(tokio::sync::Semaphore::new(1));
    let turn = turns.clone().acquire_owned().await.unwrap();
    let run = task(&machine, "setsid sleep 1000 & echo $! > pids; echo $$ >> pids; wait");
    let run = machine.fleet.run_task(run, HOUR, |_, _: &[String]| {}, turn);
    let pids = tokio::select! {
        _ = run => panic!("it has ended"),
        pids = machine.pids("pids", 2) => pids,
    };
    let _next = turns.acquire().await.unwrap();
    assert!(pids.into_iter().all(|pid| !runs(pid)));
}
