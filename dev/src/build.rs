//! Builds: what a Function runs is made before a Revision is made of it, where a cluster looks up the
//! image. So its callers wait for it in the queue or are told why it failed, and what ran before runs on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use lambent_api::{Function, FunctionKey, Reason};
use lambent_controller::Builder;
use lambent_fleet::process::{
    ProcessFleet,
    launch::is_process,
    task::{Task, TaskError},
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::info;

use crate::{
    manifest::BUILD,
    store::{Key, Kind, Store},
};

/// Compilers keep all processors busy by themselves.
const AT_ONCE: usize = 2;
/// A build that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// More of a line is not repeated.
const LONGEST: usize = 500;

/// Runs the builds of Functions.
pub(crate) struct Builds {
    fleet: ProcessFleet,
    /// The controller does not keep annotations that mean nothing to it.
    store: Store,
    turns: Arc<Semaphore>,
}

impl Builds {
    pub(crate) fn new(fleet: ProcessFleet, store: Store) -> Self {
        Self { fleet, store, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Builds {
    fn whole(&self, FunctionKey { namespace, name }: &FunctionKey) -> Option<Function> {
        let function = self.store.get(&Key::new(Kind::Function, namespace.clone(), name.clone())).ok()?;
        serde_json::from_value(function).ok()
    }
}

impl Builder for Builds {
    fn build(&self, function: &Function) -> BoxFuture<'static, Result<(), Reason>> {
        let key = function.key();
        let Some(task) = self.whole(&key).as_ref().and_then(task) else {
            return std::future::ready(Ok(())).boxed();
        };
        let (fleet, turns) = (self.fleet.clone(), self.turns.clone());
        let command = shell_words::join([&task.program].into_iter().chain(&task.arguments));
        async move {
            // Never closed; without a turn there would merely be more at once.
            let turn = turns.acquire_owned().await;
            info!("{key}: building: {command}");
            let words = Arc::new(Mutex::new(Words::default()));
            let (heard, of) = (words.clone(), key.clone());
            let output = move |_, lines: &[String]| {
                for line in lines {
                    heard.lock().hear(line);
                    info!(target: "output", "{of} build | {line}");
                }
            };
            let outcome = fleet.run_task(task, LIMIT, output, turn).await;
            let words = std::mem::take(&mut *words.lock());
            outcome.map_err(|error| failed(&command, &error, words))?;
            info!("{key}: built");
            Ok(())
        }
        .boxed()
    }
}

/// What is to be run first, if anything is.
fn task(function: &Function) -> Option<Task> {
    let template = &function.spec.template;
    let build = function.metadata.annotations.as_ref()?.get(BUILD).filter(|_| is_process(template))?;
    let mut words = shell_words::split(build).ok()?.into_iter();
    let directory = PathBuf::from(template.working_dir.as_deref().unwrap_or("."));
    Some(Task { program: words.next()?, arguments: words.collect(), directory })
}

fn failed(command: &str, error: &TaskError, words: Words) -> Reason {
    let said = words.said().map_or_else(String::new, |said| format!(": {said}"));
    Reason::new("BuildFailed", format!("`{command}`: {error}{said}"))
}

/// What matters of all that a build writes: its first error and where that is, or else its last line.
#[derive(Default)]
struct Words {
    error: Option<String>,
    place: Option<String>,
    last: Option<String>,
}

impl Words {
    fn hear(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        let kept = || Some(line.chars().take(LONGEST).collect());
        match &self.error {
            None if is_error(line) => self.error = kept(),
            // As rustc has it, in a line of its own.
            Some(_) if self.place.is_none() && line.starts_with("-->") => self.place = kept(),
            _ => self.last = kept(),
        }
    }

    fn said(self) -> Option<String> {
        match (self.error, self.place) {
            (Some(error), Some(place)) => Some(format!("{error} {place}")),
            (Some(error), None) => Some(error),
            (None, _) => self.last,
        }
    }
}

/// `error[E0425]: ...`, `main.c:3:5: error: ...` and `SyntaxError: ...`, but not `Compiling thiserror`.
fn is_error(line: &str) -> bool {
    let mut words = line.split(|c: char| !c.is_alphanumeric());
    !line.starts_with("warning") && words.any(|word| word.eq_ignore_ascii_case("error") || word.ends_with("Error"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Option<String> {
        let mut words = Words::default();
        lines.iter().for_each(|line| words.hear(line));
        words.said()
    }

    #[test]
    fn the_first_error_is_told_with_its_place() {
        let rustc = [
            "   Compiling thiserror v2.0.1",
            "warning: unused import: `Error`",
            "error[E0425]: cannot find value `x` in this scope",
            " --> src/main.rs:4:5",
            "error: could not compile `hello` (bin) due to 1 previous error",
        ];
        let expected = "error[E0425]: cannot find value `x` in this scope --> src/main.rs:4:5";
        assert_eq!(said(&rustc).as_deref(), Some(expected));
        let cc = [
            "cc -c main.c",
            "main.c: In function 'main':",
            "main.c:3:5: error: 'x' undeclared",
            "make: *** [a] Error 1",
        ];
        assert_eq!(said(&cc).as_deref(), Some("main.c:3:5: error: 'x' undeclared"));
        assert_eq!(said(&["SyntaxError: invalid syntax"]).as_deref(), Some("SyntaxError: invalid syntax"));
    }

    #[test]
    fn without_an_error_the_last_line_is_told() {
        assert_eq!(said(&["copying", "cp: cannot stat 'nothing'", ""]).as_deref(), Some("cp: cannot stat 'nothing'"));
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[&"x".repeat(10_000)]).map(|said| said.len()), Some(LONGEST));
    }
}
