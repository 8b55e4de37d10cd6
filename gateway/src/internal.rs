//! The internal port: signals for the autoscaler and the controller, their requests to stop using
//! instances, the other gateways, and the agents of nodes. Every call shows a service account token that the API server
//! vouches for.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    future::{BoxFuture, ready},
    stream,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use lambent_api::{
    node,
    signal::{Retire, Retired},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    directory::Directory,
    nodes::Nodes,
    peers::{self, accept::Host},
    signals::Signals,
    upgrade,
};

const SIGNALS: &str = "/internal/v1/signals";
const RETIRE: &str = "/internal/v1/retire";
const PEER: &str = "/internal/v1/peer";

/// What a caller of the internal port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The autoscaler or the controller: may listen and retire.
    Listener,
    /// Another gateway: may claim Functions and ask for slots.
    Peer,
    /// The agent of this node: may tell addresses of pods there.
    Node(Arc<str>),
}

impl Role {
    fn may_call(&self, path: &str) -> bool {
        match self {
            Self::Listener => matches!(path, SIGNALS | RETIRE),
            Self::Peer => path == PEER,
            Self::Node(_) => path == node::PATH,
        }
    }
}

/// Says what the bearer of a token is.
pub trait Authenticate: Send + Sync {
    /// The role of the bearer; none if the token is not good for any. Bounded in time.
    fn role_of(&self, token: String) -> BoxFuture<'_, Option<Role>>;
}

#[derive(Clone)]
struct Shared {
    signals: Signals,
    directory: Arc<Directory>,
    authenticate: Arc<dyn Authenticate>,
    host: Option<Host>,
    nodes: Option<Arc<Nodes>>,
}

/// The routes of the internal port; `host` is for the other gateways and `nodes` for agents, where there may
/// be any.
pub fn routes(
    signals: Signals,
    directory: Arc<Directory>,
    authenticate: Arc<dyn Authenticate>,
    host: Option<Host>,
    nodes: Option<Arc<Nodes>>,
) -> Router {
    let shared = Shared { signals, directory, authenticate, host, nodes };
    Router::new()
        .route(SIGNALS, get(listen))
        .route(RETIRE, post(retire))
        .route(PEER, post(peer))
        .route(node::PATH, post(agent))
        .layer(middleware::from_fn_with_state(shared.clone(), only_trusted))
        .with_state(shared)
}

async fn only_trusted(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let Some(token) = header.and_then(|h| h.strip_prefix("Bearer ")).map(str::to_owned) else {
        return (StatusCode::UNAUTHORIZED, "a service account token is needed\n").into_response();
    };
    let role = shared.authenticate.role_of(token).await;
    match role.filter(|role| role.may_call(request.uri().path())) {
        Some(role) => {
            request.extensions_mut().insert(role);
            next.run(request).await
        }
        None => (StatusCode::FORBIDDEN, "this service account may not do this\n").into_response(),
    }
}

/// Goes over to the gateways' own protocol.
async fn peer(State(shared): State<Shared>, request: Request) -> Response {
    go_over(request, peers::PROTOCOL, shared.host, |host, stream| host.serve(stream))
}

/// Goes over to the protocol of the agents.
async fn agent(State(shared): State<Shared>, Extension(role): Extension<Role>, request: Request) -> Response {
    let Role::Node(node) = role else { return StatusCode::FORBIDDEN.into_response() };
    go_over(request, node::PROTOCOL, shared.nodes, |nodes, stream| nodes.serve(node, stream))
}

/// Upgrades a connection, if it is asked for and there is a server for it.
fn go_over<S, Served: Future<Output = ()> + Send + 'static>(
    mut request: Request,
    protocol: &'static str,
    server: Option<S>,
    serve: impl FnOnce(S, TokioIo<Upgraded>) -> Served + Send + 'static,
) -> Response
where
    S: Send + 'static,
{
    let asked = upgrade::wanted(request.headers()).is_some_and(|asked| asked == protocol);
    let Some(server) = server.filter(|_| asked) else {
        return (StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, protocol)]).into_response();
    };
    let upgraded = hyper::upgrade::on(&mut request);
    // Ends with the connection.
    tokio::spawn(async move {
        if let Ok(stream) = upgraded.await {
            serve(server, TokioIo::new(stream)).await;
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    upgrade::put(response.headers_mut(), HeaderValue::from_static(protocol));
    response
}

async fn listen(State(shared): State<Shared>) -> Response {
    let (now, later) = shared.signals.subscribe();
    let batches = stream::once(ready(now)).chain(follow(later)).map(Ok::<Bytes, Infallible>);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(batches)).into_response()
}

/// Ends when the listener is too slow: it connects again and is told the present state.
fn follow(receiver: Receiver<Bytes>) -> impl Stream<Item = Bytes> {
    stream::unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Ok(batch) => Some((batch, receiver)),
            Err(RecvError::Lagged(_) | RecvError::Closed) => None,
        }
    })
}

/// 409 where another gateway owns the Function, 404 where nothing is known of it.
async fn retire(State(shared): State<Shared>, Json(order): Json<Retire>) -> Result<Json<Retired>, StatusCode> {
    let name = order.revision.rsplit_once('-').map_or("", |(function, _)| function);
    let function = shared.directory.any(&order.namespace, name);
    let function = function.ok_or(StatusCode::NOT_FOUND)?;
    function.retire(&order.revision, order.keep).map(Json).ok_or(StatusCode::CONFLICT)
}
