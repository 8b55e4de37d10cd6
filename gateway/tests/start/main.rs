//! The start of a gateway before an API server that has many Functions.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, unreachable_pub)]
#[path = "../support/mod.rs"]
mod support;

use std::{net::SocketAddr, time::Duration};

use futures::stream;
use http::{Request, Response};
use hyper::body::Incoming;
use lambent_fleet::memory::MemoryFleet;
use lambent_gateway::{Config, server::Drain};
use serde_json::{Value, json};
use support::{Body, call, chunks, get, serve, text};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

const FUNCTIONS: usize = 3000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_ready_knows_every_function() {
    let api = serve(api_server).await;
    let config = kube::Config::new(format!("http://{api}").parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let public = free_address().await;
    let (ready, mut is_ready) = watch::channel(false);
    let config = Config {
        namespace: None,
        listen: public,
        internal_listen: free_address().await,
        domain: None,
        trusted_accounts: Vec::new(),
        peers: None,
        node_account: None,
        drain: Drain { delay: Duration::ZERO, grace: Duration::ZERO },
    };
    let (fleet, registry) = (MemoryFleet::new(|_| SocketAddr::from(([127, 0, 0, 1], 9))), prometheus::Registry::new());
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let gateway = async move { lambent_gateway::run(config, client, fleet, &registry, ready, stop).await };
    let gateway = tokio::spawn(gateway);
    timeout(Duration::from_secs(30), is_ready.wait_for(|ready| *ready)).await.expect("ready in time").unwrap();
    for n in [FUNCTIONS - 1, FUNCTIONS / 2, 0] {
        // Nothing answers for it: that it is known shows in the kind of the refusal.
        let answer = call(public, get(&format!("/fn/shop/hello-{n}"))).await.unwrap();
        assert_eq!(answer.reason(), "StartFailed", "hello-{n}");
    }
    shutdown.cancel();
    gateway.await.unwrap().unwrap();
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Lists as they are at first, and watches in which nothing happens.
async fn api_server(request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    if query.split('&').any(|pair| pair == "watch=true") {
        return Response::new(chunks(stream::pending()));
    }
    let items = match request.uri().path().rsplit('/').next() {
        Some("functions") => (0..FUNCTIONS).map(function).collect(),
        _ => Vec::new(),
    };
    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
    Response::builder().header("content-type", "application/json").body(text(list.to_string())).unwrap()
}

/// One that has no Revision and says why.
fn function(n: usize) -> Value {
    let stalled = json!({
        "type": "Stalled", "status": "True", "reason": "ImageNotFound", "message": "no such image",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({
        "apiVersion": "lambent.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": format!("hello-{n}"), "namespace": "shop", "uid": format!("uid-{n}"), "generation": 1},
        "spec": {"image": "registry.example/hello:1"},
        "status": {"conditions": [stalled], "observedGeneration": 1},
    })
}
