//! `Revision`: an immutable snapshot of what runs, and how many instances of it are wanted.

// Printer columns repeat their types.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{RevisionKey, Template, function::is_zero};

/// An immutable snapshot of what a Function runs. Made by the controller; not meant to be edited.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lambent.dev",
    version = "v1alpha1",
    kind = "Revision",
    plural = "revisions",
    category = "lambent",
    namespaced,
    status = "RevisionStatus",
    derive = "PartialEq",
    doc = "An immutable snapshot of what a Function runs, and how many instances of it are wanted. Made by the controller.",
    scale(
        spec_replicas_path = ".spec.instances",
        status_replicas_path = ".status.instances",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Function", type_ = "string", json_path = ".spec.function"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".spec.instances"),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".status.instances"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason")
)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSpec {
    /// The Function that it belongs to.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "a Revision's function can't change"}]))]
    pub function: String,

    /// Instances wanted. Raised from zero by the gateway, otherwise written by the autoscaler; the
    /// controller makes it true, up to the Function's `scale.max`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub instances: i32,

    /// Instances that the gateway has stopped using and that are to be stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub stopping: Vec<InstanceRef>,

    /// What runs, with the image by digest.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "a Revision's template can't change: change the Function, which makes a new Revision"}]))]
    pub template: Template,

    /// The numeric user that the image asks for; 65532 when it asks for none or for root.
    #[serde(default = "nobody")]
    #[schemars(range(min = 1), extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "a Revision's user can't change"}]))]
    pub image_user: i64,
}

/// One instance, named so that a later one of the same name is not meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct InstanceRef {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its unique id, never used again.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// What is known of a Revision. Written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionStatus {
    /// `Ready`: an instance of it has answered once. `Startable`: False, with the pod's own
    /// reason, while no instance can start.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Instances that exist and are not stopping.
    pub instances: i32,
    /// Instances of these that answer.
    pub ready: i32,
    /// Instances of these that are frozen until a request needs one.
    #[serde(skip_serializing_if = "is_zero")]
    pub parked: i32,
    /// Label selector of its instances, for the scale subresource.
    pub selector: String,
    /// How far its image is on the nodes; absent where images are not pulled ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PulledImages>,
}

/// How far an image is that is pulled ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct PulledImages {
    /// Nodes that the Revision may run on.
    pub nodes: i32,
    /// Nodes of these that have its image.
    pub pulled: i32,
    /// Nodes of these that could not pull it. An instance that starts there tries by itself.
    pub failed: i32,
    /// Why, for one of them, or why pulling ahead is not possible at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Nodes that joined the cluster up to then are done; absent while the first ones are under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_until: Option<Time>,
}

impl Revision {
    /// Namespace and name. An object from the API server has both.
    pub fn key(&self) -> RevisionKey {
        RevisionKey::of(&self.metadata)
    }
}

fn nobody() -> i64 {
    65532
}
