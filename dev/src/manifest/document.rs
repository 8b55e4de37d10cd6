//! YAML documents with the lines of their nodes. The values come from one parser and the lines from
//! another that keeps them: what the second does not understand just has the line of its parent.

use std::collections::HashMap;

use saphyr::{LoadableYamlNode, MarkedYaml, YamlData};
use serde_json::Value;

use super::Fault;

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
        Ok(value) => {
            let first = text.lines().position(|line| {
                let line = line.trim_start();
                !line.is_empty() && !line.starts_with('#')
            });
            let mut lines = HashMap::new();
            if let Some(root) = MarkedYaml::load_from_str(text).ok().and_then(|all| all.into_iter().next()) {
                note(&root, "", before, &mut lines);
            }
            Some(Ok(Document { value, lines, first_line: before + first.unwrap_or(0) + 1 }))
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
    serde_yaml::from_value(value)
}

/// Without the position, which is told apart.
fn words(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

fn note(node: &MarkedYaml<'_>, pointer: &str, before: usize, lines: &mut HashMap<String, usize>) {
    match &node.data {
        YamlData::Mapping(entries) => {
            for (key, value) in entries {
                let Some(name) = key.data.as_str() else { continue };
                let inner = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                lines.insert(inner.clone(), before + key.span.start.line());
                note(value, &inner, before, lines);
            }
        }
        YamlData::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                let inner = format!("{pointer}/{index}");
                lines.insert(inner.clone(), before + item.span.start.line());
                note(item, &inner, before, lines);
            }
        }
        _ => {}
    }
}
