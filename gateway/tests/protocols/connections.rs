//! What goes over one connection after another: persistence, pipelining, old callers, and idle
//! connections that their instance has closed (RFC 9112 section 9).

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::{
    exchange,
    support::{Gateway, until},
    wire::{self, Caller, Instance, Message, Wire, in_time},
    with_instance,
};

fn get(path: &str) -> String {
    format!("GET /fn/shop/hello{path} HTTP/1.1\r\nHost: g\r\n\r\n")
}

fn old(fields: &str) -> String {
    format!("GET /fn/shop/hello HTTP/1.0\r\n{fields}\r\n")
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n";

/// Answers with the path that it was asked for.
fn name_path(request: &Message) -> Vec<u8> {
    let path = request.target();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).into()
}

#[tokio::test]
async fn an_old_callers_connection_ends_with_the_answer() {
    for answer in [CHUNKED, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"] {
        let (gateway, instance) = with_instance(|_| answer.into()).await;
        let mut caller = Caller::connect(gateway.address).await;
        let answer = caller.ask(old("Host: g\r\n")).await;
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"abcde"[..]));
        assert!(!answer.has("transfer-encoding"), "{answer:?}");
        assert!(caller.is_closed().await);
        assert_eq!(instance.only().one("via"), "1.0 lambent");
    }
}

#[tokio::test]
async fn an_old_caller_may_ask_to_keep_the_connection() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..2 {
        let answer = caller.ask(old("Host: g\r\nConnection: Keep-Alive\r\n")).await;
        assert_eq!(
            (answer.one("connection").to_lowercase().as_str(), answer.body.as_slice()),
            ("keep-alive", &b"ok"[..])
        );
    }
    assert_eq!(instance.seen().len(), 2);
}

/// Its version is ours, and so is what that version requires (RFC 9112 section 3.2).
#[tokio::test]
async fn what_an_old_caller_need_not_say_is_said_for_him() {
    let (answer, seen) = exchange(old(""), wire::OK).await;
    assert_eq!((answer.status(), seen.start.as_str()), (200, "GET / HTTP/1.1"));
    assert_eq!(seen.all("host").len(), 1, "{seen:?}");
}

#[tokio::test]
async fn close_is_obeyed_and_not_passed_on() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    let answer = caller.ask("GET /fn/shop/hello HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n").await;
    assert_eq!(answer.one("connection"), "close");
    assert!(caller.is_closed().await);
    Caller::connect(gateway.address).await.ask(get("")).await;
    assert_eq!((instance.seen().len(), instance.connections()), (2, 1));
}

#[tokio::test]
async fn an_instance_that_closes_does_not_close_the_callers_connection() {
    let close = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (gateway, instance) = with_instance(|_| close.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..3 {
        let answer = caller.ask(get("")).await;
        assert_eq!((answer.status(), answer.has("connection")), (200, false));
    }
    assert_eq!((instance.seen().len(), instance.connections()), (3, 3));
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_their_order() {
    let (gateway, instance) = with_instance(name_path).await;
    let mut caller = Caller::connect(gateway.address).await;
    let post = "POST /fn/shop/hello/post HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\nbody";
    let missing = "GET /nowhere HTTP/1.1\r\nHost: g\r\n\r\n";
    caller.send([&get("/1"), post, &get("/2"), missing, &get("/3")].concat()).await;
    for wanted in ["/1", "/post", "/2"] {
        assert_eq!(wire::latin1(&caller.answer_to("GET").await.body), wanted);
    }
    assert_eq!(caller.answer_to("GET").await.status(), 404);
    assert_eq!(caller.answer_to("GET").await.body, b"/3");
    assert_eq!(instance.seen().len(), 4);
}

#[tokio::test]
async fn what_follows_a_close_is_not_served() {
    let (gateway, instance) = with_instance(name_path).await;
    let mut caller = Caller::connect(gateway.address).await;
    let last = "GET /fn/shop/hello/last HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n";
    caller.send([last, &get("/more")].concat()).await;
    assert_eq!(caller.answer_to("GET").await.body, b"/last");
    assert!(caller.is_closed().await);
    assert_eq!(instance.only().target(), "/last");
}

#[tokio::test]
async fn a_refused_body_is_not_taken_for_a_request() {
    for (target, status) in [("/fn/shop/hello", 413), ("/fn/shop/other", 404)] {
        let instance = Instance::start(name_path).await;
        let mut gateway = Gateway::start(json!({"maxBody": "16"})).await;
        gateway.apply_revision(1, None);
        gateway.add_at(instance.address);
        let hidden = get("/hidden");
        let mut caller = Caller::connect(gateway.address).await;
        let request = format!("POST {target} HTTP/1.1\r\nHost: g\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len());
        assert_eq!(caller.ask(request).await.status(), status);
        // Read and passed over, or never read.
        caller.send(get("/next")).await;
        if let Some(next) = caller.wire.head().await {
            assert_eq!(next.status(), 200);
        }
        assert!(instance.seen().iter().all(|request| request.target() == "/next"), "{:?}", instance.seen());
    }
}

/// A caller must not get what was meant for another.
#[tokio::test]
async fn what_an_instance_sends_beyond_its_answer_is_nobodys() {
    let beyond = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine";
    for extra in ["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "x", "\r\n"] {
        let answer = format!("{beyond}{extra}");
        let (gateway, instance) = with_instance(move |_| answer.clone().into()).await;
        for _ in 0..4 {
            let answer = Caller::connect(gateway.address).await.ask(get("")).await;
            assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"mine"[..]), "{extra:?}");
        }
        assert_eq!(instance.seen().len(), 4);
    }
}

/// The same for what comes when the connection is idle already.
#[tokio::test]
async fn what_an_instance_sends_unasked_is_nobodys() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let unasked = Arc::new(AtomicU32::new(0));
    let count = unasked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut wire = Wire::new(stream);
                while wire.head().await.is_some() {
                    wire.send(wire::OK).await;
                    count.fetch_add(1, Ordering::SeqCst);
                    wire.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let mut caller = Caller::connect(gateway.address).await;
    for n in 1..6 {
        assert_eq!(caller.ask(get("")).await.status(), 200);
        until("it has sent what nobody asked for", || unasked.load(Ordering::SeqCst) == 2 * n).await;
    }
}

/// RFC 9110 section 9.2.2: a POST is not sent again, so it must not go where nobody listens.
#[tokio::test]
async fn a_connection_that_its_instance_has_closed_gets_no_post() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let (closed, posts) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (closes, posted) = (closed.clone(), posts.clone());
    tokio::spawn(async move {
        // Each connection is good for one request, and does not say so.
        while let Ok((stream, _)) = listener.accept().await {
            let (closes, posted) = (closes.clone(), posted.clone());
            tokio::spawn(async move {
                let mut wire = Wire::new(stream);
                let Some(head) = wire.head().await else { return };
                if head.start.starts_with("POST") {
                    posted.fetch_add(1, Ordering::SeqCst);
                    wire.exactly(4).await;
                }
                wire.send(wire::OK).await;
                drop(wire);
                closes.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let mut caller = Caller::connect(gateway.address).await;
    for n in 1..=50 {
        let request = "POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(caller.ask(request).await.status(), 200, "call {n}");
        until("the instance has closed", || closed.load(Ordering::SeqCst) == n).await;
    }
    assert_eq!(posts.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn a_post_that_an_instance_may_have_begun_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let posts = Arc::new(AtomicU32::new(0));
    let posted = posts.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let posted = posted.clone();
            tokio::spawn(async move {
                let mut wire = Wire::new(stream);
                // Closes when it has read a POST, on a connection that has served before.
                while let Some(head) = wire.head().await {
                    if head.start.starts_with("POST") {
                        posted.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    wire.send(wire::OK).await;
                }
            });
        }
    });
    let mut caller = Caller::connect(gateway.address).await;
    for n in 1..=5 {
        assert_eq!(caller.ask(get("")).await.status(), 200);
        let request = "POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(caller.ask(request).await.status(), 502);
        assert_eq!(posts.load(Ordering::SeqCst), n);
    }
}

#[tokio::test]
async fn a_get_goes_again_when_an_idle_connection_turns_out_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let gets = Arc::new(AtomicU32::new(0));
    let got = gets.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let got = got.clone();
            tokio::spawn(async move {
                let mut wire = Wire::new(stream);
                // Answers the first request, and closes upon the second.
                for answers in [true, false] {
                    if wire.head().await.is_none() {
                        return;
                    }
                    got.fetch_add(1, Ordering::SeqCst);
                    if answers {
                        wire.send(wire::OK).await;
                    }
                }
            });
        }
    });
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..3 {
        assert_eq!(caller.ask(get("")).await.status(), 200);
    }
    assert_eq!(gets.load(Ordering::SeqCst), 5, "the second and the third came twice");
}

/// As a proxy beside the function does while that is away.
#[tokio::test]
async fn an_instance_that_hangs_up_is_not_asked_in_a_frenzy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::start(json!({"queue": {"timeout": "1s"}})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(listener.local_addr().unwrap());
    let connections = Arc::new(AtomicU32::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut caller = Caller::connect(gateway.address).await;
    tokio::select! {
        answer = caller.ask(get("")) => assert!(matches!(answer.status(), 502 | 504), "{answer:?}"),
        () = until("100 connections", || connections.load(Ordering::SeqCst) >= 100) => panic!("for one call"),
    }
}

#[tokio::test]
async fn a_caller_who_leaves_amid_a_body_leaves_the_instance_no_whole_request() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    for framing in ["Content-Length: 10\r\n\r\nfive!", "Transfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n"] {
        let before = instance.cut();
        let mut caller = Caller::connect(gateway.address).await;
        caller.send(format!("POST /fn/shop/hello HTTP/1.1\r\nHost: g\r\n{framing}")).await;
        until("it runs", || gateway.in_flight() == 1).await;
        drop(caller);
        until("the instance is told", || instance.cut() == before + 1).await;
        until("its slot is free", || gateway.in_flight() == 0).await;
    }
    assert_eq!(instance.seen(), []);
}

#[tokio::test]
async fn a_half_closed_callers_bytes_are_not_lost_on_the_way_in() {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(get("/a").as_bytes()).await.unwrap();
    let seen = in_time("the instance has it", instance.has(1)).await;
    assert_eq!(seen[0].target(), "/a");
}
