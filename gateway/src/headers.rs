//! Headers on their way through: what is for one hop only is taken off (RFC 9110 section 7.6), and what
//! differs between the versions of HTTP is translated.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header, uri::Authority};

/// The request's identity, given or made.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Says that the instance was started after the request had arrived.
pub const COLD_START: HeaderName = HeaderName::from_static("lambent-cold-start");
/// Where the time went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// What concerns one connection only, and so may what `Connection` names.
static HOP_BY_HOP: [HeaderName; 6] =
    [header::CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE];
/// Longer identities are replaced: they end up in logs.
const MAX_REQUEST_ID: usize = 128;

/// Takes off what concerns one connection only.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none of them, which costs less to see than to look for each.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> =
        list(headers, header::CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    // Content-Length frames the message and Host says for whom it is: neither is for one hop, whatever
    // Connection says.
    for name in named.into_iter().filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST) {
        headers.remove(name);
    }
    // What has chunks has no length beside them (RFC 9112 section 6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// How long the sender keeps an idle connection, where it says so: `Keep-Alive: timeout=5, max=100`
/// (RFC 2068 section 19.7.1.1; in seconds).
pub fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds = list(headers, KEEP_ALIVE).find_map(|parameter| {
        let (name, value) = std::str::from_utf8(parameter).ok()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().parse::<u32>().ok())?
    });
    seconds.map(|seconds| Duration::from_secs(seconds.into()))
}

/// The members of a list, be it one line or several (RFC 9110 section 5.3).
pub fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).into_iter().flat_map(|line| line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii))
}

/// Whether a message is a gRPC call or its answer.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the caller waits to be told that its body is wanted.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether the caller takes trailers.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    list(headers, header::TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Takes trailers, on behalf of the caller: gRPC calls are refused without it.
pub fn take_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
}

/// The host of a request that has it in its target, as HTTP/2 (RFC 9113 section 8.3.1) and calls of a
/// proxy do: it counts, whatever `Host` says (RFC 9112 section 3.2.2).
pub fn from_authority(headers: &mut HeaderMap, authority: &Authority) {
    // What comes before an @ is not for others.
    let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(header::HOST, host);
    }
}

/// One line of cookies, where HTTP/2 had several (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let all = [first, second].into_iter().chain(cookies).map(HeaderValue::as_bytes).collect::<Vec<_>>();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// A request for HTTP/1, as HTTP/2 has it: the host in the URI, nothing about the connection.
pub fn to_http2<B>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.authority = Some(authority.unwrap_or(Authority::from_static("function")));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
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
            ("connection", "close, X-Secret, content-length, host"),
            ("host", "a.example"),
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
        assert_eq!(left, ["content-length", "host", "x-other"]);
    }

    #[test]
    fn what_has_chunks_has_no_length() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "3".parse().unwrap());
        headers.insert(header::TRANSFER_ENCODING, "chunked".parse().unwrap());
        remove_hop_by_hop(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn lists_may_have_several_lines() {
        let mut headers = HeaderMap::new();
        let lines = [
            ("connection", "close"),
            ("connection", "x-secret"),
            ("x-secret", "1"),
            ("te", "gzip"),
            ("te", "Trailers"),
        ];
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        assert!(takes_trailers(&headers));
        remove_hop_by_hop(&mut headers);
        assert!(!headers.contains_key("x-secret"));
    }

    #[test]
    fn how_long_a_connection_is_kept_is_read_where_it_is_said() {
        let said = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(KEEP_ALIVE, value.parse().unwrap());
            keep_alive_timeout(&headers).map(|timeout| timeout.as_secs())
        };
        assert_eq!(said("timeout=5"), Some(5));
        assert_eq!(said("max=100, Timeout = 75"), Some(75));
        assert_eq!(said("max=100"), None);
        assert_eq!(said("timeout=-1, timeout=soon, timeout"), None);
        assert_eq!(keep_alive_timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn a_request_is_translated_between_the_versions() {
        let mut request = Request::get("/a//b%2F?c").header("host", "a.example:81").header("connection", "te");
        request = request.header("te", "trailers");
        let mut request = request.body(()).unwrap();
        to_http2(&mut request);
        assert_eq!(request.uri(), "http://a.example:81/a//b%2F?c");
        assert_eq!(request.headers().keys().collect::<Vec<_>>(), ["te"]);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "other.example".parse().unwrap());
        headers.append(header::COOKIE, "a=1".parse().unwrap());
        headers.append(header::COOKIE, "b=2".parse().unwrap());
        headers.insert(header::HOST, "other.example".parse().unwrap());
        from_authority(&mut headers, &Authority::from_static("someone@b.example"));
        join_cookies(&mut headers);
        assert_eq!(
            (&headers[header::HOST], &headers[header::COOKIE]),
            (&"b.example".parse().unwrap(), &"a=1; b=2".parse().unwrap())
        );
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
