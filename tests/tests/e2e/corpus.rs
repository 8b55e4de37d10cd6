//! Manifests that are refused, and what the refusal says: asked of the API server, and of
//! `lambent check`, which is to agree.

use serde_json::Value;

/// A manifest that is refused when it is applied.
pub(crate) struct Refused {
    /// Why, as a statement.
    pub(crate) what: &'static str,
    name: &'static str,
    spec: &'static str,
    /// What the API server says to a server-side apply.
    pub(crate) words: &'static [&'static str],
}

impl Refused {
    pub(crate) fn name(&self) -> String {
        // A name that is too long is easier to read so.
        self.name.replace("LONG", &"a".repeat(41))
    }

    pub(crate) fn spec(&self) -> Value {
        serde_yaml::from_str(self.spec).expect("YAML")
    }

    pub(crate) fn manifest(&self) -> String {
        manifest(&format!("{{name: {}}}", self.name()), self.spec)
    }
}

/// The text of a Function with this metadata and this spec, as YAML within one line each.
pub(crate) fn manifest(metadata: &str, spec: &str) -> String {
    format!("apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {metadata}\nspec: {spec}\n")
}

const fn spec(what: &'static str, spec: &'static str, words: &'static [&'static str]) -> Refused {
    Refused { what, name: "refused", spec, words }
}

const fn name(what: &'static str, name: &'static str, words: &'static [&'static str]) -> Refused {
    Refused { what, name, spec: "{image: a}", words }
}

pub(crate) const REFUSED: &[Refused] = &[
    spec(
        "more warm instances than the maximum",
        "{image: a, scale: {min: 3, max: 2}}",
        &["scale.min must not be more than scale.max"],
    ),
    spec(
        "more warm instances than the default maximum",
        "{image: a, scale: {min: 101}}",
        &["scale.min must not be more than scale.max"],
    ),
    spec(
        "more parked instances than the maximum",
        "{image: a, scale: {parked: 3, max: 2}}",
        &["scale.parked must not be more than scale.max"],
    ),
    spec(
        "parked instances with a liveness probe",
        "{image: a, scale: {parked: 1}, livenessProbe: {tcpSocket: {port: 8080}}}",
        &["scale.parked and probes exclude each other"],
    ),
    spec(
        "parked instances with a readiness probe",
        "{image: a, scale: {parked: 1}, readinessProbe: {tcpSocket: {port: 8080}}}",
        &["scale.parked and probes exclude each other"],
    ),
    spec("a maximum of zero", "{image: a, scale: {max: 0}}", &["spec.scale.max", "greater than or equal to 1"]),
    spec("a concurrency of zero", "{image: a, concurrency: 0}", &["spec.concurrency", "greater than or equal to 1"]),
    spec("port zero", "{image: a, port: 0}", &["spec.port", "greater than or equal to 1"]),
    spec("a port that does not exist", "{image: a, port: 65536}", &["spec.port", "less than or equal to 65535"]),
    spec("a malformed duration", "{image: a, timeout: soon}", &["spec.timeout", "should match", "ms|s|m|h"]),
    spec("a duration without a unit", "{image: a, queue: {timeout: '30'}}", &["spec.queue.timeout", "should match"]),
    spec("a timeout of zero", "{image: a, timeout: 0s}", &["timeout must be more than 0s and at most 15m"]),
    spec("a timeout over the longest", "{image: a, timeout: 15m1s}", &["timeout must be more than 0s and at most 15m"]),
    spec("a duration that overflows", "{image: a, startTimeout: 99999999999999999h}", &["spec.startTimeout"]),
    spec(
        "a start timeout of less than a second",
        "{image: a, startTimeout: 10ms}",
        &["startTimeout must be between 1s and 15m"],
    ),
    spec("a queue timeout of zero", "{image: a, queue: {timeout: 0s}}", &["queue.timeout must be more than 0s"]),
    spec(
        "a negative queue depth",
        "{image: a, queue: {depth: -1}}",
        &["spec.queue.depth", "greater than or equal to 0"],
    ),
    spec(
        "an idle time of less than a second",
        "{image: a, scale: {idle: 1ms}}",
        &["scale.idle must be between 1s and 24h"],
    ),
    spec("a malformed size", "{image: a, maxBody: 6MB}", &["spec.maxBody", "should match"]),
    spec(
        "an unknown protocol, with those that there are",
        "{image: a, protocol: gopher}",
        &["spec.protocol", "Unsupported value", "http1"],
    ),
    spec(
        "a surge that is no share",
        "{image: a, rollout: {maxSurge: lots}}",
        &["rollout.maxSurge must be at least 1, or a percentage"],
    ),
    spec("a missing image", "{concurrency: 1}", &["spec.image", "Required value"]),
    spec("an empty image", "{image: ''}", &["spec.image"]),
    spec("an unknown field", "{image: a, scale: {minimum: 1}}", &["spec.scale.minimum", "field not declared"]),
    spec(
        "a field that a pod has but a Function has not",
        "{image: a, pod: {hostNetwork: true}}",
        &["spec.pod.hostNetwork", "field not declared"],
    ),
    name("a name over 40 characters", "LONG", &["the name must have at most 40 characters"]),
    name("a name that is no DNS label", "a.b", &["the name must be a DNS label"]),
];
