//! Freezes functions and lets them go on, as gateways ask for it, and says to all of them what it has done.
//! What is wanted of a pod is written down; a task for each pod that is not as it is wanted makes it so, so
//! that the last order holds, however orders follow each other.
//!
//! Nothing stays frozen that nobody asks for: all go on when the agent stops, when no gateway has been
//! connected for a while, and what an agent before has left when no gateway claims it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lambent_api::node::FromNode;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{interval, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    cgroup,
    cri::Runtime,
    freezer::{FreezeError, Freezer},
    metrics::Metrics,
    reclaim::Reclaimer,
};

/// Without a gateway for so long, or without one that claims it, what is frozen goes on.
const UNCLAIMED_FOR: Duration = Duration::from_secs(30);
/// More than pods of one node run at once.
const MAX_PODS: usize = 1000;
/// A gateway is told of the end before its connection ends.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// All have gone on by then, or can't.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Freezes and thaws.
#[derive(Clone, Debug)]
pub struct Parker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    runtime: Runtime,
    /// None where nothing can be frozen, with the reason.
    freezer: Result<Freezer, String>,
    /// Where memory of what is frozen is pushed out.
    reclaimer: Option<Reclaimer>,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pods: HashMap<String, Pod>,
    /// Gateways, by their connections.
    links: HashMap<u64, UnboundedSender<FromNode>>,
    /// Since when there has been no gateway.
    alone_since: Option<Instant>,
    closing: bool,
}

/// A pod that is frozen, or is to be.
#[derive(Debug)]
struct Pod {
    wanted: bool,
    /// Its cgroup, while that is frozen.
    frozen: Option<PathBuf>,
    /// Whether a task makes it so.
    at_work: bool,
    /// Found frozen then, and not asked for since.
    unclaimed: Option<Instant>,
}

impl Parker {
    /// Freezes by `freezer`; without one it says why that can't be.
    pub fn new(
        runtime: Runtime,
        freezer: Result<Freezer, String>,
        reclaimer: Option<Reclaimer>,
        metrics: Metrics,
    ) -> Self {
        let state =
            State { pods: HashMap::new(), links: HashMap::new(), alone_since: Some(Instant::now()), closing: false };
        Self(Arc::new(Shared { runtime, freezer, reclaimer, metrics, state: Mutex::new(state) }))
    }

    /// A gateway has connected: it is told all that is frozen.
    pub fn join(&self, link: u64, to: UnboundedSender<FromNode>) {
        let mut state = self.0.state.lock();
        for (uid, _) in state.pods.iter().filter(|(_, pod)| pod.frozen.is_some()) {
            let _ = to.send(FromNode::Parked { uid: uid.clone() });
        }
        let _ = to.send(FromNode::Synced);
        state.links.insert(link, to);
        state.alone_since = None;
    }

    /// A connection has ended.
    pub fn leave(&self, link: u64) {
        let mut state = self.0.state.lock();
        state.links.remove(&link);
        if state.links.is_empty() {
            state.alone_since.get_or_insert_with(Instant::now);
        }
    }

    /// A pod is to be frozen, or to go on.
    pub fn order(&self, uid: &str, wanted: bool) {
        let at_work = {
            let mut state = self.0.state.lock();
            let wanted = wanted && !state.closing;
            if !state.pods.contains_key(uid) && state.pods.len() >= MAX_PODS {
                state.say(&cannot(uid, "too many pods"));
                return;
            }
            let pod = state.pods.entry(uid.to_owned()).or_insert_with(Pod::running);
            (pod.wanted, pod.unclaimed) = (wanted, None);
            std::mem::replace(&mut pod.at_work, true)
        };
        if at_work {
            return;
        }
        // What is frozen goes on at once: somebody waits for it.
        if wanted || !self.step_without_waiting(uid) {
            let (parker, uid) = (self.clone(), uid.to_owned());
            // Ends when the pod is as it is wanted; each step of it is bounded.
            tokio::spawn(async move { parker.make_so(&uid).await });
        }
    }

    async fn make_so(&self, uid: &str) {
        let mut frozen = None;
        while !self.step_without_waiting(uid) {
            let outcome = self.freeze(uid).await;
            let mut state = self.0.state.lock();
            let State { pods, .. } = &mut *state;
            let Some(pod) = pods.get_mut(uid) else { return };
            match outcome {
                Ok(path) => pod.frozen = Some(frozen.insert(path).clone()),
                // Another order has come meanwhile.
                Err(_) if !pod.wanted => {}
                Err(why) => {
                    pods.remove(uid);
                    self.0.metrics.park_failures.inc();
                    state.say(&cannot(uid, &why));
                    return;
                }
            }
        }
        if let (Some(path), Some(reclaimer)) = (frozen, &self.0.reclaimer) {
            // Nobody waits for this. It ends when the kernel finds no more.
            match reclaimer.push_out(&path, || self.is_wanted(uid)).await {
                Ok(bytes) => self.0.metrics.pushed_out.inc_by(bytes),
                Err(error) => debug!(uid, %error, "the memory of a frozen function is kept"),
            }
        }
    }

    fn is_wanted(&self, uid: &str) -> bool {
        self.0.state.lock().pods.get(uid).is_some_and(|pod| pod.wanted)
    }

    /// Does what takes no time. Whether the pod is as it is wanted; then it was said.
    fn step_without_waiting(&self, uid: &str) -> bool {
        let mut state = self.0.state.lock();
        let Some(pod) = state.pods.get_mut(uid) else { return true };
        match (pod.wanted, &pod.frozen) {
            (true, None) => return false,
            (true, Some(_)) => {
                pod.at_work = false;
                state.say(&FromNode::Parked { uid: uid.to_owned() });
            }
            (false, frozen) => {
                if let (Some(path), Ok(freezer)) = (frozen, &self.0.freezer)
                    && let Err(error) = freezer.thaw(path)
                {
                    // It stays on the list, and is tried again each second.
                    warn!(uid, %error, "a function can't be let go on");
                    pod.at_work = false;
                    return true;
                }
                state.pods.remove(uid);
                state.say(&FromNode::Running { uid: uid.to_owned() });
            }
        }
        let frozen = state.pods.values().filter(|pod| pod.frozen.is_some()).count();
        self.0.metrics.parked.set(i64::try_from(frozen).unwrap_or(i64::MAX));
        true
    }

    /// Freezes the function of a pod. Where.
    async fn freeze(&self, uid: &str) -> Result<PathBuf, String> {
        let freezer = self.0.freezer.as_ref().map_err(Clone::clone)?;
        // Bounded by the runtime's own deadline.
        let found = self.0.runtime.functions(Some(uid)).await.map_err(|error| error.to_string())?;
        let [function] = &found[..] else { return Err(format!("{} running functions in this pod", found.len())) };
        let path = cgroup::path(&function.cgroup, uid, &function.id).map_err(|error| error.to_string())?;
        match freezer.freeze(&path, || self.is_wanted(uid)).await {
            Ok(()) => {
                debug!(uid, cgroup = %path.display(), "frozen");
                Ok(path)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Finds what an agent before has left frozen. Gateways that want it so say so.
    pub async fn find_left(&self) {
        let Ok(freezer) = &self.0.freezer else { return };
        let found = match self.0.runtime.functions(None).await {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "it is not known what is frozen");
                return;
            }
        };
        let now = Instant::now();
        for function in found {
            let Ok(path) = cgroup::path(&function.cgroup, &function.pod, &function.id) else { continue };
            if freezer.is_frozen(&path).unwrap_or(false) {
                info!(uid = function.pod, "found frozen");
                let pod = Pod { wanted: true, frozen: Some(path), at_work: false, unclaimed: Some(now) };
                self.0.state.lock().pods.insert(function.pod, pod);
            }
        }
    }

    /// Each second: lets go on what nobody asks for, and forgets what has ended or goes on by itself.
    pub async fn run(self) {
        let mut second = interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            self.look(Instant::now());
        }
    }

    fn look(&self, now: Instant) {
        let (mut let_go, mut over) = (Vec::new(), Vec::new());
        {
            let state = self.0.state.lock();
            let alone = state.alone_since.is_some_and(|since| now.duration_since(since) >= UNCLAIMED_FOR);
            for (uid, pod) in state.pods.iter().filter(|(_, pod)| !pod.at_work) {
                let unclaimed = pod.unclaimed.is_some_and(|since| now.duration_since(since) >= UNCLAIMED_FOR);
                if !pod.wanted || alone || unclaimed {
                    let_go.push(uid.clone());
                } else if self.is_over(pod) {
                    over.push(uid.clone());
                }
            }
        }
        if !let_go.is_empty() {
            info!(pods = let_go.len(), "functions go on, as no gateway asks for them to stay frozen");
        }
        // Of what is over there is nothing to thaw, but that is no error and everyone is told.
        let_go.iter().chain(&over).for_each(|uid| self.order(uid, false));
    }

    fn is_over(&self, pod: &Pod) -> bool {
        let (Some(path), Ok(freezer)) = (&pod.frozen, &self.0.freezer) else { return false };
        match freezer.is_frozen(path) {
            Ok(frozen) => !frozen,
            Err(error) => FreezeError::is_gone(&error),
        }
    }

    /// The agent stops: all go on, and the gateways are told.
    pub async fn close(&self) {
        let pods: Vec<String> = {
            let mut state = self.0.state.lock();
            state.closing = true;
            state.pods.keys().cloned().collect()
        };
        pods.iter().for_each(|uid| self.order(uid, false));
        let all_run = async {
            while !self.0.state.lock().pods.is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(ENDS_WITHIN, all_run).await.is_err() {
            warn!("some functions stay frozen until the next agent comes");
        }
        if !pods.is_empty() {
            sleep(LAST_WORDS).await;
        }
    }
}

impl Pod {
    fn running() -> Self {
        Self { wanted: false, frozen: None, at_work: false, unclaimed: None }
    }
}

impl State {
    fn say(&self, message: &FromNode) {
        self.links.values().for_each(|to| drop(to.send(message.clone())));
    }
}

fn cannot(uid: &str, why: &str) -> FromNode {
    FromNode::CantPark { uid: uid.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
#[path = "parker_tests.rs"]
mod tests;
