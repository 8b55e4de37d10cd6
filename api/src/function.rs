//! `Function`: what a user applies.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, Time},
    util::intstr::IntOrString,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Duration, FunctionKey, Template};

/// A container that answers HTTP and runs only while it is called.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lambent.dev",
    version = "v1alpha1",
    kind = "Function",
    plural = "functions",
    shortname = "fn",
    category = "lambent",
    namespaced,
    status = "FunctionStatus",
    derive = "PartialEq",
    doc = "A container that answers HTTP and runs only while it is called.",
    scale(
        spec_replicas_path = ".spec.scale.min",
        status_replicas_path = ".status.instances",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".status.instances"),
    printcolumn(name = "Parked", type_ = "integer", json_path = ".status.parked", priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name must have at most 40 characters: the names of Revisions and instances are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name must be a DNS label: lower case letters, digits and '-'; it becomes a host name"),
    validation = Rule::new("self.spec.scale.parked == 0 || !(has(self.spec.readinessProbe) || has(self.spec.livenessProbe))").message("scale.parked and probes exclude each other: the kubelet would probe a frozen process and end it")
)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSpec {
    /// What runs.
    #[serde(flatten)]
    pub template: Template,

    /// Requests that one instance serves at once. Never exceeded.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: i32,

    /// From the hand-over to an instance to the last byte of its answer; up to 15m.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) > duration('0s') && duration(self) <= duration('15m')", "message": "timeout must be more than 0s and at most 15m"}]))]
    pub timeout: Duration,

    /// Instead of `timeout` for WebSocket, server-sent events and gRPC streams; up to 24h.
    #[serde(default = "default_stream_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) > duration('0s') && duration(self) <= duration('24h')", "message": "streamTimeout must be more than 0s and at most 24h"}]))]
    pub stream_timeout: Duration,

    /// Until a starting instance must answer; up to 15m.
    #[serde(default = "default_start_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) >= duration('1s') && duration(self) <= duration('15m')", "message": "startTimeout must be between 1s and 15m"}]))]
    pub start_timeout: Duration,

    /// Longest request body in bytes, such as 6Mi.
    #[serde(default = "default_max_body")]
    pub max_body: ByteSize,

    /// Requests that wait.
    #[serde(default)]
    pub queue: Queue,

    /// How many instances. A change takes effect at once and makes no Revision.
    #[serde(default)]
    pub scale: Scale,

    /// How a new Revision takes over.
    #[serde(default)]
    pub rollout: Rollout,

    /// Old Revisions to keep, for going back at once.
    #[serde(default = "default_revision_history")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history: i32,

    /// Pull the image of a new Revision to all nodes that it may run on, so that no instance has to wait for
    /// that. Makes no Revision. Where the operator has switched this on.
    #[serde(default = "yes")]
    pub image_pull_ahead: bool,
}

/// Requests that wait for an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct Queue {
    /// How many may wait; more are refused with 429.
    #[schemars(range(min = 0, max = 100_000))]
    pub depth: i32,
    /// How long one may wait, up to 15m. Refused at once when the expected wait is longer.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) > duration('0s') && duration(self) <= duration('15m')", "message": "queue.timeout must be more than 0s and at most 15m"}]))]
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { depth: 1000, timeout: Duration::from_secs(30) }
    }
}

/// How many instances, over all Revisions of the Function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = [{"rule": "self.min <= self.max", "message": "scale.min must not be more than scale.max"}, {"rule": "self.parked <= self.max", "message": "scale.parked must not be more than scale.max"}]))]
pub struct Scale {
    /// Warm instances: kept ready whatever the load.
    #[schemars(range(min = 0, max = 10_000))]
    pub min: i32,
    /// Instances kept beside those: started, then frozen until a request needs one. They use memory
    /// and no CPU. Needs the node agent; excludes probes.
    #[schemars(range(min = 0, max = 10_000))]
    pub parked: i32,
    /// Never more than this.
    #[schemars(range(min = 1, max = 10_000))]
    pub max: i32,
    /// How long the load must have been lower before instances are taken away; up to 24h.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) >= duration('1s') && duration(self) <= duration('24h')", "message": "scale.idle must be between 1s and 24h"}]))]
    pub idle: Duration,
}

impl Default for Scale {
    fn default() -> Self {
        Self { min: 0, parked: 0, max: 100, idle: Duration::from_secs(60) }
    }
}

/// How a new Revision takes over from the old one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct Rollout {
    /// Instances over `scale.max` and over what the load needs while both Revisions run: a number
    /// or a percentage.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "type(self) == int ? self >= 1 : self.matches('^[1-9][0-9]{0,2}%$')", "message": "rollout.maxSurge must be at least 1, or a percentage such as 25%"}]))]
    pub max_surge: IntOrString,
    /// How long a new Revision may take to become ready before it is called failed; up to 24h.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) >= duration('1s') && duration(self) <= duration('24h')", "message": "rollout.deadline must be between 1s and 24h"}]))]
    pub deadline: Duration,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { max_surge: IntOrString::String("25%".into()), deadline: Duration::from_secs(600) }
    }
}

/// What is known of a Function. Written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionStatus {
    /// `Ready`, `Reconciling`, `Stalled` (as kstatus reads them), `ImageResolved`, and `Parked` where
    /// `scale.parked` is set.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where to call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The Revision that serves requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The Revision made from the current spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_revision: Option<String>,
    /// Since when the latest Revision is to take the place of the one that serves; absent when it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_since: Option<Time>,
    /// Instances that exist and are not stopping, over all Revisions.
    pub instances: i32,
    /// Instances of these that answer.
    pub ready: i32,
    /// Instances of these that are frozen until a request needs one.
    #[serde(skip_serializing_if = "is_zero")]
    pub parked: i32,
    /// Label selector of its instances, for the scale subresource.
    pub selector: String,
}

impl Function {
    /// Namespace and name. An object from the API server has both.
    pub fn key(&self) -> FunctionKey {
        FunctionKey::of(&self.metadata)
    }
}

/// Most Functions park nothing: their status need not say so.
// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn is_zero(number: &i32) -> bool {
    *number == 0
}

fn default_concurrency() -> i32 {
    1
}

fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_stream_timeout() -> Duration {
    Duration::from_secs(3600)
}

fn default_start_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_max_body() -> ByteSize {
    ByteSize::mebibytes(6)
}

fn default_revision_history() -> i32 {
    10
}

fn yes() -> bool {
    true
}
