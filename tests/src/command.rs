//! `kubectl`, `helm` and `lambent` as a user runs them.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Cluster;

/// What a command has done.
#[derive(Clone, Debug)]
pub struct Done {
    /// Whether it ended with 0.
    pub ok: bool,
    /// What it ended with; none if a signal ended it.
    pub code: Option<i32>,
    /// What it said.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Done {
    /// What it said, if it ended well.
    ///
    /// # Panics
    /// If it didn't.
    pub fn expect(self) -> String {
        assert!(self.ok, "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// A folder or file of the checkout: of the one in which this runs, as checkouts may share what is compiled, else
/// of the one where it was.
pub fn checkout(path: &str) -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    let root = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    root.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), Path::to_path_buf).join(path)
}

/// Runs `kubectl` with these arguments.
pub async fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Done {
    kubectl_with_input(cluster, arguments, "").await
}

/// Runs `kubectl` with these arguments and something to read.
pub async fn kubectl_with_input(cluster: &Cluster, arguments: &[&str], input: &str) -> Done {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(&cluster.kubeconfig).args(arguments);
    run(command, input).await
}

/// Runs `helm` with these arguments.
pub async fn helm(cluster: &Cluster, arguments: &[&str]) -> Done {
    let mut command = Command::new("helm");
    command.arg("--kubeconfig").arg(&cluster.kubeconfig).args(arguments);
    run(command, "").await
}

/// Runs `lambent` with these arguments.
pub async fn lambent(cluster: &Cluster, arguments: &[&str]) -> Done {
    run(lambent_command(cluster, arguments), "").await
}

/// Runs `lambent check` on the text of a manifest: it asks no cluster.
pub async fn lambent_check(manifest: &str) -> Done {
    let mut command = Command::new(built());
    command.args(["check", "-"]);
    run(command, manifest).await
}

/// `lambent` with these arguments, not started: the one that was built with the tests.
pub fn lambent_command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(built());
    command.args(arguments).arg("--kubeconfig").arg(&cluster.kubeconfig);
    command
}

fn built() -> PathBuf {
    let tests = std::env::current_exe().expect("the tests' own file");
    let built = tests.ancestors().skip(1).take(2).map(|directory| directory.join("lambent"));
    let binary = built.into_iter().find(|path| path.is_file());
    binary.expect("no lambent beside the tests: cargo build --bin lambent")
}

async fn run(mut command: Command, input: &str) -> Done {
    let input = input.to_owned();
    let work = move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Small enough for the pipe's buffer; a command that reads nothing closes it.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    };
    let output = tokio::task::spawn_blocking(work)
        .await
        .expect("no panic")
        .expect("kubectl and helm are in PATH, lambent is built");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (ok, code) = (output.status.success(), output.status.code());
    Done { ok, code, stdout: text(output.stdout), stderr: text(output.stderr) }
}
