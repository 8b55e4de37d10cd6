//! Functions and callers that speak HTTP/2.

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lambent_tests::{Context, Gateway, Request as Call, examples, system::System, with_temp_ns};
use serde_json::json;
use tokio::net::TcpStream;

type Body = StreamBody<mpsc::UnboundedReceiver<Result<Frame<Bytes>, std::convert::Infallible>>>;

async fn connect(gateway: &Gateway) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(&gateway.authority).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn a_stream_goes_both_ways_over_http2_by_the_functions_own_host() {
    with_temp_ns(async |cx: Context| {
        cx.deploy("stream", json!({"image": cx.image("stream"), "protocol": "h2c"})).await;
        let mut caller = connect(&cx.gateway).await;
        let uri = format!("http://stream.{}.{}/echo", cx.namespace, System::new(&cx).domain().await);
        let (upload, body) = mpsc::unbounded();
        let request = Request::post(uri).body(StreamBody::new(body)).unwrap();
        let mut answer = caller.send_request(request).await.unwrap().into_body();
        for word in ["first", "second"] {
            upload.unbounded_send(Ok(Frame::data(Bytes::from(word)))).unwrap();
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word);
        }
        drop(upload);
        assert!(answer.collect().await.unwrap().to_bytes().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_function_that_speaks_http2_is_called_over_http1_too() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("stream"), "protocol": "h2c", "concurrency": 3, "scale": {"max": 1}});
        let stream = cx.deploy("stream", spec).await;
        let calls = (0..3).map(|_| cx.gateway.send(Call::get(&stream.path(&examples::lines(3, 50)))));
        for answer in futures::stream::iter(calls).buffer_unordered(3).collect::<Vec<_>>().await {
            assert_eq!(answer.expect(200).text().lines().count(), 3);
        }
        assert_eq!(stream.instances().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_grpc_caller_of_what_does_not_exist_gets_a_grpc_status() {
    with_temp_ns(async |cx: Context| {
        let call = Call::post(&cx.function("nobody").path("/pkg.Service/Method"), "")
            .header("content-type", "application/grpc");
        let answer = cx.gateway.send(call).await.expect(200);
        assert_eq!(answer.header("grpc-status"), Some("12"));
    })
    .await;
}
