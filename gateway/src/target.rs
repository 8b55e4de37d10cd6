//! Connections to one instance. Of HTTP/1 kept alive and taken by one request at a time; of HTTP/2
//! one for all.

use std::{net::SocketAddr, pin::Pin, sync::OnceLock, time::Duration};

use futures::Future;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lambent_api::Protocol;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::body::RequestBody;

/// Node's HTTP server closes an idle connection after 5 s, which is the shortest of the common
/// ones; closing first avoids sending into a closing connection. Opening another takes 0.1 ms.
const IDLE_FOR: Duration = Duration::from_secs(4);
/// A used connection is free again within microseconds after its answer ended.
const BECOMES_FREE: Duration = Duration::from_millis(5);
/// An instance that has answered before accepts at once; a lost SYN is sent again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// More are closed: no instance is meant to serve more at once.
const MAX_IDLE: usize = 1000;

/// An HTTP/2 connection to an instance that has gone is noticed by this.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Where an instance listens, with its idle connections.
#[derive(Debug, Default)]
pub struct Target {
    address: OnceLock<SocketAddr>,
    protocol: OnceLock<Protocol>,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<http2::SendRequest<RequestBody>>>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// Sends a request on a connection.
#[derive(Debug)]
pub enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<RequestBody>),
    /// Many at once.
    Http2(http2::SendRequest<RequestBody>),
}

/// A request on its way, until the head of its answer is here.
pub type Exchange =
    Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + Send>>;

impl Sender {
    /// Sends a request.
    pub fn send(&mut self, request: Request<RequestBody>) -> Exchange {
        match self {
            Self::Http1(sender) => Box::pin(sender.try_send_request(request)),
            Self::Http2(sender) => Box::pin(sender.try_send_request(request)),
        }
    }

    /// Whether requests are sent as HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
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
    /// It did not answer.
    #[error("no connection within {} ms", CONNECT_TIMEOUT.as_millis())]
    Timeout,
    /// It is no HTTP/1 server.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Target {
    /// Says where it listens; an instance never moves.
    pub fn set_address(&self, address: SocketAddr) {
        let _ = self.address.set(address);
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
        self.address.get().copied()
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
        while let Some(mut sender) = self.take_idle() {
            if sender.is_ready() || matches!(timeout(BECOMES_FREE, sender.ready()).await, Ok(Ok(()))) {
                return Ok(Connection { sender: Sender::Http1(sender), reused: true });
            }
        }
        let address = *self.address.get().ok_or(ConnectError::NoAddress)?;
        let stream =
            timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| ConnectError::Timeout)??;
        stream.set_nodelay(true)?;
        let sender = timeout(CONNECT_TIMEOUT, self.open(stream)).await.map_err(|_| ConnectError::Timeout)??;
        Ok(Connection { sender, reused: false })
    }

    /// Keeps the connection that proved that the instance answers, for the first request.
    pub async fn adopt(&self, stream: TcpStream) {
        if let Ok(Ok(sender)) = timeout(CONNECT_TIMEOUT, self.open(stream)).await {
            self.keep(sender);
        }
    }

    async fn open(&self, stream: TcpStream) -> Result<Sender, hyper::Error> {
        match self.protocol() {
            Protocol::Http1 => open_http1(stream).await.map(Sender::Http1),
            Protocol::H2c => {
                let sender = open_http2(stream).await?;
                *self.shared.lock() = Some(sender.clone());
                Ok(Sender::Http2(sender))
            }
        }
    }

    /// Gives a connection back after its answer has ended.
    pub fn keep(&self, sender: Sender) {
        let Sender::Http1(sender) = sender else { return };
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn prune(&self, now: Instant) {
        self.idle.lock().retain(|idle| now.duration_since(idle.since) < IDLE_FOR && !idle.sender.is_closed());
    }

    /// Closes all idle connections: the process behind them is another one now.
    pub fn clear(&self) {
        self.idle.lock().clear();
        *self.shared.lock() = None;
    }

    /// The one used last, so that the others age and are closed.
    fn take_idle(&self) -> Option<http1::SendRequest<RequestBody>> {
        let mut idle = self.idle.lock();
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.elapsed() < IDLE_FOR && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }
}

async fn open_http1(stream: TcpStream) -> Result<http1::SendRequest<RequestBody>, hyper::Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the connection does, or when its sender is dropped.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

async fn open_http2(stream: TcpStream) -> Result<http2::SendRequest<RequestBody>, hyper::Error> {
    let builder = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .adaptive_window(true)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = builder.await?;
    // Ends when the connection does, or when its last sender is dropped.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}
