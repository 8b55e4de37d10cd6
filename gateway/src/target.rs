//! Connections to one instance. Of HTTP/1 kept alive and taken by one request at a time; of HTTP/2
//! one for all.

use std::{
    future::poll_fn,
    io::ErrorKind,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::Future;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lambent_api::Protocol;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    body::RequestBody,
    lane::Lane,
    leash::{Leash, Leashes},
    server,
    workers::Home,
};

/// How long a connection stays idle before it is closed, unless the function says how long it keeps
/// one. Node's HTTP server closes after 5 s, which is the shortest of the common ones; closing first
/// avoids sending into a closing connection. Opening another takes 0.1 ms.
const IDLE_FOR: Duration = Duration::from_secs(4);
/// Functions that keep connections for longer need no more of it.
const MAX_IDLE_FOR: Duration = Duration::from_secs(60);
/// An instance that has answered before accepts at once; a lost SYN is sent again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// More are closed: no instance is meant to serve more at once.
const MAX_IDLE: usize = 1000;
/// A connection that has not had a request yet and was opened so lately is closed by no server for being
/// idle: if it ends, the process does.
const IS_NEW: Duration = Duration::from_secs(1);

/// An HTTP/2 connection to an instance that has gone is noticed by this.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Bytes that may wait unread on one, of all calls together, which slow callers share: more than on a caller's,
/// lest one of them ends the calls of all by many small messages.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Where an instance listens, with its idle connections.
#[derive(Debug, Default)]
pub struct Target {
    place: Mutex<Place>,
    protocol: OnceLock<Protocol>,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<http2::SendRequest<RequestBody>>>,
    /// Milliseconds for which a connection stays idle, and one; zero before the function has said.
    idle_for: AtomicU32,
}

/// Where an instance listens, as far as that is known.
#[derive(Debug, Default)]
struct Place {
    address: Option<SocketAddr>,
    /// While the address is only an agent's word: what was opened there.
    early: Option<Leashes>,
}

#[derive(Debug)]
struct Idle {
    kept: Kept,
    since: Instant,
}

#[derive(Debug)]
enum Kept {
    /// It has proved that the instance answers, and is nobody's yet.
    New(std::net::TcpStream, SocketAddr),
    /// It has had a request.
    Used(Box<Lane>),
}

impl Idle {
    fn is_at(&self, home: Home) -> bool {
        matches!(&self.kept, Kept::Used(lane) if lane.home == home)
    }

    fn is_free(&mut self) -> bool {
        match &mut self.kept {
            Kept::New(stream, _) => stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
            Kept::Used(lane) => lane.is_free(),
        }
    }
}

/// Sends a request on a connection.
#[derive(Debug)]
pub enum Sender {
    /// One request at a time.
    Http1(Box<Lane>),
    /// Many at once.
    Http2(http2::SendRequest<RequestBody>),
}

type Head = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A request on its way, until the head of its answer is here.
pub struct Exchange {
    /// The connection, which moves on only while this is polled.
    pub sender: Sender,
    head: Pin<Box<dyn Future<Output = Head> + Send>>,
}

impl Future for Exchange {
    type Output = Head;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Head> {
        let Self { sender, head } = &mut *self;
        sender.poll_with(cx, |cx| head.as_mut().poll(cx))
    }
}

impl Sender {
    /// Sends a request.
    pub fn send(mut self, request: Request<RequestBody>) -> Exchange {
        let head: Pin<Box<dyn Future<Output = Head> + Send>> = match &mut self {
            Self::Http1(lane) => Box::pin(lane.sender.try_send_request(request)),
            Self::Http2(sender) => Box::pin(sender.try_send_request(request)),
        };
        Exchange { sender: self, head }
    }

    /// Whether requests are sent as HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The next part of an answer that comes on this connection.
    pub fn poll_frame(
        &mut self,
        answer: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.poll_with(cx, |cx| Pin::new(&mut *answer).poll_frame(cx))
    }

    /// Takes the rest of an answer. Whether it came to its end.
    pub async fn drain(&mut self, mut answer: Incoming) -> bool {
        loop {
            match poll_fn(|cx| self.poll_frame(&mut answer, cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => return true,
            }
        }
    }

    /// Ends when an answer that changes the protocol has handed its connection over. Its leash, if it is on one.
    pub async fn hand_over(self) -> Option<Arc<Leash>> {
        match self {
            Self::Http1(lane) => lane.until_ended().await,
            Self::Http2(_) => None,
        }
    }

    fn poll_with<T>(&mut self, cx: &mut Context<'_>, mut outcome: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        match self {
            Self::Http1(lane) => lane.poll_with(cx, outcome),
            // Driven by a task of its own: many requests share it.
            Self::Http2(_) => outcome(cx),
        }
    }
}

/// A connection for one request.
#[derive(Debug)]
pub struct Connection {
    /// Takes the request.
    pub sender: Sender,
    /// Whether it was used before: an idle connection may have been closed by the other side.
    pub reused: bool,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Its address isn't known.
    #[error("the instance has no address")]
    NoAddress,
    /// It refused, or the network did.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It turned out to be elsewhere meanwhile.
    #[error("the instance is elsewhere")]
    Moved,
    /// It did not answer.
    #[error("no connection within {} ms", CONNECT_TIMEOUT.as_millis())]
    Timeout,
    /// It is no HTTP/1 server.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Target {
    /// Says where it listens. Whether it was elsewhere before: a pod whose sandbox is made anew moves,
    /// and its old address may be another's by now.
    pub fn set_address(&self, address: SocketAddr) -> bool {
        self.put(Place { address: Some(address), early: None })
    }

    /// Says where it listens by an agent's word, which counts as long as there is no other. Whether it was
    /// elsewhere before.
    pub fn set_early_address(&self, address: SocketAddr) -> bool {
        let is_news = {
            let place = self.place.lock();
            place.address.is_none() || place.early.is_some() && place.address != Some(address)
        };
        is_news && self.put(Place { address: Some(address), early: Some(Leashes::default()) })
    }

    /// What was opened by an agent's word is cut off if that was wrong: it may be another pod that answers there.
    fn put(&self, place: Place) -> bool {
        let address = place.address;
        let before = std::mem::replace(&mut *self.place.lock(), place);
        let moved = before.address.is_some() && before.address != address;
        if moved {
            self.clear();
            before.early.iter().for_each(Leashes::cut);
        }
        moved
    }

    /// Whether its address is only an agent's word.
    pub fn is_early(&self) -> bool {
        self.place.lock().early.is_some()
    }

    /// Says what it speaks; it never changes.
    pub fn set_protocol(&self, protocol: Protocol) {
        let _ = self.protocol.set(protocol);
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol.get().copied().unwrap_or_default()
    }

    /// Where it listens, if that is known.
    pub fn address(&self) -> Option<SocketAddr> {
        self.place.lock().address
    }

    /// A connection: one that is there, else a new one.
    ///
    /// Ends by itself: every wait in it is bounded.
    ///
    /// # Errors
    /// If none can be opened; nothing was sent then.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        if let Some(sender) = self.shared.lock().as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(Connection { sender: Sender::Http2(sender.clone()), reused: true });
        }
        let (stream, address, reused) = match self.take_idle() {
            Some(Idle { kept: Kept::Used(lane), .. }) => {
                return Ok(Connection { sender: Sender::Http1(lane), reused: true });
            }
            Some(Idle { kept: Kept::New(stream, address), since }) => {
                (TcpStream::from_std(stream)?, address, since.elapsed() > IS_NEW)
            }
            None => {
                let address = self.address().ok_or(ConnectError::NoAddress)?;
                (connect(address).await?, address, false)
            }
        };
        let sender = timeout(CONNECT_TIMEOUT, self.open(stream)).await.map_err(|_| ConnectError::Timeout)??;
        // It may have been opened just too late to be cut off.
        if self.address() != Some(address) {
            self.clear();
            return Err(ConnectError::Moved);
        }
        Ok(Connection { sender, reused })
    }

    /// The function closes connections that have been idle for so long: they are closed before, at four
    /// fifths of it.
    pub fn set_keep_alive(&self, timeout: Duration) {
        let ours = (timeout.min(MAX_IDLE_FOR) * 4 / 5).as_millis();
        self.idle_for.store(u32::try_from(ours).unwrap_or(u32::MAX).saturating_add(1), Ordering::Relaxed);
    }

    fn idle_for(&self) -> Duration {
        match self.idle_for.load(Ordering::Relaxed) {
            0 => IDLE_FOR,
            more => Duration::from_millis((more - 1).into()),
        }
    }

    /// Keeps the connection that proved that the instance answers, for the first request.
    pub async fn adopt(&self, stream: TcpStream) {
        let Some(address) = self.address().filter(|address| stream.peer_addr().is_ok_and(|peer| peer == *address))
        else {
            return;
        };
        match self.protocol() {
            Protocol::Http1 => {
                if let Ok(stream) = stream.into_std() {
                    self.put_idle(Kept::New(stream, address));
                }
            }
            // Kept by itself.
            Protocol::H2c => drop(timeout(CONNECT_TIMEOUT, self.open(stream)).await),
        }
        if self.address() != Some(address) {
            self.clear();
        }
    }

    async fn open(&self, stream: TcpStream) -> Result<Sender, ConnectError> {
        let leash = match &mut self.place.lock().early {
            Some(leashes) => Some(leashes.add(&stream)?),
            None => None,
        };
        match self.protocol() {
            Protocol::Http1 => Ok(Sender::Http1(Box::new(Lane::open(stream, leash).await?))),
            Protocol::H2c => {
                let sender = open_http2(stream, leash).await?;
                *self.shared.lock() = Some(sender.clone());
                Ok(Sender::Http2(sender))
            }
        }
    }

    /// Gives a connection back after its answer has ended. An instance may answer before it has read
    /// the whole request: then that goes on until `deadline`.
    pub fn keep(self: &Arc<Self>, sender: Sender, deadline: Instant) {
        let Sender::Http1(mut lane) = sender else { return };
        if lane.is_free() {
            self.put_idle(Kept::Used(lane));
        } else if !lane.sender.is_closed() {
            let target = self.clone();
            tokio::spawn(async move {
                if let Ok(true) = timeout_at(deadline, lane.until_free()).await
                    && lane.is_free()
                {
                    target.put_idle(Kept::Used(lane));
                }
            });
        }
    }

    fn put_idle(&self, kept: Kept) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { kept, since: Instant::now() });
        }
    }

    /// Closes connections that have been idle for too long, or that the instance has closed.
    pub fn prune(&self, now: Instant) {
        let idle_for = self.idle_for();
        self.idle.lock().retain_mut(|idle| now.duration_since(idle.since) < idle_for && idle.is_free());
    }

    /// Closes all idle connections: the process behind them is another one now.
    pub fn clear(&self) {
        self.idle.lock().clear();
        *self.shared.lock() = None;
    }

    /// Of those that belong to this thread, else of all, the one used last, so that the others age and are
    /// closed. Another thread's is slower, but one more would be more than the instance is meant to have.
    fn take_idle(&self) -> Option<Idle> {
        let (idle_for, here) = (self.idle_for(), Home::here());
        let mut idle = self.idle.lock();
        while let Some(last) = idle.len().checked_sub(1) {
            let at = idle.iter().rposition(|idle| idle.is_at(here)).unwrap_or(last);
            let mut taken = idle.remove(at);
            if taken.since.elapsed() < idle_for && taken.is_free() {
                return Some(taken);
            }
        }
        None
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| ConnectError::Timeout)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn open_http2(
    stream: TcpStream,
    leash: Option<Arc<Leash>>,
) -> Result<http2::SendRequest<RequestBody>, hyper::Error> {
    let builder = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .initial_stream_window_size(server::STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(server::MAX_HEAD)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = builder.await?;
    // Ends when the connection does, or when its last sender is dropped.
    tokio::spawn(async move {
        let _ = connection.await;
        drop(leash);
    });
    Ok(sender)
}
