//! A definition's schema, less what is not checked: with its documentation it takes megabytes.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use serde_json::Value;

/// What a value must be like.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) type_: Type,
    pub(super) nullable: bool,
    pub(super) properties: BTreeMap<Box<str>, Schema>,
    /// Fields that are no properties.
    pub(super) others: Others,
    pub(super) required: Box<[Box<str>]>,
    pub(super) items: Option<Box<Schema>>,
    /// Any, when empty.
    pub(super) allowed: Box<[Value]>,
    /// Fields that tell items of a list apart.
    pub(super) list_map_keys: Box<[Box<str>]>,
    pub(super) rules: Box<[ValidationRule]>,
    pub(super) limits: Option<Box<Limits>>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Any,
    String,
    Integer,
    Number,
    Boolean,
    Object,
    Array,
    IntOrString,
}

/// Which fields a map may have beside its properties.
#[derive(Debug)]
pub(super) enum Others {
    None,
    Free,
    Schema(Box<Schema>),
}

/// How much of it there may be.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Limits {
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) min_length: Option<i64>,
    pub(super) max_length: Option<i64>,
    pub(super) max_items: Option<i64>,
    pub(super) pattern: Option<String>,
}

impl Type {
    fn parse(name: Option<&str>) -> Self {
        match name {
            Some("string") => Self::String,
            Some("integer") => Self::Integer,
            Some("number") => Self::Number,
            Some("boolean") => Self::Boolean,
            Some("object") => Self::Object,
            Some("array") => Self::Array,
            _ => Self::Any,
        }
    }

    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Array => "a list",
            Self::Object => "a map",
            Self::IntOrString => "a whole number or a string",
            Self::Any => "anything",
        }
    }
}

impl From<JSONSchemaProps> for Schema {
    fn from(props: JSONSchemaProps) -> Self {
        let boxed = |list: Option<Vec<String>>| list.into_iter().flatten().map(String::into_boxed_str).collect();
        let int_or_string = props.x_kubernetes_int_or_string == Some(true);
        let limits = Limits {
            minimum: props.minimum,
            maximum: props.maximum,
            min_length: props.min_length,
            max_length: props.max_length,
            max_items: props.max_items,
            pattern: props.pattern,
        };
        let properties = props.properties.into_iter().flatten();
        Self {
            type_: if int_or_string { Type::IntOrString } else { Type::parse(props.type_.as_deref()) },
            nullable: props.nullable == Some(true),
            properties: properties.map(|(name, schema)| (name.into_boxed_str(), schema.into())).collect(),
            others: match props.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(schema)) => Others::Schema(Box::new((*schema).into())),
                Some(JSONSchemaPropsOrBool::Bool(true)) => Others::Free,
                _ if props.x_kubernetes_preserve_unknown_fields == Some(true) => Others::Free,
                _ => Others::None,
            },
            required: boxed(props.required),
            items: match props.items {
                Some(JSONSchemaPropsOrArray::Schema(schema)) => Some(Box::new((*schema).into())),
                _ => None,
            },
            allowed: props.enum_.into_iter().flatten().map(|value| value.0).collect(),
            list_map_keys: boxed(props.x_kubernetes_list_map_keys),
            rules: props.x_kubernetes_validations.unwrap_or_default().into_boxed_slice(),
            limits: (limits != Limits::default()).then(|| Box::new(limits)),
        }
    }
}
