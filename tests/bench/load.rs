//! The load generator. A closed loop of N kept-alive connections, each sending its next request when
//! it has its answer; and an open loop that sends at fixed times whether or not answers come, where
//! a call's time counts from when it was due, so that a stall is seen by all who fall into it.
//! Both run on a thread of their own.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Uri,
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    task::{self, JoinHandle, LocalSet},
    time::{sleep, timeout},
};

/// Longest call that is told from others, in nanoseconds.
const LONGEST: u64 = 120_000_000_000;

/// What is called.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
}

type Sender = SendRequest<Empty<Bytes>>;

/// Requests to one target, prepared once.
struct Caller {
    address: SocketAddr,
    uri: Uri,
    host: HeaderValue,
}

impl Caller {
    fn new(target: &Target) -> anyhow::Result<Self> {
        let host = HeaderValue::try_from(target.address.to_string())?;
        Ok(Self { address: target.address, uri: target.path.parse()?, host })
    }

    async fn connect(&self) -> anyhow::Result<Sender> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        task::spawn_local(connection);
        Ok(sender)
    }

    /// Status of the answer, after its last byte.
    async fn call(&self, sender: &mut Sender) -> anyhow::Result<u16> {
        let mut request = Request::new(Empty::new());
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().insert(HOST, self.host.clone());
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(status)
    }
}

/// How a closed loop runs.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Before anything is counted.
    pub warm_up: Duration,
    /// While it is counted.
    pub window: Duration,
}

/// What a closed loop saw in its window.
#[derive(Debug)]
pub struct Slice {
    /// Of the answers with 200, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Calls without such an answer.
    pub failed: u64,
    /// Length of the window.
    pub seconds: f64,
    /// What the process under test used in it.
    pub cpu_seconds: f64,
}

impl Slice {
    /// Answers with 200 a second.
    pub fn rate(&self) -> f64 {
        self.latency.len() as f64 / self.seconds
    }

    /// A quantile in microseconds.
    pub fn micros(&self, p: f64) -> f64 {
        self.latency.value_at_quantile(p) as f64 / 1e3
    }

    /// Microseconds of processor for each answer.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.latency.len() as f64
    }
}

/// Runs a closed loop. `cpu` tells the processor time, in seconds, of whatever is under test.
pub async fn closed(target: &Target, plan: Closed, cpu: impl Fn() -> f64 + Send + 'static) -> anyhow::Result<Slice> {
    let target = target.clone();
    on_own_thread(move || async move {
        let caller = Rc::new(Caller::new(&target)?);
        let counts = Rc::new(Counts::new()?);
        let mut workers = Vec::new();
        for _ in 0..plan.connections {
            let sender = caller.connect().await.with_context(|| format!("no connection to {target:?}"))?;
            workers.push(task::spawn_local(again_and_again(caller.clone(), sender, counts.clone())));
        }
        sleep(plan.warm_up).await;
        let (started, cpu_before) = (Instant::now(), cpu());
        counts.on.set(true);
        sleep(plan.window).await;
        counts.on.set(false);
        let (seconds, cpu_seconds) = (started.elapsed().as_secs_f64(), cpu() - cpu_before);
        workers.iter().for_each(JoinHandle::abort);
        let (latency, failed) = (counts.latency.borrow().clone(), counts.failed.get());
        ensure!(!latency.is_empty(), "no answer with 200 from {target:?}, {failed} failures");
        Ok(Slice { latency, failed, seconds, cpu_seconds })
    })
    .await
}

struct Counts {
    on: Cell<bool>,
    latency: RefCell<Histogram<u64>>,
    failed: Cell<u64>,
}

impl Counts {
    fn new() -> anyhow::Result<Self> {
        let latency = RefCell::new(Histogram::new_with_bounds(1, LONGEST, 3)?);
        Ok(Self { on: Cell::new(false), latency, failed: Cell::new(0) })
    }
}

async fn again_and_again(caller: Rc<Caller>, mut sender: Sender, counts: Rc<Counts>) {
    loop {
        let sent = Instant::now();
        let outcome = caller.call(&mut sender).await;
        if counts.on.get() {
            match &outcome {
                Ok(200) => counts.latency.borrow_mut().saturating_record(sent.elapsed().as_nanos() as u64),
                _ => counts.failed.set(counts.failed.get() + 1),
            }
        }
        if outcome.is_err() || sender.ready().await.is_err() {
            // A target that takes no connections must not make this a busy loop.
            match caller.connect().await {
                Ok(new) => sender = new,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// How an open loop runs.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Requests a second, evenly spaced.
    pub rate: f64,
    /// Connections at most; calls that are due wait for one, and that counts.
    pub connections: usize,
    /// A call that takes longer has failed.
    pub patience: Duration,
}

/// One call of an open loop.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it was due, in seconds from the loop's start.
    pub due: f64,
    /// From then to its last byte, in seconds.
    pub took: f64,
    /// Status of its answer, or why there was none.
    pub outcome: Result<u16, String>,
}

impl Call {
    /// Whether it was answered with 200.
    pub fn is_good(&self) -> bool {
        self.outcome == Ok(200)
    }

    /// When its last byte was there, in seconds from the loop's start.
    pub fn done(&self) -> f64 {
        self.due + self.took
    }
}

/// An open loop that goes on until it is ended.
pub struct Loop {
    stop: Arc<AtomicBool>,
    /// When its first call was due.
    pub started: Instant,
    calls: JoinHandle<anyhow::Result<Vec<Call>>>,
}

impl Loop {
    /// Starts one.
    pub fn start(target: &Target, plan: Open) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (target, stopped, started) = (target.clone(), stop.clone(), Instant::now());
        let calls = tokio::spawn(on_own_thread(move || async move { run_open(&target, plan, stopped, started).await }));
        Self { stop, started, calls }
    }

    /// Seconds since its first call was due.
    pub fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Sends no more.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Sends no more, waits for the answers, and gives all calls in the order in which they were due.
    pub async fn end(mut self) -> anyhow::Result<Vec<Call>> {
        self.stop();
        let mut calls = (&mut self.calls).await.context("the load generator broke")??;
        calls.sort_by(|a, b| a.due.total_cmp(&b.due));
        Ok(calls)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn run_open(target: &Target, plan: Open, stop: Arc<AtomicBool>, started: Instant) -> anyhow::Result<Vec<Call>> {
    let client = Rc::new(Client {
        caller: Caller::new(target)?,
        idle: RefCell::default(),
        places: Semaphore::new(plan.connections),
        calls: RefCell::default(),
    });
    let (due, mut dues) = mpsc::unbounded_channel();
    // A thread's sleep is exact to some 60 us, tokio's to a millisecond.
    let clock = thread::spawn(move || {
        for n in 0u32.. {
            let at = Duration::from_secs_f64(f64::from(n) / plan.rate);
            thread::sleep((started + at).saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Acquire) || due.send(at).is_err() {
                return;
            }
        }
    });
    let mut running = task::JoinSet::new();
    while let Some(at) = dues.recv().await {
        running.spawn_local(client.clone().one(started, at, plan.patience));
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
    let _ = clock.join();
    Ok(client.calls.take())
}

struct Client {
    caller: Caller,
    idle: RefCell<Vec<Sender>>,
    places: Semaphore,
    calls: RefCell<Vec<Call>>,
}

impl Client {
    async fn one(self: Rc<Self>, started: Instant, at: Duration, patience: Duration) {
        let outcome = match timeout(patience, self.send()).await {
            Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no answer in {} s", patience.as_secs())),
        };
        let (due, took) = (at.as_secs_f64(), (started.elapsed().saturating_sub(at)).as_secs_f64());
        self.calls.borrow_mut().push(Call { due, took, outcome });
    }

    async fn send(&self) -> anyhow::Result<u16> {
        let _place = self.places.acquire().await?;
        let mut sender = match self.idle_one().await {
            Some(sender) => sender,
            None => self.caller.connect().await.context("connect")?,
        };
        let status = self.caller.call(&mut sender).await?;
        self.idle.borrow_mut().push(sender);
        Ok(status)
    }

    /// The one used last that is still open: on a closed one nothing would be sent.
    async fn idle_one(&self) -> Option<Sender> {
        loop {
            let mut sender = self.idle.borrow_mut().pop()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }
}

async fn on_own_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    let thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, work())
    };
    task::spawn_blocking(thread).await.context("the load generator broke")?
}

/// A quantile of the good calls, in seconds.
pub fn quantile(calls: &[Call], p: f64) -> anyhow::Result<f64> {
    let good: Vec<f64> = calls.iter().filter(|call| call.is_good()).map(|call| call.took).collect();
    Ok(crate::stats::Estimate::quantile(&good, p)?.value)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::watch,
    };

    use super::*;

    /// Answers every request, the first of all after a while, and counts its answers.
    async fn server(first: Duration) -> (Target, watch::Receiver<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answered, count) = watch::channel(0);
        tokio::spawn(async move {
            // One connection at a time: whoever comes meanwhile waits.
            let mut pause = first;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                while stream.read(&mut head).await.is_ok_and(|n| n > 0) {
                    sleep(std::mem::take(&mut pause)).await;
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                        break;
                    }
                    answered.send_modify(|count| *count += 1);
                }
            }
        });
        (Target { address, path: "/a?b".into() }, count)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_closed_loop_counts_the_answers_of_its_window() {
        let (target, _) = server(Duration::ZERO).await;
        let plan = Closed { connections: 1, warm_up: Duration::from_millis(10), window: Duration::from_millis(100) };
        let slice = closed(&target, plan, || 0.0).await.unwrap();
        assert_eq!(slice.failed, 0);
        assert!(slice.latency.len() > 10 && slice.rate() > 100.0, "{}", slice.rate());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_open_loop_counts_the_wait_of_all_who_were_due_in_a_stall() {
        let stall = Duration::from_millis(300);
        let (target, mut answered) = server(stall).await;
        let plan = Open { rate: 100.0, connections: 1, patience: Duration::from_secs(5) };
        let running = Loop::start(&target, plan);
        answered.wait_for(|count| *count >= 50).await.unwrap();
        let calls = running.end().await.unwrap();
        assert!(calls.len() >= 50 && calls.iter().all(Call::is_good), "{calls:?}");
        assert!(calls[0].took >= stall.as_secs_f64());
        // The one that was due 200 ms later waited for the rest of the stall.
        assert!(calls[20].took >= 0.095, "{:?}", calls[20]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_not_answered_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { address: listener.local_addr().unwrap(), path: "/".into() };
        let plan = Open { rate: 50.0, connections: 10, patience: Duration::from_secs(5) };
        let running = Loop::start(&target, plan);
        for _ in 0..3 {
            drop(listener.accept().await.unwrap());
        }
        drop(listener);
        let calls = running.end().await.unwrap();
        assert!(!calls.is_empty() && calls.iter().all(|call| call.outcome.is_err()), "{calls:?}");
    }
}
