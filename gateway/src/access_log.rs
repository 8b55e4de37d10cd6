//! One line a request, written when its last byte is out.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use tracing::info;

use crate::{forward::InProgress, function::Function, pool::Grant};

/// What is remembered of a request until its end.
#[derive(Debug)]
pub struct Record {
    /// Its identity.
    pub id: HeaderValue,
    /// When its head was read.
    pub arrived: Instant,
    /// Whom it is for, once that is known.
    pub function: Option<Arc<Function>>,
    /// Status of the answer.
    pub status: StatusCode,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// How long it waited, in seconds.
    pub waited: f64,
    /// Whether its instance was started after it arrived.
    pub cold: bool,
    /// Dropped when nothing is left of the request.
    pub in_progress: InProgress,
    method: Method,
    revision: Option<Arc<str>>,
    reason: Option<&'static str>,
    ended: bool,
}

impl Record {
    /// A request that has just arrived.
    pub fn new(id: HeaderValue, method: Method, arrived: Instant, in_progress: InProgress) -> Self {
        Self {
            id,
            arrived,
            function: None,
            status: StatusCode::OK,
            sent: 0,
            waited: 0.0,
            cold: false,
            in_progress,
            method,
            revision: None,
            reason: None,
            ended: false,
        }
    }

    /// It has a slot now.
    pub fn granted(&mut self, grant: &Grant, now: Instant) {
        self.waited = now.duration_since(self.arrived).as_secs_f64();
        self.cold = grant.started.answered.is_some_and(|at| at > self.arrived) && grant.started.seen >= self.arrived;
        self.revision = Some(grant.revision.clone());
    }

    /// It is answered by the gateway itself.
    pub fn refused(&mut self, status: StatusCode, reason: &'static str) {
        self.status = status;
        self.reason = Some(reason);
    }

    /// Its answer was broken off after the head was out.
    pub fn cut(&mut self, reason: &'static str) {
        self.reason = Some(reason);
        self.end();
    }

    /// Its last byte is out, or its caller is gone.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let duration = self.arrived.elapsed().as_secs_f64();
        if let Some(function) = &self.function {
            function.metrics.ended(self.status, duration);
        }
        let (namespace, name) = self.function.as_ref().map_or(("", ""), |f| (&f.key.namespace, &f.key.name));
        info!(
            target: "access",
            request_id = self.id.to_str().unwrap_or_default(),
            method = self.method.as_str(),
            namespace,
            function = name,
            revision = self.revision.as_deref().unwrap_or_default(),
            status = self.status.as_u16(),
            reason = self.reason,
            duration_ms = milliseconds(duration),
            waited_ms = milliseconds(self.waited),
            cold_start = self.cold,
            sent = self.sent,
            "request"
        );
    }
}

/// To the microsecond: more digits would say nothing.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            // nginx's number for a caller that left before the answer.
            self.status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
            self.reason = Some("CallerGone");
            self.end();
        }
    }
}
