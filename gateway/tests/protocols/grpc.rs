//! gRPC over HTTP/2: where its status stands, and what an instance sees of a call that is cancelled.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lambent_api::Protocol;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use crate::{
    support::{Body, Gateway, chunks, connect_http2, serve_http2, text, until},
    wire::in_time,
};

/// A message of five bytes, as gRPC frames it.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    BodyExt::boxed(StreamBody::new(stream::iter(frames.into_iter().map(Ok::<_, Infallible>))))
}

fn call(method: &str, body: Body) -> Request<Body> {
    let request = Request::post(format!("http://hello.shop.fn.example/chat.Chat/{method}"));
    let request = request.header("content-type", "application/grpc+proto").header("te", "trailers");
    let request = request.header("grpc-timeout", "5S").header("user-bin", "AAEC").header("grpc-encoding", "identity");
    request.body(body).unwrap()
}

async fn start(spec: serde_json::Value) -> Gateway {
    let mut gateway = Gateway::start_with(spec, Protocol::H2c).await;
    gateway.apply_revision(1, None);
    gateway
}

async fn ask(gateway: &Gateway, request: Request<Body>) -> Response<Incoming> {
    let mut caller = connect_http2(gateway.address).await;
    in_time("an answer", caller.send_request(request)).await.unwrap()
}

/// Counts what begins and what is dropped before its end.
#[derive(Clone, Default)]
struct Calls {
    begun: Arc<AtomicU32>,
    cancelled: Arc<AtomicU32>,
}

struct Running(Arc<AtomicU32>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Calls {
    fn begin(&self) -> Running {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Running(self.cancelled.clone())
    }

    async fn has_begun(&self) {
        until("the instance has it", || self.begun.load(Ordering::SeqCst) == 1).await;
    }

    async fn is_cancelled(&self) {
        until("the instance sees the cancel", || self.cancelled.load(Ordering::SeqCst) == 1).await;
    }
}

#[tokio::test]
async fn a_unary_calls_status_comes_in_trailers() {
    let mut gateway = start(json!({})).await;
    let handler = async |request: Request<Incoming>| {
        let head = request.headers().clone();
        assert_eq!(request.uri().path(), "/chat.Chat/Say");
        assert_eq!(
            (&head["te"], &head["grpc-timeout"], &head["user-bin"]),
            (&value("trailers"), &value("5S"), &value("AAEC"))
        );
        let message = request.into_body().collect().await.unwrap().to_bytes();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", value("0"));
        trailers.insert("details-bin", value("AAEC"));
        let body = frames(vec![Frame::data(message), Frame::trailers(trailers)]);
        Response::builder().header("content-type", "application/grpc+proto").body(body).unwrap()
    };
    gateway.add_at(serve_http2(handler).await);
    let answer = ask(&gateway, call("Say", text(MESSAGE))).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["content-type"]), (200, &value("application/grpc+proto")));
    assert!(!answer.headers().contains_key("grpc-status"));
    let body = in_time("the end", answer.into_body().collect()).await.unwrap();
    let trailers = body.trailers().unwrap().clone();
    assert_eq!((&trailers["grpc-status"], &trailers["details-bin"]), (&value("0"), &value("AAEC")));
    assert_eq!(body.to_bytes(), MESSAGE);
    assert_eq!(gateway.in_flight(), 0);
}

fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

/// gRPC knows a status without a message by the end of the stream in the head.
#[tokio::test]
async fn an_answer_of_trailers_only_stays_so() {
    let mut gateway = start(json!({})).await;
    let handler = async |_| {
        let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", "5");
        head.header("grpc-message", "not%20here").body(frames(vec![])).unwrap()
    };
    gateway.add_at(serve_http2(handler).await);
    let answer = ask(&gateway, call("Say", text(MESSAGE))).await;
    assert_eq!(
        (&answer.headers()["grpc-status"], &answer.headers()["grpc-message"]),
        (&value("5"), &value("not%20here"))
    );
    let body = in_time("the end", answer.into_body().collect()).await.unwrap();
    assert!(body.trailers().is_none() && body.to_bytes().is_empty());
}

async fn assert_refused(answer: Response<Incoming>, code: &'static str, words: &str) {
    assert_eq!((answer.status().as_u16(), &answer.headers()["content-type"]), (200, &value("application/grpc")));
    assert_eq!(answer.headers()["grpc-status"], code);
    assert!(answer.headers()["grpc-message"].to_str().unwrap().contains(words), "{answer:?}");
    assert!(answer.headers().contains_key("x-request-id"));
    assert!(answer.body().is_end_stream(), "a status without a message ends the stream in the head");
}

#[tokio::test]
async fn an_unknown_function_is_unimplemented() {
    let gateway = start(json!({})).await;
    let mut request = call("Say", text(MESSAGE));
    *request.uri_mut() = "http://other.shop.fn.example/chat.Chat/Say".parse().unwrap();
    assert_refused(ask(&gateway, request).await, "12", "shop/other").await;
}

#[tokio::test]
async fn a_message_over_the_limit_exhausts_resources() {
    let mut gateway = start(json!({"maxBody": "4"})).await;
    gateway.add_at(serve_http2(echo).await);
    assert_refused(ask(&gateway, call("Say", text(MESSAGE))).await, "8", "maxBody").await;
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    Response::new(text(request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default()))
}

#[tokio::test]
async fn a_stream_over_the_limit_exhausts_resources() {
    let mut gateway = start(json!({"maxBody": "64"})).await;
    gateway.add_at(serve_http2(echo).await);
    let messages = chunks(stream::iter(vec![Bytes::from_static(MESSAGE); 20]));
    assert_refused(ask(&gateway, call("Say", messages)).await, "8", "maxBody").await;
}

#[tokio::test]
async fn a_call_that_waited_too_long_exceeds_its_deadline() {
    let gateway = start(json!({"queue": {"timeout": "100ms"}})).await;
    assert_refused(ask(&gateway, call("Say", text(MESSAGE))).await, "4", "queue.timeout").await;
}

#[tokio::test]
async fn a_call_that_ran_too_long_exceeds_its_deadline() {
    let mut gateway = start(json!({"streamTimeout": "100ms"})).await;
    gateway.add_at(serve_http2(|_| pending()).await);
    assert_refused(ask(&gateway, call("Say", text(MESSAGE))).await, "4", "timeout").await;
}

/// An instance whose connections live until the first request is on them.
async fn hangs_up(listener: TcpListener, connections: Arc<AtomicU32>) {
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let (called, mut is_called) = mpsc::channel::<()>(1);
            let service = hyper::service::service_fn(move |_| {
                let called = called.clone();
                async move {
                    let _ = called.send(()).await;
                    pending::<Result<Response<Body>, Infallible>>().await
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                _ = is_called.recv() => {}
            }
        });
    }
}

#[tokio::test]
async fn an_instance_that_dies_is_unavailable() {
    let mut gateway = start(json!({})).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    tokio::spawn(hangs_up(listener, Arc::default()));
    let answer = ask(&gateway, call("Say", text(MESSAGE))).await;
    assert_eq!(answer.headers()["grpc-status"], "14");
}

/// A server of HTTP/1 behind `protocol: h2c` does so, and one that is full.
#[tokio::test]
async fn an_instance_that_never_speaks_http2_is_not_asked_in_a_frenzy() {
    let mut gateway = start(json!({"queue": {"timeout": "1s"}})).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    let connections = Arc::new(AtomicU32::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.readable().await;
        }
    });
    tokio::select! {
        answer = ask(&gateway, call("Say", text(MESSAGE))) => assert!(answer.headers().contains_key("grpc-status")),
        () = until("100 connections", || connections.load(Ordering::SeqCst) >= 100) => panic!("for one call"),
    }
}

/// What the caller does with a call once the instance has it.
async fn cancel(gateway: &mut Gateway, calls: &Calls, handler: impl Handler, body: Body) {
    gateway.add_at(serve_http2(handler).await);
    let mut caller = connect_http2(gateway.address).await;
    let running = tokio::spawn(caller.send_request(call("Say", body)));
    calls.has_begun().await;
    // The stream is reset; the connection stays.
    running.abort();
    calls.is_cancelled().await;
    until("its slot is free", || gateway.in_flight() == 0).await;
    drop(caller);
}

trait Handler: Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Clone + Send + 'static {}
impl<T: Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Clone + Send + 'static> Handler for T {}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_instance() {
    let calls = Calls::default();
    let inner = calls.clone();
    let handler = move |_| {
        let running = inner.begin();
        async move {
            let _running = running;
            pending().await
        }
        .boxed()
    };
    cancel(&mut start(json!({})).await, &calls, handler, text(MESSAGE)).await;
}

#[tokio::test]
async fn a_cancelled_stream_of_messages_breaks_off_at_the_instance() {
    let calls = Calls::default();
    let inner = calls.clone();
    let handler = move |request: Request<Incoming>| {
        let inner = inner.clone();
        async move {
            let mut body = request.into_body();
            let _running = inner.begin();
            // Ends when the stream does, and only with an error: it never ends by itself.
            while let Some(Ok(_)) = body.frame().await {}
            Response::new(text(""))
        }
        .boxed()
    };
    cancel(&mut start(json!({})).await, &calls, handler, chunks(stream::pending())).await;
}

#[tokio::test]
async fn an_answer_that_is_cancelled_stops_at_the_instance() {
    let calls = Calls::default();
    let inner = calls.clone();
    let handler = move |_| {
        let running = inner.begin();
        async move {
            let endless = stream::repeat_with(move || {
                let _ = &running;
                Bytes::from_static(&[b'x'; 4096])
            });
            Response::builder().header("content-type", "application/grpc").body(chunks(endless)).unwrap()
        }
    };
    let mut gateway = start(json!({"concurrency": 2})).await;
    gateway.add_at(serve_http2(handler).await);
    let mut caller = connect_http2(gateway.address).await;
    let mut answer = in_time("an answer", caller.send_request(call("Say", text(MESSAGE)))).await.unwrap();
    assert!(answer.body_mut().frame().await.unwrap().unwrap().is_data());
    drop(answer);
    calls.is_cancelled().await;
    until("its slot is free", || gateway.in_flight() == 0).await;
    // The connection that they share has lost only that stream.
    let mut answer = in_time("an answer", caller.send_request(call("Say", text(MESSAGE)))).await.unwrap();
    assert!(answer.body_mut().frame().await.unwrap().unwrap().is_data());
}

#[tokio::test]
async fn an_instances_reset_amid_an_answer_is_no_end() {
    let mut gateway = start(json!({})).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    let (fail, fails) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let fails = fails.clone();
            let service = hyper::service::service_fn(move |_| {
                let mut fails = fails.clone();
                async move {
                    let first = stream::iter([Ok(Frame::data(Bytes::from_static(MESSAGE)))]);
                    let failure = async move {
                        let _ = fails.wait_for(|fails| *fails).await;
                        Err::<Frame<Bytes>, _>(std::io::Error::other("no more"))
                    };
                    Ok::<_, Infallible>(Response::new(StreamBody::new(first.chain(stream::once(failure).boxed()))))
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let mut answer = ask(&gateway, call("Say", text(MESSAGE))).await;
    assert!(in_time("data", answer.body_mut().frame()).await.unwrap().unwrap().is_data());
    fail.send(true).unwrap();
    assert!(in_time("the end", answer.into_body().collect()).await.is_err());
    until("its slot is free", || gateway.in_flight() == 0).await;
}

const MANY: usize = 500;

/// A client stream is not read before there is an instance; its messages wait as frames.
#[tokio::test]
async fn many_small_messages_may_wait_in_line() {
    let mut gateway = start(json!({})).await;
    let mut caller = connect_http2(gateway.address).await;
    let sent = Arc::new(AtomicU32::new(0));
    let count = sent.clone();
    let messages = chunks(stream::iter((0..MANY).map(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Bytes::from_static(MESSAGE)
    })));
    let running = tokio::spawn(caller.send_request(call("Upload", messages)));
    let are_out = || gateway.queued() == 1 && sent.load(Ordering::SeqCst) as usize == MANY;
    until("its messages are out", || running.is_finished() || are_out()).await;
    gateway.add_at(serve_http2(echo).await);
    let answer = in_time("an answer", running).await.unwrap().expect("its connection still stands");
    assert_eq!(in_time("the end", answer.into_body().collect()).await.unwrap().to_bytes().len(), MANY * MESSAGE.len());
}

/// They share the instance's connection with all other calls.
#[tokio::test]
async fn many_small_messages_may_wait_for_a_slow_reader() {
    let sent = Arc::new(AtomicU32::new(0));
    let count = sent.clone();
    let handler = move |_| {
        let count = count.clone();
        async move {
            let messages = stream::iter((0..MANY * 20).map(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Bytes::from_static(MESSAGE)
            }));
            Response::builder().header("content-type", "application/grpc").body(chunks(messages)).unwrap()
        }
    };
    let mut gateway = start(json!({})).await;
    gateway.add_at(serve_http2(handler).await);
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // Room for little, so that the rest waits in the gateway.
    builder.initial_stream_window_size(4096).initial_connection_window_size(4 << 20);
    let (mut caller, connection) = builder.handshake::<_, Body>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = in_time("an answer", caller.send_request(call("Watch", text(MESSAGE)))).await.unwrap();
    until("many wait", || sent.load(Ordering::SeqCst) as usize >= MANY).await;
    let all = in_time("the end", answer.into_body().collect()).await.expect("all of them").to_bytes();
    assert_eq!(all.len(), MANY * 20 * MESSAGE.len());
}
