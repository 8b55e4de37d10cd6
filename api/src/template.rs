//! What runs: the part of a Function whose change makes a new Revision.

use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, EnvFromSource, EnvVar, Lifecycle, LocalObjectReference, Probe, ResourceRequirements,
        SecurityContext, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write};

/// What one instance is made of. The fields up to `imagePullPolicy` mean what they mean in a
/// Kubernetes container.
// What is large and mostly absent is boxed: caches hold thousands of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Container image. A tag is resolved to a digest when a Revision is made.
    #[schemars(length(min = 1, max = 1000))]
    pub image: String,

    /// Entry point; the image's own when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,

    /// Arguments to the entry point; the image's own when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,

    /// Environment variables. PORT is set by Lambent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// Environment variables from ConfigMaps and Secrets of the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,

    /// Working directory; the image's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,

    /// CPU and memory of each instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Box<ResourceRequirements>>,

    /// Overrides parts of the restricted security context that every instance gets: for example
    /// `runAsUser: 0` with `runAsNonRoot: false` for an image that must be root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Box<SecurityContext>>,

    /// Where the volumes of `pod.volumes` appear. A volume adds about 300 ms to a cold start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"]))]
    pub volume_mounts: Vec<VolumeMount>,

    /// Without one an instance is ready when it accepts a connection, which is seen within
    /// milliseconds. With one it is ready when the kubelet says so, in steps of whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Box<Probe>>,

    /// The kubelet restarts an instance that fails it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Box<Probe>>,

    /// Replaces the preStop sleep that keeps a stopping instance alive while it is busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Box<Lifecycle>>,

    /// IfNotPresent when absent: images are pinned by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Always", "IfNotPresent", "Never"]))]
    pub image_pull_policy: Option<String>,

    /// Where the process listens; also given to it as PORT.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// What the process speaks on its port.
    #[serde(default)]
    pub protocol: Protocol,

    /// Fields of the instance's pod.
    #[serde(default, skip_serializing_if = "PodFields::is_empty")]
    pub pod: PodFields,
}

/// What an instance speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Protocol {
    /// HTTP/1.1, WebSocket among it.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge: gRPC.
    H2c,
}

/// The choice of a pod's fields that a Function may set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct PodFields {
    /// Volumes for `volumeMounts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,

    /// Labels that a node must carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that an instance tolerates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// Which nodes, and nearness to other pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Box<Affinity>>,

    /// How instances spread over nodes and zones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// A RuntimeClass, such as one for gVisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,

    /// Whose identity instances have. A token is mounted only when this is set, and costs about
    /// 300 ms of each cold start, as any volume does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,

    /// Secrets for pulling the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// A PriorityClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

impl PodFields {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn default_port() -> i32 {
    8080
}

impl Template {
    /// The first 10 hexadecimal digits of the SHA-256 of the template as JSON with sorted keys.
    /// Two templates of the same digest run the same thing.
    ///
    /// # Errors
    /// Only if a Kubernetes type can't be written as JSON.
    pub fn digest(&self, salt: &str) -> Result<String, serde_json::Error> {
        // Through Value, whose maps are sorted: the digest must not change when fields are reordered here.
        let json = serde_json::to_value(self)?.to_string();
        let hash = Sha256::new().chain_update(json).chain_update([0]).chain_update(salt).finalize();
        Ok(hash.iter().take(5).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }
}

/// A number, or a share of something in percent: `2` or `25%`.
pub fn resolve_percent(value: &IntOrString, of: u32) -> Option<u32> {
    match value {
        IntOrString::Int(n) => u32::try_from(*n).ok(),
        IntOrString::String(text) => {
            let percent: u32 = text.strip_suffix('%')?.parse().ok()?;
            u32::try_from((u64::from(percent) * u64::from(of)).div_ceil(100)).ok()
        }
    }
}

/// The fields of [`Container`] that a template sets; the rest is the fleet's to fill.
impl From<&Template> for Container {
    fn from(template: &Template) -> Self {
        let some = |list: &Vec<String>| Some(list.clone()).filter(|l| !l.is_empty());
        Container {
            image: Some(template.image.clone()),
            command: some(&template.command),
            args: some(&template.args),
            env: Some(template.env.clone()),
            env_from: Some(template.env_from.clone()).filter(|l| !l.is_empty()),
            working_dir: template.working_dir.clone(),
            resources: template.resources.as_deref().cloned(),
            volume_mounts: Some(template.volume_mounts.clone()).filter(|l| !l.is_empty()),
            readiness_probe: template.readiness_probe.as_deref().cloned(),
            liveness_probe: template.liveness_probe.as_deref().cloned(),
            ..Container::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(yaml: &str) -> Template {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn defaults_do_not_change_what_runs() {
        let short = template("image: a");
        let long = template("{image: a, port: 8080, protocol: http1, env: [], pod: {}}");
        assert_eq!(short.digest("").unwrap(), long.digest("").unwrap());
        assert_eq!(short.digest("").unwrap().len(), 10);
    }

    #[test]
    fn every_change_of_what_runs_changes_the_digest() {
        let base = template("image: a").digest("").unwrap();
        for other in [
            "image: b",
            "{image: a, port: 81}",
            "{image: a, env: [{name: A, value: b}]}",
            "{image: a, pod: {runtimeClassName: x}}",
        ] {
            assert_ne!(template(other).digest("").unwrap(), base, "{other}");
        }
        assert_ne!(template("image: a").digest("again").unwrap(), base);
    }

    #[test]
    fn percentages_round_up() {
        assert_eq!(resolve_percent(&IntOrString::String("25%".into()), 10), Some(3));
        assert_eq!(resolve_percent(&IntOrString::Int(2), 10), Some(2));
        assert_eq!(resolve_percent(&IntOrString::String("x".into()), 10), None);
    }
}
