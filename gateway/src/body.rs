//! Bodies on their way through: streamed, counted, cut at their limits, holding the permit until
//! the last byte.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, timeout_at};

use crate::{access_log::Record, permit::Permit, target::Sender};

/// What can go wrong with a body, in whatever layer.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How long an instance may go on sending to a caller who has left, before its connection is
/// closed, which is what tells it.
const GOES_ON_SENDING: Duration = Duration::from_secs(1);

/// A request's body, counted: over its limit it ends in an error, and `exceeded` says why.
#[derive(Debug)]
pub struct RequestBody {
    inner: Option<Incoming>,
    left: u64,
    exceeded: Arc<AtomicBool>,
}

impl RequestBody {
    /// At most `max` bytes of `inner`.
    pub fn new(inner: Incoming, max: u64) -> (Self, Arc<AtomicBool>) {
        let exceeded = Arc::new(AtomicBool::new(false));
        (Self { inner: Some(inner), left: max, exceeded: exceeded.clone() }, exceeded)
    }

    /// No body.
    pub fn empty() -> Self {
        Self { inner: None, left: 0, exceeded: Arc::default() }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        match self.left.checked_sub(length) {
            Some(left) => self.left = left,
            None => {
                self.exceeded.store(true, Ordering::Release);
                return Poll::Ready(Some(Err("the body is longer than maxBody".into())));
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
        inner: Option<Incoming>,
        held: Option<Held>,
        #[pin]
        deadline: Sleep,
    }

    impl PinnedDrop for AnswerBody {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (Some(inner), Some(held)) = (this.inner.take(), this.held.take()) {
                abandon(inner, held);
            }
        }
    }
}

impl AnswerBody {
    /// The body of an answer.
    pub fn new(inner: Incoming, held: Held) -> Self {
        let deadline = tokio::time::sleep_until(held.deadline);
        let mut body = Self { inner: Some(inner), held: Some(held), deadline };
        // An answer without a body is never polled.
        if body.is_end_stream() {
            body.inner = None;
            if let Some(held) = body.held.take() {
                held.finish();
            }
        }
        body
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.project();
        let (Some(inner), Some(held)) = (this.inner.as_mut(), this.held.as_mut()) else { return Poll::Ready(None) };
        match held.sender.poll_frame(inner, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                held.record.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                // After trailers, or the last byte of a known length, a body is not polled again.
                if frame.is_trailers() || inner.is_end_stream() {
                    *this.inner = None;
                    if let Some(held) = this.held.take() {
                        held.finish();
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                *this.inner = None;
                if let Some(held) = this.held.take() {
                    held.finish();
                }
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                *this.inner = None;
                if let Some(mut held) = this.held.take() {
                    held.record.cut("InstanceFailed");
                }
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => {
                ready!(this.deadline.poll(cx));
                held.record.cut("FunctionTimeout");
                Poll::Ready(Some(Err("the function ran for longer than its timeout".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The caller has left or the time is over. The slot stays taken until the instance has stopped
/// sending, or has been told by a closed connection.
fn abandon(inner: Incoming, mut held: Held) {
    held.record.end();
    let until = Instant::now() + GOES_ON_SENDING;
    tokio::spawn(async move {
        if let Ok(true) = timeout_at(until, held.sender.drain(inner)).await {
            held.permit.target().keep(held.sender, held.deadline);
        }
    });
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
