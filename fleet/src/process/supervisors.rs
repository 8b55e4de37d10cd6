//! Supervisor processes. One is always ready, as its own start would be a good part of a cold start:
//! it is the whole program that is loaded.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as Pair},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    time::sleep,
};

use super::supervise;

/// Until the next one is made ready: what was just started has the processor first.
const READY_AFTER: Duration = Duration::from_millis(200);

/// Starts supervisors.
pub(super) struct Supervisors {
    program: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: Option<Supervisor>,
    preparing: bool,
    closed: bool,
}

/// One that waits for what it is to run. It ends when the connection does.
pub(super) struct Supervisor {
    pub(super) process: Child,
    pub(super) connection: UnixStream,
}

impl Supervisors {
    /// Of this program; none is started yet.
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program, state: Mutex::default() }
    }

    /// The one that is ready, or else a new one.
    ///
    /// # Errors
    /// If none can be started.
    pub(super) fn take(&self) -> io::Result<Supervisor> {
        let ready = self.state.lock().ready.take();
        // Somebody may have killed it meanwhile.
        match ready.map(|mut supervisor| (supervisor.process.try_wait(), supervisor)) {
            Some((Ok(None), supervisor)) => Ok(supervisor),
            _ => self.start(),
        }
    }

    /// Makes one ready after a while, if none is.
    pub(super) fn prepare(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.preparing || state.closed || state.ready.is_some() {
            return;
        }
        state.preparing = true;
        drop(state);
        // Holds nothing but the supervisors, and ends soon.
        let supervisors = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(READY_AFTER).await;
            if let Some(supervisors) = supervisors.upgrade() {
                // Without it the next start takes longer, and says what is wrong.
                let ready = supervisors.start().ok();
                let mut state = supervisors.state.lock();
                state.preparing = false;
                state.ready = ready.filter(|_| !state.closed);
            }
        });
    }

    /// Ends the one that is ready, and makes none ready any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        (state.closed, state.ready) = (true, None);
    }

    fn start(&self) -> io::Result<Supervisor> {
        let (ours, theirs) = Pair::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&self.program);
        command.arg0("lambent").arg(supervise::ARGUMENT);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The command holds the other end of the connection until it is dropped.
        let process = command.spawn()?;
        Ok(Supervisor { process, connection: UnixStream::from_std(ours)? })
    }
}
