//! Why an image could not be resolved, in words that tell a Function's author what to do. Of what
//! a registry answers only the messages of its error format are repeated: an author chooses which
//! host is asked, and the text of any other page that the controller can reach is not theirs to read.

use std::error::Error;

use oci_client::{
    Reference,
    errors::{OciDistributionError, OciEnvelope, OciErrorCode},
};

const MAX_SAID: usize = 300;

/// Why an image could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The registry wants other credentials, or hides what does not exist.
    #[error(
        "{registry} denies access to {image}{said}; check its name, and that spec.pod.imagePullSecrets names a Secret of type kubernetes.io/dockerconfigjson for {registry}"
    )]
    Denied {
        /// As in the Function.
        image: String,
        /// The host that was asked.
        registry: String,
        /// The registry's own words, or nothing.
        said: String,
    },
    /// The registry answers, and has no such repository, tag or digest.
    #[error("{registry} has no image {image}{said}; check repository and tag, and that it was pushed")]
    NotFound {
        /// As in the Function.
        image: String,
        /// The host that was asked.
        registry: String,
        /// The registry's own words, or nothing.
        said: String,
    },
    /// No useful answer now; another attempt may get one.
    #[error("{registry} could not be asked for {image}: {why}")]
    Unreachable {
        /// As in the Function.
        image: String,
        /// The host that was asked.
        registry: String,
        /// What happened, and what may help.
        why: String,
    },
    /// Another attempt gets the same.
    #[error("{image} is not an image that can run here: {why}")]
    Invalid {
        /// As in the Function.
        image: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is not from a registry, and could not be made.
    #[error("{}", .0.message)]
    NotBuilt(lambent_api::Reason),
}

impl ImageError {
    pub(super) fn unreachable(image: &Reference, why: impl Into<String>) -> Self {
        Self::Unreachable { image: image.whole(), registry: image.registry().to_owned(), why: why.into() }
    }

    pub(super) fn invalid(image: &Reference, why: impl Into<String>) -> Self {
        Self::Invalid { image: image.whole(), why: why.into() }
    }

    fn denied(image: &Reference, said: String) -> Self {
        Self::Denied { image: image.whole(), registry: image.registry().to_owned(), said }
    }

    fn not_found(image: &Reference, said: String) -> Self {
        Self::NotFound { image: image.whole(), registry: image.registry().to_owned(), said }
    }

    pub(super) fn from_registry(image: &Reference, error: OciDistributionError) -> Self {
        use OciDistributionError as E;
        match error {
            E::UnauthorizedError { .. } => Self::denied(image, String::new()),
            E::AuthenticationFailure(body) => match serde_json::from_str::<OciEnvelope>(&body) {
                Ok(envelope) => Self::from_envelope(image, &envelope),
                Err(_) => Self::denied(image, String::new()),
            },
            E::RegistryError { envelope, .. } => Self::from_envelope(image, &envelope),
            E::ServerError { code: 401 | 403, .. } => Self::denied(image, String::new()),
            E::ServerError { code: 404, .. } => Self::not_found(image, String::new()),
            E::ServerError { code, .. } => Self::unreachable(image, format!("it answers with HTTP status {code}")),
            E::RequestError(error) => Self::unreachable(image, connection_words(&error)),
            E::IoError(error) => Self::unreachable(image, connection_words(&error)),
            E::DigestError(error) => Self::invalid(image, format!("what its registry sent is damaged: {error}")),
            E::UnsupportedSchemaVersionError(_) => Self::invalid(image, "its manifest is of the old schema 1"),
            E::UnsupportedMediaTypeError(_) => Self::invalid(image, "it is of a kind that is not a container image"),
            _ => Self::invalid(image, "its registry's answer does not follow the OCI distribution specification"),
        }
    }

    fn from_envelope(image: &Reference, envelope: &OciEnvelope) -> Self {
        use OciErrorCode as C;
        let said = said(envelope);
        match envelope.errors.first().map(|e| &e.code) {
            Some(C::Denied | C::Unauthorized) => Self::denied(image, said),
            Some(C::ManifestUnknown | C::NameUnknown | C::NotFound | C::BlobUnknown | C::ManifestBlobUnknown) => {
                Self::not_found(image, said)
            }
            Some(C::NameInvalid | C::TagInvalid | C::DigestInvalid) => {
                Self::invalid(image, format!("its registry refuses the name{said}"))
            }
            Some(C::Toomanyrequests) => Self::unreachable(image, format!("it refuses so many requests{said}")),
            _ => Self::unreachable(image, format!("it answers with an error{said}")),
        }
    }
}

/// ` (it says: ...)`, or nothing.
fn said(envelope: &OciEnvelope) -> String {
    let messages: Vec<&str> = envelope.errors.iter().map(|e| e.message.trim()).filter(|m| !m.is_empty()).collect();
    let text: String = messages.join("; ").chars().filter(|c| !c.is_control()).take(MAX_SAID).collect();
    if text.is_empty() { text } else { format!(" (it says: {text})") }
}

/// The innermost cause is the one that says it ("Connection refused"); the outer ones repeat the URL.
fn connection_words(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&e| e.source());
    let innermost = causes.last().map(ToString::to_string).unwrap_or_default();
    let text: String = innermost.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect();
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        return format!(
            "{text}; if it speaks plain http, an operator allows that with the chart's controller.plainHttpRegistries"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Reference {
        "registry.example/shop/hello:1".parse().unwrap()
    }

    fn envelope(code: &str, message: &str) -> OciEnvelope {
        serde_json::from_value(serde_json::json!({"errors": [{"code": code, "message": message}]})).unwrap()
    }

    #[test]
    fn the_words_name_image_registry_and_remedy() {
        let error = ImageError::from_envelope(&image(), &envelope("DENIED", "no pull for you"));
        let text = error.to_string();
        for part in ["registry.example denies", "shop/hello:1", "no pull for you", "imagePullSecrets"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn each_code_of_a_registry_has_its_kind() {
        for (code, kind) in [
            ("UNAUTHORIZED", "denies"),
            ("MANIFEST_UNKNOWN", "has no image"),
            ("NAME_UNKNOWN", "has no image"),
            ("NAME_INVALID", "is not an image"),
            ("TOOMANYREQUESTS", "could not be asked"),
            ("ARTIFACT_LOCKED", "could not be asked"),
        ] {
            let text = ImageError::from_envelope(&image(), &envelope(code, "")).to_string();
            assert!(text.contains(kind), "{code}: {text}");
        }
    }

    #[test]
    fn a_page_that_is_not_a_registrys_error_is_not_repeated() {
        let page = "instance-secret: hunter2".to_owned();
        for error in [
            OciDistributionError::AuthenticationFailure(page.clone()),
            OciDistributionError::ServerError { code: 500, url: "http://10.0.0.1/".into(), message: page },
        ] {
            assert!(!ImageError::from_registry(&image(), error).to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_long_message_is_cut_and_loses_control_characters() {
        let long = format!("a\n{}", "b".repeat(10_000));
        let text = said(&envelope("DENIED", &long));
        assert!(text.len() < 400 && !text.contains('\n'), "{text}");
    }
}
