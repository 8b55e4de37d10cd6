//! Telling a refusal, which stays until something changes, from a failure that is worth another try.

use kube::{Error, core::Status};
use lambent_api::Reason;

use crate::StartError;

/// What a failed creation means.
pub fn of(error: Error) -> StartError {
    match error {
        Error::Api(status) => match reason(&status) {
            Some(reason) => StartError::Refused(Reason::new(reason, status.message)),
            None => StartError::Fleet(Error::Api(status).into()),
        },
        other => StartError::Fleet(other.into()),
    }
}

/// | server's answer                         | reason                 |
/// | --------------------------------------- | ---------------------- |
/// | 403 with `exceeded quota`               | `QuotaExceeded`        |
/// | 403 with `violates PodSecurity`         | `PodSecurity`          |
/// | 403 as its namespace is being deleted   | `NamespaceTerminating` |
/// | any other 400, 403, 404, 422: admission | `Refused`              |
/// | anything else                           | none: try again        |
fn reason(status: &Status) -> Option<&'static str> {
    match status.code {
        403 if status.message.contains("exceeded quota") => Some("QuotaExceeded"),
        403 if status.message.contains("violates PodSecurity") => Some("PodSecurity"),
        403 if status.message.contains("being terminated") => Some("NamespaceTerminating"),
        400 | 403 | 404 | 422 => Some("Refused"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, message: &str) -> Option<&'static str> {
        reason(&Status { code, message: message.to_owned(), ..Status::success() })
    }

    #[test]
    fn refusals_are_told_apart_by_the_servers_words() {
        let quota =
            r#"pods "hello-1" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=5, limited: pods=5"#;
        assert_eq!(answer(403, quota), Some("QuotaExceeded"));
        let security = r#"pods "hello-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true"#;
        assert_eq!(answer(403, security), Some("PodSecurity"));
        let namespace = r#"pods "hello-1" is forbidden: unable to create new content in namespace shop because it is being terminated"#;
        assert_eq!(answer(403, namespace), Some("NamespaceTerminating"));
        assert_eq!(answer(422, "Pod is invalid: spec.containers[0].image: Required value"), Some("Refused"));
        assert_eq!(answer(404, r#"namespaces "shop" not found"#), Some("Refused"));
    }

    #[test]
    fn an_overloaded_server_has_refused_nothing() {
        for code in [408, 429, 500, 503, 504] {
            assert_eq!(answer(code, "later"), None, "{code}");
        }
    }
}
