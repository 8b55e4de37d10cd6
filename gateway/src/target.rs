//! Connections to one instance: kept alive, taken by one request at a time.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
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

/// Where an instance listens, with its idle connections.
#[derive(Debug, Default)]
pub struct Target {
    address: OnceLock<SocketAddr>,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection for one request.
#[derive(Debug)]
pub struct Connection {
    /// Takes the request.
    pub sender: SendRequest<RequestBody>,
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

    /// Where it listens, if that is known.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// A connection: an idle one if there is one, else a new one.
    ///
    /// Ends by itself: every wait in it is bounded.
    ///
    /// # Errors
    /// If none can be opened; nothing was sent then.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        while let Some(mut sender) = self.take_idle() {
            if sender.is_ready() || matches!(timeout(BECOMES_FREE, sender.ready()).await, Ok(Ok(()))) {
                return Ok(Connection { sender, reused: true });
            }
        }
        let address = *self.address.get().ok_or(ConnectError::NoAddress)?;
        let stream =
            timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| ConnectError::Timeout)??;
        stream.set_nodelay(true)?;
        Ok(Connection { sender: open(stream).await?, reused: false })
    }

    /// Keeps the connection that proved that the instance answers, for the first request.
    pub async fn adopt(&self, stream: TcpStream) {
        if let Ok(sender) = open(stream).await {
            self.keep(sender);
        }
    }

    /// Gives a connection back after its answer has ended.
    pub fn keep(&self, sender: SendRequest<RequestBody>) {
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
    }

    /// The one used last, so that the others age and are closed.
    fn take_idle(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.lock();
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.elapsed() < IDLE_FOR && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }
}

async fn open(stream: TcpStream) -> Result<SendRequest<RequestBody>, hyper::Error> {
    let (sender, connection) =
        http1::Builder::new().preserve_header_case(false).handshake(TokioIo::new(stream)).await?;
    // Ends when the connection does, or when its sender is dropped.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}
