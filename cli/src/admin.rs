//! The admin port: `/metrics`, `/healthz`, `/readyz`, and the autoscaler's `/decisions`. Never on the
//! public port.

use std::net::SocketAddr;

use anyhow::Context;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use lambent_api::FunctionKey;
use lambent_autoscaler::record::Record;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::{net::TcpListener, sync::watch};
use tracing::error;

/// Serves the admin port, with `more` on it, in the background until the process ends.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    ready: watch::Receiver<bool>,
    more: Router,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("--admin-address {address}"))?;
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(metrics).with_state(registry))
        .merge(more);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(())
}

/// `/decisions/<namespace>/<function>`: the last decisions about it, for `lambent describe`.
pub fn decisions(record: Record) -> Router {
    Router::new().route("/decisions/{namespace}/{function}", get(last_decisions).with_state(record))
}

async fn last_decisions(State(record): State<Record>, Path((namespace, function)): Path<(String, String)>) -> Response {
    match record.decisions(&FunctionKey::new(namespace, function)) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => {
            error!(%error, "decisions can't be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(ready): State<watch::Receiver<bool>>) -> Response {
    if *ready.borrow() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n").into_response()
    }
}

async fn metrics(State(registry): State<Registry>) -> Response {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            error!(%error, "metrics can't be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
