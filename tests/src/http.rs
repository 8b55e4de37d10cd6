//! An HTTP client with one connection for each call, so that a test decides when it opens, what is
//! sent of a body and when, and that dropping a call closes its connection.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, channel::mpsc};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, StatusCode,
    body::{Frame, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

/// Longer than any call of a test; a call that takes it hangs.
const LIMIT: Duration = Duration::from_secs(90);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Lambent's public port.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// `host:port`.
    pub authority: String,
}

/// A request in the making.
#[derive(Debug)]
pub struct Request {
    head: hyper::http::request::Builder,
    body: Body,
}

impl Request {
    /// A request with this method to this path and query, which is sent as it is written.
    pub fn new(method: &str, path: &str) -> Self {
        Self { head: hyper::Request::builder().method(method).uri(path), body: body(Bytes::new()) }
    }

    /// A GET.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A POST of these bytes.
    pub fn post(path: &str, bytes: impl Into<Bytes>) -> Self {
        Self::with_body("POST", path, bytes)
    }

    /// A request with this method and body.
    pub fn with_body(method: &str, path: &str, bytes: impl Into<Bytes>) -> Self {
        Self { body: body(bytes), ..Self::new(method, path) }
    }

    /// A POST whose body is sent while the test goes on, chunk by chunk.
    pub fn upload(path: &str) -> (Self, Upload) {
        let (sender, chunks) = mpsc::unbounded::<Bytes>();
        let frames = StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk))));
        (Self { body: frames.boxed_unsync(), ..Self::new("POST", path) }, Upload(sender))
    }

    /// With one more header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        Self { head: self.head.header(name, value), ..self }
    }

    fn finish(self, authority: &str) -> hyper::Request<Body> {
        let named = self.head.headers_ref().is_some_and(|headers| headers.contains_key(header::HOST));
        let head = if named { self.head } else { self.head.header(header::HOST, authority) };
        head.body(self.body).expect("a valid request")
    }
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// The rest of a request's body; dropping it ends the body.
#[derive(Debug)]
pub struct Upload(mpsc::UnboundedSender<Bytes>);

impl Upload {
    /// Sends a chunk.
    pub fn send(&self, chunk: impl Into<Bytes>) {
        // Whoever no longer reads has answered already; the test looks at that.
        let _ = self.0.unbounded_send(chunk.into());
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// From before the connection to the last byte.
    pub took: Duration,
}

impl Gateway {
    /// The gateway at `http://host:port`.
    ///
    /// # Panics
    /// If that is another kind of URL.
    pub fn new(url: &str) -> Self {
        let authority = url.strip_prefix("http://").expect("GATEWAY is an http:// URL");
        Self { authority: authority.trim_end_matches('/').to_owned() }
    }

    /// A connection for one or several requests.
    ///
    /// # Errors
    /// If there is none to be had.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.authority).await.with_context(|| self.authority.clone())?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(connection).abort_handle();
        Ok(Connection { sender, authority: self.authority.clone(), closes: Closes(task) })
    }

    /// Sends a request on a connection of its own, up to the head of the answer.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn open(&self, request: Request) -> anyhow::Result<Streaming> {
        let started = Instant::now();
        let mut connection = self.connect().await?;
        let request = request.finish(&self.authority);
        let response = timeout(LIMIT, connection.sender.send_request(request)).await.context("no answer")??;
        Ok(Streaming::new(response, connection.closes, started))
    }

    /// Sends a request on a connection of its own.
    ///
    /// # Errors
    /// If the connection fails, at any byte.
    pub async fn try_send(&self, request: Request) -> anyhow::Result<Answer> {
        timeout(LIMIT, self.open(request).await?.rest()).await.context("the answer does not end")?
    }

    /// Sends a request on a connection of its own.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn send(&self, request: Request) -> Answer {
        self.try_send(request).await.expect("a whole answer from the gateway")
    }
}

/// A kept-alive connection.
pub struct Connection {
    sender: SendRequest<Body>,
    authority: String,
    closes: Closes,
}

impl Connection {
    /// The next request on it.
    ///
    /// # Errors
    /// If it is closed or breaks.
    pub async fn send(&mut self, request: Request) -> anyhow::Result<Answer> {
        let started = Instant::now();
        self.sender.ready().await?;
        let response = self.sender.send_request(request.finish(&self.authority)).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body, took: started.elapsed() })
    }
}

/// Closes a connection when dropped.
struct Closes(AbortHandle);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still coming.
pub struct Streaming {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    started: Instant,
    _closes: Closes,
}

impl Streaming {
    fn new(response: hyper::Response<Incoming>, closes: Closes, started: Instant) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, body, buffer: BytesMut::new(), started, _closes: closes }
    }

    /// The next line without its end; none after the last.
    ///
    /// # Errors
    /// If the body is cut or nothing comes.
    pub async fn line(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(at + 1);
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            if !self.fill().await? {
                ensure!(self.buffer.is_empty(), "the last line has no end");
                return Ok(None);
            }
        }
    }

    /// Exactly so many bytes.
    ///
    /// # Errors
    /// If the body ends or is cut before, or nothing comes.
    pub async fn bytes(&mut self, count: usize) -> anyhow::Result<Bytes> {
        while self.buffer.len() < count {
            ensure!(self.fill().await?, "the body ended after {} of {count} bytes", self.buffer.len());
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// All that is left.
    ///
    /// # Errors
    /// If the body is cut or does not end.
    pub async fn rest(mut self) -> anyhow::Result<Answer> {
        while self.fill().await? {}
        let (headers, body) = (self.headers, self.buffer.freeze());
        Ok(Answer { status: self.status, headers, body, took: self.started.elapsed() })
    }

    async fn fill(&mut self) -> anyhow::Result<bool> {
        while let Some(frame) = timeout(LIMIT, self.body.frame()).await.context("nothing more comes")? {
            if let Ok(data) = frame?.into_data() {
                self.buffer.extend_from_slice(&data);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// So many milliseconds that `Server-Timing` gives for one of its names.
    pub fn timing(&self, name: &str) -> Option<f64> {
        let mut entries = self.header("server-timing")?.split(',').map(str::trim);
        entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix(";dur=")?.parse().ok())
    }

    /// Whether the instance that answered was started for this request or while it waited.
    pub fn was_cold(&self) -> bool {
        self.header("lambent-cold-start") == Some("true")
    }

    /// The same answer, if it has this status.
    ///
    /// # Panics
    /// If it has another one.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?} {}", self.headers, self.text());
        self
    }

    /// The words of the gateway's own answer, after everything was checked that all of them have.
    ///
    /// # Panics
    /// If it is not one, or has another status or reason.
    pub fn expect_refusal(&self, status: u16, reason: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{:?} {}", self.headers, self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["reason"], reason, "{problem}");
        let id = problem["requestId"].as_str().filter(|id| !id.is_empty());
        assert!(id.is_some() && id == self.header("x-request-id"), "{problem}: {:?}", self.headers);
        if [429, 503].contains(&status) {
            let after = self.header("retry-after").and_then(|text| text.parse::<u32>().ok());
            assert!(after.is_some_and(|seconds| seconds > 0), "no Retry-After in seconds: {:?}", self.headers);
        }
        problem["detail"].as_str().unwrap_or_default().to_owned()
    }
}
