//! What each path answers.

use std::{
    collections::BTreeMap,
    env, fs, process,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
};
use serde_json::{Value, json};

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Counts a request while it runs, also one whose caller goes away.
struct Running(usize);

impl Running {
    fn start() -> Self {
        Self(RUNNING.fetch_add(1, Relaxed) + 1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Relaxed);
    }
}

pub(crate) async fn answer(request: Request<Incoming>, started: u64) -> hyper::http::Result<Response<Full<Bytes>>> {
    let query = request.uri().query().unwrap_or_default();
    let json = match request.uri().path() {
        "/exit" => process::exit(number(query, "code", 1)),
        "/env" => json!(env::vars_os().map(|(k, v)| (lossy(&k), lossy(&v))).collect::<BTreeMap<_, _>>()),
        path if path.starts_with("/headers") => as_arrived(&request),
        _ => sleep(number(query, "ms", 1000), started).await,
    };
    Response::builder().header(CONTENT_TYPE, "application/json").body(Full::from(format!("{json}\n")))
}

async fn sleep(ms: u64, started: u64) -> Value {
    let (running, from) = (Running::start(), now());
    tokio::time::sleep(Duration::from_millis(ms)).await;
    json!({"hostname": hostname(), "pid": process::id(), "started": started, "from": from, "to": now(), "running": running.0})
}

fn as_arrived(request: &Request<Incoming>) -> Value {
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in request.headers() {
        headers.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()));
    }
    let (path, query) = (request.uri().path(), request.uri().query());
    json!({"method": request.method().as_str(), "path": path, "query": query, "headers": headers})
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn lossy(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// Unix time in milliseconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// `name=5` of a query.
fn number<T: std::str::FromStr>(query: &str, name: &str, default: T) -> T {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}
