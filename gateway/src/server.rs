//! The public port: accepts connections, speaks HTTP/1.1 or HTTP/2 by prior knowledge, and drains.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, Version, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    body::ResponseBody,
    caller::{Caller, Presence},
    forward::Forwarder,
    forwarded::Peer,
    workers::Workers,
};

/// More wait in the kernel: a flood must not take the file descriptors that instances need.
const MAX_CONNECTIONS: usize = 20_000;
/// Time to send a request's head, and to keep an idle connection.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// A request's head may have this many bytes.
pub const MAX_HEAD: u32 = 64 * 1024;
/// A request may have this many headers, and an answer: hyper's own limit, for which it needs no memory. For a
/// higher one it takes and fills 12 KiB for each message.
pub const MAX_HEADERS: usize = 100;
/// Requests at once on one HTTP/2 connection; more are told to wait.
const MAX_STREAMS: u32 = 250;
/// A silent HTTP/2 connection is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Bytes that may wait unread on one HTTP/2 stream.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// The same on a caller's connection, of all streams together. h2 closes a connection on which more small frames
/// wait than about one for every 512 bytes of this: gRPC has many.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// With which HTTP/2 begins, and no method of HTTP/1 does.
const PREFACE: &[u8] = b"PRI";

/// Between two looks at a connection that begins with less than that: callers who do so on purpose
/// cost next to nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How a drain goes.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Serve on for this long after having become unready: the network learns it later.
    pub delay: Duration,
    /// From then on, how long requests in flight and in line may take.
    pub grace: Duration,
}

/// Serves until `shutdown`, then drains. Returns when the last connection has ended or the grace is over.
///
/// # Errors
/// If there are no threads for callers.
pub async fn run(
    listener: TcpListener,
    forwarder: Arc<Forwarder>,
    drain: Drain,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let (closing, stop, requests) = (AtomicBool::new(false), CancellationToken::new(), TaskTracker::new());
    let connections = TaskTracker::new();
    // What is left at the end is cut off with them.
    let (workers, _guard) = Workers::start()?;
    let server = Arc::new(Server { forwarder, closing, stop, requests, connections, workers });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let leave = async {
        shutdown.cancelled().await;
        server.closing.store(true, Ordering::Release);
        sleep(drain.delay).await;
    };
    tokio::select! {
        () = leave => {}
        () = accept(&listener, &server, &places) => {}
    }
    drop(listener);
    server.stop.cancel();
    let Server { connections, requests, .. } = &*server;
    connections.close();
    requests.close();
    info!(connections = connections.len(), requests = requests.len(), "draining");
    // A connection that has changed its protocol is no connection of HTTP any more, and an instance may
    // still be busy with what a caller has given up.
    let all = async { tokio::join!(connections.wait(), requests.wait()) };
    if timeout(drain.grace, all).await.is_err() {
        let (connections, requests) = (connections.len(), requests.len());
        warn!(connections, requests, "the grace is over; what still runs is cut off");
    }
    Ok(())
}

/// The caller has closed the connection: there is nobody to answer.
#[derive(Debug, Error)]
#[error("the caller is gone")]
struct CallerGone;

struct Server {
    forwarder: Arc<Forwarder>,
    /// Answers say `Connection: close` from now on.
    closing: AtomicBool,
    /// Idle connections are closed from now on.
    stop: CancellationToken,
    /// What has not come to its end yet, also at the instances.
    requests: TaskTracker,
    connections: TaskTracker,
    workers: Workers,
}

async fn accept(listener: &TcpListener, server: &Arc<Server>, places: &Arc<Semaphore>) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => drop(server.connections.spawn(server.clone().connection(stream, peer, place))),
            Err(error) => {
                // Out of file descriptors, or a connection that was reset before it was accepted.
                warn!(%error, "accepting a connection failed");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

impl Server {
    /// Ends when the client or the drain closes it, or when a worker has it.
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        // Ends with the first bytes, or when none come.
        let Ok(Ok(is_http2)) = timeout(HEAD_WITHIN, begins_as_http2(&stream)).await else { return };
        if is_http2 {
            // Its requests are tasks of their own, which all threads share: there may be many on one connection.
            return self.http2(stream, peer.ip()).await;
        }
        let Ok(stream) = stream.into_std() else { return };
        let server = self.clone();
        let served = self.connections.track_future(async move {
            let _place = place;
            if let Ok(stream) = TcpStream::from_std(stream) {
                server.http1(stream, peer.ip()).await;
            }
        });
        self.workers.spawn(served);
    }

    async fn http1(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
        let (caller, presence) = Caller::new(stream);
        let origin = Arc::new(Origin { server: self.clone(), peer: Peer::new(peer), presence });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            // Most answers are short: to copy one behind its head costs less than to gather both.
            .writev(false)
            .max_buf_size(MAX_HEAD as usize)
            .serve_connection(TokioIo::new(caller), service_fn(move |request| origin.clone().request(request)))
            .with_upgrades();
        self.until_stopped(peer, connection, |connection| connection.graceful_shutdown()).await;
    }

    async fn http2(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
        let (caller, presence) = Caller::new(stream);
        let origin = Arc::new(Origin { server: self.clone(), peer: Peer::new(peer), presence });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .serve_connection(TokioIo::new(caller), service_fn(move |request| origin.clone().request(request)));
        self.until_stopped(peer, connection, |connection| connection.graceful_shutdown()).await;
    }

    /// Ends when the caller closes it, or after the requests that it has when the drain begins.
    async fn until_stopped<C: Future<Output = hyper::Result<()>>>(
        &self,
        peer: IpAddr,
        connection: C,
        shut_down: impl FnOnce(Pin<&mut C>),
    ) {
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.stop.cancelled() => {
                shut_down(connection.as_mut());
                connection.await
            }
        };
        if let Err(error) = outcome {
            debug!(%peer, %error, "connection ended");
        }
    }
}

/// Where requests come from: one connection.
struct Origin {
    server: Arc<Server>,
    peer: Peer,
    presence: Presence,
}

impl Origin {
    async fn request(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<ResponseBody>, CallerGone> {
        let (server, version) = (&self.server, request.version());
        let mut response = tokio::select! {
            biased;
            response = server.forwarder.serve(Box::new(request), &self.peer, server.requests.token()) => response,
            () = self.presence.ends() => return Err(CallerGone),
        };
        // HTTP/2 says it in a frame of its own.
        if version < Version::HTTP_2 && server.closing.load(Ordering::Acquire) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// Looks at the first bytes without taking them.
async fn begins_as_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    let mut pause = Duration::from_millis(1);
    loop {
        let length = stream.peek(&mut first).await?;
        if length == first.len() || first[..length] != PREFACE[..length] || length == 0 {
            return Ok(first[..length] == *PREFACE);
        }
        // Less than a method's name, and the socket stays readable: nothing tells when the rest is
        // there. Whoever has closed sends no more.
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            return Ok(false);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
