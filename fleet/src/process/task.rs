//! Commands that run to their end, such as builds. What they leave behind goes with them, as with an instance.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    launch::Launch,
    supervised::{Exit, NotStarted, Process, TakeLines, find, spawn},
    supervisors::Supervisors,
};

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its path, or its name to be looked up in PATH.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where it runs.
    pub directory: PathBuf,
}

/// Why a task did not end well.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TaskError {
    /// It could not be started.
    #[error("{0}")]
    NotStarted(String),
    /// It ended otherwise than with 0.
    #[error("{0}")]
    Failed(String),
    /// It was killed, as it had taken too long.
    #[error("not done within {} s, and killed", .0.as_secs())]
    TooLong(Duration),
}

/// Runs it to its end.
pub(super) async fn run<H: Send + 'static>(
    supervisors: &Arc<Supervisors>,
    task: Task,
    limit: Duration,
    output: TakeLines,
    held: H,
) -> Result<(), TaskError> {
    let launch = Launch {
        program: task.program,
        arguments: task.arguments.into_iter().map(OsString::from).collect(),
        env: Vec::new(),
        directory: Some(task.directory),
        after: None,
    };
    let program = find(&launch).map_err(|NotStarted { words, .. }| TaskError::NotStarted(words))?;
    let deadline = Instant::now() + limit;
    let process = spawn(supervisors, launch, program.into(), output)
        .await
        .map_err(|error| TaskError::NotStarted(error.to_string()))?;
    let (result, ended) = oneshot::channel();
    // Goes on when this is dropped, until nothing is left.
    tokio::spawn(async move {
        follow(process, deadline, limit, result).await;
        drop(held);
    });
    // It always answers, unless the runtime ends.
    ended.await.unwrap_or_else(|_| Err(TaskError::Failed("lost sight of it".to_owned())))
}

async fn follow(
    mut process: Process,
    deadline: Instant,
    limit: Duration,
    mut result: oneshot::Sender<Result<(), TaskError>>,
) {
    let ended = tokio::select! {
        exit = process.exit() => Some(exit),
        () = sleep_until(deadline) => None,
        () = result.closed() => None,
    };
    let outcome = if let Some(exit) = ended {
        judge(exit)
    } else {
        process.terminate(Duration::ZERO).await;
        process.exit().await;
        Err(TaskError::TooLong(limit))
    };
    process.finish().await;
    let _ = result.send(outcome);
}

fn judge(exit: Exit) -> Result<(), TaskError> {
    match exit {
        Exit::NotStarted(words) => Err(TaskError::NotStarted(words)),
        Exit::Code(0) => Ok(()),
        Exit::Code(_) | Exit::Otherwise(_) => Err(TaskError::Failed(exit.to_string())),
    }
}
