//! The custom resource definitions, generated from the types of this crate.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use crate::{Function, Revision};

/// Both definitions, in the order in which they are to be applied.
pub fn all() -> [CustomResourceDefinition; 2] {
    [Function::crd(), Revision::crd()].map(without_false_nulls)
}

/// The generator lets each number or string be null, also where there must be one: a server would then keep
/// the null that a manifest leaves, where it otherwise fills in the default, and nobody could read the object.
fn without_false_nulls(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas =
        crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    schemas.for_each(require_values);
    crd
}

fn require_values(schema: &mut JSONSchemaProps) {
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.nullable = None;
    }
    schema.properties.iter_mut().flat_map(|fields| fields.values_mut()).for_each(require_values);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        require_values(items);
    }
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
