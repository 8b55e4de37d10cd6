//! One gateway's internal port: its stream of signals, and requests to it.

use std::{net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response, StatusCode, header, request::Builder};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use lambent_api::signal::{Message, Retire, Retired};
use lambent_wire::connect::{self, ConnectError};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{FromGateways, LinkEvent};

/// A gateway says something each second; one that is silent for so long is lost.
const SILENCE: Duration = Duration::from_secs(5);
/// Connecting and the head of an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// No message is longer.
const MAX_LINE: usize = 1 << 20;

/// Why a gateway could not be asked.
#[derive(Debug, Error)]
pub enum LinkError {
    /// It was not reached, or does not want to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It broke off.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Nothing came in time.
    #[error("silent for {} s", SILENCE.as_secs())]
    Silent,
    /// What came is no message.
    #[error("not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// An answer over its limit.
    #[error("{0}")]
    Body(String),
}

/// Connects, reads, and connects again, until the receiver is gone.
pub async fn keep(gateway: SocketAddr, token: PathBuf, to: mpsc::Sender<FromGateways>) {
    let mut pause = FIRST_PAUSE;
    while !to.is_closed() {
        let mut connected = false;
        let outcome = listen(gateway, &token, &to, &mut connected).await;
        if connected {
            pause = FIRST_PAUSE;
            info!(%gateway, outcome = outcome.err().map(|e| e.to_string()), "connection to a gateway ended");
        } else if let Err(error) = outcome {
            debug!(%gateway, %error, "a gateway can't be reached");
        }
        if to.send(FromGateways::One(gateway, LinkEvent::Down)).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn listen(
    gateway: SocketAddr,
    token: &Path,
    to: &mpsc::Sender<FromGateways>,
    connected: &mut bool,
) -> Result<(), LinkError> {
    let request = Request::get("/internal/v1/signals");
    let response = call(gateway, token, request, Bytes::new()).await?;
    *connected = true;
    let send = async |event| to.send(FromGateways::One(gateway, event)).await.is_ok();
    if !send(LinkEvent::Up).await {
        return Ok(());
    }
    let mut body = response.into_body();
    let mut buffer = BytesMut::new();
    let mut complained = false;
    while let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(|_| LinkError::Silent)? {
        if let Ok(data) = frame?.into_data() {
            buffer.extend_from_slice(&data);
        }
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line = buffer.split_to(end);
            buffer.advance(1);
            match serde_json::from_slice::<Message>(&line) {
                Ok(message) => {
                    if !send(LinkEvent::Message(message)).await {
                        return Ok(());
                    }
                }
                // A newer gateway may have more to say than we know of.
                Err(error) if !std::mem::replace(&mut complained, true) => {
                    warn!(%gateway, %error, "a message of a gateway was not understood; more of them are not reported");
                }
                Err(_) => {}
            }
        }
        if buffer.len() > MAX_LINE {
            return Err(LinkError::Body("a line without end".into()));
        }
    }
    Ok(())
}

/// Asks a gateway to stop using instances.
///
/// # Errors
/// If it can't be asked; nothing is retired then, or is used again by itself.
pub async fn retire(gateway: SocketAddr, token: &Path, order: &Retire) -> Result<Retired, LinkError> {
    let body = serde_json::to_vec(order)?;
    let request = Request::post("/internal/v1/retire").header(header::CONTENT_TYPE, "application/json");
    let response = call(gateway, token, request, body.into()).await?;
    let body = Limited::new(response.into_body(), MAX_LINE).collect();
    let body = timeout(ANSWER_WITHIN, body).await.map_err(|_| LinkError::Silent)?;
    Ok(serde_json::from_slice(&body.map_err(|error| LinkError::Body(error.to_string()))?.to_bytes())?)
}

async fn call(
    gateway: SocketAddr,
    token: &Path,
    request: Builder,
    body: Bytes,
) -> Result<Response<Incoming>, LinkError> {
    let response = connect::call(gateway, token, request, body, ANSWER_WITHIN).await?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(ConnectError::Status(status).into()),
    }
}
