//! The commands for users, against a real `lambent dev`.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod api;
mod invoke;
mod logs;
#[allow(dead_code)] // Shared with the tests of `lambent dev`, which use all of it.
#[path = "../dev/support.rs"]
mod support;
mod templates;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use support::Dev;

/// `lambent` with nothing of this machine's own settings.
fn lambent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambent"));
    for name in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "LAMBENT_DEV_STATE_DIR", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    command.env("HOME", "/no/such/home").env("XDG_STATE_HOME", "/no/such/state").stdin(Stdio::null());
    command
}

/// A command against this `lambent dev`.
fn command(dev: &Dev, arguments: &[&str]) -> Command {
    let mut command = lambent();
    command.args(arguments).arg("--dev").arg("--state-dir").arg(dev.files.state.path());
    command
}

fn run(dev: &Dev, arguments: &[&str]) -> Ran {
    command(dev, arguments).output().unwrap().into()
}

fn run_with_input(dev: &Dev, arguments: &[&str], input: &str) -> Ran {
    let mut command = command(dev, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

/// What a command has done.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// What it printed, if it ended well.
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// What it complained about.
    fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.err
    }
}
