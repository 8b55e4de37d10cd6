//! Bodies: those that must not be there, slow ones, large ones, and those that end with the connection.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket},
};

use crate::{
    exchange,
    support::{Gateway, connect_http2, text, until},
    wire::{self, Caller, Message, Wire, in_time},
    with_instance,
};

const GET: &str = "GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n";
const HEAD: &str = "HEAD /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n";

/// Asks for `bodiless`, which has no body whatever its fields say, and then for others on the same
/// connection; the first answer.
async fn nothing_follows(request: &str, bodiless: &'static str) -> Message {
    let script = move |request: &Message| match request.target() {
        "/" => bodiless.into(),
        _ => wire::OK.into(),
    };
    let (gateway, instance) = with_instance(script).await;
    let mut caller = Caller::connect(gateway.address).await;
    let answer = caller.ask(request).await;
    for _ in 0..2 {
        let next = caller.ask("GET /fn/shop/hello/next HTTP/1.1\r\nHost: g\r\n\r\n").await;
        assert_eq!((next.status(), next.body.as_slice()), (200, &b"ok"[..]));
    }
    assert_eq!((instance.seen().len(), instance.connections()), (3, 1), "its connection is used again as well");
    answer
}

#[tokio::test]
async fn the_answer_to_head_has_a_length_and_no_body() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"a\"\r\n\r\n";
    let answer = nothing_follows(HEAD, length).await;
    assert_eq!((answer.status(), answer.one("content-length"), answer.one("etag")), (200, "12345", "\"a\""));
}

#[tokio::test]
async fn the_answer_to_head_may_have_no_length() {
    let answer = nothing_follows(HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert!(!answer.has("content-length"), "none was known: {answer:?}");
}

#[tokio::test]
async fn the_refusal_of_a_head_has_no_body() {
    let (gateway, _instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..2 {
        let answer = caller.ask(HEAD.replace("hello", "other")).await;
        assert_eq!(answer.status(), 404);
    }
    assert_eq!(caller.ask(GET).await.body, b"ok");
}

#[tokio::test]
async fn head_is_the_same_by_http2() {
    let (gateway, instance) = with_instance(|_| "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n".into()).await;
    let mut caller = connect_http2(gateway.address).await;
    for _ in 0..2 {
        let request = Request::head("http://hello.shop.fn.example/").body(text("")).unwrap();
        let answer = in_time("an answer", caller.send_request(request)).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "12345");
        assert!(in_time("the end", answer.into_body().collect()).await.unwrap().to_bytes().is_empty());
    }
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn no_content_has_neither_body_nor_length() {
    for answer in
        ["HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", "HTTP/1.1 204 No Content\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n"]
    {
        let answer = nothing_follows(GET, answer).await;
        assert_eq!((answer.status(), answer.one("x-a")), (204, "1"));
        assert!(!answer.has("transfer-encoding"));
        assert!(!answer.has("content-length"), "RFC 9110 section 8.6: {answer:?}");
    }
}

#[tokio::test]
async fn not_modified_has_no_body_and_may_tell_the_length_of_what_is_not_sent() {
    let answer = nothing_follows(GET, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 99\r\n\r\n").await;
    assert_eq!((answer.status(), answer.one("etag"), answer.has("transfer-encoding")), (304, "\"a\"", false));
    let answer = nothing_follows(GET, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n").await;
    assert!(!answer.has("content-length") && !answer.has("transfer-encoding"), "{answer:?}");
}

#[tokio::test]
async fn an_empty_answer_says_so() {
    assert_eq!(nothing_follows(GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.one("content-length"), "0");
    nothing_follows(GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
}

/// Statuses and their words are the function's.
#[tokio::test]
async fn statuses_that_nobody_knows_go_through() {
    for status in [207, 299, 418, 451, 499, 599] {
        let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(exchange(GET, answer).await.0.status(), status);
    }
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_the_connection() {
    for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nServer: old\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
        let whole = [head.as_bytes(), &b"x".repeat(300_000)].concat();
        let (gateway, instance) = with_instance(move |_| whole.clone()).await;
        let mut caller = Caller::connect(gateway.address).await;
        for _ in 0..2 {
            let answer = caller.ask(GET).await;
            assert_eq!((answer.start.as_str(), answer.body.len()), ("HTTP/1.1 200 OK", 300_000));
            assert_eq!(answer.one("transfer-encoding"), "chunked");
        }
        assert_eq!(instance.seen().len(), 2);
    }
}

#[tokio::test]
async fn an_old_instance_may_tell_a_length() {
    let (answer, _) = exchange(GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!((answer.start.as_str(), answer.one("content-length")), ("HTTP/1.1 200 OK", "2"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_whole_for_the_caller() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nfive!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nfive!\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n9\r\nfive!",
    ] {
        let (gateway, _instance) = with_instance(move |_| answer.into()).await;
        let mut caller = Caller::connect(gateway.address).await;
        caller.send(GET).await;
        // It may be told before anything of it went out.
        if let Some(head) = caller.wire.head().await.filter(|head| head.status() == 200) {
            let rest = wire::latin1(&caller.wire.rest().await);
            assert!(!rest.ends_with("0\r\n\r\n") && rest.len() < 20, "{head:?} {rest:?}");
        }
    }
}

/// Writes each byte when the instance has the one before.
async fn byte_by_byte(head: &str, framed: impl Fn(u8) -> Vec<u8>, end: &str, unframed: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let mut caller = Caller::connect(gateway.address).await;
    for byte in format!("POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\n{head}\r\n").bytes() {
        caller.send([byte]).await;
    }
    let mut instance = Wire::new(in_time("the gateway connects", listener.accept()).await.unwrap().0);
    let seen = instance.head().await.unwrap();
    assert!(head.to_lowercase().contains(&seen.fields.iter().find(|(n, _)| n == "x-case").unwrap().1));
    for byte in b"every byte of it" {
        caller.send(framed(*byte)).await;
        let got = if unframed { instance.exactly(1).await.unwrap() } else { instance.chunk().await.unwrap() };
        assert_eq!(got, [*byte]);
    }
    caller.send(end).await;
    if !unframed {
        assert!(instance.chunk().await.unwrap().is_empty());
    }
    instance.send(wire::OK).await;
    assert_eq!(caller.answer_to("POST").await.body, b"ok");
}

#[tokio::test]
async fn a_slow_body_of_known_length_arrives_as_it_is_written() {
    byte_by_byte("Content-Length: 16\r\nX-Case: content-length\r\n", |byte| vec![byte], "", true).await;
}

#[tokio::test]
async fn a_slow_body_in_chunks_arrives_as_it_is_written() {
    let chunk = |byte| [b"1\r\n", &[byte][..], b"\r\n"].concat();
    byte_by_byte("Transfer-Encoding: chunked\r\nX-Case: chunked\r\n", chunk, "0\r\n\r\n", false).await;
}

const LARGE: usize = 64 << 20;
/// Sockets hold some on both sides of the gateway, which should add little.
const MAY_BE_UNDER_WAY: usize = 24 << 20;

async fn write_large(mut wire: Wire, written: Arc<AtomicUsize>) {
    if wire.head().await.is_none() {
        return;
    }
    wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    for n in 0..LARGE / 4096 {
        wire.send([u8::try_from(n % 251).unwrap(); 4096]).await;
        written.fetch_add(4096, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_loses_nothing_and_holds_little() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    tokio::spawn(async move {
        // More than one may be opened, one gets the request.
        while let Ok((stream, _)) = listener.accept().await {
            SockRef::from(&stream).set_send_buffer_size(256 << 10).unwrap();
            tokio::spawn(write_large(Wire::new(stream), count.clone()));
        }
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut caller = Wire::new(socket.connect(gateway.address).await.unwrap());
    caller.send(GET).await;
    assert_eq!(caller.head().await.unwrap().one("content-length"), LARGE.to_string());
    for n in 0..LARGE / 4096 {
        if n % 2048 == 0 {
            // The instance gets ahead of the reader, but not by much: enough for whoever has no bound.
            let ahead = || written.load(Ordering::SeqCst) >= (n * 4096 + (256 << 10)).min(LARGE);
            until("the instance is ahead", ahead).await;
        }
        let page = caller.exactly(4096).await.expect("all of it");
        assert!(page.iter().all(|b| usize::from(*b) == n % 251), "page {n}");
        let under_way = written.load(Ordering::SeqCst).saturating_sub(n * 4096);
        assert!(under_way < MAY_BE_UNDER_WAY, "{under_way} bytes at page {n}");
    }
    until("its slot is free", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn who_reads_nothing_lets_the_instance_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(GET).await;
    let (stream, _) = in_time("the gateway connects", listener.accept()).await.unwrap();
    in_time("the request", stream.peek(&mut [0])).await.unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let writer = tokio::spawn(async move {
        let mut stream = stream;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let chunk = [&b"10000\r\n"[..], &[b'x'; 65536], b"\r\n"].concat();
        while stream.write_all(&chunk).await.is_ok() {
            count.fetch_add(chunk.len(), Ordering::SeqCst);
        }
    });
    until("it writes", || written.load(Ordering::SeqCst) > 1 << 20).await;
    // Others are served meanwhile, and it does not get far.
    for _ in 0..200 {
        Caller::connect(gateway.address).await.ask("GET /nowhere HTTP/1.1\r\nHost: g\r\n\r\n").await;
    }
    assert!(written.load(Ordering::SeqCst) < MAY_BE_UNDER_WAY, "nobody holds it back");
    // The caller leaves with all that unread: the instance is told by its connection.
    drop(caller);
    in_time("the instance is told", writer).await.unwrap();
    until("its slot is free", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let mut caller = Caller::connect(gateway.address).await;
    caller.send("POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\nContent-Length: 4000000\r\n\r\nfirst").await;
    let mut instance = Wire::new(in_time("the gateway connects", listener.accept()).await.unwrap().0);
    assert!(instance.head().await.is_some());
    instance.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    drop(instance);
    let answer = caller.answer_to("POST").await;
    assert_eq!((answer.status(), answer.body.as_slice()), (403, &b"no"[..]));
    until("its slot is free", || gateway.in_flight() == 0).await;
}
