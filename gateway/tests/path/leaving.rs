//! Callers who leave or do not read, instances that end or move in the midst of a request, and a
//! gateway that drains.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use hyper::body::Incoming;
use lambent_fleet::Instance;
use lambent_gateway::hub::News;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    gated, hello,
    support::{Body, Gateway, call, chunks, get, serve, text, until},
};

/// An answer that never ends, in parts of this size.
fn endless(part: usize) -> Response<Body> {
    let part = Bytes::from(vec![b'x'; part]);
    Response::new(chunks(stream::repeat_with(move || part.clone()).then(async |part| {
        tokio::task::yield_now().await;
        part
    })))
}

async fn leave_amid_a_request(gateway: &Gateway) {
    let before = gateway.in_flight();
    let mut caller = TcpStream::connect(gateway.address).await.unwrap();
    caller.write_all(b"GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n").await.unwrap();
    until("it runs", || gateway.in_flight() == before + 1).await;
}

#[tokio::test]
async fn an_endless_answer_that_nobody_waits_for_costs_its_connection_and_not_the_instance() {
    let mut gateway = Gateway::start(json!({"concurrency": 10})).await;
    gateway.apply_revision(1, None);
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    gateway
        .add(move |request: Request<Incoming>| {
            let gate = opened.clone();
            async move {
                if request.uri().path() == "/other" {
                    return Response::new(text("other"));
                }
                gate.acquire().await.unwrap().forget();
                endless(10)
            }
        })
        .await;
    leave_amid_a_request(&gateway).await;
    gate.add_permits(1);
    until("its slot is free", || gateway.in_flight() == 0).await;
    assert_eq!(gateway.get("/fn/shop/hello/other").await.body, "other", "the instance is used on");
    while let Ok(news) = gateway.news.try_recv() {
        assert!(!matches!(news, News::Drained(_)), "it is well");
    }
}

#[tokio::test]
async fn a_caller_who_does_not_read_holds_its_slot_no_longer_than_the_timeout() {
    let mut gateway = Gateway::start(json!({"timeout": "1s"})).await;
    gateway.apply_revision(1, None);
    gateway.add(async |_: Request<Incoming>| endless(100_000)).await;
    let mut caller = TcpStream::connect(gateway.address).await.unwrap();
    caller.write_all(b"GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n").await.unwrap();
    until("it runs", || gateway.in_flight() == 1).await;
    until("its slot is free", || gateway.in_flight() == 0).await;
    // What it did not read before is there, and then the answer is cut.
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), caller.read_to_end(&mut answer)).await;
    assert!(end.is_ok() && !answer.ends_with(b"0\r\n\r\n"), "the connection ends amid the answer");
}

/// Answers the first `good` requests, and closes the connection after reading any other.
async fn dies_after(good: u32) -> (std::net::SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
    let counted = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = counted.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if seen.fetch_add(1, Ordering::SeqCst) >= good {
                        return;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await.unwrap();
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_request_that_ends_processes_does_not_end_them_all() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(3, None);
    let mut all = Vec::new();
    for _ in 0..3 {
        let (address, seen) = dies_after(0).await;
        gateway.add_at(address);
        all.push(seen);
    }
    let requests = || all.iter().map(|seen| seen.load(Ordering::SeqCst)).sum::<u32>();
    let answer = gateway.get("/fn/shop/hello").await;
    assert_eq!((answer.status, answer.reason().as_str(), requests()), (502, "InstanceFailed", 1));
}

#[tokio::test]
async fn what_may_be_repeated_is_repeated_once_where_the_connection_was_kept() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let (address, seen) = dies_after(1).await;
    gateway.add_at(address);
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "good");
    let answer = gateway.get("/fn/shop/hello").await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "InstanceFailed"));
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_instance_that_moves_is_found_where_it_is() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let instance = gateway.add(async |_: Request<Incoming>| Response::new(text("before"))).await;
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "before");
    let moved = Instance { address: Some(serve(hello).await), ..instance };
    gateway.change(&moved, moved.phase.clone());
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "hello");
}

#[tokio::test]
async fn a_drain_waits_for_what_an_instance_is_still_busy_with_for_nobody() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let gate = Arc::new(Semaphore::new(0));
    gateway.add(gated(&gate)).await;
    leave_amid_a_request(&gateway).await;
    gateway.shutdown.cancel();
    refused(&gateway).await;
    assert!(!gateway.served.is_finished() && gateway.in_flight() == 1, "its slot is in use");
    gate.add_permits(1);
    gateway.served.await.unwrap().unwrap();
}

/// Ends when no connection is accepted any more.
async fn refused(gateway: &Gateway) {
    while TcpStream::connect(gateway.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_waits_for_a_web_socket() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(agreed).await.unwrap();
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..read]).await.unwrap();
        }
    });
    let mut caller = TcpStream::connect(gateway.address).await.unwrap();
    let ask = b"GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    caller.write_all(ask).await.unwrap();
    let mut buffer = vec![0; 4096];
    let read = caller.read(&mut buffer).await.unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&buffer[..read]));
    gateway.shutdown.cancel();
    refused(&gateway).await;
    caller.write_all(b"still there").await.unwrap();
    let read = caller.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..read], b"still there");
    assert!(!gateway.served.is_finished());
    drop(caller);
    gateway.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_who_leaves_while_it_waits_takes_no_slot_with_it() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let gate = Arc::new(Semaphore::new(0));
    gateway.add(gated(&gate)).await;
    let address = gateway.address;
    let running = tokio::spawn(call(address, get("/fn/shop/hello")));
    until("one runs", || gateway.in_flight() == 1).await;
    for round in 0..20 {
        let mut caller = TcpStream::connect(address).await.unwrap();
        caller.write_all(b"GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n").await.unwrap();
        until("one waits", || gateway.queued() == 1).await;
        drop(caller);
        if round == 10 {
            // At about the same time as somebody leaves.
            gate.add_permits(1);
        }
        until("nobody waits", || gateway.queued() == 0).await;
        if round == 10 {
            break;
        }
    }
    assert_eq!(running.await.unwrap().unwrap().body, "done");
    gate.add_permits(100);
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "done");
}
