//! The internal port: signals for the autoscaler and the controller, and their requests to stop
//! using instances. Every call shows a service account token that the API server vouches for.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture, stream};
use lambent_api::signal::{Retire, Retired};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{directory::Directory, signals::Signals};

/// Says whether a caller's token is one of those that may listen and retire.
pub trait Authenticate: Send + Sync {
    /// Whether the token is good. Bounded in time.
    fn allows(&self, token: String) -> BoxFuture<'_, bool>;
}

#[derive(Clone)]
struct Shared {
    signals: Signals,
    directory: Arc<Directory>,
    authenticate: Arc<dyn Authenticate>,
}

/// The routes of the internal port.
pub fn routes(signals: Signals, directory: Arc<Directory>, authenticate: Arc<dyn Authenticate>) -> Router {
    let shared = Shared { signals, directory, authenticate };
    Router::new()
        .route("/internal/v1/signals", get(listen))
        .route("/internal/v1/retire", post(retire))
        .layer(middleware::from_fn_with_state(shared.clone(), only_trusted))
        .with_state(shared)
}

async fn only_trusted(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let Some(token) = header.and_then(|h| h.strip_prefix("Bearer ")).map(str::to_owned) else {
        return (StatusCode::UNAUTHORIZED, "a service account token is needed\n").into_response();
    };
    if shared.authenticate.allows(token).await {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this service account may not do this\n").into_response()
    }
}

async fn listen(State(shared): State<Shared>) -> Response {
    let (now, later) = shared.signals.subscribe();
    let lines = stream::iter(now).chain(follow(later)).map(Ok::<Bytes, Infallible>);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// Ends when the listener is too slow: it connects again and is told the present state.
fn follow(receiver: Receiver<Bytes>) -> impl Stream<Item = Bytes> {
    stream::unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Ok(line) => Some((line, receiver)),
            Err(RecvError::Lagged(_) | RecvError::Closed) => None,
        }
    })
}

async fn retire(State(shared): State<Shared>, Json(order): Json<Retire>) -> Json<Retired> {
    let name = order.revision.rsplit_once('-').map_or("", |(function, _)| function);
    let function = shared.directory.any(&order.namespace, name);
    Json(function.map(|f| f.retire(&order.revision, order.keep)).unwrap_or_default())
}
