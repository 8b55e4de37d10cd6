//! Instances whose address an agent tells before the API does, rightly and wrongly.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http::{Request, Response};
use hyper::body::Incoming;
use lambent_api::Protocol;
use lambent_fleet::{Instance, Phase};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    gated, hello,
    support::{Gateway, call, get, serve, serve_http2, text, until},
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A gateway with an instance that an agent says to be at this address.
async fn told(spec: serde_json::Value, protocol: Protocol, address: SocketAddr) -> (Gateway, Instance) {
    let mut gateway = Gateway::start_with(spec, protocol).await;
    gateway.apply_revision(1, None);
    let instance = gateway.add_placed(address.port());
    gateway.tell(&instance, address.ip());
    (gateway, instance)
}

#[tokio::test]
async fn an_instance_is_called_at_the_address_that_an_agent_tells() {
    let address = serve(hello).await;
    let (mut gateway, instance) = told(json!({}), Protocol::Http1, address).await;
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "hello");
    // What the watch shows meanwhile has no address.
    gateway.change(&instance, Phase::Starting);
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "hello");
}

#[tokio::test]
async fn a_request_is_not_disturbed_when_the_api_shows_the_same_address() {
    let gate = Arc::new(Semaphore::new(0));
    let address = serve(gated(&gate)).await;
    let (mut gateway, instance) = told(json!({}), Protocol::Http1, address).await;
    let running = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("it runs", || gateway.in_flight() == 1).await;
    gateway.show_at(&instance, address);
    gate.add_permits(2);
    assert_eq!(running.await.unwrap().unwrap().status, 200);
    assert_eq!(gateway.get("/fn/shop/hello").await.status, 200);
}

/// Counts requests, and answers none of them.
async fn other_pod(protocol: Protocol) -> (SocketAddr, Arc<AtomicU32>) {
    let seen = Arc::new(AtomicU32::new(0));
    let counts = seen.clone();
    let handler = move |_: Request<Incoming>| {
        counts.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Response<_>>()
    };
    let address = match protocol {
        Protocol::H2c => serve_http2(handler).await,
        _ => serve(handler).await,
    };
    (address, seen)
}

async fn what_runs_at_a_wrong_address_is_cut_off(protocol: Protocol) {
    let (wrong, seen) = other_pod(protocol).await;
    let (mut gateway, instance) = told(json!({"concurrency": 2}), protocol, wrong).await;
    let running = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("it is there", || seen.load(Ordering::SeqCst) == 1).await;
    let right = match protocol {
        Protocol::H2c => serve_http2(hello).await,
        _ => serve(hello).await,
    };
    gateway.show_at(&instance, right);
    let answer = running.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.reason().as_str()), (502, "InstanceFailed"));
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "hello");
    assert_eq!(seen.load(Ordering::SeqCst), 1, "nothing more went there");
}

#[tokio::test]
async fn a_request_at_an_address_that_the_api_contradicts_is_cut_off() {
    what_runs_at_a_wrong_address_is_cut_off(Protocol::Http1).await;
}

#[tokio::test]
async fn a_request_over_http_2_at_an_address_that_the_api_contradicts_is_cut_off() {
    what_runs_at_a_wrong_address_is_cut_off(Protocol::H2c).await;
}

#[tokio::test]
async fn a_web_socket_at_an_address_that_the_api_contradicts_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (gateway, instance) = told(json!({}), Protocol::Http1, listener.local_addr().unwrap()).await;
    let mut caller = TcpStream::connect(gateway.address).await.unwrap();
    let ask = b"GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    caller.write_all(ask).await.unwrap();
    let (mut other, _) = listener.accept().await.unwrap();
    let mut buffer = [0; 4096];
    let _ = other.read(&mut buffer).await.unwrap();
    let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    other.write_all(agreed).await.unwrap();
    let read = caller.read(&mut buffer).await.unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 101"));
    caller.write_all(b"x").await.unwrap();
    assert_eq!(other.read(&mut buffer).await.unwrap(), 1);
    let mut gateway = gateway;
    gateway.show_at(&instance, serve(hello).await);
    assert_eq!(caller.read(&mut buffer).await.unwrap(), 0, "it ends for the caller");
    assert_eq!(other.read(&mut buffer).await.unwrap(), 0, "and for the other pod");
}

#[tokio::test]
async fn an_address_that_another_instance_has_is_not_used() {
    let (wrong, seen) = other_pod(Protocol::Http1).await;
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(2, None);
    let other = gateway.add_placed(9);
    gateway.show_at(&other, (HERE, 9).into());
    let instance = gateway.add_placed(wrong.port());
    gateway.tell(&instance, HERE);
    let waiting = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("it waits", || gateway.queued() == 1).await;
    gateway.show_at(&instance, serve(hello).await);
    assert_eq!(waiting.await.unwrap().unwrap().body, "hello");
    assert_eq!(seen.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_comes_late_or_of_an_instance_that_is_not_to_be_used_changes_nothing() {
    let (wrong, seen) = other_pod(Protocol::Http1).await;
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(2, None);
    let stopping = gateway.add_placed(wrong.port());
    gateway.change(&stopping, Phase::Stopping);
    gateway.tell(&stopping, HERE);
    let unknown = Instance { id: lambent_api::InstanceRef { uid: "u-9".into(), ..stopping.id.clone() }, ..stopping };
    gateway.tell(&unknown, HERE);
    let shown = gateway.add_placed(wrong.port());
    gateway.show_at(&shown, serve(async |_: Request<Incoming>| Response::new(text("shown"))).await);
    gateway.tell(&shown, HERE);
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "shown");
    assert_eq!(seen.load(Ordering::SeqCst), 0);
}
