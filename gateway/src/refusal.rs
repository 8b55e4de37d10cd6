//! What the gateway answers when it does not forward: the one table of design and code.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use lambent_api::Reason;
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;

/// Why a request was not answered by a function.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Neither path nor Host names a Function.
    #[error("there is no function {0}")]
    FunctionNotFound(String),
    /// The path does not begin with `/fn/<namespace>/<name>` and the Host is no function's.
    #[error("call a function at /fn/<namespace>/<name>, or by its own host name")]
    NotAFunctionPath,
    /// Longer than `maxBody`.
    #[error("the request body is longer than the {max} bytes that the function allows (maxBody)")]
    BodyTooLarge {
        /// `maxBody` in bytes.
        max: u64,
    },
    /// `queue.depth` requests wait already.
    #[error("{depth} requests are waiting already, which is all that the function allows (queue.depth)")]
    QueueFull {
        /// `queue.depth`.
        depth: usize,
    },
    /// It would wait for longer than `queue.timeout`.
    #[error("the wait would be about {} s, longer than the function allows (queue.timeout)", .expected.as_secs())]
    QueueTooSlow {
        /// How long the wait would be.
        expected: Duration,
    },
    /// Waited for longer than `queue.timeout`.
    #[error("no instance was free within {} s (queue.timeout)", .0.as_secs_f32())]
    QueueTimeout(Duration),
    /// Instances of the function can't start.
    #[error("the function can't start: {}: {}", .0.reason, .0.message)]
    StartFailed(Reason),
    /// Nothing serves yet.
    #[error("the function has no Revision that is ready")]
    NoRevision,
    /// The instance closed the connection or died before it answered.
    #[error("the instance failed before it answered: {0}")]
    InstanceFailed(String),
    /// Ran for longer than `timeout`.
    #[error("the function did not answer within {} s (timeout)", .0.as_secs_f32())]
    FunctionTimeout(Duration),
    /// The client's request was broken off or is no valid HTTP.
    #[error("the request could not be read: {0}")]
    BadRequest(String),
}

impl Refusal {
    /// Status code and reason word.
    pub fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::FunctionNotFound(_) | Self::NotAFunctionPath => (StatusCode::NOT_FOUND, "FunctionNotFound"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge"),
            Self::QueueFull { .. } | Self::QueueTooSlow { .. } => (StatusCode::TOO_MANY_REQUESTS, "QueueFull"),
            Self::QueueTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "QueueTimeout"),
            Self::StartFailed(_) | Self::NoRevision => (StatusCode::SERVICE_UNAVAILABLE, "StartFailed"),
            Self::InstanceFailed(_) => (StatusCode::BAD_GATEWAY, "InstanceFailed"),
            Self::FunctionTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "FunctionTimeout"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
        }
    }

    /// When a caller had better come again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { .. } => Some(Duration::from_secs(1)),
            Self::QueueTooSlow { expected } => Some(*expected),
            Self::StartFailed(_) | Self::NoRevision => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// The answer, as RFC 9457 has it.
    pub fn response(&self, request_id: &str) -> Response<Bytes> {
        let (status, reason) = self.kind();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "reason": reason,
            "detail": self.to_string(),
            "requestId": request_id,
        });
        let mut response = Response::new(Bytes::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_happened_and_when_to_come_again() {
        let response = Refusal::QueueFull { depth: 3 }.response("id-1");
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!((&body["reason"], &body["requestId"]), (&json!("QueueFull"), &json!("id-1")));
        assert!(body["detail"].as_str().unwrap().contains("queue.depth"));
    }
}
