//! An HTTP/1.1 client as a careful caller is one: connections are kept alive for a while, a refused
//! connection is tried again, and a request of which nothing was sent goes out on another one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    task::AbortHandle,
    time::{sleep, timeout},
};

/// Far shorter than a gateway keeps idle connections, so that none is used just when it is closed.
const IDLE_FOR: Duration = Duration::from_secs(2);
/// A lost SYN is sent again after 1 s; another gateway may be there sooner.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections to the gateways.
pub struct Client {
    authority: String,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Closes its socket when dropped.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Bytes,
}

/// What happens on the way, told as it happens: the call itself may be given up at any time.
pub trait Watch {
    /// A connection was refused; another is tried.
    fn refused(&self);
    /// There is a connection.
    fn sent(&self);
}

impl Client {
    /// Of this `host:port`.
    pub fn new(authority: &str) -> Self {
        Self { authority: authority.to_owned(), idle: Mutex::default() }
    }

    /// Sends a request. Ends only with the answer or with the connection: to be given up by dropping it.
    ///
    /// # Errors
    /// How the connection broke.
    pub async fn call(&self, mut request: Request<Full<Bytes>>, watch: &impl Watch) -> Result<Answer, String> {
        loop {
            let mut connection = self.connection(watch).await;
            watch.sent();
            match connection.sender.try_send_request(request).await {
                Ok(response) => return self.rest(response, connection).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(words(&error.into_error())),
                },
            }
        }
    }

    async fn rest(&self, response: Response<Incoming>, connection: Connection) -> Result<Answer, String> {
        let closes = response.headers().get(hyper::header::CONNECTION).is_some_and(|value| value == "close");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| words(&error))?.to_bytes();
        if !closes {
            self.idle.lock().push(Idle { connection, since: Instant::now() });
        }
        Ok(Answer { status, body })
    }

    /// The one used last that is still open, else a new one.
    async fn connection(&self, watch: &impl Watch) -> Connection {
        while let Some(mut connection) = self.take_idle() {
            if connection.sender.ready().await.is_ok() {
                return connection;
            }
        }
        loop {
            match timeout(CONNECT_WITHIN, self.connect()).await {
                Ok(Ok(connection)) => return connection,
                _ => watch.refused(),
            }
            sleep(PAUSE).await;
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|idle| idle.since.elapsed() < IDLE_FOR && !idle.connection.sender.is_closed());
        idle.pop().map(|idle| idle.connection)
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(connection).abort_handle();
        Ok(Connection { sender, task })
    }
}

/// The whole chain of causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
