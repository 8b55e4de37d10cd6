//! Defaults from the schema of the custom resource definitions, filled in as a server does.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value};

use super::Kind;

/// By kind, the schema of `spec`, less what leads to no default.
static SCHEMAS: LazyLock<HashMap<&'static str, Value>> = LazyLock::new(|| {
    let schema = |crd| {
        let crd = serde_json::to_value(crd).unwrap_or_default();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        defaults_of(spec).unwrap_or_default()
    };
    let [function, revision] = lambent_api::crd::all();
    HashMap::from([(Kind::Function.name(), schema(function)), (Kind::Revision.name(), schema(revision))])
});

/// The part of a schema that has defaults, if there is one.
fn defaults_of(schema: &Value) -> Option<Value> {
    let mut part = Map::new();
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields: Map<String, Value> = fields.filter_map(|(name, of)| Some((name.clone(), defaults_of(of)?))).collect();
    if !fields.is_empty() {
        part.insert("properties".to_owned(), fields.into());
    }
    part.extend(schema.get("items").and_then(defaults_of).map(|items| ("items".to_owned(), items)));
    part.extend(schema.get("default").map(|default| ("default".to_owned(), default.clone())));
    (!part.is_empty()).then(|| part.into())
}

/// Fills in what the schema of the kind has a default for.
pub(crate) fn fill_in(kind: Kind, object: &mut Value) {
    if let Some(schema) = SCHEMAS.get(kind.name()) {
        fill(schema, &mut object["spec"]);
    }
}

fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = property.get("default").filter(|_| !fields.contains_key(name)) {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    fill(property, field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(&schema["items"], item)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_said_is_filled_in_also_within_what_is_said() {
        let mut function = json!({"spec": {"image": "a", "scale": {"max": 3}}});
        fill_in(Kind::Function, &mut function);
        let spec = &function["spec"];
        assert_eq!((&spec["timeout"], &spec["concurrency"], &spec["port"]), (&json!("30s"), &json!(1), &json!(8080)));
        assert_eq!((&spec["scale"]["min"], &spec["scale"]["max"]), (&json!(0), &json!(3)));
        assert_eq!(spec["queue"]["depth"], json!(1000));
    }
}
