//! Standard output of the commands. A reader that has gone, such as `head`, is no error.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;
use thiserror::Error;

/// Nobody reads standard output any more: the command ends, and well.
#[derive(Debug, Error)]
#[error("nobody reads standard output any more")]
pub struct ReaderGone;

/// Prints a text.
pub fn print(text: &str) -> anyhow::Result<()> {
    write(text.as_bytes())
}

/// Writes bytes, so that they are seen at once.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => result.map_err(|error| anyhow::Error::from(error).context("writing to standard output")),
    }
}

/// Prints an object as JSON.
pub fn print_json<T: Serialize>(object: &T) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(object)?))
}

/// Prints an object as YAML.
pub fn print_yaml<T: Serialize>(object: &T) -> anyhow::Result<()> {
    print(&serde_yaml::to_string(object)?)
}

/// Something beside the output, for whoever looks. Nobody looking is no error.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "lambent: {text}");
}
