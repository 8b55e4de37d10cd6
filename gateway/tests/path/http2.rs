//! HTTP/2 on either side, and gRPC, which needs it on both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use lambent_api::{Protocol, Reason};
use serde_json::json;

use crate::support::{Body, Gateway, connect_http2, get, serve_http2, text, until};

fn to_function(path: &str) -> http::request::Builder {
    Request::post(format!("http://hello.shop.fn.example{path}"))
}

fn grpc(path: &str, body: Body) -> Request<Body> {
    to_function(path).header("content-type", "application/grpc").header("te", "trailers").body(body).unwrap()
}

/// Sends every frame back, and then how many there were.
async fn count_frames(request: Request<Incoming>) -> Response<Body> {
    assert_eq!(request.headers()["te"], "trailers");
    assert!(request.uri().host().is_some_and(|host| host == "hello.shop.fn.example"));
    let frames = stream::unfold((request.into_body(), 0_u32), |(mut body, count)| async move {
        match body.frame().await {
            Some(frame) => {
                let data = frame.unwrap().into_data().unwrap();
                // The end of a stream may come as a frame of its own.
                let count = count + u32::from(!data.is_empty());
                Some((Frame::data(data), (body, count)))
            }
            None if count < u32::MAX => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                trailers.insert("frames", count.to_string().parse().unwrap());
                Some((Frame::trailers(trailers), (body, u32::MAX)))
            }
            None => None,
        }
    });
    let body = BodyExt::boxed(StreamBody::new(SyncStream::new(frames.map(Ok))));
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

use sync::SyncStream;
mod sync {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use futures::{Stream, StreamExt};
    use parking_lot::Mutex;

    /// Makes a stream `Sync`, as the boxed bodies of these tests have to be.
    pub(super) struct SyncStream<S>(Mutex<Pin<Box<S>>>);

    impl<S: Stream> SyncStream<S> {
        pub(super) fn new(stream: S) -> Self {
            Self(Mutex::new(Box::pin(stream)))
        }
    }

    impl<S: Stream> Stream for SyncStream<S> {
        type Item = S::Item;

        fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
            self.0.lock().poll_next_unpin(cx)
        }
    }
}

#[tokio::test]
async fn a_grpc_stream_goes_both_ways_and_ends_with_its_trailers() {
    let mut gateway = Gateway::start_with(json!({}), Protocol::H2c).await;
    gateway.apply_revision(1, None);
    gateway.add_at(serve_http2(count_frames).await);
    let mut caller = connect_http2(gateway.address).await;
    let (sender, messages) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let messages =
        stream::unfold(messages, |mut m| async move { m.recv().await.map(|next| (Ok(Frame::data(next)), m)) });
    let body = BodyExt::boxed(StreamBody::new(SyncStream::new(messages)));
    let mut answer = caller.send_request(grpc("/chat.Chat/Talk", body)).await.unwrap();
    assert_eq!(answer.status(), 200);
    for word in ["one", "two", "three"] {
        sender.send(word.into()).unwrap();
        let frame = answer.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(sender);
    let trailers = answer.body_mut().frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!((&trailers["grpc-status"], &trailers["frames"]), (&"0".parse().unwrap(), &"3".parse().unwrap()));
}

#[tokio::test]
async fn what_the_gateway_refuses_has_a_grpc_status() {
    let mut gateway = Gateway::start_with(json!({}), Protocol::H2c).await;
    gateway.apply_revision(1, Some(Reason::new("ErrImagePull", "no such image")));
    let mut caller = connect_http2(gateway.address).await;
    let answer = caller.send_request(grpc("/chat.Chat/Talk", text(""))).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"14".parse().unwrap()));
    assert!(answer.headers()["grpc-message"].to_str().unwrap().contains("no such image"));
}

#[tokio::test]
async fn callers_and_functions_need_not_speak_the_same_version() {
    let mut new = Gateway::start_with(json!({}), Protocol::H2c).await;
    new.apply_revision(1, None);
    let of_new = async |r: Request<Incoming>| Response::new(text(format!("{:?} {}", r.version(), r.uri())));
    new.add_at(serve_http2(of_new).await);
    assert_eq!(new.get("/fn/shop/hello/a//b?c").await.body, "HTTP/2.0 http://gateway/a//b?c");

    let mut old = Gateway::start(json!({})).await;
    old.apply_revision(1, None);
    old.add(async |r: Request<Incoming>| {
        let seen = format!("{:?} {} {:?} {:?}", r.version(), r.uri(), r.headers()["host"], r.headers()["cookie"]);
        Response::new(text(seen))
    })
    .await;
    let mut caller = connect_http2(old.address).await;
    let request = to_function("/a").header("cookie", "a=1").header("cookie", "b=2").body(text("x")).unwrap();
    let body = caller.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"HTTP/1.1 /a "hello.shop.fn.example" "a=1; b=2""#);
}

#[tokio::test]
async fn requests_on_one_connection_keep_the_concurrency() {
    let mut gateway = Gateway::start_with(json!({"concurrency": 2}), Protocol::H2c).await;
    gateway.apply_revision(1, None);
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (inner_now, inner_most) = (now.clone(), most.clone());
    let handler = move |_: Request<Incoming>| {
        let (now, most) = (inner_now.clone(), inner_most.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Response::new(text("done"))
        }
    };
    gateway.add_at(serve_http2(handler).await);
    let caller = connect_http2(gateway.address).await;
    let calls = (0..40).map(|_| {
        let mut caller = caller.clone();
        async move { caller.send_request(to_function("/").body(text("")).unwrap()).await.unwrap().status() }
    });
    assert!(join_all(calls).await.iter().all(|status| *status == 200));
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stream_that_its_caller_resets_leaves_the_line() {
    let gateway = Gateway::start_with(json!({}), Protocol::H2c).await;
    let mut caller = connect_http2(gateway.address).await;
    let waiting = tokio::spawn(caller.send_request(grpc("/a", text("x"))));
    until("it waits", || gateway.queued() == 1).await;
    waiting.abort();
    until("it has left", || gateway.queued() == 0).await;
    drop(caller);
}

#[tokio::test]
async fn an_instance_whose_connection_broke_is_reached_by_another() {
    let mut gateway = Gateway::start_with(json!({"concurrency": 9}), Protocol::H2c).await;
    gateway.apply_revision(1, None);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.add_at(listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicU32::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let service =
                hyper::service::service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new(text("hi"))));
            let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            let connection = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            // It serves one request and then says that it goes away.
            tokio::spawn(async move {
                let mut connection = std::pin::pin!(connection);
                let _ = tokio::time::timeout(Duration::from_millis(100), connection.as_mut()).await;
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            });
        }
    });
    for _ in 0..3 {
        assert_eq!(gateway.call(get("/fn/shop/hello")).await.status, 200);
        let before = accepted.load(Ordering::SeqCst);
        tokio::time::timeout(Duration::from_secs(10), async {
            while accepted.load(Ordering::SeqCst) == before {
                assert_eq!(gateway.call(get("/fn/shop/hello")).await.status, 200);
            }
        })
        .await
        .unwrap();
    }
}
