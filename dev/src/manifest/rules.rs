//! CEL rules of a definition (`x-kubernetes-validations`), evaluated as an API server does when an
//! object is created.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use cel::{Context, Program, Value as Cel};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use parking_lot::Mutex;
use serde_json::Value;

/// Compiled once: there are a few rules, and they are asked for every manifest. Bounded, as they are
/// all ours.
static PROGRAMS: LazyLock<Mutex<HashMap<String, Arc<Program>>>> = LazyLock::new(Mutex::default);

fn compiled(rule: &str) -> Result<Arc<Program>, String> {
    if let Some(program) = PROGRAMS.lock().get(rule) {
        return Ok(program.clone());
    }
    let program = Arc::new(Program::compile(rule).map_err(|error| error.to_string())?);
    PROGRAMS.lock().insert(rule.to_owned(), program.clone());
    Ok(program)
}

/// The messages of the rules that a value breaks.
pub(super) fn broken(rules: &[ValidationRule], value: &Value) -> Vec<String> {
    // A rule about the object before has nothing to say about a new one.
    let rules = rules.iter().filter(|rule| !rule.rule.contains("oldSelf"));
    rules.filter_map(|rule| breaks(&rule.rule, value).err().map(|words| message(rule, words))).collect()
}

fn message(rule: &ValidationRule, words: Option<String>) -> String {
    match (words, &rule.message) {
        (Some(words), _) => format!("rule {:?} can't be evaluated: {words}", rule.rule),
        (None, Some(message)) => message.clone(),
        (None, None) => format!("breaks the rule {:?}", rule.rule),
    }
}

/// Without words the rule says no.
fn breaks(rule: &str, value: &Value) -> Result<(), Option<String>> {
    match evaluate(rule, value).map_err(Some)? {
        Cel::Bool(true) => Ok(()),
        Cel::Bool(false) => Err(None),
        other => Err(Some(format!("it is {other:?}"))),
    }
}

fn evaluate(rule: &str, value: &Value) -> Result<Cel, String> {
    let program = compiled(rule)?;
    let mut context = Context::default();
    context.add_variable_from_value("self", to_cel(value));
    program.execute(&context).map_err(|error| error.to_string())
}

/// Whether a text matches a regular expression, by CEL's own means.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let Ok(program) = compiled("text.matches(pattern)") else { return true };
    let mut context = Context::default();
    context.add_variable_from_value("text", text.to_owned());
    context.add_variable_from_value("pattern", pattern.to_owned());
    // What can't be evaluated is the server's to say.
    !matches!(program.execute(&context), Ok(Cel::Bool(false)))
}

/// Whole numbers are `int`, as a schema has it, and never `uint`.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Cel::Int(number),
            None => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields: HashMap<String, Cel> =
                fields.iter().map(|(name, field)| (name.clone(), to_cel(field))).collect();
            Cel::Map(fields.into())
        }
    }
}
