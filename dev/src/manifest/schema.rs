//! The checks of an API server: the schema of the generated definition, no unknown fields (as
//! `kubectl apply` has it by default), and the definition's CEL rules.

use std::{collections::HashSet, fmt, sync::LazyLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::rules;
use crate::store::{Kind, defaults};

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// Where, as a JSON pointer.
    pub(super) pointer: String,
    message: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = path(&self.pointer);
        if path.is_empty() { f.write_str(&self.message) } else { write!(f, "{path}: {}", self.message) }
    }
}

/// `spec.env[2].name` of `/spec/env/2/name`.
fn path(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |mut path, part| {
        let part = part.replace("~1", "/").replace("~0", "~");
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number || part.contains(['.', '/']) {
            path.push_str(&format!("[{part}]"));
        } else {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(&part);
        }
        path
    })
}

static FUNCTION: LazyLock<Option<JSONSchemaProps>> = LazyLock::new(|| {
    let [function, _] = lambent_api::crd::all();
    function.spec.versions.into_iter().next().and_then(|version| version.schema)?.open_api_v3_schema
});

/// Fields that every object has and that the definition does not describe.
const METADATA: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// Everything that does not fit in a Function.
pub(super) fn check(function: &Value) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let Some(schema) = FUNCTION.as_ref() else { return misfits };
    if function["apiVersion"] != "lambent.dev/v1alpha1" {
        misfits.push(Misfit {
            pointer: "/apiVersion".to_owned(),
            message: format!("{} is not known; it is lambent.dev/v1alpha1", function["apiVersion"]),
        });
    }
    check_metadata(function, &mut misfits);
    let mut function = function.clone();
    // The server's own, which a manifest that was read from a cluster still has.
    function.as_object_mut().map(|fields| fields.remove("status"));
    // As a server does before it checks: rules count on defaults.
    if function["spec"].is_object() {
        defaults::fill_in(Kind::Function, &mut function);
    }
    walk(schema, &function, "", &mut misfits);
    misfits
}

fn check_metadata(function: &Value, misfits: &mut Vec<Misfit>) {
    let mut misfit = |pointer: String, message: &str| misfits.push(Misfit { pointer, message: message.to_owned() });
    let metadata = &function["metadata"];
    if !metadata["name"].is_string() {
        misfit("/metadata".to_owned(), "name is missing");
    }
    for (name, value) in metadata.as_object().into_iter().flatten() {
        if !METADATA.contains(&name.as_str()) {
            misfit(format!("/metadata/{name}"), "unknown field");
        }
        if ["labels", "annotations"].contains(&name.as_str()) {
            for (key, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_string()) {
                let key = key.replace('~', "~0").replace('/', "~1");
                misfit(format!("/metadata/{name}/{key}"), &format!("must be a string: write \"{value}\""));
            }
        }
    }
}

fn walk(schema: &JSONSchemaProps, value: &Value, pointer: &str, misfits: &mut Vec<Misfit>) {
    let before = misfits.len();
    if let Some(message) = scalar(schema, value) {
        misfits.push(Misfit { pointer: pointer.to_owned(), message });
        return;
    }
    match value {
        Value::Object(fields) => {
            for name in schema.required.iter().flatten() {
                if fields.get(name).is_none_or(Value::is_null) {
                    misfits.push(Misfit { pointer: pointer.to_owned(), message: format!("{name} is missing") });
                }
            }
            for (name, field) in fields.iter().filter(|(_, field)| !field.is_null()) {
                let inner = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                match field_schema(schema, name, pointer) {
                    Field::Known(schema) => walk(schema, field, &inner, misfits),
                    Field::Free => {}
                    Field::Unknown => misfits.push(Misfit { pointer: inner, message: unknown(schema, name) }),
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    walk(schema, item, &format!("{pointer}/{index}"), misfits);
                }
            }
            misfits.extend(repeated(schema, items, pointer));
        }
        _ => {}
    }
    // Rules may count on what the schema says.
    if misfits.len() == before {
        let broken = rules::broken(schema.x_kubernetes_validations.as_deref().unwrap_or_default(), value);
        misfits.extend(broken.into_iter().map(|message| Misfit { pointer: pointer.to_owned(), message }));
    }
}

enum Field<'a> {
    Known(&'a JSONSchemaProps),
    Free,
    Unknown,
}

fn field_schema<'a>(schema: &'a JSONSchemaProps, name: &str, pointer: &str) -> Field<'a> {
    if let Some(schema) = schema.properties.as_ref().and_then(|properties| properties.get(name)) {
        return if pointer.is_empty() && name == "metadata" { Field::Free } else { Field::Known(schema) };
    }
    match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => Field::Known(schema),
        Some(JSONSchemaPropsOrBool::Bool(true)) => Field::Free,
        _ if schema.x_kubernetes_preserve_unknown_fields == Some(true) => Field::Free,
        _ if pointer.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name) => Field::Free,
        _ => Field::Unknown,
    }
}

fn unknown(schema: &JSONSchemaProps, name: &str) -> String {
    let near = |known: &&String| known.eq_ignore_ascii_case(name) || distance(known, name) <= 2;
    let known = schema.properties.iter().flatten().map(|(known, _)| known).find(near);
    known.map_or_else(|| "unknown field".to_owned(), |known| format!("unknown field; did you mean {known}?"))
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// What does not fit in the value itself.
fn scalar(schema: &JSONSchemaProps, value: &Value) -> Option<String> {
    let int_or_string = schema.x_kubernetes_int_or_string == Some(true);
    let fits = match schema.type_.as_deref() {
        _ if int_or_string => value.is_i64() || value.is_string(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        _ => true,
    };
    let is_allowed_null = value.is_null() && schema.nullable == Some(true);
    if !(fits || is_allowed_null) {
        let wanted = if int_or_string { "a whole number or a string" } else { in_words(schema.type_.as_deref()) };
        return Some(format!("must be {wanted}, is {value}"));
    }
    if let Some(allowed) = schema.enum_.as_ref().filter(|allowed| !allowed.iter().any(|one| one.0 == *value)) {
        let allowed: Vec<String> = allowed.iter().map(|one| one.0.to_string()).collect();
        return Some(format!("is {value}, and must be one of {}", allowed.join(", ")));
    }
    match value {
        Value::Number(number) => {
            let number = number.as_f64()?;
            if let Some(least) = schema.minimum.filter(|least| number < *least) {
                return Some(format!("is {value}, and must be at least {least}"));
            }
            schema.maximum.filter(|most| number > *most).map(|most| format!("is {value}, and must be at most {most}"))
        }
        Value::String(text) => {
            let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            if schema.min_length.is_some_and(|least| length < least) {
                return Some("must not be empty".to_owned());
            }
            if let Some(most) = schema.max_length.filter(|most| length > *most) {
                return Some(format!("has {length} characters, and may have {most}"));
            }
            let pattern = schema.pattern.as_deref().filter(|pattern| !rules::matches(pattern, text));
            pattern.map(|pattern| format!("is {value}, and must match {pattern}"))
        }
        Value::Array(items) => {
            let most = schema.max_items.filter(|most| i64::try_from(items.len()).unwrap_or(i64::MAX) > *most);
            most.map(|most| format!("has {} items, and may have {most}", items.len()))
        }
        _ => None,
    }
}

fn in_words(type_: Option<&str>) -> &'static str {
    match type_ {
        Some("string") => "a string",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some("array") => "a list",
        _ => "a map",
    }
}

/// Two items of a list of the same key.
fn repeated(schema: &JSONSchemaProps, items: &[Value], pointer: &str) -> Option<Misfit> {
    let keys = schema.x_kubernetes_list_map_keys.as_ref()?;
    let mut seen = HashSet::new();
    let key_of = |item: &Value| keys.iter().map(|key| item[key].to_string()).collect::<Vec<_>>().join(", ");
    let index = items.iter().position(|item| !seen.insert(key_of(item)))?;
    let message = format!("{} is there twice", key_of(&items[index]));
    Some(Misfit { pointer: format!("{pointer}/{index}"), message })
}
