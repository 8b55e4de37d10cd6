//! Trailers (RFC 9110 section 6.5), both ways and between the versions.

use std::sync::Arc;

use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use lambent_api::Protocol;
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    exchange, seen,
    support::{Body, Gateway, connect_http2, serve_http2},
    wire::{self, Caller, in_time},
    with_instance,
};

const POST: &str = "POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-More\r\n\r\n\
    2\r\nab\r\n3\r\ncde\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\nX-More: m\r\n\r\n";

/// Data, then trailers.
fn with_trailers(data: &'static str, trailers: &[(&'static str, &'static str)]) -> Body {
    let trailers: HeaderMap = trailers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
    let frames = [Frame::data(data.into()), Frame::trailers(trailers)];
    BodyExt::boxed(StreamBody::new(stream::iter(frames.map(Ok))))
}

/// What came after the data.
async fn collect(body: Incoming) -> (String, HeaderMap) {
    let collected = in_time("the end", body.collect()).await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    (String::from_utf8(collected.to_bytes().into()).unwrap(), trailers)
}

/// A Function that speaks HTTP/2, answers with trailers, and shows those that it got.
async fn http2_function() -> (Gateway, Arc<Mutex<Vec<(String, HeaderMap)>>>) {
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let kept = seen.clone();
    let handler = move |request: Request<Incoming>| {
        let kept = kept.clone();
        async move {
            let whole = collect(request.into_body()).await;
            kept.lock().push(whole);
            Response::builder().header("trailer", "x-sum").body(with_trailers("answer", &[("x-sum", "1")])).unwrap()
        }
    };
    let mut gateway = Gateway::start_with(json!({}), Protocol::H2c).await;
    gateway.apply_revision(1, None);
    gateway.add_at(serve_http2(handler).await);
    (gateway, seen)
}

fn http2_request() -> Request<Body> {
    let request = Request::post("http://hello.shop.fn.example/").header("te", "trailers").header("trailer", "x-sum");
    request.body(with_trailers("question", &[("x-sum", "9")])).unwrap()
}

#[tokio::test]
async fn a_requests_trailers_reach_the_function() {
    let seen = seen(format!("{POST}Trailer: X-Sum\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n")).await;
    assert_eq!((seen.body.as_slice(), seen.one("trailer")), (&b"ab"[..], "X-Sum"));
    let trailers: Vec<_> = seen.trailers.iter().map(|(n, v)| (n.to_lowercase(), v.as_str())).collect();
    assert_eq!(trailers, [("x-sum".into(), "1"), ("x-sum".into(), "2")]);
}

#[tokio::test]
async fn an_answers_trailers_reach_a_caller_who_takes_them() {
    let (answer, seen) = exchange("GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\nTE: trailers\r\n\r\n", ANSWER).await;
    assert_eq!((seen.one("te"), seen.one("connection").to_lowercase().contains("te")), ("trailers", true));
    assert_eq!((answer.body.as_slice(), answer.one("trailer")), (&b"abcde"[..], "X-Sum, X-More"));
    let mut trailers: Vec<_> = answer.trailers.iter().map(|(n, v)| (n.to_lowercase(), v.as_str())).collect();
    trailers.sort();
    assert_eq!(trailers, [("x-more".into(), "m"), ("x-sum".into(), "1"), ("x-sum".into(), "2")]);
}

#[tokio::test]
async fn te_may_be_named_among_others() {
    let fields = "TE: gzip;q=0.5, Trailers\r\nConnection: keep-alive, TE\r\n";
    let (answer, seen) = exchange(format!("GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n{fields}\r\n"), ANSWER).await;
    assert_eq!((seen.one("te"), answer.trailers.len()), ("trailers", 3));
}

/// RFC 9110 section 6.5.1.
#[tokio::test]
async fn who_does_not_take_trailers_gets_the_whole_body_without() {
    let (answer, seen) = exchange("GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n", ANSWER).await;
    assert!(!seen.has("te"));
    assert_eq!((answer.body.as_slice(), answer.trailers.len()), (&b"abcde"[..], 0));
}

#[tokio::test]
async fn trailers_for_an_old_caller_are_left_out() {
    let (answer, _) = exchange("GET /fn/shop/hello HTTP/1.0\r\nHost: g\r\nTE: trailers\r\n\r\n", ANSWER).await;
    assert_eq!((answer.body.as_slice(), answer.trailers.len()), (&b"abcde"[..], 0));
}

/// RFC 9110 section 6.5.1: framing, routing and such are not said at the end.
#[tokio::test]
async fn trailers_can_not_say_what_only_a_head_may() {
    let names = ["Content-Length", "Host", "Transfer-Encoding", "Authorization", "Content-Type"];
    let lines: String = names.iter().map(|name| format!("{name}: 7\r\n")).collect();
    let seen = seen(format!("{POST}Trailer: {}\r\n\r\n2\r\nab\r\n0\r\n{lines}\r\n", names.join(", "))).await;
    assert_eq!((seen.trailers.as_slice(), seen.one("host")), (&[][..], "g"));
}

#[tokio::test]
async fn the_connection_goes_on_after_trailers() {
    let (gateway, instance) = with_instance(|_| ANSWER.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..3 {
        let request = format!("{POST}Trailer: X-Sum\r\nTE: trailers\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n");
        assert_eq!(caller.ask(request).await.trailers.len(), 3);
    }
    assert_eq!((instance.seen().len(), instance.connections()), (3, 1));
}

#[tokio::test]
async fn trailers_go_both_ways_by_http2() {
    let (gateway, seen) = http2_function().await;
    let mut caller = connect_http2(gateway.address).await;
    let answer = in_time("an answer", caller.send_request(http2_request())).await.unwrap();
    let (data, trailers) = collect(answer.into_body()).await;
    assert_eq!((data.as_str(), &trailers["x-sum"]), ("answer", &"1".parse().unwrap()));
    let (data, trailers) = seen.lock().pop().unwrap();
    assert_eq!((data.as_str(), &trailers["x-sum"]), ("question", &"9".parse().unwrap()));
}

#[tokio::test]
async fn trailers_go_from_http2_to_http1_and_back() {
    let (gateway, instance) = with_instance(|_| ANSWER.into()).await;
    let mut caller = connect_http2(gateway.address).await;
    let answer = in_time("an answer", caller.send_request(http2_request())).await.unwrap();
    assert!(!answer.headers().contains_key("transfer-encoding"));
    let (data, trailers) = collect(answer.into_body()).await;
    assert_eq!((data.as_str(), trailers.get_all("x-sum").iter().count()), ("abcde", 2));
    let seen = instance.only();
    assert_eq!((seen.one("te"), seen.body.as_slice()), ("trailers", &b"question"[..]));
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "9".to_owned())]);
}

#[tokio::test]
async fn trailers_go_from_http1_to_http2_and_back() {
    let (gateway, seen) = http2_function().await;
    let mut caller = Caller::connect(gateway.address).await;
    let request = format!("{POST}Trailer: X-Sum\r\nTE: trailers\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 5\r\n\r\n");
    let answer = caller.ask(request).await;
    assert_eq!(answer.body, b"answer");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "1".to_owned())]);
    let (data, trailers) = seen.lock().pop().unwrap();
    assert_eq!((data.as_str(), &trailers["x-sum"]), ("ab", &"5".parse().unwrap()));
}

#[tokio::test]
async fn trailers_that_nobody_announced_spoil_nothing() {
    let unannounced = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n";
    let (gateway, instance) = with_instance(|_| unannounced.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..2 {
        let request = format!("{POST}TE: trailers\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n");
        let answer = caller.ask(request).await;
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ab"[..]));
    }
    assert!(instance.seen().iter().all(|request| request.body == b"a"));
}

#[tokio::test]
async fn a_length_is_not_lost_for_the_sake_of_trailers() {
    let (answer, _) = exchange("GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\nTE: trailers\r\n\r\n", wire::OK).await;
    assert_eq!(answer.one("content-length"), "2");
}
