//! The request path over real sockets: what callers and instances see.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod early;
mod http2;
mod leaving;
#[allow(unreachable_pub)]
#[path = "../support/mod.rs"]
mod support;

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
use http_body_util::BodyExt;
use hyper::body::Incoming;
use lambent_api::Reason;
use lambent_fleet::Phase;
use lambent_gateway::hub::News;
use serde_json::json;
use support::{Body, Gateway, call, chunks, get, open, text, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};

async fn hello(_: Request<Incoming>) -> Response<Body> {
    Response::new(text("hello"))
}

/// Answers when the test lets it.
fn gated(
    gate: &Arc<Semaphore>,
) -> impl Fn(Request<Incoming>) -> futures::future::BoxFuture<'static, Response<Body>> + Clone + use<> {
    let gate = gate.clone();
    move |_| {
        let gate = gate.clone();
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            Response::new(text("done"))
        })
    }
}

#[tokio::test]
async fn a_request_reaches_the_function_untouched_but_for_the_prefix() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway
        .add(async |request: Request<Incoming>| {
            let seen = format!("{} {:?}", request.uri(), request.headers());
            Response::builder().status(201).header("x-own", "1").body(text(seen)).unwrap()
        })
        .await;
    let answer = gateway.get("/fn/shop/hello/a//b%2F..?c=%20&d=/").await;
    assert_eq!(answer.status, 201);
    assert!(answer.body.starts_with("/a//b%2F..?c=%20&d=/ "), "{}", answer.body);
    assert!(answer.body.contains(r#""x-forwarded-for": "127.0.0.1""#), "{}", answer.body);
    assert_eq!(answer.headers["x-own"], "1");
    assert!(answer.headers["server-timing"].to_str().unwrap().starts_with("queue;dur="));
    let by_host = Request::get("/x").header("host", "hello.shop.fn.example").body(text("")).unwrap();
    assert!(gateway.call(by_host).await.body.starts_with("/x "));
}

#[tokio::test]
async fn what_is_not_there_is_said_as_a_problem() {
    let gateway = Gateway::start(json!({})).await;
    let answer = gateway.get("/fn/shop/other").await;
    assert_eq!((answer.status, answer.reason().as_str()), (404, "FunctionNotFound"));
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(gateway.get("/").await.status, 404);
}

#[tokio::test]
async fn a_call_wakes_a_function_from_zero_and_is_marked_cold() {
    let mut gateway = Gateway::start(json!({})).await;
    let pending = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    let raised = gateway.raised.clone();
    until("raised", || raised.load(Ordering::SeqCst) > 0).await;
    gateway.apply_revision(1, None);
    gateway.add(hello).await;
    let answer = pending.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    assert_eq!(answer.headers["lambent-cold-start"], "true");
    let warm = gateway.get("/fn/shop/hello").await;
    assert!(!warm.headers.contains_key("lambent-cold-start"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read_whole() {
    let mut gateway = Gateway::start(json!({"maxBody": "1Ki"})).await;
    gateway.apply_revision(1, None);
    gateway
        .add(async |request: Request<Incoming>| {
            let _ = request.into_body().collect().await;
            Response::new(text("read"))
        })
        .await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\nContent-Length: 2000\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 413");

    let endless = stream::repeat(Bytes::from_static(&[b'x'; 512])).take(100);
    let request = Request::post("/fn/shop/hello").header("host", "g").body(chunks(endless)).unwrap();
    let answer = gateway.call(request).await;
    assert_eq!((answer.status, answer.reason().as_str()), (413, "BodyTooLarge"));
}

#[tokio::test]
async fn who_does_not_fit_the_queue_is_refused_with_retry_after() {
    let mut gateway = Gateway::start(json!({"queue": {"depth": 1, "timeout": "20s"}})).await;
    gateway.apply_revision(1, None);
    let gate = Arc::new(Semaphore::new(0));
    gateway.add(gated(&gate)).await;
    let running = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("one runs", || gateway.in_flight() == 1).await;
    let waiting = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("one waits", || gateway.queued() == 1).await;
    let refused = gateway.get("/fn/shop/hello").await;
    assert_eq!((refused.status, refused.reason().as_str()), (429, "QueueFull"));
    assert_eq!(refused.headers["retry-after"], "1");
    gate.add_permits(2);
    assert_eq!(running.await.unwrap().unwrap().status, 200);
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn waiting_and_running_too_long_are_told_apart() {
    let mut gateway = Gateway::start(json!({"timeout": "100ms", "queue": {"timeout": "100ms"}})).await;
    let waited = gateway.get("/fn/shop/hello").await;
    assert_eq!((waited.status, waited.reason().as_str()), (504, "QueueTimeout"));
    gateway.apply_revision(1, None);
    gateway.add(gated(&Arc::new(Semaphore::new(0)))).await;
    let ran = gateway.get("/fn/shop/hello").await;
    assert_eq!((ran.status, ran.reason().as_str()), (504, "FunctionTimeout"));
    assert_eq!(gateway.in_flight(), 1, "the slot stays taken until the instance has answered");
}

#[tokio::test]
async fn a_caller_who_leaves_the_queue_frees_its_place() {
    let gateway = Gateway::start(json!({"queue": {"depth": 1}})).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\n\r\n").await.unwrap();
    until("it waits", || gateway.queued() == 1).await;
    drop(stream);
    until("its place is free", || gateway.queued() == 0).await;
}

#[tokio::test]
async fn what_can_not_start_is_told_at_once() {
    let mut gateway = Gateway::start(json!({})).await;
    let waiting = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("one waits", || gateway.queued() == 1).await;
    gateway.apply_revision(1, Some(Reason::new("ErrImagePull", "no such image")));
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.reason().as_str()), (503, "StartFailed"));
    assert!(answer.body.contains("no such image"));
    gateway.apply_revision(1, None);
    gateway.add(hello).await;
    assert_eq!(gateway.get("/fn/shop/hello").await.status, 200);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add(async |request: Request<Incoming>| Response::new(echo(request.into_body()))).await;
    let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
    let body = chunks(stream::unfold(receiver, async |mut r| r.recv().await.map(|c| (c, r))));
    let request = Request::post("/fn/shop/hello").header("host", "g").body(body).unwrap();
    sender.send("one".into()).unwrap();
    let mut response = open(gateway.address, request).await.unwrap();
    for word in ["one", "two", "three"] {
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
        let next = if word == "one" { "two" } else { "three" };
        if word != "three" {
            sender.send(next.into()).unwrap();
        }
    }
    drop(sender);
    assert!(response.body_mut().frame().await.is_none());
}

fn echo(body: Incoming) -> Body {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut body = body;
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                let _ = sender.send(data);
            }
        }
    });
    chunks(stream::unfold(receiver, async |mut r| r.recv().await.map(|c| (c, r))))
}

#[tokio::test]
async fn concurrency_is_never_exceeded() {
    let mut gateway = Gateway::start(json!({"concurrency": 2})).await;
    gateway.apply_revision(3, None);
    let most = Arc::new(AtomicU32::new(0));
    let mut instances = Vec::new();
    for _ in 0..3 {
        let (now, most) = (Arc::new(AtomicU32::new(0)), most.clone());
        let handler = move |_| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(3)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Response::new(text("x"))
            }
        };
        instances.push(gateway.add(handler).await);
    }
    let calls: Vec<_> = (0..200).map(|_| tokio::spawn(call(gateway.address, get("/fn/shop/hello")))).collect();
    // An instance leaves the ready set and comes back while its requests run.
    for _ in 0..20 {
        gateway.change(&instances[0], Phase::Unready);
        tokio::task::yield_now().await;
        gateway.change(&instances[0], Phase::Running);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(gateway.in_flight(), 0);
}

#[tokio::test]
async fn an_instance_that_dies_in_mid_request_is_a_bad_gateway() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let answer = gateway.get("/fn/shop/hello").await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "InstanceFailed"));
}

#[tokio::test]
async fn a_get_on_a_connection_that_just_closed_is_sent_again() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        // Each connection answers once and is closed when the second request is on it.
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                let _ = stream.read(&mut buffer).await;
            });
        }
    });
    for _ in 0..6 {
        assert_eq!(gateway.get("/fn/shop/hello").await.status, 200);
    }
    let post = Request::post("/fn/shop/hello").header("host", "g").body(text("once")).unwrap();
    let answer = gateway.call(post).await;
    assert!(answer.status == 200 || answer.reason() == "InstanceFailed", "never sent twice");
}

#[tokio::test]
async fn a_stopping_instance_gets_nothing_new_and_says_when_it_is_drained() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let gate = Arc::new(Semaphore::new(0));
    let old = gateway.add(gated(&gate)).await;
    let running = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("one runs", || gateway.in_flight() == 1).await;
    gateway.change(&old, Phase::Stopping);
    gateway.add(hello).await;
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "hello");
    gate.add_permits(1);
    assert_eq!(running.await.unwrap().unwrap().body, "done");
    loop {
        if let News::Drained(drained) = gateway.news.recv().await.unwrap() {
            assert_eq!(drained.instance, old.id);
            break;
        }
    }
}

#[tokio::test]
async fn an_instance_that_another_gateway_has_named_for_stopping_gets_nothing() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(2, None);
    let named = gateway.add(|_| async { Response::new(text("named")) }).await;
    assert_eq!(gateway.get("/fn/shop/hello").await.body, "named");
    gateway.name_for_stopping(&named, 1);
    let waiting = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("it waits", || gateway.queued() == 1).await;
    gateway.add(hello).await;
    assert_eq!(waiting.await.unwrap().unwrap().body, "hello");
}

#[tokio::test]
async fn a_connection_is_not_used_again_when_the_function_would_have_closed_it() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    let answers = [("X-None: 0", "one"), ("Keep-Alive: timeout=0", "two"), ("X-None: 0", "three")];
    let served = tokio::spawn(async move {
        let mut connections = 0;
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {
                let (header, body) = answers.next().unwrap();
                let answer = format!("HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answers.peek().is_none() {
                    break;
                }
            }
        }
        connections
    });
    for body in ["one", "two", "three"] {
        assert_eq!(gateway.get("/fn/shop/hello").await.body, body);
    }
    assert_eq!(served.await.unwrap(), 2, "the third one had a new connection");
}

#[tokio::test]
async fn a_deleted_function_ends_what_runs_and_is_not_found() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let gate = Arc::new(Semaphore::new(0));
    let instance = gateway.add(gated(&gate)).await;
    let running = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    until("one runs", || gateway.in_flight() == 1).await;
    gateway.delete_function();
    gateway.change(&instance, Phase::Stopping);
    assert_eq!(gateway.get("/fn/shop/hello").await.status, 404);
    gate.add_permits(1);
    assert_eq!(running.await.unwrap().unwrap().status, 200);
    gateway.remove(&instance);
    assert!(gateway.directory.any("shop", "hello").is_none());
}

#[tokio::test]
async fn a_function_that_a_new_list_has_not_is_not_found_and_one_that_it_has_is_served_on() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add(hello).await;
    gateway.list(&["hello"], &["hello-1"]);
    assert_eq!(gateway.get("/fn/shop/hello").await.status, 200);
    gateway.list(&["other"], &["other-1"]);
    assert_eq!(gateway.get("/fn/shop/hello").await.status, 404);
}

#[tokio::test]
async fn a_drain_ends_what_runs_and_answers_who_waits() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let gate = Arc::new(Semaphore::new(0));
    gateway.add(gated(&gate)).await;
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(call(gateway.address, get("/fn/shop/hello")))).collect();
    until("one runs and one waits", || gateway.in_flight() == 1 && gateway.queued() == 1).await;
    gateway.shutdown.cancel();
    gate.add_permits(2);
    for call in calls {
        let answer = call.await.unwrap().unwrap();
        assert_eq!((answer.status, answer.headers["connection"].to_str().unwrap()), (200, "close"));
    }
    gateway.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_instance_that_does_not_accept_is_left_out_and_the_request_goes_elsewhere() {
    let mut gateway = Gateway::start(json!({"queue": {"timeout": "10s"}})).await;
    gateway.apply_revision(2, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    let directory = gateway.directory.clone();
    let ready = |n: u32| {
        let directory = directory.clone();
        move || directory.any("shop", "hello").unwrap().loads().iter().map(|l| l.ready).sum::<u32>() == n
    };
    until("it accepts", ready(1)).await;
    drop(listener.accept().await.unwrap());
    drop(listener);
    let waiting = tokio::spawn(call(gateway.address, get("/fn/shop/hello")));
    gateway.add(hello).await;
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_caller_who_leaves_with_an_unread_body_frees_its_place() {
    let gateway = Gateway::start(json!({})).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\nContent-Length: 500000\r\n\r\n").await.unwrap();
    stream.write_all(&[b'x'; 100_000]).await.unwrap();
    until("it waits", || gateway.queued() == 1).await;
    drop(stream);
    until("its place is free", || gateway.queued() == 0).await;
}

#[tokio::test]
async fn a_web_socket_holds_its_slot_until_one_side_ends() {
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                let head = String::from_utf8_lossy(&buffer[..read]).to_lowercase();
                assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
                let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(agreed).await.unwrap();
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..read]).await.unwrap();
                }
            });
        }
    });
    let mut caller = TcpStream::connect(gateway.address).await.unwrap();
    let ask =
        b"GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    caller.write_all(ask).await.unwrap();
    let mut buffer = vec![0; 4096];
    let read = caller.read(&mut buffer).await.unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&buffer[..read]));
    for word in ["one", "two"] {
        caller.write_all(word.as_bytes()).await.unwrap();
        let read = caller.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], word.as_bytes());
        assert_eq!(gateway.in_flight(), 1);
    }
    drop(caller);
    until("its slot is free", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn a_caller_who_closes_amid_a_methods_name_is_let_go_at_once() {
    let gateway = Gateway::start(json!({})).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"PR").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "the connection is held");
}
