//! Headers on their way through: what is for one hop only is taken off, what a proxy tells is
//! added (RFC 9110 section 7.6, RFC 7239's predecessors X-Forwarded-*).

use std::{fmt::Write, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The request's identity, given or made.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Says that the instance was started after the request had arrived.
pub const COLD_START: HeaderName = HeaderName::from_static("lambent-cold-start");
/// Where the time went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Longer identities are replaced: they end up in logs.
const MAX_REQUEST_ID: usize = 128;

/// Takes off what concerns one connection only.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(connection) = headers.remove(header::CONNECTION) {
        let named = connection.to_str().unwrap_or_default().split(',');
        // Content-Length frames the message and is never hop-by-hop, whatever Connection says.
        for name in named.filter_map(|n| n.trim().parse::<HeaderName>().ok()).filter(|n| n != header::CONTENT_LENGTH) {
            headers.remove(name);
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}

/// Tells the function who called, how and under which name.
pub fn add_forwarded(headers: &mut HeaderMap, peer: IpAddr) {
    let before = headers.get(&X_FORWARDED_FOR).and_then(|v| v.to_str().ok()).map(|v| format!("{v}, "));
    let mut chain = before.unwrap_or_default();
    let _ = write!(chain, "{}", peer.to_canonical());
    if let Ok(value) = HeaderValue::try_from(chain) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
}

/// The caller's request id where it is fit for logs, else a new one.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fit = |v: &&HeaderValue| !v.is_empty() && v.len() <= MAX_REQUEST_ID && v.to_str().is_ok();
    headers.get(&X_REQUEST_ID).filter(fit).cloned().unwrap_or_else(|| {
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = uuid::Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_goes_and_framing_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret, content-length"),
            ("x-secret", "1"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("x-other", "1"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-other"]);
    }

    #[test]
    fn the_caller_is_added_to_the_chain() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "10.0.0.1".parse().unwrap());
        headers.insert(header::HOST, "a.example".parse().unwrap());
        add_forwarded(&mut headers, "::ffff:10.0.0.2".parse().unwrap());
        assert_eq!(headers[&X_FORWARDED_FOR], "10.0.0.1, 10.0.0.2");
        assert_eq!(headers[&X_FORWARDED_HOST], "a.example");
    }

    #[test]
    fn an_unfit_request_id_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, "mine".parse().unwrap());
        assert_eq!(request_id(&headers), "mine");
        headers.insert(X_REQUEST_ID, "x".repeat(200).parse().unwrap());
        assert_eq!(request_id(&headers).len(), 36);
    }
}
