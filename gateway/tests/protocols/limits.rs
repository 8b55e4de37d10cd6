//! Large and many headers, both ways and in both versions.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::{body::Incoming, client::conn::http2, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lambent_api::Protocol;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    exchange, refused,
    support::{Body, Gateway, text},
    wire::{self, Caller, in_time, padding},
    with_instance,
};

fn get(fields: &str) -> String {
    format!("GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n{fields}\r\n")
}

fn ok(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok")
}

/// Both ends take more than the gateway does.
const ROOM: u32 = 4 << 20;

async fn connect_http2(gateway: &Gateway) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let handshake = builder.max_header_list_size(ROOM).handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

fn http2_request(count: usize, size: usize) -> Request<Body> {
    let mut request = Request::get("http://hello.shop.fn.example/").body(text("")).unwrap();
    request.headers_mut().extend(fields(count, size));
    request
}

fn fields(count: usize, size: usize) -> HeaderMap {
    let name = |n| HeaderName::try_from(format!("x-padding-{n}")).unwrap();
    (0..count).map(|n| (name(n), HeaderValue::try_from("v".repeat(size)).unwrap())).collect()
}

fn count_padding<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.filter(|name| name.to_ascii_lowercase().starts_with("x-padding-")).count()
}

/// A Function that speaks HTTP/2 and answers with as many padded fields as it is asked for.
async fn padded_http2_function(count: usize, size: usize) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start_with(json!({}), Protocol::H2c).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<Incoming>| async move {
                let seen = count_padding(request.headers().keys().map(HeaderName::as_str));
                let mut response = Response::new(text(seen.to_string()));
                response.headers_mut().extend(fields(count, size));
                Ok::<_, std::convert::Infallible>(response)
            });
            let mut builder = server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.max_header_list_size(ROOM).serve_connection(TokioIo::new(stream), service));
        }
    });
    gateway
}

#[tokio::test]
async fn sixty_kilobytes_in_ninety_headers_pass_both_ways() {
    let (answer, seen) = exchange(get(&padding(90, 640)), ok(&padding(90, 640))).await;
    for message in [answer, seen] {
        assert_eq!(count_padding(message.fields.iter().map(|(name, _)| name.as_str())), 90);
        assert_eq!(message.one("x-padding-89").len(), 640);
    }
}

#[tokio::test]
async fn one_header_may_be_sixty_kilobytes() {
    let (answer, seen) = exchange(get(&padding(1, 60_000)), ok(&padding(1, 60_000))).await;
    assert_eq!((seen.one("x-padding-0").len(), answer.one("x-padding-0").len()), (60_000, 60_000));
}

#[tokio::test]
async fn a_target_may_be_long() {
    let target = format!("/{}?{}", "a%2F".repeat(5000), "b=c&".repeat(5000));
    let (_, seen) = exchange(format!("GET /fn/shop/hello{target} HTTP/1.1\r\nHost: g\r\n\r\n"), wire::OK).await;
    assert!(seen.target() == target);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    assert_eq!(refused(get(&padding(190, 1000))).await.status(), 431);
    assert_eq!(refused(get(&padding(1, 190_000))).await.status(), 431);
}

#[tokio::test]
async fn a_head_just_over_the_limit_is_refused() {
    assert_eq!(refused(get(&padding(110, 640))).await.status(), 431);
}

#[tokio::test]
async fn a_head_without_an_end_is_refused_at_the_limit() {
    let request = get(&padding(120, 640));
    assert_eq!(refused(request.trim_end_matches("\r\n")).await.status(), 431);
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let (_, seen) = exchange(get(&padding(99, 1)), wire::OK).await;
    assert!(seen.has("x-padding-98"));
    assert_eq!(refused(get(&padding(100, 1))).await.status(), 431);
}

#[tokio::test]
async fn an_answer_may_have_a_hundred_headers() {
    let (gateway, _instance) = with_instance(|_| ok(&padding(99, 20)).into()).await;
    let answer = Caller::connect(gateway.address).await.ask(get("")).await;
    assert_eq!((answer.status(), answer.has("x-padding-98")), (200, true));
}

#[tokio::test]
async fn an_answer_whose_head_has_no_end_is_a_bad_gateway() {
    let endless = format!("HTTP/1.1 200 OK\r\n{}", padding(2000, 1000));
    let (gateway, _instance) = with_instance(move |_| endless.clone().into()).await;
    assert_eq!(Caller::connect(gateway.address).await.ask(get("")).await.status(), 502);
}

#[tokio::test]
async fn sixty_kilobytes_in_ninety_headers_come_by_http2() {
    let fields = ok(&padding(90, 600));
    let (gateway, instance) = with_instance(move |_| fields.clone().into()).await;
    let mut caller = connect_http2(&gateway).await;
    let answer = in_time("an answer", caller.send_request(http2_request(90, 600))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(count_padding(answer.headers().keys().map(HeaderName::as_str)), 90);
    assert_eq!(count_padding(instance.only().fields.iter().map(|(name, _)| name.as_str())), 90);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_by_http2_and_the_connection_goes_on() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = connect_http2(&gateway).await;
    let answer = in_time("an answer", caller.send_request(http2_request(110, 640))).await.unwrap();
    assert_eq!((answer.status().as_u16(), instance.seen().len()), (431, 0));
    let answer = in_time("an answer", caller.send_request(http2_request(1, 1))).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn too_many_headers_are_refused_by_http2() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = connect_http2(&gateway).await;
    let answer = in_time("an answer", caller.send_request(http2_request(99, 1))).await.unwrap();
    assert_eq!((answer.status().as_u16(), instance.seen().len()), (200, 1));
    let answer = in_time("an answer", caller.send_request(http2_request(101, 1))).await.unwrap();
    assert_eq!((answer.status().as_u16(), instance.seen().len()), (431, 1));
}

#[tokio::test]
async fn sixty_kilobytes_in_ninety_headers_reach_a_function_that_speaks_http2() {
    let gateway = padded_http2_function(0, 0).await;
    let answer = Caller::connect(gateway.address).await.ask(get(&padding(90, 600))).await;
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"90"[..]));
}

#[tokio::test]
async fn sixty_kilobytes_in_ninety_headers_come_from_a_function_that_speaks_http2() {
    let gateway = padded_http2_function(90, 600).await;
    let answer = Caller::connect(gateway.address).await.ask(get("")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(count_padding(answer.fields.iter().map(|(name, _)| name.as_str())), 90);
}

#[tokio::test]
async fn more_than_a_hundred_headers_come_from_a_function_that_speaks_http2() {
    let gateway = padded_http2_function(150, 20).await;
    let answer = Caller::connect(gateway.address).await.ask(get("")).await;
    assert_eq!((answer.status(), answer.has("x-padding-149")), (200, true));
}
