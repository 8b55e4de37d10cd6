//! The `scale` subresource: a view of an object as a `Scale`, and back.

use serde_json::{Value, json};

use super::{Kind, Refusal};

/// The object as a `Scale`. A count of zero is left out, as servers do.
pub(super) fn scale(kind: Kind, object: &Value) -> Result<Value, Refusal> {
    let path = kind.replicas_path().ok_or_else(|| Refusal::NotFound("scale".to_owned()))?;
    let replicas = object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let meta = &object["metadata"];
    let mut scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {},
        "spec": {},
        "status": {"replicas": object["status"]["instances"].as_i64().unwrap_or(0)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(field) {
            scale["metadata"][field] = value.clone();
        }
    }
    if replicas != 0 {
        scale["spec"]["replicas"] = replicas.into();
    }
    if let Some(selector) = object["status"].get("selector") {
        scale["status"]["selector"] = selector.clone();
    }
    Ok(scale)
}

/// Takes the count of a `Scale` over into the object.
pub(super) fn take_over(kind: Kind, object: &mut Value, scale: &Value) -> Result<(), Refusal> {
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        number => number
            .as_i64()
            .filter(|count| (0..=10_000).contains(count))
            .ok_or_else(|| Refusal::Invalid(format!("spec.replicas: {number} is no count")))?,
    };
    let path = kind.replicas_path().ok_or_else(|| Refusal::NotFound("scale".to_owned()))?;
    let mut place = object;
    for field in path.split('/').skip(1) {
        place = &mut place[field];
    }
    *place = replicas.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_goes_there_and_back() {
        let mut revision = json!({"metadata": {"name": "r"}, "spec": {"instances": 0}, "status": {"instances": 2}});
        let mut seen = scale(Kind::Revision, &revision).unwrap();
        assert_eq!((&seen["spec"], &seen["status"]["replicas"]), (&json!({}), &json!(2)));
        seen["spec"]["replicas"] = 3.into();
        take_over(Kind::Revision, &mut revision, &seen).unwrap();
        assert_eq!(revision["spec"]["instances"], 3);
        seen["spec"]["replicas"] = (-1).into();
        assert!(take_over(Kind::Revision, &mut revision, &seen).is_err());
    }
}
