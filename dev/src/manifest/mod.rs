//! Manifests: from the text of a file to Functions that a cluster would take, or to what is wrong
//! with them and in which line.
//!
//! ```text
//! text -> document: YAML with lines -> schema, CEL (as the API server) -> Function -> dev annotations
//! ```

mod annotations;
mod document;
mod metadata;
mod rules;
mod schema;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use lambent_api::{Function, Settings};

pub(crate) use annotations::PLACE;
pub use annotations::{Annotations, BUILD, COMMAND, WATCH, WORKDIR};
use document::Document;
use serde::{Deserialize, Serialize};

use crate::lossless;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// In which file.
    #[serde(with = "lossless")]
    pub file: PathBuf,
    /// In which line, from 1; 0 of what has no lines.
    pub line: usize,
    /// What.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, message } = self;
        match line {
            0 => write!(f, "{}: {message}", file.display()),
            line => write!(f, "{}:{line}: {message}", file.display()),
        }
    }
}

/// A Function as it stands in a file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file.
    pub file: PathBuf,
    /// The line of its name.
    pub line: usize,
    /// As a cluster would take it, with a namespace.
    pub function: Function,
    /// What it says about development.
    pub annotations: Annotations,
}

/// What a file has.
#[derive(Debug, Default)]
pub struct Contents {
    /// Functions without a fault.
    pub manifests: Vec<Manifest>,
    /// Documents of other kinds, which are not ours.
    pub others: usize,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Reads the text of a file.
pub fn read(file: &Path, text: &str) -> Contents {
    let mut contents = Contents::default();
    for document in document::documents(text) {
        let problem = |(line, message)| Problem { file: file.to_owned(), line, message };
        match document {
            Err(fault) => contents.problems.push(problem(fault)),
            Ok(document) if !document.is_function() => contents.others += 1,
            Ok(document) => match manifest(file, &document) {
                Ok(manifest) => contents.manifests.push(manifest),
                Err(faults) => contents.problems.extend(faults.into_iter().map(problem)),
            },
        }
    }
    contents
}

type Fault = (usize, String);

fn manifest(file: &Path, document: &Document) -> Result<Manifest, Vec<Fault>> {
    let value = schema::without_nulls(document.value.clone());
    let faults = schema::check(&value);
    if !faults.is_empty() {
        return Err(faults.into_iter().map(|fault| (document.line(&fault.pointer), fault.to_string())).collect());
    }
    let first = |message: String| vec![(document.line(""), message)];
    let mut function: Function = serde_json::from_value(value).map_err(|error| first(error.to_string()))?;
    Settings::try_from(&function.spec).map_err(|error| vec![(document.line("/spec"), error.to_string())])?;
    let namespace = function.metadata.namespace.take().filter(|namespace| !namespace.is_empty());
    function.metadata.namespace = Some(namespace.unwrap_or_else(|| "default".to_owned()));
    let annotations = Annotations::parse(function.metadata.annotations.as_ref())
        .map_err(|(name, message)| vec![(document.line(&pointer_of_annotation(name)), message)])?;
    let line = document.line("/metadata/name");
    Ok(Manifest { file: file.to_owned(), line, function, annotations })
}

fn pointer_of_annotation(name: &str) -> String {
    format!("/metadata/annotations/{}", metadata::escaped(name))
}

#[cfg(test)]
mod tests;
