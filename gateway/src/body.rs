//! Bodies on their way through: streamed, counted, cut at their limits, holding the permit until
//! the last byte.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{access_log::Record, permit::Permit, refusal::Refusal, target::Sender};

/// What can go wrong with a body, in whatever layer.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How long an instance may go on sending to a caller who has left, before its connection is
/// closed, which is what tells it.
const GOES_ON_SENDING: Duration = Duration::from_secs(1);

/// How long a function may think about whether it wants a body. Callers wait about as long.
const SAYS_WITHIN: Duration = Duration::from_secs(1);

/// An answer that nobody reads is let go of so long after its deadline: one that is read is cut at it.
const UNREAD: Duration = Duration::from_millis(500);
const TOO_LATE: &str = "the function ran for longer than its timeout";

/// What was wrong with a request's body, once something was: whoever sends it on only learns that it failed.
pub type BodyFault = Arc<OnceLock<Refusal>>;

/// A request's body, counted: over its limit it ends in an error.
#[derive(Debug)]
pub struct RequestBody {
    inner: Option<Incoming>,
    max: u64,
    left: u64,
    fault: BodyFault,
    expectation: Option<Expectation>,
}

/// A function that was asked whether it wants the body (`Expect: 100-continue`), until it says so.
struct Expectation(Pin<Box<dyn Future<Output = ()> + Send>>);

impl std::fmt::Debug for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expectation")
    }
}

impl RequestBody {
    /// At most `max` bytes of `inner`.
    pub fn new(inner: Incoming, max: u64) -> (Self, BodyFault) {
        let fault = BodyFault::default();
        (Self { inner: Some(inner), max, left: max, fault: fault.clone(), expectation: None }, fault)
    }

    /// No body.
    pub fn empty() -> Self {
        Self { inner: None, max: 0, left: 0, fault: Arc::default(), expectation: None }
    }

    /// Nothing is read of it, and so its caller is not told to go on, until this says so; or after a
    /// while, as not every function knows of it (RFC 9110 section 10.1.1).
    pub fn wait_for(&mut self, word: CancellationToken) {
        let told = async move { drop(timeout(SAYS_WITHIN, word.cancelled_owned()).await) };
        self.expectation = Some(Expectation(Box::pin(told)));
    }

    fn fails(&self, fault: Refusal) -> BodyError {
        self.fault.get_or_init(|| fault).clone().into()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(expectation) = &mut self.expectation {
            ready!(expectation.0.as_mut().poll(cx));
            self.expectation = None;
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(self.fails(Refusal::BadRequest(error.to_string()))))),
            None => return Poll::Ready(None),
        };
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        match self.left.checked_sub(length) {
            Some(left) => self.left = left,
            None => {
                let too_large = Refusal::BodyTooLarge { max: self.max };
                return Poll::Ready(Some(Err(self.fails(too_large))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What is needed until the last byte of an answer: dropped early, it lets the instance finish.
#[derive(Debug)]
pub struct Held {
    /// The instance's slot.
    pub permit: Permit,
    /// The connection, to be kept for the next request.
    pub sender: Sender,
    /// What is logged at the end.
    pub record: Record,
    /// When the answer must have ended.
    pub deadline: Instant,
}

impl Held {
    fn finish(mut self) {
        self.record.end();
        self.permit.target().keep(self.sender, self.deadline);
    }
}

pin_project! {
    /// A function's answer on its way to the caller. Cut at its deadline.
    pub struct AnswerBody {
        rest: Option<Rest>,
        #[pin]
        deadline: Sleep,
    }

    impl PinnedDrop for AnswerBody {
        fn drop(this: Pin<&mut Self>) {
            if let Some(rest) = this.project().rest.take() {
                rest.abandon();
            }
        }
    }
}

impl AnswerBody {
    /// The body of an answer.
    pub fn new(inner: Incoming, held: Held) -> Self {
        let deadline = tokio::time::sleep_until(held.deadline);
        // An answer without a body is never polled.
        if inner.is_end_stream() {
            held.finish();
            return Self { rest: None, deadline };
        }
        Self { rest: Some(Rest::Mine(Part { inner, held })), deadline }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.project();
        let Some(rest) = this.rest.as_mut() else { return Poll::Ready(None) };
        let polled = rest.with(|Part { inner, held }| {
            let polled = held.sender.poll_frame(inner, cx);
            if let Poll::Ready(Some(Ok(frame))) = &polled {
                held.record.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            // After trailers, or the last byte of a known length, a body is not polled again.
            let last = |frame: &Frame<Bytes>| frame.is_trailers() || inner.is_end_stream();
            (matches!(&polled, Poll::Ready(Some(Ok(frame))) if last(frame)), polled)
        });
        let Some((last, polled)) = polled else {
            *this.rest = None;
            return Poll::Ready(Some(Err(TOO_LATE.into())));
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) if last => {
                this.rest.take().and_then(Rest::take).into_iter().for_each(|part| part.held.finish());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if matches!(rest, Rest::Mine(_)) {
                    *this.rest = this.rest.take().map(Rest::watched);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.rest.take().and_then(Rest::take).into_iter().for_each(|part| part.held.finish());
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.rest.take().and_then(Rest::take).into_iter().for_each(|mut p| p.held.record.cut("InstanceFailed"));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => {
                ready!(this.deadline.poll(cx));
                rest.with(|part| part.held.record.cut("FunctionTimeout"));
                Poll::Ready(Some(Err(TOO_LATE.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.as_ref().and_then(|rest| rest.look(|part| part.inner.size_hint())).unwrap_or_default()
    }
}

/// What is left of an answer.
struct Part {
    inner: Incoming,
    held: Held,
}

/// Whose it is to let go of it. An answer in one piece, as most are, belongs to its body. One that goes
/// on is watched as well: while its caller does not read, nobody polls a body.
#[expect(clippy::large_enum_variant, reason = "whatever it is, it is in a box already")]
enum Rest {
    Mine(Part),
    Watched { part: Arc<Mutex<Option<Part>>>, _watch: AbortOnDropHandle<()> },
}

impl Rest {
    /// None if it was let go of at its deadline.
    fn with<T>(&mut self, change: impl FnOnce(&mut Part) -> T) -> Option<T> {
        match self {
            Self::Mine(part) => Some(change(part)),
            Self::Watched { part, .. } => part.lock().as_mut().map(change),
        }
    }

    fn look<T>(&self, at: impl FnOnce(&Part) -> T) -> Option<T> {
        match self {
            Self::Mine(part) => Some(at(part)),
            Self::Watched { part, .. } => part.lock().as_ref().map(at),
        }
    }

    fn take(self) -> Option<Part> {
        match self {
            Self::Mine(part) => Some(part),
            Self::Watched { part, .. } => part.lock().take(),
        }
    }

    fn watched(self) -> Self {
        let Self::Mine(part) = self else { return self };
        let until = part.held.deadline + UNREAD;
        let part = Arc::new(Mutex::new(Some(part)));
        let watched = part.clone();
        // Ends with the answer, or a moment after its deadline.
        let watch = tokio::spawn(async move {
            sleep_until(until).await;
            let part = watched.lock().take();
            if let Some(mut part) = part {
                part.held.record.cut("FunctionTimeout");
            }
        });
        Self::Watched { part, _watch: AbortOnDropHandle::new(watch) }
    }

    /// The caller has left or the time is over. The slot stays taken until the instance has stopped
    /// sending, or has been told by a closed connection.
    fn abandon(self) {
        let Some(Part { inner, held }) = self.take() else { return };
        let Held { permit, sender, mut record, deadline } = held;
        record.end();
        tokio::spawn(async move {
            leave(inner, sender, &permit, deadline).await;
            drop((permit, record));
        });
    }
}

/// Lets an instance end its answer for nobody, for a moment; then its connection is closed.
pub async fn leave(answer: Incoming, mut sender: Sender, permit: &Permit, deadline: Instant) {
    if let Ok(true) = timeout(GOES_ON_SENDING, sender.drain(answer)).await {
        permit.target().keep(sender, deadline);
    }
}

/// What the gateway sends: its own words or a function's answer.
pub enum ResponseBody {
    /// The gateway's own.
    Own(Full<Bytes>),
    /// A function's.
    Answer(Pin<Box<AnswerBody>>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Answer(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Answer(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Answer(body) => body.size_hint(),
        }
    }
}
