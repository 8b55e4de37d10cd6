//! The request path: route, admit, wait for a permit, pick an instance, forward, answer.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    uri::{Authority, PathAndQuery},
};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use lambent_api::Settings;
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use crate::{
    access_log::Record,
    body::{self, AnswerBody, BodyFault, Held, RequestBody, ResponseBody},
    cold_start::Stages,
    directory::Directory,
    forwarded::Peer,
    function::Function,
    headers, incoming,
    permit::Permit,
    refusal::Refusal,
    router,
    server_timing::Spent,
    target::{Connection, Exchange, Sender},
    upgrade::{self, Wish},
};

/// After a timeout or a cancel an instance may take this long to end the request that it still
/// has; then it is no longer used.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Connections that were closed before anything of a request was sent, until the function is taken to
/// close all of them.
const MAX_UNSENT: u32 = 10;

/// What the request path needs.
#[derive(Debug)]
pub struct Forwarder {
    /// Looks Functions up.
    pub directory: Arc<Directory>,
    /// Functions are called as `<name>.<namespace>.<domain>` as well.
    pub domain: Option<String>,
}

/// An answer whose head is here.
struct Answer {
    response: Response<Incoming>,
    permit: Permit,
    sender: Sender,
    handed_over: Instant,
    settings: Arc<Settings>,
}

/// What became of sending a request.
enum Sent {
    Answered(Box<Answer>),
    /// No byte of it was sent, or it may be sent again.
    Again(Box<Request<RequestBody>>),
}

/// How often a request was sent before. One that may have ended a process is not to end them all: what
/// an instance may have begun is repeated once, where that is allowed at all (RFC 9110 section 9.2.2).
#[derive(Default)]
struct Attempts {
    repeated: bool,
    unsent: u32,
}

/// A request that is under way, and what must not end before it does.
pub type InProgress = TaskTrackerToken;

impl Forwarder {
    /// Answers one request, which is in a box as each step of the way would copy it. Dropping the future is the
    /// caller's going away; `in_progress` is dropped when nothing is left of it, also at the instance.
    pub async fn serve(
        &self,
        mut request: Box<Request<Incoming>>,
        peer: &Peer,
        in_progress: InProgress,
    ) -> Response<ResponseBody> {
        let id = headers::request_id(request.headers());
        let mut record = Record::new(id, request.method().clone(), Instant::now(), in_progress);
        let wish = Wish::of(&mut request);
        let grpc = headers::is_grpc(request.headers());
        match self.answer(request, peer, wish.as_ref(), &mut record).await {
            Ok(answer) => answer.response(record, wish),
            Err(refusal) => refused(&refusal, record, grpc),
        }
    }

    async fn answer(
        &self,
        request: Box<Request<Incoming>>,
        peer: &Peer,
        wish: Option<&Wish>,
        record: &mut Record,
    ) -> Result<Box<Answer>, Refusal> {
        incoming::check(&request)?;
        let (function, uri) = self.route(&request)?;
        record.function = Some(function.clone());
        let settings = function.settings();
        if request.body().size_hint().lower() > settings.max_body {
            return Err(Refusal::BodyTooLarge { max: settings.max_body });
        }
        let (mut request, fault) = outbound(request, uri, peer, &record.id, settings.max_body);
        wish.inspect(|wish| wish.ask(&mut request));
        let (mut again, mut attempts) = (false, Attempts::default());
        loop {
            // Ends with a permit or at queue.timeout.
            let permit = function.acquire(record.arrived, again).await?;
            again = true;
            // Ends with a connection or at CONNECT_TIMEOUT; nothing was sent without one.
            let Ok(connection) = permit.target().connect().await else {
                permit.instance_is_away();
                continue;
            };
            let handed_over = Instant::now();
            record.granted(&permit.grant, handed_over);
            // Ends with the head of the answer or at timeout.
            match send(permit, connection, request, handed_over, settings.clone(), record, &mut attempts).await {
                Ok(Sent::Answered(answer)) if wish.is_none() && upgrade::is_agreed(&answer.response) => {
                    return Err(Refusal::InstanceFailed("it changes to a protocol that nobody has asked for".into()));
                }
                Ok(Sent::Answered(answer)) => return Ok(answer),
                Ok(Sent::Again(same)) => request = same,
                Err(refusal) => return Err(fault.get().cloned().unwrap_or(refusal)),
            }
        }
    }

    fn route(&self, request: &Request<Incoming>) -> Result<(Arc<Function>, Uri), Refusal> {
        // A target with an authority is what counts then (RFC 9112 section 3.2.2).
        let host = || request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
        let host = request.uri().authority().map(Authority::as_str).or_else(host);
        // Host names know no case, names of Functions are lower case.
        let host = host.map(|host| match host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        });
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let route = router::route(host.as_deref(), path, self.domain.as_deref()).ok_or(Refusal::NotAFunctionPath)?;
        let function = self.directory.find(route.namespace, route.name);
        let missing = || Refusal::FunctionNotFound(format!("{}/{}", route.namespace, route.name));
        let function = function.ok_or_else(missing)?;
        // Of the whole server, not of a path (RFC 9112 section 3.2.4).
        let whole = request.method() == Method::OPTIONS && route.rest == "*";
        let uri = if whole { Uri::try_from("*") } else { Uri::try_from(&*router::origin_form(route.rest)) };
        Ok((function, uri.map_err(|error| Refusal::BadRequest(error.to_string()))?))
    }
}

/// The request as the function gets it.
fn outbound(
    request: Box<Request<Incoming>>,
    uri: Uri,
    peer: &Peer,
    id: &HeaderValue,
    max_body: u64,
) -> (Box<Request<RequestBody>>, BodyFault) {
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority() {
        headers::from_authority(&mut head.headers, authority);
    }
    headers::join_cookies(&mut head.headers);
    // HTTP/1.0 needs none, HTTP/1.1 does (RFC 9112 section 3.2).
    head.headers.entry(header::HOST).or_insert(HeaderValue::from_static(""));
    head.uri = uri;
    let received_by = head.version;
    if received_by == Version::HTTP_10 {
        // It knows no answer to that (RFC 9110 section 10.1.1).
        head.headers.remove(header::EXPECT);
    }
    head.version = Version::HTTP_11;
    let trailers = headers::takes_trailers(&head.headers);
    headers::remove_hop_by_hop(&mut head.headers);
    if trailers {
        headers::take_trailers(&mut head.headers);
    }
    peer.add_to(&mut head.headers, received_by);
    head.headers.insert(headers::X_REQUEST_ID, id.clone());
    let (body, fault) = RequestBody::new(body, max_body);
    (Box::new(Request::from_parts(head, body)), fault)
}

/// Sends a request and waits for the head of its answer.
async fn send(
    permit: Permit,
    connection: Connection,
    mut request: Box<Request<RequestBody>>,
    handed_over: Instant,
    settings: Arc<Settings>,
    record: &Record,
    attempts: &mut Attempts,
) -> Result<Sent, Refusal> {
    // A gRPC stream may say nothing for long, also at its beginning; its caller has a deadline.
    let grpc = headers::is_grpc(request.headers());
    let limit = if grpc { settings.stream_timeout } else { settings.timeout };
    let deadline = handed_over + limit;
    let http2 = connection.sender.is_http2();
    // HTTP/2 says itself what was not begun.
    let spare = connection.reused && !http2 && !attempts.repeated && may_repeat(&request);
    let spare = spare.then(|| without_body(&request));
    if http2 {
        headers::to_http2(&mut request);
    }
    let go_on = (!http2 && headers::expects_continue(request.headers())).then(|| expect_word(&mut request));
    let exchange = connection.sender.send(*request);
    let leaves_at_most = settings.timeout;
    let in_progress = record.in_progress.clone();
    let mut running = Running { parts: Some((permit, exchange, in_progress)), deadline, leaves_at_most };
    let outcome = match &mut running.parts {
        Some((_, exchange, _)) => timeout_at(deadline, exchange).await,
        None => return Err(Refusal::InstanceFailed("no exchange".into())),
    };
    let Ok(outcome) = outcome else { return Err(Refusal::FunctionTimeout(limit)) };
    let Some((permit, Exchange { sender, .. }, _)) = running.parts.take() else {
        return Err(Refusal::InstanceFailed("no exchange".into()));
    };
    match outcome {
        Ok(response) => {
            // It wants the body after all, in answer to which it has begun.
            go_on.filter(|_| response.status().is_success()).inspect(CancellationToken::cancel);
            Ok(Sent::Answered(Box::new(Answer { response, permit, sender, handed_over, settings })))
        }
        Err(mut error) => match attempts.next(error.take_message(), spare) {
            Some(request) => Ok(Sent::Again(Box::new(request))),
            None => Err(Refusal::InstanceFailed(error.into_error().to_string())),
        },
    }
}

/// The body is held until the function asks for it, or until the token says so.
fn expect_word(request: &mut Request<RequestBody>) -> CancellationToken {
    let word = CancellationToken::new();
    request.body_mut().wait_for(word.clone());
    let told = word.clone();
    hyper::ext::on_informational(request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            told.cancel();
        }
    });
    word
}

impl Attempts {
    /// The request to be sent again, if it may be: one of which nothing was sent, else its copy.
    fn next<R>(&mut self, unsent: Option<R>, spare: Option<R>) -> Option<R> {
        if unsent.is_some() {
            self.unsent += 1;
            return unsent.filter(|_| self.unsent < MAX_UNSENT);
        }
        self.repeated |= spare.is_some();
        spare
    }
}

/// Only what has no body is kept to be sent again.
fn may_repeat(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent() && request.body().is_end_stream()
}

fn without_body(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// A request that an instance has. Dropped early, by a timeout or because the caller has left, it
/// keeps its slot until the instance has answered. HTTP/2 cancels the request of a caller who leaves by
/// name, and the others on its connection go on: then there is nothing to wait for.
struct Running {
    parts: Option<(Permit, Exchange, InProgress)>,
    deadline: Instant,
    /// How long it may run on for nobody, however long its caller would have waited.
    leaves_at_most: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((permit, mut exchange, in_progress)) = self.parts.take() else { return };
        let now = Instant::now();
        if exchange.sender.is_http2() && now < self.deadline {
            return;
        }
        let until = self.deadline.min(now + self.leaves_at_most) + ENDS_WITHIN;
        // Ends with the answer, or when the instance has had its time and a grace.
        tokio::spawn(async move {
            match timeout_at(until, &mut exchange).await {
                Ok(Ok(answer)) => body::leave(answer.into_body(), exchange.sender, &permit, until).await,
                Ok(Err(_)) => {}
                Err(_) => permit.instance_is_stuck(),
            }
            drop((permit, in_progress));
        });
    }
}

impl Answer {
    fn response(self: Box<Self>, mut record: Record, wish: Option<Wish>) -> Response<ResponseBody> {
        let Self { mut response, permit, sender, handed_over, settings } = *self;
        let agreed = wish.filter(|_| upgrade::is_agreed(&response));
        let protocol = agreed.as_ref().and_then(|_| upgrade::wanted(response.headers()));
        if let Some(timeout) = headers::keep_alive_timeout(response.headers()) {
            permit.target().set_keep_alive(timeout);
        }
        headers::remove_hop_by_hop(response.headers_mut());
        // What we speak to the caller, not what the instance speaks (RFC 9112 section 2.3).
        *response.version_mut() = Version::HTTP_11;
        record.status = response.status();
        let head = response.headers_mut();
        let limit = if is_stream(head) { settings.stream_timeout } else { settings.timeout };
        let cold = cold_start(&record, &permit, handed_over);
        let function_time = handed_over.elapsed().as_secs_f64();
        let thaw = thaw(&record, &permit);
        let spent = Spent { waited: record.waited, cold: cold.as_ref(), thaw, function: function_time };
        head.append(headers::SERVER_TIMING, spent.header());
        if record.cold {
            head.insert(headers::COLD_START, HeaderValue::from_static("true"));
        }
        head.insert(headers::X_REQUEST_ID, record.id.clone());
        if let (Some(wish), Some(protocol)) = (agreed, protocol) {
            upgrade::put(head, protocol);
            wish.join(&mut response, permit, sender, record, settings.stream_timeout);
            return response.map(|_| ResponseBody::Own(Full::default()));
        }
        let held = Held { permit, sender, record, deadline: handed_over + limit };
        response.map(|body| ResponseBody::Answer(Box::pin(AnswerBody::new(body, held))))
    }
}

fn is_stream(headers: &http::HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(b"text/event-stream")) || headers::is_grpc(headers)
}

/// What the request waited through, if its instance was started after it had come.
fn cold_start(record: &Record, permit: &Permit, handed_over: Instant) -> Option<Stages> {
    let stages = record.cold.then(|| permit.grant.started.stages(record.arrived, handed_over))?;
    if let Some(function) = &record.function {
        function.metrics.cold_start(&stages);
    }
    Some(stages)
}

/// Seconds of the wait that went into thawing the instance, if it did for that.
fn thaw(record: &Record, permit: &Permit) -> Option<f64> {
    let (asked, ran) = permit.grant.started.thawed?;
    (ran > record.arrived).then(|| ran.duration_since(asked.max(record.arrived)).as_secs_f64())
}

fn refused(refusal: &Refusal, mut record: Record, grpc: bool) -> Response<ResponseBody> {
    let (status, reason) = refusal.kind();
    record.refused(status, reason);
    let mut response = match grpc {
        true => refusal.grpc_response(),
        false => refusal.response(record.id.to_str().unwrap_or_default()),
    };
    response.headers_mut().insert(headers::X_REQUEST_ID, record.id.clone());
    record.sent = response.body().len() as u64;
    record.end();
    response.map(|body: Bytes| ResponseBody::Own(Full::new(body)))
}
