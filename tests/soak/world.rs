//! What all tasks of a run share: the cluster, the clock, and the faults so far.

use std::time::{Duration, Instant, SystemTime};

use kube::api::{Patch, PatchParams};
use lambent_api::Function;
use lambent_tests::Context;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{
    client::Client,
    mix::Profile,
    plan::Planned,
    progress,
    record::{Happening, Seconds},
};

/// A call to the API server may hang while the server is stopped.
const API_ANSWERS_WITHIN: Duration = Duration::from_secs(45);

/// See the module.
pub struct World {
    /// The run's namespace.
    pub cx: Context,
    /// The Functions that are there all the time.
    pub profiles: Vec<Profile>,
    /// Connections to the gateways.
    pub client: Client,
    /// Tells runs apart in request ids.
    pub seed: u64,
    started: Instant,
    started_unix: f64,
    happenings: Mutex<Vec<Happening>>,
}

impl World {
    /// Begins now.
    pub fn new(cx: Context, profiles: Vec<Profile>, seed: u64) -> Self {
        let client = Client::new(&cx.gateway.authority);
        let started_unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
        Self { cx, profiles, client, seed, started: Instant::now(), started_unix, happenings: Mutex::default() }
    }

    /// Seconds since the beginning.
    pub fn now(&self) -> Seconds {
        self.started.elapsed().as_secs_f64()
    }

    /// The same from milliseconds of Unix time, as pods of this machine tell it.
    pub fn since_unix_millis(&self, millis: u64) -> Seconds {
        millis as f64 / 1000.0 - self.started_unix
    }

    /// Waits until so many seconds after the beginning.
    pub async fn sleep_until(&self, at: Seconds) {
        sleep(Duration::from_secs_f64((at - self.now()).max(0.0))).await;
    }

    /// How long a call of a Function may take while all is well.
    pub fn patience(&self, function: &str) -> Seconds {
        self.profile(function).map_or(2.0, |profile| profile.patience)
    }

    /// A Function of the run by its name.
    pub fn profile(&self, function: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == function)
    }

    /// All faults so far, in the order in which they began.
    pub fn happenings(&self) -> Vec<Happening> {
        self.happenings.lock().clone()
    }

    /// A fault begins: said before anything is done, so that no effect comes before it.
    pub fn begin(&self, planned: &Planned) {
        let Planned { number, fault, .. } = planned.clone();
        progress::say(&format!("#{number} {fault}"));
        let function = planned.function();
        let (from, what, killed) = (self.now(), String::new(), Vec::new());
        self.happenings.lock().push(Happening { number, fault, function, what, from, to: None, failed: None, killed });
    }

    /// Changes what is known of a fault.
    pub fn note(&self, number: usize, change: impl FnOnce(&mut Happening)) {
        let mut happenings = self.happenings.lock();
        if let Some(happening) = happenings.iter_mut().find(|h| h.number == number) {
            change(happening);
        }
    }

    /// A fault hits something now.
    pub fn hits(&self, number: usize, what: &str) {
        let now = self.now();
        self.note(number, |h| (h.what, h.from) = (what.to_owned(), now));
    }

    /// A fault is over; from here on service recovers.
    pub fn is_over(&self, number: usize) {
        let now = self.now();
        self.note(number, |h| h.to = h.to.or(Some(now)));
    }

    /// Merges this into a Function's spec.
    ///
    /// # Errors
    /// If the API server refuses, or doesn't answer.
    pub async fn change(&self, function: &str, spec: &Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(serde_json::json!({ "spec": spec }));
        let api = self.cx.api::<Function>();
        timeout(API_ANSWERS_WITHIN, api.patch(function, &PatchParams::default(), &patch)).await??;
        Ok(())
    }
}

/// Asks until the answer is `Ok`, for at most so long. In between the API server may be away.
///
/// # Errors
/// The last one, when the time is over.
pub async fn insist<T>(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let until = Instant::now() + patience;
    loop {
        let error = match timeout(API_ANSWERS_WITHIN, ask()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("the API server doesn't answer"),
        };
        if Instant::now() >= until {
            return Err(error.context(format!("waited {} s for {what}", patience.as_secs())));
        }
        sleep(Duration::from_millis(200)).await;
    }
}
