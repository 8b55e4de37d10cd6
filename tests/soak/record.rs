//! What a run records: calls as their callers saw them, and faults as they happened. All times are
//! seconds since the run's beginning.

use serde::Serialize;

use crate::plan::Fault;

/// Seconds since the run's beginning.
pub type Seconds = f64;

/// One call, from when it was due to its end.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its `X-Request-Id`.
    pub id: String,
    /// The Function's name.
    pub function: String,
    /// When it was to be sent: late senders don't hide a stall.
    pub due: Seconds,
    /// When it had a connection.
    pub sent: Seconds,
    /// When its last byte was there, or when it failed.
    pub ended: Seconds,
    /// When connections were refused before it had one: nothing of it was sent then.
    pub refused: Vec<Seconds>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The function's own answer, whole and right.
    Good(Option<Run>),
    /// The function's own answer, but not what it must be.
    Wrong(String),
    /// An answer with another status than 200.
    Refused {
        /// Its status.
        status: u16,
        /// The gateway's reason, where it gave one.
        reason: String,
        /// Its words.
        words: String,
    },
    /// The connection broke before the answer's last byte.
    Broken(String),
    /// No whole answer in time.
    Unanswered,
    /// The caller left on purpose.
    Left,
}

/// A call as the instance saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The pod.
    pub host: String,
    /// When the instance had it.
    pub from: Seconds,
    /// How many calls the instance had then, this one among them.
    pub running: u32,
}

impl Call {
    /// Whether it was under way at any time from `from` to `to`.
    pub fn overlaps(&self, from: Seconds, to: Seconds) -> bool {
        self.due <= to && self.ended >= from
    }

    /// From when it was due to its end.
    pub fn took(&self) -> Seconds {
        self.ended - self.due
    }
}

/// A fault as it happened.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    /// Its place in the schedule.
    pub number: usize,
    /// What was planned.
    pub fault: Fault,
    /// The Function that it is about, if it is about one.
    pub function: Option<String>,
    /// What was hit: pods, processes.
    pub what: String,
    /// When it began.
    pub from: Seconds,
    /// When it was over, if it is.
    pub to: Option<Seconds>,
    /// What it waited for and didn't get.
    pub failed: Option<String>,
    /// Uids of pods of which a process was killed.
    pub killed: Vec<String>,
}

/// The instances of one Function at one moment, as the API server told.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was asked.
    pub at: Seconds,
    /// The Function's name.
    pub function: String,
    /// Pods that are neither being stopped nor at their end.
    pub instances: usize,
}

/// One pod of the platform at one moment.
#[derive(Clone, Debug)]
pub struct PlatformPod {
    /// When it was asked.
    pub at: Seconds,
    /// Gateway, controller or autoscaler.
    pub component: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// Restarts of its container so far.
    pub restarts: i32,
    /// Resident memory of its processes, in MiB.
    pub memory: f64,
}
