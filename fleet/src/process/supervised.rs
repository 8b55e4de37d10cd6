//! A process under a supervisor, seen from here: how it is told what to run, what it writes, how it ends.

use std::{ffi::OsString, fmt, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    process::Child,
    task::JoinHandle,
    time::timeout,
};

use super::{
    control::{Run, Said, Terminate},
    launch::Launch,
    output::{Channel, Lines},
    session::kill_session,
    supervisors::{Supervisor, Supervisors},
};

/// What a process wrote is read for so long after its end.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// More is not read at once.
const CHUNK: usize = 16 * 1024;

/// Takes lines that a process writes.
pub(super) type TakeLines = Arc<dyn Fn(Channel, &[String]) + Send + Sync>;

/// Why a process could not even be tried.
pub(super) struct NotStarted {
    /// In a word.
    pub(super) reason: &'static str,
    /// In a sentence.
    pub(super) words: String,
}

/// How a process ended.
pub(super) enum Exit {
    /// It could not be started.
    NotStarted(String),
    /// It ended with this code.
    Code(i32),
    /// It ended otherwise.
    Otherwise(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::NotStarted(words) | Self::Otherwise(words) => f.write_str(words),
        }
    }
}

/// Room for a line of a supervisor, of which a process has two or three in its life; longer ones come in pieces.
const LINE: usize = 256;

/// A supervisor with the process that it was told to run.
pub(super) struct Process {
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

/// Looked up here, as the supervisor could only say "no such file".
pub(super) fn find(launch: &Launch) -> Result<std::path::PathBuf, NotStarted> {
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

/// Runs it, with `program` as its path.
///
/// # Errors
/// If there is no supervisor to be had.
pub(super) async fn spawn(
    supervisors: &Arc<Supervisors>,
    launch: Launch,
    program: OsString,
    output: TakeLines,
) -> io::Result<Process> {
    let Supervisor { process: mut supervisor, connection } = supervisors.take()?;
    supervisors.prepare();
    let (said, mut orders) = connection.into_split();
    let run = Run {
        command: [program].into_iter().chain(launch.arguments).collect(),
        env: launch.env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        directory: launch.directory.map(OsString::from),
        after: launch.after,
    };
    orders.write_all(&run.to_bytes()).await?;
    let last_line = Arc::default();
    let reader = |from, channel| tokio::spawn(read(from, channel, output.clone(), Arc::clone(&last_line)));
    let stdout = reader(supervisor.stdout.take().map(|pipe| Box::new(pipe) as Pipe), Channel::Stdout);
    let stderr = reader(supervisor.stderr.take().map(|pipe| Box::new(pipe) as Pipe), Channel::Stderr);
    Ok(Process {
        supervisor,
        said: BufReader::with_capacity(LINE, said),
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
async fn read(pipe: Option<Pipe>, channel: Channel, output: TakeLines, last_line: Arc<Mutex<Option<String>>>) {
    let Some(mut pipe) = pipe else { return };
    let mut lines = Lines::default();
    let mut chunk = Vec::new();
    let take = |lines: &[String]| {
        if let Some(last) = lines.iter().rfind(|line| !line.trim().is_empty()) {
            *last_line.lock() = Some(last.trim().chars().take(500).collect());
        }
        if !lines.is_empty() {
            output(channel, lines);
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
    /// How it ended. May be asked again only if it was cancelled.
    pub(super) async fn exit(&mut self) -> Exit {
        while self.said.read_line(&mut self.line).await.is_ok_and(|read| read > 0) {
            match self.line.parse() {
                Ok(Said::Started(group)) => self.group = Some(group),
                Ok(Said::NotStarted(words)) => self.exit = Some(Exit::NotStarted(words)),
                Ok(Said::Code(code)) => self.exit = Some(Exit::Code(code)),
                Ok(Said::Signal(signal)) => self.exit = Some(Exit::Otherwise(format!("ended by signal {signal}"))),
                Err(()) => {}
            }
            self.line.clear();
        }
        self.exit.take().unwrap_or_else(|| {
            self.kill_what_is_left();
            Exit::Otherwise("its supervisor was killed".to_owned())
        })
    }

    /// Only a supervisor that is killed itself leaves something, and it may not have come to say what.
    fn kill_what_is_left(&self) {
        let pid = |number: i32| rustix::process::Pid::from_raw(number);
        if let Some(group) = self.group.and_then(pid) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        // It is reaped later: until then no other session has its number.
        if let Some(session) = self.supervisor.id().and_then(|id| pid(id.try_into().ok()?)) {
            kill_session(session);
        }
    }

    pub(super) async fn terminate(&mut self, grace: Duration) {
        // One that has just ended does not hear it.
        let _ = self.orders.write_all(Terminate(grace).to_string().as_bytes()).await;
    }

    /// Reaps the supervisor and reads what is left. The last line that was written.
    pub(super) async fn finish(mut self) -> Option<String> {
        let _ = self.supervisor.wait().await;
        for reader in &mut self.readers {
            if timeout(LAST_OUTPUT, &mut *reader).await.is_err() {
                reader.abort();
            }
        }
        self.last_line.lock().take()
    }
}
