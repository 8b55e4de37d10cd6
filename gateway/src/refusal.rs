//! What the gateway answers when it does not forward: the one table of design and code.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use lambent_api::Reason;
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;

use crate::server::{MAX_HEAD, MAX_HEADERS};

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
    /// Its request line and headers are longer, or more, than the gateway takes.
    #[error("the request has more than {MAX_HEADERS} headers, or more than {MAX_HEAD} bytes before its body")]
    HeadTooLarge,
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
            Self::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HeadTooLarge"),
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

    /// The answer to a gRPC call: its status, and nothing else. By gRPC's own table of HTTP codes,
    /// but for what it has a closer word for.
    pub fn grpc_response(&self) -> Response<Bytes> {
        let code = match self.kind().0 {
            StatusCode::NOT_FOUND => 12,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => 8,
            StatusCode::GATEWAY_TIMEOUT => 4,
            StatusCode::BAD_REQUEST => 13,
            _ => 14,
        };
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(code));
        let words: String =
            self.to_string().chars().map(|c| if matches!(c, ' '..='~') && c != '%' { c } else { '?' }).collect();
        if let Ok(words) = HeaderValue::try_from(words) {
            headers.insert("grpc-message", words);
        }
        response
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
    fn a_grpc_call_is_answered_with_a_grpc_status() {
        let response = Refusal::QueueFull { depth: 3 }.grpc_response();
        assert_eq!((response.status(), &response.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from(8)));
        assert!(response.headers()["grpc-message"].to_str().unwrap().contains("queue.depth"));
    }

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
