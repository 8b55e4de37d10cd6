//! Where and when figures were taken: without it they are worth nothing.

use std::{fmt, fs, process::Command, thread, time::Duration};

use serde::{Deserialize, Serialize};

/// Above this share of busy processors somebody else works here.
const QUIET: f64 = 0.1;

/// A machine and the versions on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// UTC, to the minute.
    pub date: String,
    /// Lambent's commit, with a `+` if there was more than that.
    pub commit: String,
    /// Its model, as the kernel has it.
    pub processor: String,
    /// Processors that can be used.
    pub processors: usize,
    /// GiB.
    pub memory: f64,
    /// Release of the kernel.
    pub kernel: String,
    /// Name and version of each thing that takes part.
    pub versions: Vec<(String, String)>,
    /// Share of the processors that was busy before anything was measured.
    pub busy_before: f64,
}

impl Machine {
    /// This one, now.
    pub fn look() -> Self {
        let first_line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            commit: commit(),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: thread::available_parallelism().map_or(0, usize::from),
            memory: memory(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            versions: versions(),
            busy_before: busy(),
        }
    }

    /// Whether somebody else was working on it.
    pub fn is_disturbed(&self) -> bool {
        self.busy_before > QUIET
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, commit, processor, processors, memory, kernel, versions, busy_before } = self;
        write!(f, "{date}, commit {commit}; {processors} x {processor}, {memory:.0} GiB, Linux {kernel}")?;
        for (name, version) in versions {
            write!(f, ", {name} {version}")?;
        }
        if self.is_disturbed() {
            write!(f, "; DISTURBED: {:.0} % of the processors were busy before", busy_before * 100.0)?;
        }
        Ok(())
    }
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn memory() -> f64 {
    let kib = field("/proc/meminfo", "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / f64::from(1 << 20)
}

fn commit() -> String {
    let root = lambent_tests::command::checkout("");
    let git = |arguments: &[&str]| say(Command::new("git").arg("-C").arg(&root).args(arguments));
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_default() + if changed { "+" } else { "" }
}

fn versions() -> Vec<(String, String)> {
    let last_word = |text: String| text.split(['/', ' ']).next_back().unwrap_or_default().to_owned();
    let kubernetes = say(Command::new("kubelet").arg("--version")).map(last_word);
    let found = [
        ("rustc", say(Command::new("rustc").arg("--version")).and_then(|t| Some(t.split(' ').nth(1)?.to_owned()))),
        ("go", say(Command::new("go").args(["env", "GOVERSION"])).map(|t| t.trim_start_matches("go").to_owned())),
        ("nginx", crate::local::nginx::version()),
        ("kubernetes", kubernetes),
    ];
    found.into_iter().filter_map(|(name, version)| Some((name.to_owned(), version?))).collect()
}

/// What a command prints, if it can be run at all.
pub fn say(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Looks for a second.
fn busy() -> f64 {
    let before = ticks();
    thread::sleep(Duration::from_secs(1));
    let after = ticks();
    let (all, idle) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    if all == 0 { 0.0 } else { 1.0 - idle as f64 / all as f64 }
}

/// Of all processors: all ticks, and the idle ones.
fn ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    (fields.iter().take(8).sum(), fields.iter().skip(3).take(2).sum())
}
