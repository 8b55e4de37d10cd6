//! HTTP as the RFCs have it, byte for byte over real sockets: what callers and instances see.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bodies;
mod connections;
mod fields;
mod framing;
mod grpc;
mod interim;
mod limits;
mod targets;
mod trailers;
mod wire;

#[allow(dead_code, unreachable_pub)]
#[path = "../support/mod.rs"]
mod support;

use serde_json::json;
use support::Gateway;
use wire::{Caller, Instance};

/// A Function with one instance, which answers with what `script` returns.
async fn with_instance(script: impl Fn(&wire::Message) -> Vec<u8> + Send + Sync + 'static) -> (Gateway, Instance) {
    let instance = Instance::start(script).await;
    let mut gateway = Gateway::start(json!({})).await;
    gateway.apply_revision(1, None);
    gateway.add_at(instance.address);
    (gateway, instance)
}

/// Sends a request on a connection of its own; the answer and what the instance saw of it.
async fn exchange(request: impl AsRef<[u8]>, answer: impl Into<Vec<u8>>) -> (wire::Message, wire::Message) {
    let answer = answer.into();
    let (gateway, instance) = with_instance(move |_| answer.clone()).await;
    let mut caller = Caller::connect(gateway.address).await;
    let answer = caller.ask(request).await;
    (answer, instance.only())
}

/// What the instance sees of a request.
async fn seen(request: impl AsRef<[u8]>) -> wire::Message {
    exchange(request, wire::OK).await.1
}

/// The answer to a request that never gets to the instance, which is asserted.
async fn refused(request: impl AsRef<[u8]>) -> wire::Message {
    let (gateway, instance) = with_instance(|_| wire::OK.into()).await;
    let mut caller = Caller::connect(gateway.address).await;
    let answer = caller.ask(request).await;
    assert_eq!(instance.seen(), [], "it got to the instance");
    answer
}
