//! Connections that change their protocol (WebSocket): once both sides have agreed, bytes go both
//! ways until one side ends, and the permit stays taken.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, time::timeout};

use crate::{access_log::Record, body::RequestBody, headers::list, permit::Permit, target::Sender};

/// A caller's wish to change the protocol.
#[derive(Debug)]
pub struct Wish {
    caller: OnUpgrade,
    protocol: HeaderValue,
}

impl Wish {
    /// What a request asks for, if it does.
    pub fn of(request: &mut Request<Incoming>) -> Option<Self> {
        let protocol = wanted(request.headers())?;
        Some(Self { caller: hyper::upgrade::on(request), protocol })
    }

    /// Puts the wish back after hop-by-hop headers were taken off.
    pub fn ask(&self, request: &mut Request<RequestBody>) {
        put(request.headers_mut(), self.protocol.clone());
    }

    /// Joins both sides if the function has agreed. Ends when one of them does or at `limit`.
    pub fn join(
        self,
        response: &mut Response<Incoming>,
        permit: Permit,
        sender: Sender,
        mut record: Record,
        limit: Duration,
    ) {
        let instance = hyper::upgrade::on(response);
        tokio::spawn(async move {
            let both = async {
                let instance = async {
                    let (instance, leash) = tokio::join!(instance, sender.hand_over());
                    instance.map(|instance| (instance, leash))
                };
                let (caller, (instance, _leash)) = tokio::try_join!(self.caller, instance)?;
                record.sent = copy(caller, instance).await.unwrap_or_default();
                Ok::<_, hyper::Error>(())
            };
            match timeout(limit, both).await {
                Ok(_) => record.end(),
                Err(_) => record.cut("FunctionTimeout"),
            }
            drop((permit, record));
        });
    }
}

/// Whether a response agrees.
pub fn is_agreed(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// The protocol that a message names, which `Connection` must name as well (RFC 9110 section 7.8). Not
/// HTTP/2: that is another way to send requests, which would share one permit (and RFC 9113 section 3.1
/// has taken it back).
pub fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = || list(headers, header::CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let is_http = || list(headers, header::UPGRADE).any(|name| name.starts_with(b"h2") || name.starts_with(b"HTTP/"));
    headers.get(header::UPGRADE).filter(|_| named() && !is_http()).cloned()
}

/// Names the protocol in a message for the next hop.
pub fn put(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

async fn copy(caller: Upgraded, instance: Upgraded) -> std::io::Result<u64> {
    let (mut caller, mut instance) = (TokioIo::new(caller), TokioIo::new(instance));
    copy_bidirectional(&mut caller, &mut instance).await.map(|(_, sent)| sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_to_http_2_is_no_way_around_the_permits() {
        let asks = |protocol: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade, HTTP2-Settings"));
            headers.insert(header::UPGRADE, HeaderValue::from_str(protocol).unwrap());
            wanted(&headers).is_some()
        };
        assert!(asks("websocket") && !asks("h2c") && !asks("websocket, h2c") && !asks("HTTP/2.0"));
    }
}
