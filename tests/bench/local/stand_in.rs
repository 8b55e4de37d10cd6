//! A stand-in for the API server, as far as a gateway reads it: lists of given objects, and watches
//! in which nothing happens. Any list that it has no objects for is empty; what is written is
//! answered with itself.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// Objects by the plural of their kind.
pub type Objects = HashMap<&'static str, Vec<Value>>;
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One that runs until it is dropped.
pub struct StandIn {
    /// Where.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StandIn {
    /// Starts one with these objects.
    pub async fn start(objects: Objects) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port on loopback")?;
        let address = listener.local_addr()?;
        let objects = Arc::new(objects);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let objects = objects.clone();
                let service = service_fn(move |request| answer(objects.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, task })
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "it", "user": {}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        })
    }
}

async fn answer(objects: Arc<Objects>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let query = request.uri().query().unwrap_or_default();
    let body = if query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1") {
        StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync()
    } else if request.method() == Method::GET {
        let kind = request.uri().path().rsplit('/').next().unwrap_or_default();
        let items = objects.get(kind).map_or(&[][..], Vec::as_slice);
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        Full::new(Bytes::from(list.to_string())).boxed_unsync()
    } else {
        Full::new(request.into_body().collect().await?.to_bytes()).boxed_unsync()
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
