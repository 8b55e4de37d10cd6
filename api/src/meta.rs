//! Names, labels and annotations: how the objects of one Function find each other.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::Name;

/// API group of all Lambent resources.
pub const GROUP: &str = "lambent.dev";
/// Label on Revisions and instances: the Function's name.
pub const LABEL_FUNCTION: &str = "lambent.dev/function";
/// Label on instances: the Revision's name.
pub const LABEL_REVISION: &str = "lambent.dev/revision";
/// Label on pods that only pull an image ahead: the Revision's name. These are no instances.
pub const LABEL_PULL: &str = "lambent.dev/pull";
/// On such a pod: the node that it pulls to.
pub const ANNOTATION_NODE: &str = "lambent.dev/node";
/// Changing it on a Function resolves the image tag anew.
pub const ANNOTATION_REDEPLOY: &str = "lambent.dev/redeploy";
/// On a Revision: which source (template with the tag as written, and `redeploy`) led to it.
pub const ANNOTATION_SOURCE: &str = "lambent.dev/source";
/// Longest name of a Function: leaves room for `-<hash>-<number>` within a pod's host name.
pub const MAX_NAME_LENGTH: usize = 40;

/// Which Function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionKey {
    /// Namespace of the Function.
    pub namespace: Name,
    /// Name of the Function.
    pub name: Name,
}

impl FunctionKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Whose metadata these are.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which Revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RevisionKey {
    /// Namespace of the Revision and of its Function.
    pub namespace: Name,
    /// Name of the Revision: `<function>-<hash>`.
    pub name: Name,
}

impl RevisionKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Whose metadata these are.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for RevisionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
