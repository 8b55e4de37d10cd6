//! Interim answers: `100 Continue` and the expectation of it (RFC 9110 section 10.1.1), and others.

use std::net::SocketAddr;

use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    exchange,
    support::{Gateway, until},
    wire::{self, Caller, Message, Wire, in_time},
    with_instance,
};

const EXPECT: &str = "POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
const GET: &str = "GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n";

/// A Function whose instance is played by the test.
async fn by_hand(spec: serde_json::Value) -> (Gateway, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(spec).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    (gateway, listener)
}

/// The instance's connection, which the gateway opens by itself.
async fn accept(listener: &TcpListener) -> Wire {
    Wire::new(in_time("the gateway connects", listener.accept()).await.unwrap().0)
}

async fn expecting(address: SocketAddr) -> Caller {
    let mut caller = Caller::connect(address).await;
    caller.send(EXPECT).await;
    caller
}

/// A caller who waits for a word, and the instance that has the head of the request.
struct Expecting {
    _gateway: Gateway,
    _listener: TcpListener,
    caller: Caller,
    instance: Wire,
    seen: Message,
}

impl Expecting {
    async fn start() -> Self {
        let (gateway, listener) = by_hand(json!({})).await;
        let mut instance = accept(&listener).await;
        let caller = expecting(gateway.address).await;
        let seen = instance.head().await.unwrap();
        Self { _gateway: gateway, _listener: listener, caller, instance, seen }
    }

    async fn next_status(&mut self) -> u16 {
        self.caller.wire.head().await.unwrap().status()
    }

    async fn send_body(&mut self) {
        self.caller.send("body").await;
        assert_eq!(self.instance.exactly(4).await.unwrap(), b"body");
    }

    async fn goes_on_when_told_to(mut self) {
        assert_eq!(self.next_status().await, 100);
        self.send_body().await;
        self.instance.send(wire::OK).await;
        assert_eq!(self.caller.answer_to("POST").await.body, b"ok");
    }
}

#[tokio::test]
async fn who_expects_a_word_gets_it_before_the_body_is_sent() {
    let mut scene = Expecting::start().await;
    assert_eq!((scene.seen.one("expect"), scene.seen.one("content-length")), ("100-continue", "4"));
    scene.instance.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    scene.goes_on_when_told_to().await;
}

/// RFC 9110 section 10.1.1: not for an indefinite time.
#[tokio::test]
async fn who_expects_a_word_gets_it_also_where_the_function_does_not_know_of_it() {
    Expecting::start().await.goes_on_when_told_to().await;
}

/// Some functions answer before they read: the answer is word enough.
#[tokio::test]
async fn who_is_answered_before_the_body_is_read_may_send_it() {
    let mut scene = Expecting::start().await;
    scene.instance.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
    let first = scene.next_status().await;
    assert_eq!(if first == 100 { scene.next_status().await } else { first }, 200);
    scene.send_body().await;
    scene.instance.send("body").await;
    assert_eq!(scene.caller.wire.exactly(4).await.unwrap(), b"body");
}

async fn final_answer_comes_first(status: u16) {
    let Expecting { _gateway, mut caller, mut instance, .. } = Expecting::start().await;
    instance.send(format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")).await;
    let answer = caller.answer_to("POST").await;
    assert_eq!((answer.status(), answer.body.as_slice()), (status, &b"no"[..]));
}

#[tokio::test]
async fn a_function_may_decline_before_the_body_is_sent() {
    final_answer_comes_first(401).await;
}

#[tokio::test]
async fn a_function_may_say_that_it_does_not_meet_expectations() {
    final_answer_comes_first(417).await;
}

#[tokio::test]
async fn nobody_is_told_to_go_on_while_he_waits_in_line() {
    let mut gateway = Gateway::start(json!({})).await;
    let mut caller = expecting(gateway.address).await;
    until("it waits", || gateway.queued() == 1).await;
    assert!(caller.wire.is_silent());
    let instance = wire::Instance::start(|_| wire::OK.into()).await;
    gateway.apply_revision(1, None);
    gateway.add_at(instance.address);
    // The body comes although the word has not: a caller need not wait for it.
    caller.send("body").await;
    let mut answer = caller.answer_to("POST").await;
    if answer.status() == 100 {
        answer = caller.answer_to("POST").await;
    }
    assert_eq!((answer.status(), instance.only().body.as_slice()), (200, &b"body"[..]));
}

#[tokio::test]
async fn what_the_gateway_refuses_is_not_told_to_go_on() {
    let gateway = Gateway::start(json!({"maxBody": "3"})).await;
    assert_eq!(expecting(gateway.address).await.answer_to("POST").await.status(), 413);
    let mut caller = Caller::connect(gateway.address).await;
    let answer = caller.ask(EXPECT.replace("shop/hello", "shop/other")).await;
    assert_eq!(answer.status(), 404);
}

/// RFC 9112 section 9.3: the body that was not sent must not be taken from what comes next.
#[tokio::test]
async fn a_body_that_was_declined_leaves_no_trace() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    let answer = caller.ask(EXPECT.replace("shop/hello", "shop/other")).await;
    assert_eq!(answer.status(), 404);
    caller.send("GET /fn/shop/hello/next HTTP/1.1\r\nHost: g\r\n\r\n").await;
    // Either the connection ends here, or its next request is one.
    if let Some(next) = caller.wire.head().await {
        assert!(matches!(next.status(), 200 | 400), "{next:?}");
    }
    assert!(instance.seen().iter().all(|request| request.target() == "/next"), "{:?}", instance.seen());
}

/// RFC 9110 section 10.1.1.
#[tokio::test]
async fn an_old_caller_is_never_told_to_go_on() {
    let (answer, seen) = exchange(format!("{}body", EXPECT.replace("HTTP/1.1", "HTTP/1.0")), wire::OK).await;
    assert_eq!((answer.status(), seen.body.as_slice()), (200, &b"body"[..]));
}

#[tokio::test]
async fn a_word_to_go_on_that_nobody_expected_spoils_nothing() {
    for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\n"] {
        let (gateway, instance) =
            with_instance(move |_| [interim.as_bytes(), interim.as_bytes(), wire::OK].concat()).await;
        let mut caller = Caller::connect(gateway.address).await;
        for _ in 0..2 {
            caller.send(GET).await;
            let mut answer = caller.answer_to("GET").await;
            while answer.status() < 200 {
                answer = caller.answer_to("GET").await;
            }
            assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ok"[..]));
        }
        assert_eq!(instance.seen().len(), 2);
    }
}

/// RFC 9110 section 15.2 has a proxy forward them (RFC 8297); hyper's server sends no 1xx but 100.
#[tokio::test]
async fn early_hints_are_left_out_and_the_answer_comes() {
    let (gateway, listener) = by_hand(json!({})).await;
    let mut instance = accept(&listener).await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(GET).await;
    instance.head().await.unwrap();
    instance.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n").await;
    instance.send(wire::OK).await;
    let answer = caller.answer_to("GET").await;
    assert_eq!((answer.status(), answer.has("link")), (200, false));
}

/// RFC 9110 section 15.2.
#[tokio::test]
async fn an_old_caller_gets_no_hints() {
    let hints = [&b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"[..], wire::OK].concat();
    let (answer, _) = exchange(GET.replace("HTTP/1.1", "HTTP/1.0"), hints).await;
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ok"[..]));
}
