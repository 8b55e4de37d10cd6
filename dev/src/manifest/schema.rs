//! The checks of an API server: the schema of the generated definition, no unknown fields (as
//! `kubectl apply` has it by default), and the definition's CEL rules.

mod compact;

use std::{collections::HashSet, fmt, sync::LazyLock};

use serde_json::Value;

use self::compact::{Others, Schema, Type};
use super::{metadata, rules};
use crate::store::{Kind, defaults};

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// Where, as a JSON pointer.
    pub(super) pointer: String,
    message: String,
}

impl Misfit {
    pub(super) fn new(pointer: &str, message: impl Into<String>) -> Self {
        Self { pointer: pointer.to_owned(), message: message.into() }
    }
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

static FUNCTION: LazyLock<Option<Schema>> = LazyLock::new(|| {
    let [function, _] = lambent_api::crd::all();
    let version = function.spec.versions.into_iter().next()?;
    Some(version.schema?.open_api_v3_schema?.into())
});

/// As `kubectl apply` has it: what is empty (null) is as if it was not said. A label without a text has an
/// empty one.
pub(super) fn without_nulls(mut function: Value) -> Value {
    if let Some(schema) = FUNCTION.as_ref() {
        prune(schema, &mut function);
    }
    for kind in ["labels", "annotations"] {
        let pairs = function.pointer_mut(&format!("/metadata/{kind}")).and_then(Value::as_object_mut);
        for value in pairs.into_iter().flat_map(|pairs| pairs.values_mut()).filter(|value| value.is_null()) {
            *value = Value::String(String::new());
        }
    }
    function
}

fn prune(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // One that nobody knows is kept, to be told.
            let is_kept = |name: &str| described(schema, name).is_none();
            fields.retain(|name, field| !field.is_null() || is_kept(name));
            for (name, field) in fields {
                if let Some(schema) = described(schema, name) {
                    prune(schema, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                items.iter_mut().for_each(|item| prune(schema, item));
            }
        }
        _ => {}
    }
}

/// Everything that does not fit in a Function.
pub(super) fn check(function: &Value) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let Some(schema) = FUNCTION.as_ref() else { return misfits };
    if function["apiVersion"] != "lambent.dev/v1alpha1" {
        let message = format!("{} is not known; it is lambent.dev/v1alpha1", function["apiVersion"]);
        misfits.push(Misfit::new("/apiVersion", message));
    }
    misfits.extend(metadata::check(&function["metadata"]));
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

fn walk(schema: &Schema, value: &Value, pointer: &str, misfits: &mut Vec<Misfit>) {
    let before = misfits.len();
    if let Some(message) = scalar(schema, value) {
        misfits.push(Misfit::new(pointer, message));
        return;
    }
    match value {
        Value::Object(fields) => {
            for name in &schema.required {
                if fields.get(&**name).is_none_or(Value::is_null) {
                    misfits.push(Misfit::new(pointer, format!("{name} is missing")));
                }
            }
            for (name, field) in fields {
                let inner = format!("{pointer}/{}", metadata::escaped(name));
                match field_schema(schema, name, pointer) {
                    Field::Known(schema) => walk(schema, field, &inner, misfits),
                    Field::Free => {}
                    Field::Unknown => misfits.push(Misfit::new(&inner, unknown(schema, name))),
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    walk(schema, item, &format!("{pointer}/{index}"), misfits);
                }
            }
            misfits.extend(repeated(schema, items, pointer));
        }
        _ => {}
    }
    // Rules may count on what the schema says, and on a value.
    if misfits.len() == before && !value.is_null() {
        let broken = rules::broken(&schema.rules, value);
        misfits.extend(broken.into_iter().map(|message| Misfit::new(pointer, message)));
    }
}

enum Field<'a> {
    Known(&'a Schema),
    Free,
    Unknown,
}

fn field_schema<'a>(schema: &'a Schema, name: &str, pointer: &str) -> Field<'a> {
    let is_everyones = pointer.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name);
    match (described(schema, name), &schema.others) {
        (Some(_), _) if pointer.is_empty() && name == "metadata" => Field::Free,
        (Some(schema), _) => Field::Known(schema),
        (None, Others::None) if !is_everyones => Field::Unknown,
        (None, _) => Field::Free,
    }
}

fn described<'a>(schema: &'a Schema, name: &str) -> Option<&'a Schema> {
    let of_others = match &schema.others {
        Others::Schema(schema) => Some(&**schema),
        Others::Free | Others::None => None,
    };
    schema.properties.get(name).or(of_others)
}

fn unknown(schema: &Schema, name: &str) -> String {
    let near = |known: &str| known.eq_ignore_ascii_case(name) || distance(known, name) <= 2;
    let known = schema.properties.keys().find(|known| near(known));
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
fn scalar(schema: &Schema, value: &Value) -> Option<String> {
    let fits = match schema.type_ {
        Type::IntOrString => value.is_i64() || value.is_string(),
        Type::String => value.is_string(),
        Type::Integer => value.is_i64() || value.is_u64(),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::Any => true,
    };
    if !(fits || value.is_null() && schema.nullable) {
        return Some(format!("must be {}, is {value}", schema.type_.in_words()));
    }
    if !(schema.allowed.is_empty() || schema.allowed.contains(value)) {
        let allowed: Vec<String> = schema.allowed.iter().map(Value::to_string).collect();
        return Some(format!("is {value}, and must be one of {}", allowed.join(", ")));
    }
    let schema = schema.limits.as_deref()?;
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

/// Two items of a list of the same key.
fn repeated(schema: &Schema, items: &[Value], pointer: &str) -> Option<Misfit> {
    let keys = &schema.list_map_keys;
    if keys.is_empty() {
        return None;
    }
    let mut seen = HashSet::new();
    let key_of = |item: &Value| keys.iter().map(|key| item[&**key].to_string()).collect::<Vec<_>>().join(", ");
    let index = items.iter().position(|item| !seen.insert(key_of(item)))?;
    let message = format!("{} is there twice", key_of(&items[index]));
    Some(Misfit::new(&format!("{pointer}/{index}"), message))
}
