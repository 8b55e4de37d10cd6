//! The life of one instance: its process is started, started again when it crashes, and ended when
//! the instance is to stop.

use std::{ffi::OsString, net::Ipv4Addr, sync::Arc, time::Duration};

use lambent_api::{InstanceRef, Reason};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    process::Child,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    Shared,
    control::{Run, Said, Terminate},
    crash::{Crashes, Next},
    launch::{Launch, launch},
    output::{Channel, Lines},
    ports::is_free,
    supervisors::Supervisor,
    table::{End, EndReceiver},
};
use crate::{Instance, Order, Phase, Stop};

/// From SIGTERM to SIGKILL, for one that may be busy, as in a cluster.
const GRACE: Duration = Duration::from_secs(10);
/// The same for one that no request uses.
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// What a process wrote is read for so long after its end.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// More is not read at once.
const CHUNK: usize = 16 * 1024;

/// Lives until the instance is stopped.
pub(super) async fn live(shared: Arc<Shared>, order: Order, instance: Instance, mut end: EndReceiver) {
    let id = instance.id.clone();
    match shared.ports.take() {
        Some(port) => run(&shared, &order, instance, port.number, &mut end).await,
        None => fail(&shared, &id, Phase::Failing(Reason::new("NoPort", "no port is free"))),
    }
    // Without a port, or taken by another: whoever ordered it stops it.
    let _ = end.wait_for(Option::is_some).await;
    let mut table = shared.table.lock();
    table.remove(&id);
    shared.count.send_replace(table.len());
}

fn fail(shared: &Shared, id: &InstanceRef, phase: Phase) {
    shared.table.lock().change(id, |instance| (instance.phase, instance.address) = (phase, None));
}

async fn run(shared: &Arc<Shared>, order: &Order, instance: Instance, port: u16, end: &mut EndReceiver) {
    let mut crashes = Crashes::default();
    let id = instance.id.clone();
    while end.borrow().is_none() {
        let started = Instant::now();
        let next = match start(shared, order, &instance, port).await {
            Ok(mut process) => {
                let address = (Ipv4Addr::LOCALHOST, port).into();
                shared.table.lock().change(&id, |i| (i.phase, i.address) = (Phase::Running, Some(address)));
                let exit = until_exit(&mut process, order, end).await;
                let last_line = process.finish().await;
                match exit {
                    Exit::NotStarted(words) => crashes.not_started("CommandFailed", &words),
                    Exit::Ended(how) => crashes.ended(started.elapsed(), &in_words(&how, last_line.as_deref())),
                }
            }
            Err(NotStarted { reason, words }) => crashes.not_started(reason, &words),
        };
        if end.borrow().is_some() {
            return;
        }
        if let Next::After(wait, reason) = next {
            fail(shared, &id, Phase::Failing(reason));
            let _ = timeout(wait, end.wait_for(Option::is_some)).await;
        }
        if !is_free(port) {
            return fail(
                shared,
                &id,
                Phase::Ended(Reason::new("PortTaken", format!("port {port} was taken by another process"))),
            );
        }
        shared.table.lock().change(&id, |i| (i.phase, i.restarts) = (Phase::Starting, i.restarts + 1));
    }
}

/// Until the process has ended, by itself or because the instance was stopped.
async fn until_exit(process: &mut Process, order: &Order, end: &mut EndReceiver) -> Exit {
    let how = tokio::select! {
        exit = process.exit() => return exit,
        how = end.wait_for(Option::is_some) => how.ok().and_then(|how| *how),
    };
    let mut grace = grace(how);
    if how == Some(End::Stop(Stop::Gracefully)) {
        // As a cluster's preStop sleep: what runs may go on until nobody waits for it.
        let shorter = |how: &Option<End>| *how != Some(End::Stop(Stop::Gracefully));
        tokio::select! {
            exit = process.exit() => return exit,
            how = end.wait_for(shorter) => grace = self::grace(how.ok().and_then(|how| *how)),
            () = sleep(order.settings.timeout) => {}
        }
    }
    process.terminate(grace).await;
    loop {
        tokio::select! {
            exit = process.exit() => return exit,
            Ok(()) = end.changed() => {
                let how = *end.borrow_and_update();
                process.terminate(self::grace(how)).await;
            }
        }
    }
}

fn grace(how: Option<End>) -> Duration {
    match how {
        Some(End::Within(grace)) => grace,
        Some(End::Stop(Stop::Idle)) => IDLE_GRACE,
        Some(End::Stop(Stop::Gracefully | Stop::Drained)) | None => GRACE,
    }
}

fn in_words(how: &str, last_line: Option<&str>) -> String {
    match last_line {
        Some(line) => format!("{how}: {line}"),
        None => how.to_owned(),
    }
}

struct NotStarted {
    reason: &'static str,
    words: String,
}

enum Exit {
    NotStarted(String),
    Ended(String),
}

/// A supervisor with its instance's process.
struct Process {
    supervisor: Child,
    said: BufReader<OwnedReadHalf>,
    orders: OwnedWriteHalf,
    readers: [JoinHandle<()>; 2],
    last_line: Arc<Mutex<Option<String>>>,
    group: Option<i32>,
    /// Kept here, as whoever asks may stop asking half-way.
    line: String,
    exit: Option<Exit>,
}

async fn start(shared: &Arc<Shared>, order: &Order, instance: &Instance, port: u16) -> Result<Process, NotStarted> {
    let launch = launch(order, port, shared.config.engine.as_ref())
        .map_err(|error| NotStarted { reason: "NothingToRun", words: error.to_string() })?;
    let program = find(&launch)?;
    spawn(shared, launch, program.into(), instance)
        .await
        .map_err(|error| NotStarted { reason: "StartFailed", words: format!("starting a process: {error}") })
}

/// Looked up here, as the supervisor could only say "no such file".
fn find(launch: &Launch) -> Result<std::path::PathBuf, NotStarted> {
    let here = launch.directory.clone().unwrap_or_else(|| ".".into());
    if !here.is_dir() {
        let words = format!("the working directory {} does not exist", here.display());
        return Err(NotStarted { reason: "NoWorkingDirectory", words });
    }
    let path = launch.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.into());
    which::which_in(&launch.program, path.or_else(|| std::env::var_os("PATH")), &here).map_err(|_| {
        let place = if launch.program.contains('/') { format!("in {}", here.display()) } else { "on PATH".to_owned() };
        NotStarted { reason: "CommandNotFound", words: format!("{}: no such program {place}", launch.program) }
    })
}

async fn spawn(
    shared: &Arc<Shared>,
    launch: Launch,
    program: OsString,
    instance: &Instance,
) -> std::io::Result<Process> {
    let Supervisor { process: mut supervisor, connection } = shared.supervisors.take()?;
    shared.supervisors.prepare();
    let (said, mut orders) = connection.into_split();
    let run = Run {
        command: [program].into_iter().chain(launch.arguments).collect(),
        env: launch.env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        directory: launch.directory.map(OsString::from),
        after: launch.after,
    };
    orders.write_all(&run.to_bytes()).await?;
    let last_line = Arc::default();
    let reader = |from, channel| read(from, channel, shared.clone(), instance.clone(), Arc::clone(&last_line));
    let stdout = tokio::spawn(reader(supervisor.stdout.take().map(|pipe| Box::new(pipe) as Pipe), Channel::Stdout));
    let stderr = tokio::spawn(reader(supervisor.stderr.take().map(|pipe| Box::new(pipe) as Pipe), Channel::Stderr));
    Ok(Process {
        supervisor,
        said: BufReader::new(said),
        orders,
        readers: [stdout, stderr],
        last_line,
        group: None,
        line: String::new(),
        exit: None,
    })
}

type Pipe = Box<dyn AsyncRead + Send + Unpin>;

/// Hands on what the process writes, and keeps its last words.
async fn read(
    pipe: Option<Pipe>,
    channel: Channel,
    shared: Arc<Shared>,
    instance: Instance,
    last_line: Arc<Mutex<Option<String>>>,
) {
    let Some(mut pipe) = pipe else { return };
    let mut lines = Lines::default();
    let mut chunk = Vec::new();
    let take = |lines: &[String]| {
        if let Some(last) = lines.iter().rfind(|line| !line.trim().is_empty()) {
            *last_line.lock() = Some(last.trim().chars().take(500).collect());
        }
        if !lines.is_empty() {
            shared.config.output.lines(&instance, channel, lines);
        }
    };
    loop {
        // Room only while something comes: most instances are silent most of the time.
        chunk.reserve_exact(512);
        match pipe.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                take(&lines.push(&chunk));
                chunk.clear();
                if chunk.capacity() < CHUNK {
                    chunk.reserve_exact(chunk.capacity() * 2);
                }
            }
        }
    }
    take(lines.finish().as_slice());
}

impl Process {
    /// How it ended. May be asked again after it was cancelled.
    async fn exit(&mut self) -> Exit {
        while self.said.read_line(&mut self.line).await.is_ok_and(|read| read > 0) {
            match self.line.parse() {
                Ok(Said::Started(group)) => self.group = Some(group),
                Ok(Said::NotStarted(words)) => self.exit = Some(Exit::NotStarted(words)),
                Ok(Said::Code(code)) => self.exit = Some(Exit::Ended(format!("exit code {code}"))),
                Ok(Said::Signal(signal)) => self.exit = Some(Exit::Ended(format!("ended by signal {signal}"))),
                Err(()) => {}
            }
            self.line.clear();
        }
        self.exit.take().unwrap_or_else(|| {
            self.kill_what_is_left();
            Exit::Ended("its supervisor was killed".to_owned())
        })
    }

    /// Only a supervisor that is killed itself leaves something.
    fn kill_what_is_left(&self) {
        if let Some(group) = self.group.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    async fn terminate(&mut self, grace: Duration) {
        // One that has just ended does not hear it.
        let _ = self.orders.write_all(Terminate(grace).to_string().as_bytes()).await;
    }

    /// Reaps the supervisor and reads what is left. The last line that was written.
    async fn finish(mut self) -> Option<String> {
        let _ = self.supervisor.wait().await;
        for reader in &mut self.readers {
            if timeout(LAST_OUTPUT, &mut *reader).await.is_err() {
                reader.abort();
            }
        }
        self.last_line.lock().take()
    }
}
