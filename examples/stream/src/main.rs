//! Answers that come bit by bit: `/` sends ?count= lines, one every ?interval= milliseconds;
//! `/events` the same as server-sent events; `/echo` returns a request's body while it arrives.
//! It speaks HTTP/1 and, with `protocol: h2c`, HTTP/2.

use std::{env, error::Error, net::Ipv4Addr, time::Duration};

use futures::{Stream, stream};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    header::CONTENT_TYPE,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

type Body = BoxBody<Bytes, hyper::Error>;

async fn answer(request: Request<Incoming>) -> hyper::http::Result<Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let (count, interval) = (number(query, "count", 5), Duration::from_millis(number(query, "interval", 1000)));
    let (kind, body) = match request.uri().path() {
        "/echo" => ("application/octet-stream", request.into_body().boxed()),
        "/events" => ("text/event-stream", BodyExt::boxed(StreamBody::new(parts("data: ", "\n\n", count, interval)))),
        _ => ("text/plain", BodyExt::boxed(StreamBody::new(parts("line ", "\n", count, interval)))),
    };
    Response::builder().header(CONTENT_TYPE, kind).body(body)
}

/// The first part at once, each other one after a pause.
fn parts(
    before: &'static str,
    after: &'static str,
    count: u64,
    interval: Duration,
) -> impl Stream<Item = Result<Frame<Bytes>, hyper::Error>> {
    stream::unfold(1, move |n| async move {
        if n > count {
            return None;
        }
        if n > 1 {
            tokio::time::sleep(interval).await;
        }
        Some((Ok(Frame::data(Bytes::from(format!("{before}{n}{after}")))), n + 1))
    })
}

/// `name=5` of a query.
fn number(query: &str, name: &str, default: u64) -> u64 {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    let mut stop = signal(SignalKind::terminate())?;
    println!("stream: listening on port {port}");

    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            _ = stop.recv() => break,
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let _ = socket.set_nodelay(true);
                let builder = auto::Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection(TokioIo::new(socket), service_fn(answer));
                tokio::spawn(connections.watch(connection.into_owned()));
            }
        }
    }
    drop(listener); // who comes now is refused at once
    connections.shutdown().await;
    Ok(())
}
