//! The custom resource definitions, generated from the types of this crate.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{Function, Revision};

/// Both definitions, in the order in which they are to be applied.
pub fn all() -> [CustomResourceDefinition; 2] {
    [Function::crd(), Revision::crd()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `kubectl apply` puts into an annotation may have 262,144 bytes.
    #[test]
    fn definitions_are_small_enough_for_client_side_apply() {
        for crd in all() {
            let size = serde_json::to_vec(&crd).unwrap().len();
            assert!(size < 262_144, "{} has {size} bytes", crd.metadata.name.unwrap());
        }
    }
}
