//! The public port: accepts connections, speaks HTTP/1.1, and drains.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{body::ResponseBody, caller::Caller, forward::Forwarder};

/// More wait in the kernel: a flood must not take the file descriptors that instances need.
const MAX_CONNECTIONS: usize = 20_000;
/// Time to send a request's head, and to keep an idle connection.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// A request's head may have this many bytes.
const MAX_HEAD: usize = 64 * 1024;
/// A request may have this many headers.
const MAX_HEADERS: usize = 200;

/// How a drain goes.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Serve on for this long after having become unready: the network learns it later.
    pub delay: Duration,
    /// From then on, how long requests in flight and in line may take.
    pub grace: Duration,
}

/// Serves until `shutdown`, then drains. Returns when the last connection has ended or the grace is over.
pub async fn run(listener: TcpListener, forwarder: Arc<Forwarder>, drain: Drain, shutdown: CancellationToken) {
    let server = Arc::new(Server { forwarder, closing: AtomicBool::new(false), stop: CancellationToken::new() });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let leave = async {
        shutdown.cancelled().await;
        server.closing.store(true, Ordering::Release);
        sleep(drain.delay).await;
    };
    tokio::select! {
        () = leave => {}
        () = accept(&listener, &server, &places, &connections) => {}
    }
    drop(listener);
    server.stop.cancel();
    connections.close();
    info!(connections = connections.len(), "draining");
    if timeout(drain.grace, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "the grace is over; what still runs is cut off");
    }
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
}

async fn accept(listener: &TcpListener, server: &Arc<Server>, places: &Arc<Semaphore>, connections: &TaskTracker) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => drop(connections.spawn(server.clone().connection(stream, peer, place))),
            Err(error) => {
                // Out of file descriptors, or a connection that was reset before it was accepted.
                warn!(%error, "accepting a connection failed");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

impl Server {
    /// Ends when the client or the drain closes it.
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, _place: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let caller = Caller::new(stream);
        let service = service_fn(|request| self.request(request, peer, &caller));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(caller.clone()), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            debug!(%peer, %error, "connection ended");
        }
    }

    async fn request(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        caller: &Caller,
    ) -> Result<Response<ResponseBody>, CallerGone> {
        let mut response = tokio::select! {
            response = self.forwarder.serve(request, peer.ip()) => response,
            () = caller.gone() => return Err(CallerGone),
        };
        if self.closing.load(Ordering::Acquire) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}
