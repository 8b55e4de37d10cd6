//! The link against a real HTTP server on a loopback socket.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use lambent_api::{
    InstanceRef,
    signal::{Message, Retire, Retired},
};
use lambent_autoscaler::link::{
    FromGateways, LinkEvent,
    client::{self, LinkError},
    connect_all,
};
use lambent_wire::connect::ConnectError;
use tokio::{net::TcpListener, sync::mpsc, time::Instant};

/// A file with a token, removed afterwards.
struct Token(PathBuf);

impl Token {
    fn new(words: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lambent-link-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let token = Self(std::env::temp_dir().join(name));
        token.set(words);
        token
    }

    fn set(&self, words: &str) {
        std::fs::write(&self.0, words).unwrap();
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// Serves with `answer` and shows the Authorization header of every request.
async fn serve(answer: fn(&str) -> Response<Body>) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shown, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shown = shown.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let token = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
                shown.send(token).unwrap();
                let response = answer(request.uri().path());
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, receiver)
}

fn lines(lines: &'static str, endless: bool) -> Response<Body> {
    // Cut anywhere: a line need not come in one piece.
    let pieces = lines.as_bytes().chunks(7).map(|piece| Ok(Frame::data(Bytes::from_static(piece))));
    let rest = if endless { stream::pending().left_stream() } else { stream::empty().right_stream() };
    Response::new(BodyExt::boxed(StreamBody::new(stream::iter(pieces).chain(rest))))
}

const SAID: &str = r#"{"type":"load","namespace":"shop","function":"f","revision":"f-1","serving":true,"inFlight":0,"queued":3,"peakInFlight":0,"ready":0,"starting":0}
{"type":"newerThanThis","x":1}
{"type":"synced"}
"#;

fn follow(address: SocketAddr, token: &Token) -> mpsc::Receiver<FromGateways> {
    let all = stream::iter([BTreeSet::from([address])]).chain(stream::pending());
    connect_all(all, token.0.clone())
}

async fn next(events: &mut mpsc::Receiver<FromGateways>) -> String {
    match events.recv().await.unwrap() {
        FromGateways::All(all) => format!("all {}", all.len()),
        FromGateways::One(_, LinkEvent::Up) => "up".into(),
        FromGateways::One(_, LinkEvent::Down) => "down".into(),
        FromGateways::One(_, LinkEvent::Message(Message::Load(load))) => format!("queued {}", load.queued),
        FromGateways::One(_, LinkEvent::Message(message)) => format!("{message:?}"),
    }
}

async fn said_in_order(events: &mut mpsc::Receiver<FromGateways>, expected: &[&str]) {
    for expected in expected {
        assert_eq!(next(events).await, *expected);
    }
}

#[tokio::test]
async fn a_lost_connection_is_made_again_with_the_token_of_that_moment() {
    let (address, mut shown) = serve(|_| lines(SAID, false)).await;
    let token = Token::new("one\n");
    let mut events = follow(address, &token);
    // What it does not know it skips.
    said_in_order(&mut events, &["all 1", "up", "queued 3", "Synced", "down"]).await;
    token.set("two\n");
    assert_eq!(shown.recv().await.unwrap(), "Bearer one");
    said_in_order(&mut events, &["up", "queued 3", "Synced", "down"]).await;
    assert_eq!(shown.recv().await.unwrap(), "Bearer two");
}

#[tokio::test]
async fn a_silent_gateway_is_down_after_five_seconds() {
    let (address, _shown) = serve(|_| lines(SAID, true)).await;
    let token = Token::new("t");
    let mut events = follow(address, &token);
    said_in_order(&mut events, &["all 1", "up", "queued 3", "Synced"]).await;
    // From here on only timers are waited for, so that they need not be waited for in fact.
    tokio::time::pause();
    let begun = Instant::now();
    said_in_order(&mut events, &["down"]).await;
    assert!(begun.elapsed() <= Duration::from_millis(5_100));
}

#[tokio::test]
async fn a_line_without_end_is_not_kept() {
    let (address, _shown) = serve(|_| {
        let piece = Bytes::from(vec![b'x'; 1 << 16]);
        let pieces = stream::repeat_with(move || Ok(Frame::data(piece.clone())));
        Response::new(BodyExt::boxed(StreamBody::new(pieces)))
    })
    .await;
    let token = Token::new("t");
    let mut events = follow(address, &token);
    said_in_order(&mut events, &["all 1", "up", "down"]).await;
}

#[tokio::test]
async fn a_gateway_is_asked_to_retire_and_may_refuse() {
    let (address, _shown) = serve(|path| {
        assert_eq!(path, "/internal/v1/retire");
        let instances = vec![InstanceRef { name: "f-1-a".into(), uid: "u".into() }];
        let answer = serde_json::to_vec(&Retired { instances, left: 1 }).unwrap();
        Response::new(BodyExt::boxed(Full::from(answer)))
    })
    .await;
    let token = Token::new("t");
    let order = Retire { namespace: "shop".into(), revision: "f-1".into(), keep: 1 };
    let retired = client::retire(address, &token.0, &order).await.unwrap();
    assert_eq!((retired.instances.len(), retired.left), (1, 1));

    let (address, _shown) = serve(|_| {
        let mut response = lines("", false);
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    })
    .await;
    let refused = client::retire(address, &token.0, &order).await;
    assert!(matches!(refused, Err(LinkError::Connect(ConnectError::Status(StatusCode::FORBIDDEN)))));
}
