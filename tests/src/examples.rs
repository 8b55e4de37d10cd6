//! What the example functions answer, known in this one place, and one function of our own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Answer, Cluster};

/// One call of `slow`, as it tells of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Name of the pod.
    pub host: String,
    /// When it had the request, in milliseconds by the clock that all pods of a node share.
    pub from: u64,
    /// When it was done.
    pub to: u64,
    /// How many calls its process had at once, itself among them, when it began.
    pub running: u64,
}

impl Run {
    /// Reads an answer of `slow`.
    ///
    /// # Panics
    /// If it is another one's.
    pub fn of(answer: &Answer) -> Self {
        let json = answer.json();
        let number = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("no {name} in {json}"));
        let host = json["hostname"].as_str().expect("a host name").to_owned();
        Self { host, from: number("from"), to: number("to"), running: number("running") }
    }

    /// Answers of `slow`, all of them with 200.
    ///
    /// # Panics
    /// If one is not.
    pub fn all(answers: Vec<Answer>) -> Vec<Self> {
        answers.into_iter().map(|answer| Self::of(&answer.expect(200))).collect()
    }

    /// The most calls that one pod had at once.
    pub fn most_at_once(runs: &[Self]) -> u64 {
        runs.iter().map(|run| run.running).max().unwrap_or(0)
    }

    /// Calls by pod.
    pub fn hosts(runs: &[Self]) -> BTreeMap<&str, usize> {
        let mut hosts = BTreeMap::new();
        for run in runs {
            *hosts.entry(run.host.as_str()).or_default() += 1;
        }
        hosts
    }
}

/// The path of `stream` that answers with so many lines, so many milliseconds apart.
pub fn lines(count: u32, interval: u32) -> String {
    format!("/?count={count}&interval={interval}")
}

/// The path of `stream` that answers with so many events, so many milliseconds apart.
pub fn events(count: u32, interval: u32) -> String {
    format!("/events?count={count}&interval={interval}")
}

/// A function that answers with the request as it arrived, byte for byte.
pub fn mirror(cluster: &Cluster) -> Value {
    json!({
        "image": cluster.image("python"),
        "command": ["python3", "-c", include_str!("mirror.py")],
        "concurrency": 10,
    })
}

/// Path and query that a mirror was called with; `text` may begin with a head.
///
/// # Panics
/// If it says nothing of it.
pub fn seen_path(text: &str) -> String {
    let json = &text[text.find('{').expect("JSON")..=text.rfind('}').expect("JSON")];
    let answer: Value = serde_json::from_str(json).expect("JSON");
    answer["path"].as_str().expect("a path").to_owned()
}
