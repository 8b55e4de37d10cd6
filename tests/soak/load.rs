//! The load: calls that are sent at fixed times whether or not answers come, and looked at as their
//! callers see them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::Full;
use hyper::Request;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    sync::mpsc::UnboundedSender,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    client::{Answer, Watch},
    mix::{Ask, Profile},
    record::{Call, Outcome, Run, Seconds},
    world::World,
};

/// No call takes longer, with all its waiting.
const PATIENCE: Duration = Duration::from_secs(60);
/// Callers who leave do so within this.
const LEAVES_WITHIN_MS: u64 = 60;

/// Sends calls and reports them when they have ended.
pub struct Callers {
    world: Arc<World>,
    ended: UnboundedSender<Call>,
    numbers: AtomicU64,
    under_way: Mutex<BTreeMap<u64, (Seconds, Arc<str>)>>,
}

/// The calls of one Function; no more are sent when this is dropped.
pub struct Load(AbortHandle);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One request and what its answer must be.
struct Question {
    request: Request<Full<Bytes>>,
    expect: Expect,
}

enum Expect {
    Run,
    Events(u64),
    Bytes(Bytes),
}

impl Callers {
    /// Reports to `ended`.
    pub fn new(world: Arc<World>, ended: UnboundedSender<Call>) -> Arc<Self> {
        Arc::new(Self { world, ended, numbers: AtomicU64::new(0), under_way: Mutex::default() })
    }

    /// Calls a Function under this name, again and again.
    pub fn start(self: &Arc<Self>, name: &str, profile: &Profile) -> Load {
        let (callers, name, profile) = (self.clone(), Arc::<str>::from(name), profile.clone());
        let mut rng = Rng::with_seed(self.world.seed ^ name.bytes().fold(0, |n, b| n * 31 + u64::from(b)));
        Load(tokio::spawn(async move { callers.send_all(&name, &profile, &mut rng).await }).abort_handle())
    }

    /// All calls that were due before this have ended.
    pub fn known(&self) -> Seconds {
        let under_way = self.under_way.lock();
        under_way.values().map(|(due, _)| *due).reduce(f64::min).unwrap_or_else(|| self.world.now())
    }

    /// Calls that have not ended.
    pub fn under_way(&self) -> usize {
        self.under_way.lock().len()
    }

    /// Calls of one Function that have not ended.
    pub fn under_way_of(&self, function: &str) -> usize {
        self.under_way.lock().values().filter(|(_, name)| &**name == function).count()
    }

    async fn send_all(self: Arc<Self>, name: &Arc<str>, profile: &Profile, rng: &mut Rng) {
        let begun = self.world.now();
        for n in 0u32.. {
            let due = begun + (f64::from(n) + rng.f64()) / profile.rate;
            self.world.sleep_until(due).await;
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let id = format!("soak-{}-{number}", self.world.seed);
            let question = Question::draw(&self.world, name, profile, &id, rng);
            let leaves = profile.one_of_leaves.is_some_and(|of| rng.u32(..of) == 0);
            let leaves_after = leaves.then(|| Duration::from_millis(rng.u64(..LEAVES_WITHIN_MS)));
            self.under_way.lock().insert(number, (due, name.clone()));
            let (callers, name) = (self.clone(), name.clone());
            tokio::spawn(async move {
                let call = callers.one(&name, id, due, question, leaves_after).await;
                // Reported before it is forgotten: what is known is never ahead of the reports.
                let _ = callers.ended.send(call);
                callers.under_way.lock().remove(&number);
            });
        }
    }

    async fn one(
        &self,
        function: &str,
        id: String,
        due: Seconds,
        question: Question,
        leaves_after: Option<Duration>,
    ) -> Call {
        let Question { request, expect } = question;
        let way = Way { world: &self.world, sent: Mutex::default(), refused: Mutex::default() };
        let call = timeout(PATIENCE, self.world.client.call(request, &way));
        let outcome = tokio::select! {
            answered = call => match answered {
                Ok(Ok(answer)) => self.outcome(&answer, &expect),
                Ok(Err(error)) => Outcome::Broken(error),
                Err(_) => Outcome::Unanswered,
            },
            () = leave(leaves_after) => Outcome::Left,
        };
        let ended = self.world.now();
        let (sent, refused) = (way.sent.into_inner().unwrap_or(ended), way.refused.into_inner());
        Call { id, function: function.to_owned(), due, sent, ended, refused, outcome }
    }

    fn outcome(&self, answer: &Answer, expect: &Expect) -> Outcome {
        let Answer { status, body } = answer;
        if *status != 200 {
            let problem: Value = serde_json::from_slice(body).unwrap_or_default();
            let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
            return Outcome::Refused { status: *status, reason: text("reason"), words: text("detail") };
        }
        match expect {
            Expect::Run => match self.run(body) {
                Some(run) => Outcome::Good(Some(run)),
                None => Outcome::Wrong(String::from_utf8_lossy(body).into_owned()),
            },
            Expect::Events(count) => match events(*count) == *body {
                true => Outcome::Good(None),
                false => Outcome::Wrong(format!("{} bytes of events, not all or not in order", body.len())),
            },
            Expect::Bytes(sent) => match sent == body {
                true => Outcome::Good(None),
                false => Outcome::Wrong(format!("an echo of {} bytes that are not those sent", body.len())),
            },
        }
    }

    fn run(&self, body: &[u8]) -> Option<Run> {
        let json: Value = serde_json::from_slice(body).ok()?;
        let from = self.world.since_unix_millis(json["from"].as_u64()?);
        Some(Run { host: json["hostname"].as_str()?.to_owned(), from, running: json["running"].as_u64()? as u32 })
    }
}

impl Question {
    fn draw(world: &World, name: &str, profile: &Profile, id: &str, rng: &mut Rng) -> Self {
        let (method, path, body, expect) = match &profile.ask {
            Ask::Run(ms) => {
                let (method, body) = if rng.bool() { ("GET", Bytes::new()) } else { ("POST", bytes(rng, 1000)) };
                (method, format!("/?ms={}", rng.u64(ms.clone())), body, Expect::Run)
            }
            Ask::Stream { events, .. } if rng.bool() => {
                ("GET", format!("/events?count={events}&interval=200"), Bytes::new(), Expect::Events(*events))
            }
            Ask::Stream { bytes: most, .. } => {
                let sent = bytes(rng, *most);
                ("POST", "/echo".to_owned(), sent.clone(), Expect::Bytes(sent))
            }
        };
        let uri = format!("/fn/{}/{name}{path}", world.cx.namespace);
        let head = Request::builder().method(method).uri(uri).header("host", &world.cx.gateway.authority);
        let request = head.header("x-request-id", id).body(Full::new(body)).unwrap_or_default();
        Self { request, expect }
    }
}

fn bytes(rng: &mut Rng, most: usize) -> Bytes {
    let length = rng.usize(1..=most);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// What `stream` answers at `/events`.
fn events(count: u64) -> Bytes {
    (1..=count).map(|n| format!("data: {n}\n\n")).collect::<String>().into()
}

async fn leave(after: Option<Duration>) {
    match after {
        Some(after) => sleep(after).await,
        None => std::future::pending().await,
    }
}

struct Way<'a> {
    world: &'a World,
    sent: Mutex<Option<Seconds>>,
    refused: Mutex<Vec<Seconds>>,
}

impl Watch for Way<'_> {
    fn refused(&self) {
        self.refused.lock().push(self.world.now());
    }

    fn sent(&self) {
        self.sent.lock().replace(self.world.now());
    }
}
