//! YAML documents with the lines of their nodes. The values come from one parser and the lines from
//! another that keeps them: what the second does not understand just has the line of its parent.
//!
//! kubectl reads YAML 1.1, in which a bare `yes` is true and `0644` is octal; so it is here.

use std::collections::HashMap;

use saphyr::{LoadableYamlNode, MarkedYaml, YamlData};
use serde_json::Value;

use super::{Fault, metadata::escaped};

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) value: Value,
    lines: HashMap<String, usize>,
    first_line: usize,
}

impl Document {
    pub(super) fn is_function(&self) -> bool {
        let api_version = self.value["apiVersion"].as_str().unwrap_or_default();
        api_version.split('/').next() == Some(lambent_api::meta::GROUP) && self.value["kind"] == "Function"
    }

    /// The line of the node at a JSON pointer, or else of what is nearest around it.
    pub(super) fn line(&self, pointer: &str) -> usize {
        let mut pointer = pointer;
        loop {
            match (self.lines.get(pointer), pointer.rfind('/')) {
                (Some(line), _) => return *line,
                (None, Some(end)) => pointer = &pointer[..end],
                (None, None) => return self.first_line,
            }
        }
    }
}

/// The documents of a text that are not empty.
pub(super) fn documents(text: &str) -> Vec<Result<Document, Fault>> {
    split(text).into_iter().filter_map(|(before, part)| document(before, &part)).collect()
}

/// A line of three dashes separates, as kubectl has it; each part with the number of lines before it.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        match line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t'])) {
            // What follows the dashes, such as a comment, stays in its line.
            Some(rest) => parts.push((number, format!("   {rest}\n"))),
            None => {
                if let Some((_, part)) = parts.last_mut() {
                    part.push_str(line);
                    part.push('\n');
                }
            }
        }
    }
    parts
}

fn document(before: usize, text: &str) -> Option<Result<Document, Fault>> {
    match parse(text) {
        Ok(Value::Null) => None,
        Ok(mut value) => {
            let first = text.lines().position(|line| {
                let line = line.trim_start();
                !line.is_empty() && !line.starts_with('#')
            });
            let mut notes = Notes { before, text: text.chars().collect(), ..Notes::default() };
            if let Some(root) = MarkedYaml::load_from_str(text).ok().and_then(|all| all.into_iter().next()) {
                notes.take(&root, "");
            }
            for (pointer, meant) in notes.older {
                if let Some(value) = value.pointer_mut(&pointer).filter(|value| value.is_string()) {
                    *value = meant;
                }
            }
            Some(Ok(Document { value, lines: notes.lines, first_line: before + first.unwrap_or(0) + 1 }))
        }
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            Some(Err((before + line, words(&error))))
        }
    }
}

fn parse(text: &str) -> Result<Value, serde_yaml::Error> {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text)?;
    value.apply_merge()?;
    let mut value = serde_yaml::from_value(value)?;
    whole_numbers(&mut value);
    Ok(value)
}

/// `2.0` is 2 in JSON, as kubectl writes it.
#[allow(clippy::cast_possible_truncation)] // Within the range in which there is nothing to lose.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15);
            *value = whole.map_or_else(|| value.clone(), |whole| (whole as i64).into());
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Without the position, which is told apart.
fn words(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// What is seen on the way through a document's nodes.
#[derive(Default)]
struct Notes {
    /// Lines of the file before this document.
    before: usize,
    text: Vec<char>,
    /// By JSON pointers.
    lines: HashMap<String, usize>,
    /// What YAML 1.1 takes for something else, and for what.
    older: Vec<(String, Value)>,
}

impl Notes {
    fn take(&mut self, node: &MarkedYaml<'_>, pointer: &str) {
        match &node.data {
            YamlData::Mapping(entries) => {
                for (key, value) in entries {
                    let Some(name) = key.data.as_str() else { continue };
                    let inner = format!("{pointer}/{}", escaped(name));
                    self.lines.insert(inner.clone(), self.before + key.span.start.line());
                    self.take(value, &inner);
                }
            }
            YamlData::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    let inner = format!("{pointer}/{index}");
                    self.lines.insert(inner.clone(), self.before + item.span.start.line());
                    self.take(item, &inner);
                }
            }
            _ => {
                let meant = older(&self.as_written(node));
                self.older.extend(meant.map(|meant| (pointer.to_owned(), meant)));
            }
        }
    }

    /// With its quotes or its tag, if it has any.
    fn as_written(&self, node: &MarkedYaml<'_>) -> String {
        let (start, end) = (node.span.start.index(), node.span.end.index());
        // The words in question are short.
        self.text.iter().skip(start).take(end.saturating_sub(start).min(32)).collect()
    }
}

/// What a bare word is in YAML 1.1, where that is no text.
fn older(word: &str) -> Option<Value> {
    match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true.into()),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false.into()),
        _ => {
            let digits = word.strip_prefix('0').filter(|digits| !digits.is_empty())?;
            i64::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with(['+', '-'])).map(Value::from)
        }
    }
}
