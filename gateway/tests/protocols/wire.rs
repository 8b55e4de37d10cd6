//! Both ends of the wire: a caller who sends what it is told, an instance that shows what it got.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::until;

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Names and values of fields, in their order; bytes as Latin-1, so that none is lost.
pub(crate) type Fields = Vec<(String, String)>;

/// A request or an answer as it was on the wire, its framing taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

impl Message {
    fn parse(head: &[u8]) -> Self {
        let head = latin1(head);
        let (start, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        Self { start: start.into(), fields: parse_fields(fields), ..Self::default() }
    }

    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// What stands between method and version.
    pub(crate) fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap()
    }

    /// The values of all lines of that name, in their order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The value of the only line of that name.
    pub(crate) fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {self:?}");
        all[0]
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    fn is_chunked(&self) -> bool {
        self.all("transfer-encoding").iter().any(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.all("content-length").first().map(|length| length.parse().unwrap())
    }
}

pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

fn parse_fields(text: &str) -> Fields {
    let lines = text.split("\r\n").filter(|line| !line.is_empty());
    lines.map(|line| line.split_once(':').unwrap()).map(|(name, value)| (name.into(), value.trim().into())).collect()
}

/// One end of a connection.
pub(crate) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        in_time("the other side reads", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Whether more has come; an error is an end as well.
    async fn more(&mut self) -> bool {
        let read = in_time("bytes or an end", self.stream.read_buf(&mut self.unread)).await;
        read.is_ok_and(|read| read > 0)
    }

    async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|w| w == mark) {
                let rest = self.unread.split_off(at + mark.len());
                let mut taken = std::mem::replace(&mut self.unread, rest);
                taken.truncate(at);
                return Some(taken);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// So many bytes; none when the connection ends before.
    pub(crate) async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.more().await {
                return None;
            }
        }
        let rest = self.unread.split_off(length);
        Some(std::mem::replace(&mut self.unread, rest))
    }

    /// A message up to its empty line; none when the connection has ended.
    pub(crate) async fn head(&mut self) -> Option<Message> {
        self.until(b"\r\n\r\n").await.map(|head| Message::parse(&head))
    }

    /// One chunk; empty is the last.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = latin1(&self.until(b"\r\n").await?);
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).unwrap();
        let chunk = self.exactly(size).await?;
        if size > 0 {
            assert_eq!(self.exactly(2).await?, b"\r\n");
        }
        Some(chunk)
    }

    /// The fields after the last chunk.
    async fn trailers(&mut self) -> Option<Fields> {
        let mut text = String::new();
        loop {
            let line = latin1(&self.until(b"\r\n").await?);
            if line.is_empty() {
                return Some(parse_fields(&text));
            }
            text += &line;
            text += "\r\n";
        }
    }

    /// Takes a message's body; none when the connection ends amid it.
    async fn body(&mut self, message: &mut Message, to_the_end: bool) -> Option<()> {
        if message.is_chunked() {
            loop {
                let chunk = self.chunk().await?;
                if chunk.is_empty() {
                    break;
                }
                message.body.extend(chunk);
            }
            message.trailers = self.trailers().await?;
        } else if let Some(length) = message.length() {
            message.body = self.exactly(length).await?;
        } else if to_the_end {
            message.body = self.rest().await;
        }
        Some(())
    }

    /// Everything until the other side ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.unread)
    }

    /// Whether nothing has come that was not taken.
    pub(crate) fn is_silent(&mut self) -> bool {
        let read = self.stream.try_read(&mut [0; 1]);
        self.unread.is_empty() && read.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Sends what it is told and reads answers as they come.
pub(crate) struct Caller {
    pub(crate) wire: Wire,
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { wire: Wire::new(TcpStream::connect(address).await.unwrap()) }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes).await;
    }

    /// The answer to a request that was sent with this method.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Message {
        let mut answer = self.wire.head().await.expect("an answer");
        if method != "HEAD" && !matches!(answer.status(), 100..=199 | 204 | 304) {
            self.wire.body(&mut answer, true).await.expect("the whole answer");
        }
        answer
    }

    /// Sends a request and takes its answer.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        let request = request.as_ref();
        // Whoever is refused may find the connection closed while it sends.
        let _ = in_time("the request goes out", self.wire.stream.write_all(request)).await;
        let method = request.split(|b| *b == b' ').next().map(latin1);
        self.answer_to(&method.unwrap_or_default()).await
    }

    /// Whether the gateway closes the connection without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.wire.rest().await.is_empty()
    }
}

/// An HTTP/1 server that keeps every request that it got.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    connections: Arc<AtomicU32>,
    cut: Arc<AtomicU32>,
}

impl Instance {
    /// Sends what `script` returns for a request. It closes the connection after an answer that says
    /// so, that has no length, or that is empty.
    pub(crate) async fn start(script: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let instance = Self { address, seen: Arc::default(), connections: Arc::default(), cut: Arc::default() };
        let (seen, connections, cut) = (instance.seen.clone(), instance.connections.clone(), instance.cut.clone());
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (seen, script, cut) = (seen.clone(), script.clone(), cut.clone());
                tokio::spawn(async move {
                    let mut wire = Wire::new(stream);
                    while let Some(mut request) = wire.head_of_request().await {
                        if wire.body(&mut request, false).await.is_none() {
                            cut.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        let answer = script(&request);
                        seen.lock().push(request);
                        if wire.stream.write_all(&answer).await.is_err() || ends_the_connection(&answer) {
                            return;
                        }
                    }
                });
            }
        });
        instance
    }

    /// What it got so far, whole requests only.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.seen.lock().clone()
    }

    /// The one request that it got.
    pub(crate) fn only(&self) -> Message {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().unwrap()
    }

    /// Requests that were broken off amid their body.
    pub(crate) fn cut(&self) -> u32 {
        self.cut.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until it has so many requests.
    pub(crate) async fn has(&self, count: usize) -> Vec<Message> {
        until("the requests are there", || self.seen.lock().len() >= count).await;
        self.seen()
    }
}

impl Wire {
    async fn head_of_request(&mut self) -> Option<Message> {
        // An idle connection may stay for as long as a test does.
        while !self.unread.windows(4).any(|w| w == b"\r\n\r\n") {
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
        self.head().await
    }
}

fn ends_the_connection(answer: &[u8]) -> bool {
    let text = latin1(answer).to_ascii_lowercase();
    let Some((head, _)) = text.rsplit_once("\r\n\r\n") else { return true };
    let bodiless = ["http/1.1 204", "http/1.1 304"].iter().any(|status| head.starts_with(status));
    let framed = head.contains("content-length:") || head.contains("transfer-encoding:") || bodiless;
    !framed || head.contains("connection: close")
}

/// `count` header lines of `size` bytes each.
pub(crate) fn padding(count: usize, size: usize) -> String {
    (0..count).map(|n| format!("X-Padding-{n}: {}\r\n", "v".repeat(size))).collect()
}
