//! Requests to the store and its answers, as an API server gives them; and a client that has it
//! in place of a connection.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

use super::{
    Key, Refusal, Store,
    patch::Patch,
    request::{After, Query, Target},
    scale,
    state::{Page, Part},
    watch::watch,
};

/// A larger object is refused, as a server does.
const MAX_BODY: usize = 3 << 20;

/// Objects of a list that is asked for in parts.
const PART: usize = 64;

/// An answer: whole, or a watch that goes on.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A client of the store.
pub fn client(store: Store) -> kube::Client {
    kube::Client::new(Service(store), "default")
}

#[derive(Clone)]
struct Service(Store);

impl tower::Service<Request<kube::client::Body>> for Service {
    type Response = Answer;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let store = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(kube::Error::Service)?;
            Ok(answer(&store, &Request::from_parts(head, body.to_bytes())))
        })
    }
}

/// Answers one request.
pub fn answer(store: &Store, request: &Request<Bytes>) -> Answer {
    match carry_out(store, request) {
        Ok(answer) => answer,
        Err(refusal) => whole(refusal.kind().0, refusal.status().to_string().into()),
    }
}

fn carry_out(store: &Store, request: &Request<Bytes>) -> Result<Answer, Refusal> {
    let path = request.uri().path();
    let target = Target::parse(path).ok_or_else(|| Refusal::NotFound(format!("the server has no {path}:")))?;
    match (request.method(), target.name.is_some()) {
        (&Method::GET, false) => read_all(store, target, Query::parse(request.uri())?),
        (&Method::GET, true) => read_one(store, &target),
        (&Method::POST, false) => create(store, &target, request.body()),
        (&Method::PUT, true) => {
            let object = parse(request.body())?;
            main_only(&target)?;
            store.replace(&target.key()?, &object).map(|object| json_answer(StatusCode::OK, &object))
        }
        (&Method::PATCH, true) => patch(store, &target, request),
        (&Method::DELETE, true) => delete(store, &target, request.body()),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

fn read_all(store: &Store, target: Target, query: Query) -> Result<Answer, Refusal> {
    let Target { kind, namespace, .. } = target;
    if query.watch {
        let lines = watch(store.clone(), kind, namespace, query).map(|line| line.map(Frame::data));
        return Ok(Response::new(UnsyncBoxBody::new(StreamBody::new(lines))));
    }
    // In small parts, as far as who asks can take that: the text of all, and what it is read into, would be many times
    // what the store itself takes.
    let limit = query.limit.map_or(usize::MAX, |limit| limit.min(PART));
    let after =
        query.after.as_ref().map(|After { namespace, name, .. }| Key::new(kind, namespace.clone(), name.clone()));
    let Page { objects, last, version } = store.page(kind, namespace.as_deref(), after.as_ref(), limit);
    let version = query.after.as_ref().map_or(version, |after| after.version);
    let is_meant = |object: &String| query.selector.matches(object) && query.fields.matches(object);
    let items: Vec<String> = objects.iter().filter_map(|object| object.text().ok()).filter(is_meant).collect();
    let (name, api_version, items) = (kind.name(), kind.api_version(), items.join(","));
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some(Key { namespace, name, .. }) = last {
        metadata["continue"] = After { version, namespace, name }.to_string().into();
    }
    let list =
        format!(r#"{{"apiVersion":"{api_version}","kind":"{name}List","metadata":{metadata},"items":[{items}]}}"#);
    Ok(whole(StatusCode::OK, list.into()))
}

fn read_one(store: &Store, target: &Target) -> Result<Answer, Refusal> {
    let object = store.get(&target.key()?)?;
    let object = match target.subresource.as_deref() {
        None | Some("status") => object,
        Some("scale") => scale::scale(target.kind, &object)?,
        Some(other) => return Err(Refusal::NotFound(other.to_owned())),
    };
    Ok(json_answer(StatusCode::OK, &object))
}

fn create(store: &Store, target: &Target, body: &[u8]) -> Result<Answer, Refusal> {
    let object = parse(body)?;
    let said = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let generated = || said("generateName").map(|prefix| format!("{prefix}{:x}", uuid::Uuid::now_v7().as_u128() >> 32));
    let name =
        said("name").or_else(generated).ok_or_else(|| Refusal::Invalid("metadata.name is missing".to_owned()))?;
    let namespace = target.namespace.clone().or_else(|| said("namespace")).unwrap_or_else(|| "default".to_owned());
    let key = Key::new(target.kind, namespace, name);
    store.create(key, object).map(|object| json_answer(StatusCode::CREATED, &object))
}

fn patch(store: &Store, target: &Target, request: &Request<Bytes>) -> Result<Answer, Refusal> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let patch = Patch::parse(content_type.unwrap_or_default(), request.body())?;
    let part = match target.subresource.as_deref() {
        None => Part::Main,
        Some("status") if target.kind.has_status() => Part::Status,
        Some("scale") => Part::Scale,
        Some(other) => return Err(Refusal::NotFound(other.to_owned())),
    };
    if part != Part::Status && matches!(patch, Patch::Apply(_)) {
        return Err(Refusal::UnsupportedMediaType("only a status is applied here".to_owned()));
    }
    store.patch(&target.key()?, part, &patch).map(|object| json_answer(StatusCode::OK, &object))
}

fn delete(store: &Store, target: &Target, body: &[u8]) -> Result<Answer, Refusal> {
    main_only(target)?;
    let options = if body.is_empty() { Value::Null } else { parse(body)? };
    store.delete(&target.key()?, options["preconditions"]["uid"].as_str())?;
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"});
    Ok(json_answer(StatusCode::OK, &status))
}

fn main_only(target: &Target) -> Result<(), Refusal> {
    if target.subresource.is_none() { Ok(()) } else { Err(Refusal::MethodNotAllowed) }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::BadRequest(format!("the body is no JSON: {error}")))
}

fn json_answer(status: StatusCode, object: &Value) -> Answer {
    whole(status, object.to_string().into())
}

pub(crate) fn whole(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(UnsyncBoxBody::new(Full::new(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
