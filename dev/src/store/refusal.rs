//! Why a request is refused, in the words and with the numbers of an API server.

use http::StatusCode;
use serde_json::{Value, json};
use thiserror::Error;

/// Why a request is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// No such path or object.
    #[error("{0} not found")]
    NotFound(String),
    /// An object of that name exists.
    #[error("{0} already exists")]
    AlreadyExists(String),
    /// It is not as the caller thinks.
    #[error("{0}")]
    Conflict(String),
    /// The object, or the patch, does not fit.
    #[error("{0}")]
    Invalid(String),
    /// Not understood.
    #[error("{0}")]
    BadRequest(String),
    /// Too long ago.
    #[error("too old resource version: {0}")]
    Expired(u64),
    /// Not to be done there.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// A patch of a kind that is not known.
    #[error("the body of the request was in an unknown format: {0}")]
    UnsupportedMediaType(String),
}

impl Refusal {
    /// The status code and the `reason`.
    pub fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Self::AlreadyExists(_) => (StatusCode::CONFLICT, "AlreadyExists"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "Conflict"),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Expired(_) => (StatusCode::GONE, "Expired"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::UnsupportedMediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
        }
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let (code, reason) = self.kind();
        json!({
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": reason,
            "code": code.as_u16(),
        })
    }
}
