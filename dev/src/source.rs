//! What a Function is run from on this machine: a command, a directory, the files that are watched.
//! Its digest stands where a cluster has the image's, so that a change of any of them makes a new
//! Revision, and going back leads to the old one.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use lambent_api::Function;
use lambent_fleet::process::launch::PROCESS_REPOSITORY;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    find::parent,
    manifest::{Annotations, Manifest, WATCH, WORKDIR},
};

/// More is no source code.
const MAX_FILES: usize = 10_000;
/// Directories in which builds and tools write.
const NOT_WATCHED: [&str; 5] = ["target", "node_modules", "__pycache__", "venv", "dist"];

/// Why a source can't be read; about the annotation named first.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A directory or file that is not there, say.
    #[error("{annotation}: {path}: {source}")]
    Io {
        /// Which annotation named it.
        annotation: &'static str,
        /// What could not be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Watching the whole disk.
    #[error("{WATCH}: more than {MAX_FILES} files; name the directories of the source alone")]
    TooMany,
}

/// A source as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it runs.
    pub directory: PathBuf,
    /// Of everything that makes it, in hexadecimal.
    pub digest: String,
    /// Directories whose changes matter.
    pub watched: BTreeSet<PathBuf>,
}

impl Source {
    /// Reads the source of a manifest that has a command.
    ///
    /// # Errors
    /// If something that it names can't be read.
    pub fn read(manifest: &Manifest) -> Result<Self, SourceError> {
        let here = parent(&manifest.file);
        let Annotations { command, workdir, watch, build } = &manifest.annotations;
        let directory = here.join(workdir.as_deref().unwrap_or("."));
        let directory = fs::canonicalize(&directory).map_err(fault(WORKDIR, &directory))?;
        let mut hash = Sha256::new();
        for words in [command, build].into_iter().flatten() {
            hash.update(words.join("\0"));
            hash.update([0xff]);
        }
        hash.update(directory.as_os_str().as_encoded_bytes());
        let (mut watched, mut files) = (BTreeSet::new(), BTreeSet::new());
        for path in watch {
            collect(&here.join(path), true, &mut watched, &mut files)?;
        }
        for file in &files {
            // Gone between two looks: the next one comes with the news of it.
            let Ok(content) = fs::read(file) else { continue };
            hash.update(file.as_os_str().as_encoded_bytes());
            hash.update(Sha256::digest(&content));
        }
        Ok(Self { directory, digest: hexadecimal(hash), watched })
    }

    /// The Function as it runs from this source.
    pub fn run_by(&self, manifest: &Manifest) -> Function {
        let mut function = manifest.function.clone();
        let name = function.metadata.name.clone().unwrap_or_default();
        let template = &mut function.spec.template;
        template.image = image(&name, &self.digest);
        // The shell's dollars stay; $(PORT) is known to a template.
        let words = manifest.annotations.command.iter().flatten();
        template.command = words.map(|word| word.replace("$$", "$$$$")).collect();
        template.args = Vec::new();
        template.working_dir = Some(self.directory.display().to_string());
        function
    }
}

/// What stands where a cluster has the image of a Function that is run from a source of this digest.
pub(crate) fn image(function: &str, digest: &str) -> String {
    format!("{PROCESS_REPOSITORY}{function}@sha256:{digest}")
}

/// The digest of the same source as another one, for what was made of it is not there any more.
pub(crate) fn after_changes(digest: &str, changes: u64) -> String {
    hexadecimal(Sha256::new().chain_update(digest).chain_update(changes.to_be_bytes()))
}

/// Directories in which what a manifest names is, or would be.
pub(crate) fn named(manifest: &Manifest) -> BTreeSet<PathBuf> {
    let here = parent(&manifest.file);
    let Annotations { workdir, watch, .. } = &manifest.annotations;
    let there = |path: &String| {
        let path = here.join(path);
        path.ancestors().find(|path| path.is_dir()).map(Path::to_owned)
    };
    watch.iter().chain(workdir).filter_map(there).collect()
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fault(annotation: &'static str, path: &Path) -> impl Fn(io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Io { annotation, path: path.clone(), source }
}

fn collect(
    path: &Path,
    named: bool,
    directories: &mut BTreeSet<PathBuf>,
    files: &mut BTreeSet<PathBuf>,
) -> Result<(), SourceError> {
    if files.len() > MAX_FILES {
        return Err(SourceError::TooMany);
    }
    let kind = match fs::metadata(path) {
        Ok(kind) => kind,
        Err(error) if named => return Err(fault(WATCH, path)(error)),
        // A dangling link, or gone just now.
        Err(_) => return Ok(()),
    };
    if named && path.is_symlink() {
        // Where it leads, and whether it still leads there.
        directories.insert(parent(path));
        directories.extend(fs::canonicalize(path).ok().filter(|_| kind.is_file()).map(|target| parent(&target)));
    }
    if kind.is_file() {
        directories.extend(named.then(|| parent(path)));
        files.insert(path.to_owned());
        return Ok(());
    }
    if !kind.is_dir() || (!named && is_skipped(path)) {
        return Ok(());
    }
    directories.insert(path.to_owned());
    for entry in fs::read_dir(path).map_err(fault(WATCH, path))?.flatten() {
        // Links to directories may lead round in a circle.
        let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if !link && !is_hidden(&entry.path()) {
            collect(&entry.path(), false, directories, files)?;
        }
    }
    Ok(())
}

/// Whether a directory below a watched or a searched one is left out.
pub(crate) fn is_skipped(path: &Path) -> bool {
    is_hidden(path) || path.file_name().is_some_and(|name| NOT_WATCHED.iter().any(|skipped| name == *skipped))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn source(directory: &Path) -> Source {
        let text = "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata:\n  name: hello\n  annotations:\n    \
                    dev.lambent.dev/command: sh -c 'echo $$ $(PORT)'\n    dev.lambent.dev/watch: src main.py\nspec: {image: a, args: [x]}\n";
        let contents = manifest::read(&directory.join("f.yaml"), text);
        let source = Source::read(&contents.manifests[0]).unwrap();
        let function = source.run_by(&contents.manifests[0]);
        assert_eq!(function.spec.template.command, ["sh", "-c", "echo $$$$ $(PORT)"]);
        assert!(function.spec.template.args.is_empty());
        assert!(function.spec.template.image.ends_with(&source.digest));
        source
    }

    #[test]
    fn a_change_of_a_watched_file_changes_the_digest_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("src/target")).unwrap();
        fs::create_dir(path("src/inner")).unwrap();
        fs::write(path("main.py"), "1").unwrap();
        let first = source(directory.path());
        fs::write(path("other.py"), "1").unwrap();
        fs::write(path("src/target/built"), "1").unwrap();
        fs::write(path("src/.hidden"), "1").unwrap();
        assert_eq!(source(directory.path()), first);
        assert!(first.watched.contains(&path("src/inner")) && !first.watched.contains(&path("src/target")));
        fs::write(path("src/inner/a"), "1").unwrap();
        let second = source(directory.path());
        assert_ne!(second.digest, first.digest);
        fs::remove_file(path("src/inner/a")).unwrap();
        assert_eq!(source(directory.path()), first);
    }
}
