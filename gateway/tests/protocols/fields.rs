//! Header fields on their way through: order, what a proxy takes off and adds (RFC 9110 sections 5 and
//! 7.6, RFC 7239, W3C Trace Context).

use crate::{exchange, seen, wire::latin1};

fn get(fields: &str) -> String {
    format!("GET /fn/shop/hello HTTP/1.1\r\nHost: g.example\r\n{fields}\r\n")
}

fn ok(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok")
}

#[tokio::test]
async fn the_function_learns_who_called_and_how() {
    let seen = seen(get("")).await;
    assert_eq!(seen.one("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.one("x-forwarded-host"), "g.example");
    assert_eq!(seen.one("x-forwarded-proto"), "http");
    assert_eq!(seen.one("forwarded"), "for=127.0.0.1;host=\"g.example\";proto=http");
    assert_eq!(seen.one("via"), "1.1 lambent");
    assert_eq!(seen.one("x-request-id").len(), 36);
    assert_eq!(seen.one("host"), "g.example");
}

#[tokio::test]
async fn what_other_proxies_said_stays_before_it() {
    let before = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2, 10.0.0.3\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: outside.example\r\nForwarded: for=10.0.0.1;proto=https\r\nForwarded: for=unknown\r\n\
        Via: 1.0 first, HTTP/2 second\r\n";
    let seen = seen(get(before)).await;
    assert_eq!(seen.one("x-forwarded-for"), "10.0.0.1, 10.0.0.2, 10.0.0.3, 127.0.0.1");
    assert_eq!(seen.one("x-forwarded-proto"), "https");
    assert_eq!(seen.one("x-forwarded-host"), "outside.example");
    let hops = seen.all("forwarded").join(", ");
    assert_eq!(hops, "for=10.0.0.1;proto=https, for=unknown, for=127.0.0.1;host=\"g.example\";proto=http");
    assert_eq!(seen.all("via").join(", "), "1.0 first, HTTP/2 second, 1.1 lambent");
}

#[tokio::test]
async fn trace_context_goes_through_unchanged() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let fields =
        format!("traceparent: {parent}\r\ntracestate: a=1,b=2\r\nTraceState: c@d=3 , e=f\r\nbaggage: k=v;p\r\n");
    let seen = seen(get(&fields)).await;
    assert_eq!(seen.one("traceparent"), parent);
    assert_eq!(seen.all("tracestate"), ["a=1,b=2", "c@d=3 , e=f"]);
    assert_eq!(seen.one("baggage"), "k=v;p");
}

#[tokio::test]
async fn a_trace_context_that_is_none_is_the_functions_to_judge() {
    let seen = seen(get("traceparent: ff-0-0-0\r\ntracestate: \r\n")).await;
    assert_eq!((seen.one("traceparent"), seen.one("tracestate")), ("ff-0-0-0", ""));
}

#[tokio::test]
async fn lines_of_one_name_keep_their_order_both_ways() {
    let lines = "X-A: 1\r\nX-B: x\r\nX-A: 2, 3\r\nX-A: \r\nX-A: 1\r\nCookie: a=1\r\n";
    let cookies = "Set-Cookie: a=1; Path=/\r\nX-C: y\r\nSet-Cookie: b=2, c; Expires=Thu, 01 Jan 2026 00:00:00 GMT\r\n\
        set-cookie: a=3\r\nLink: <a>\r\nLink: <b>\r\n";
    let (answer, seen) = exchange(get(lines), ok(cookies)).await;
    assert_eq!(seen.all("x-a"), ["1", "2, 3", "", "1"]);
    assert_eq!(seen.one("cookie"), "a=1");
    assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2, c; Expires=Thu, 01 Jan 2026 00:00:00 GMT", "a=3"]);
    assert_eq!(answer.all("link"), ["<a>", "<b>"]);
}

/// RFC 9110 section 5.5: obs-text is opaque.
#[tokio::test]
async fn values_are_bytes_not_text() {
    let mut request = get("X-End: 1\r\n").into_bytes();
    let at = request.windows(5).position(|w| w == b"X-End").unwrap();
    request.splice(at..at, b"X-Raw: \xe9\xff\x80\ta\r\n".iter().copied());
    let mut response = ok("").into_bytes();
    let at = response.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 2;
    response.splice(at..at, b"X-Raw: \xff\xfe z\r\n".iter().copied());
    let (answer, seen) = exchange(request, response).await;
    assert_eq!(seen.one("x-raw"), latin1(b"\xe9\xff\x80\ta"));
    assert_eq!(answer.one("x-raw"), latin1(b"\xff\xfe z"));
}

#[tokio::test]
async fn what_is_for_one_hop_goes_no_further() {
    let lines = "Connection: close, X-Hop\r\nConnection: x-other ,\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Stays: 3\r\n\
        Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: gzip;q=0.5\r\nUpgrade: foo\r\n";
    let back = "Connection: x-back, keep-alive\r\nX-Back: 1\r\nX-Stays: 2\r\nKeep-Alive: timeout=5\r\n\
        Proxy-Connection: close\r\nUpgrade: h2c\r\n";
    let (answer, seen) = exchange(get(lines), ok(back)).await;
    for name in ["x-hop", "x-other", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert!(!seen.has(name), "{name} in {seen:?}");
    }
    for name in ["x-back", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!answer.has(name), "{name} in {answer:?}");
    }
    assert_eq!((seen.one("x-stays"), answer.one("x-stays")), ("3", "2"));
    assert!(!seen.all("connection").iter().any(|value| value.contains("close")), "{seen:?}");
}

/// RFC 9110 section 7.6.1: no one may name a field there that is for all. A caller could blind the
/// function that way.
#[tokio::test]
async fn connection_can_not_take_off_what_a_request_must_have() {
    let seen = seen(get("Connection: Host, X-Forwarded-For, Forwarded, Via, X-Request-Id\r\nX-Request-Id: mine\r\n"));
    let seen = seen.await;
    assert_eq!(seen.one("host"), "g.example");
    assert_eq!((seen.one("x-request-id"), seen.one("x-forwarded-for")), ("mine", "127.0.0.1"));
    assert!(seen.has("forwarded") && seen.has("via"));
}

#[tokio::test]
async fn a_functions_own_timings_stay_beside_ours() {
    let (answer, _) = exchange(get(""), ok("Server-Timing: db;dur=53, app;dur=47.2\r\nServer-Timing: miss\r\n")).await;
    let all = answer.all("server-timing").join(", ");
    for part in ["db;dur=53, app;dur=47.2", "miss", "queue;dur=", "cold;dur=0.00", "function;dur="] {
        assert!(all.contains(part), "{part} in {all}");
    }
}

#[tokio::test]
async fn a_functions_own_headers_are_not_touched() {
    let own = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: mine\r\nVary: *\r\nETag: W/\"a\"\r\nVia: 1.1 inner\r\n\
        Content-Type: text/html; charset=\"utf-8\"\r\nContent-Encoding: gzip\r\nTrailer: x\r\nX-Empty:\r\n";
    let (answer, _) = exchange(get("Accept-Encoding: br\r\n"), ok(own)).await;
    assert_eq!(answer.one("date"), "Thu, 01 Jan 2026 00:00:00 GMT");
    assert_eq!((answer.one("server"), answer.one("vary"), answer.one("etag")), ("mine", "*", "W/\"a\""));
    assert_eq!(answer.one("content-type"), "text/html; charset=\"utf-8\"");
    assert_eq!((answer.one("content-encoding"), answer.one("x-empty")), ("gzip", ""));
    assert!(answer.all("via").join(", ").starts_with("1.1 inner"));
}

/// HTTP/2 in a tunnel would go past routes, limits and permits.
#[tokio::test]
async fn an_upgrade_to_http2_is_not_offered_to_the_function() {
    let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let seen = seen(get(fields)).await;
    assert!(!seen.has("upgrade") && !seen.has("http2-settings"), "{seen:?}");
}

#[tokio::test]
async fn an_upgrade_that_the_function_declines_is_an_ordinary_answer() {
    let (answer, seen) = exchange(get("Connection: Upgrade\r\nUpgrade: websocket\r\n"), ok("")).await;
    assert_eq!(seen.one("upgrade"), "websocket");
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ok"[..]));
}

/// RFC 9110 section 7.8: only to a protocol that was asked for.
#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_is_a_bad_gateway() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (answer, _) = exchange(get(""), switching).await;
    assert_eq!(answer.status(), 502);
}
