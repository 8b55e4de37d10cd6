//! Bytes at the public port of a gateway with an instance behind it.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use lambent_fuzz::spell;
use proptest::prelude::any;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Duration, timeout},
};

use crate::check;

#[allow(dead_code, unreachable_pub)]
#[path = "../../../gateway/tests/support/mod.rs"]
mod support;

use support::{Gateway, text};

const WORDS: &[&str] = &[
    "GET ",
    "POST ",
    "HEAD ",
    "OPTIONS * ",
    "CONNECT a:1 ",
    "get ",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "PR",
    "/fn/shop/hello",
    "/fn/shop/hello/a//b%2F?c",
    "http://a.example/fn/shop/hello",
    "/",
    "*",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    " HTTP/2.0\r\n",
    " HTTP/1.1\n",
    "host: a.example\r\n",
    "Host: hello.shop.fn.example\r\n",
    "host: \r\n",
    "content-length: 5\r\n",
    "content-length: 0\r\n",
    "content-length: +5\r\n",
    "content-length: 5, 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "transfer-encoding: chunked, identity\r\n",
    "connection: close\r\n",
    "connection: keep-alive, x-secret\r\n",
    "x-secret: 1\r\n",
    "connection: upgrade\r\nupgrade: websocket\r\n",
    "expect: 100-continue\r\n",
    "te: trailers\r\n",
    " folded\r\n",
    "x-long: ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\r\n",
    "\n",
    "\r",
    ":",
    "\t",
    "hello",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nx-trailer: 1\r\n\r\n",
    "5;ext=1\r\n",
    "fffffffffffffffff\r\n",
    "\u{0}",
    "GET /fn/shop/hello HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST /fn/shop/hello HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
];
const GOOD: &[u8] = b"GET /fn/shop/hello/good HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const WITHIN: Duration = Duration::from_secs(20);
/// An answer on loopback is there long before.
const MAY_BE_MORE: Duration = Duration::from_millis(30);

/// What an instance was asked.
struct Seen {
    uri: String,
    headers: HeaderMap,
}

/// A gateway whose instance tells what it sees.
async fn start() -> (Gateway, mpsc::UnboundedReceiver<Seen>) {
    let (seen, receiver) = mpsc::unbounded_channel();
    let seen = Arc::new(seen);
    let mut gateway = Gateway::start(json!({"concurrency": 100, "timeout": "2s", "maxBody": "1Ki"})).await;
    gateway.apply_revision(1, None);
    gateway
        .add(move |request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let (head, body) = request.into_parts();
                let _ = seen.send(Seen { uri: head.uri.to_string(), headers: head.headers });
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                Response::new(text(Bytes::from(format!("{} bytes", body.len()))))
            }
        })
        .await;
    (gateway, receiver)
}

/// All that the gateway says to these bytes. Who waits for more than was sent closes in the end.
async fn say(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut answer = Vec::new();
    // It may have closed already.
    let _ = stream.write_all(bytes).await;
    if timeout(MAY_BE_MORE, stream.read_to_end(&mut answer)).await.is_err() {
        let _ = stream.shutdown().await;
        let rest = timeout(WITHIN, stream.read_to_end(&mut answer)).await;
        let _ = rest.unwrap_or_else(|_| panic!("it does not end: {}", bytes.escape_ascii()));
    }
    answer
}

/// The answer to a good request.
async fn ask_again(gateway: &Gateway) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(GOOD).await.unwrap();
    let mut answer = Vec::new();
    timeout(WITHIN, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    answer
}

#[test]
fn whatever_comes_the_gateway_lives_and_no_request_reaches_an_instance_past_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (gateway, seen) = runtime.block_on(start());
    let seen = RefCell::new(seen);
    check(any::<Vec<u8>>(), |input| {
        let bytes = spell(&input, WORDS);
        let answer = runtime.block_on(say(&gateway, &bytes));
        let known = answer.is_empty() || answer.starts_with(b"HTTP/1.") || bytes.starts_with(b"PRI");
        assert!(known, "{} -> {}", bytes.escape_ascii(), answer.escape_ascii());
        let good = runtime.block_on(ask_again(&gateway));
        assert!(good.starts_with(b"HTTP/1.1 200 "), "{} -> {}", bytes.escape_ascii(), good.escape_ascii());
        let mut asked = 0;
        while let Ok(Seen { uri, headers }) = seen.borrow_mut().try_recv() {
            asked += 1;
            let of_gateway = |name: &str| headers.get_all(name).iter().count() == 1;
            let complete = of_gateway("x-request-id") && headers.contains_key("via") && of_gateway("x-forwarded-for");
            assert!(complete, "past the gateway: {uri} {headers:?} of {}", bytes.escape_ascii());
            assert!(uri.starts_with('/'), "{uri} of {}", bytes.escape_ascii());
        }
        assert!(asked >= 1);
    });
}
