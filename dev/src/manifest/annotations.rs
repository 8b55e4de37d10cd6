//! What a manifest says about development, in annotations that a cluster does not mind.

use std::collections::BTreeMap;

/// All of them begin so.
const PREFIX: &str = "dev.lambent.dev/";
/// What is run instead of the image, as words of a shell.
pub const COMMAND: &str = "dev.lambent.dev/command";
/// Where it is run, relative to the manifest; where that is when absent.
pub const WORKDIR: &str = "dev.lambent.dev/workdir";
/// Files and directories, relative to the manifest, whose change makes a new Revision; as words of a shell.
pub const WATCH: &str = "dev.lambent.dev/watch";
/// What is run before a new Revision is made, as words of a shell; where it fails none is made. All that it
/// has started is gone when it ends.
pub const BUILD: &str = "dev.lambent.dev/build";

/// Where the manifest is, `file:line`: `lambent dev` says so in the Functions that it serves.
pub(crate) const PLACE: &str = "dev.lambent.dev/manifest";

/// What a manifest says about development.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// [`COMMAND`]
    pub command: Option<Vec<String>>,
    /// [`WORKDIR`]
    pub workdir: Option<String>,
    /// [`WATCH`]
    pub watch: Vec<String>,
    /// [`BUILD`]
    pub build: Option<Vec<String>>,
}

impl Annotations {
    /// Parses them, or names the one that is wrong and why.
    pub(super) fn parse(all: Option<&BTreeMap<String, String>>) -> Result<Self, (&str, String)> {
        let mut annotations = Self::default();
        for (name, value) in all.into_iter().flatten().filter(|(name, _)| name.starts_with(PREFIX)) {
            let fault = |message: String| (name.as_str(), format!("{name}: {message}"));
            let words = || shell_words::split(value).map_err(|error| fault(error.to_string()));
            let command = || {
                words().and_then(|words| if words.is_empty() { Err(fault("is empty".to_owned())) } else { Ok(words) })
            };
            match name.as_str() {
                COMMAND => annotations.command = Some(command()?),
                BUILD => annotations.build = Some(command()?),
                WORKDIR => annotations.workdir = Some(value.clone()),
                WATCH => annotations.watch = words()?,
                // Who saves what is shown of a Function has it in the manifest.
                PLACE => {}
                _ => return Err(fault(format!("not known; there are {COMMAND}, {WORKDIR}, {WATCH} and {BUILD}"))),
            }
        }
        Ok(annotations)
    }
}
