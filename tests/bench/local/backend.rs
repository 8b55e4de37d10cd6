//! The function behind all proxies: as cheap as hyper can be, so that what is in front of it shows.
//! `/bytes/N` answers with N bytes; a request's body is read and thrown away.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, runtime::Builder};

/// What is sent at once of a long answer.
static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// Runs until it is ended.
pub fn run(address: SocketAddr, http2: bool) -> anyhow::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            let stream = TokioIo::new(stream);
            if http2 {
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service_fn(answer)));
            } else {
                tokio::spawn(http1::Builder::new().serve_connection(stream, service_fn(answer)));
            }
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
    let wanted = request.uri().path().strip_prefix("/bytes/").and_then(|text| text.parse::<usize>().ok());
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let (length, body) = match wanted {
        None => (None, Full::new(Bytes::from_static(b"Hello from the backend\n")).boxed_unsync()),
        Some(length) => (Some(length), StreamBody::new(chunks(length)).boxed_unsync()),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

fn chunks(length: usize) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::iter((0..length).step_by(CHUNK.len()).map(move |from| {
        let size = CHUNK.len().min(length - from);
        Ok(Frame::data(Bytes::from_static(&CHUNK[..size])))
    }))
}
