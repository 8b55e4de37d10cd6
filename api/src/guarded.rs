//! Objects as a watch gives them: one that can't be read is no reason to see none of the others. kube's
//! `DeserializeGuard` is the same by way of another tree of values, through which all types are compiled
//! once more: that is half a megabyte of program in each role.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// An object, or what can be read of it.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Unreadable>);

/// An object that can't be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Why.
    pub error: String,
    /// Which.
    pub metadata: ObjectMeta,
}

impl<'de, K: serde::de::DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(from)?;
        // The rest is taken apart by being read, and may be gone when that fails.
        let metadata = object["metadata"].clone();
        let read = serde_json::from_value(object).map_err(|error| error.to_string());
        Ok(Self(match read {
            Ok(object) => Ok(object),
            Err(error) => Err(Unreadable { error, metadata: metadata_of(metadata).map_err(D::Error::custom)? }),
        }))
    }
}

/// An object need not have any; then it has no name either.
fn metadata_of(value: Value) -> serde_json::Result<ObjectMeta> {
    Ok(serde_json::from_value::<Option<ObjectMeta>>(value)?.unwrap_or_default())
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Function;

    #[test]
    fn of_an_object_that_can_not_be_read_it_is_known_which_one_and_why() {
        let of = |image: Value| json!({"metadata": {"name": "hello", "namespace": "shop"}, "spec": {"image": image}});
        let guarded = |image| serde_json::from_value::<Guarded<Function>>(of(image));
        let well = guarded(json!("a")).unwrap();
        assert_eq!(well.meta().name.as_deref(), Some("hello"));
        assert_eq!(well.0.unwrap().spec.template.image, "a");
        let unreadable = guarded(json!(["a"])).unwrap();
        assert_eq!(unreadable.meta().namespace.as_deref(), Some("shop"));
        assert!(unreadable.0.unwrap_err().error.contains("expected a string"));
        assert_eq!(serde_json::from_value::<Guarded<Function>>(json!({})).unwrap().meta().name, None);
        // Without its name nobody could say anything about it.
        serde_json::from_value::<Guarded<Function>>(json!({"metadata": {"name": 1}, "spec": {}})).unwrap_err();
    }
}
