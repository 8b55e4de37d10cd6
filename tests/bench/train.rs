//! What the profile of the binary that ships is made from (`deploy/dist profile`): each kind of call that is worth
//! being fast, for some seconds. What is not called here is laid out as if it were never called.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use bytes::Bytes;
use futures::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lambent_api::Protocol;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    load::{self, Closed, Target},
    local::{Backend, Gateway, Scene},
    parts::stream,
    progress,
};

/// For one kind of call.
const WHILE: Duration = Duration::from_secs(3);
/// At once on an HTTP/2 connection.
const STREAMS: usize = 16;

/// Makes the calls. The gateways write their profiles when they end.
pub async fn run(folder: &Path) -> anyhow::Result<()> {
    for protocol in [Protocol::Http1, Protocol::H2c] {
        progress::say(&format!("calls to a function that speaks {protocol:?}"));
        let backend = Backend::start_with(protocol, folder).await?;
        let scene = Scene { functions: 1, backend: Some(backend.contestant().target.address), protocol };
        let gateway = Gateway::start(folder, scene).await?;
        let target = gateway.contestant().target;
        for (connections, more) in [(1, ""), (32, ""), (8, "bytes/20000")] {
            let path = format!("{}{more}", target.path);
            let plan = Closed { connections, warm_up: Duration::ZERO, window: WHILE };
            load::closed(&Target { path, ..target.clone() }, plan, || 0.0).await?;
        }
        for method in [Method::GET, Method::POST] {
            over_http2(&target, method).await?;
        }
        for way in stream::WAYS {
            stream::send(target.address, &target.path, way).await?;
        }
    }
    Ok(())
}

async fn over_http2(target: &Target, method: Method) -> anyhow::Result<()> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let until = Instant::now() + WHILE;
    let uri = format!("http://{}{}", target.address, target.path);
    try_join_all((0..STREAMS).map(|_| again_and_again(sender.clone(), &uri, &method, until))).await?;
    Ok(())
}

async fn again_and_again(
    mut sender: SendRequest<Full<Bytes>>,
    uri: &str,
    method: &Method,
    until: Instant,
) -> anyhow::Result<()> {
    let body = if *method == Method::POST { Bytes::from_static(&[b'x'; 1024]) } else { Bytes::new() };
    while Instant::now() < until {
        sender.ready().await?;
        let request = Request::builder().method(method).uri(uri).body(Full::new(body.clone()))?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        answer.into_body().collect().await?;
    }
    Ok(())
}
