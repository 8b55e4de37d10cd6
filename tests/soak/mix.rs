//! The Functions of a run, and how they are called: about 100 requests a second in all.

use std::ops::RangeInclusive;

use lambent_tests::Cluster;
use serde_json::{Value, json};

use crate::record::Seconds;

/// One Function and its load.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Its spec.
    pub spec: Value,
    /// Calls a second.
    pub rate: f64,
    /// What a call asks for.
    pub ask: Ask,
    /// One of so many callers leaves before the answer; nobody without.
    pub one_of_leaves: Option<u32>,
    /// What a call may take while all is well.
    pub patience: Seconds,
    /// Requests that an instance serves at once.
    pub concurrency: u32,
    /// Its `timeout`.
    pub timeout: Seconds,
    /// Whether it is called so seldom that it goes to zero in between.
    pub sleeps: bool,
}

/// What calls ask for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// `slow`: an answer after so many milliseconds, to a GET or a POST.
    Run(RangeInclusive<u64>),
    /// `stream`: one of two is so many events, 200 ms apart; the other an echo of so many bytes.
    Stream { events: u64, bytes: usize },
}

/// How busy the machine may be otherwise.
const SLACK: Seconds = 2.0;

/// All Functions.
pub fn profiles(cluster: &Cluster) -> Vec<Profile> {
    let slow = |name, rate, ms: RangeInclusive<u64>, concurrency: u32, timeout: u32, scale: Value| Profile {
        name,
        spec: json!({
            "image": cluster.image("slow"), "concurrency": concurrency, "timeout": format!("{timeout}s"),
            "scale": scale,
        }),
        rate,
        patience: *ms.end() as Seconds / 1000.0 + SLACK,
        ask: Ask::Run(ms),
        one_of_leaves: None,
        concurrency,
        timeout: timeout.into(),
        sleeps: false,
    };
    vec![
        slow("fast", 45.0, 1..=10, 20, 5, json!({"min": 1, "max": 6, "idle": "20s"})),
        Profile {
            one_of_leaves: Some(30),
            ..slow("single", 12.0, 20..=120, 1, 5, json!({"min": 0, "max": 10, "idle": "15s"}))
        },
        slow("steady", 15.0, 150..=250, 4, 5, json!({"min": 1, "max": 10, "idle": "20s"})),
        slow("rolled", 20.0, 20..=80, 5, 5, json!({"min": 0, "max": 6, "idle": "20s"})),
        slow("long", 0.5, 6000..=9000, 2, 20, json!({"min": 0, "max": 8, "idle": "30s"})),
        Profile {
            sleeps: true,
            patience: 10.0,
            ..slow("seldom", 0.15, 10..=50, 1, 5, json!({"min": 0, "max": 2, "idle": "2s"}))
        },
        Profile {
            name: "stream",
            spec: json!({
                "image": cluster.image("stream"), "concurrency": 20, "timeout": "10s",
                "scale": {"min": 0, "max": 5, "idle": "30s"},
            }),
            rate: 4.0,
            ask: Ask::Stream { events: 10, bytes: 20_000 },
            one_of_leaves: Some(20),
            patience: 2.0 + SLACK,
            concurrency: 20,
            timeout: 10.0,
            sleeps: false,
        },
    ]
}

/// The Function that is made with a bad image: called from then on until it is deleted.
pub fn newcomer(cluster: &Cluster) -> Profile {
    Profile {
        name: "newcomer",
        spec: json!({
            "image": cluster.image("slow"), "concurrency": 5, "timeout": "5s", "scale": {"max": 2, "idle": "5s"},
        }),
        rate: 2.0,
        ask: Ask::Run(5..=20),
        one_of_leaves: None,
        patience: SLACK,
        concurrency: 5,
        timeout: 5.0,
        sleeps: false,
    }
}
