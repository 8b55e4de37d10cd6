//! Where manifests are: files in directories, in theirs, and behind links.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::source::is_skipped;

/// What is at some paths.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files that may be manifests.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Directories whose changes matter.
    pub(crate) watched: BTreeSet<PathBuf>,
    /// Directories that can't be read, and why.
    pub(crate) unreadable: BTreeMap<PathBuf, String>,
    /// Links to what may be manifests, until they are followed.
    pub(crate) links: Vec<PathBuf>,
}

/// Looks for files.
///
/// # Errors
/// If one of the paths itself can't be read.
pub(crate) fn find(paths: &[PathBuf]) -> io::Result<Found> {
    let mut found = Found::default();
    for path in paths {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if fs::metadata(path).map_err(named)?.is_file() {
            found.file(path);
        } else {
            found.directory(path).map_err(named)?;
        }
        if path.is_symlink() {
            // Nothing else tells that it leads elsewhere now.
            found.watched.insert(parent(path));
        }
    }
    found.follow_links();
    Ok(found)
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

impl Found {
    fn file(&mut self, path: &Path) {
        self.watched.insert(parent(path));
        self.files.insert(path.to_owned());
    }

    fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.watched.insert(path.to_owned());
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let manifest = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            if kind.is_dir() && !is_skipped(&path) {
                self.below(&path);
            } else if kind.is_file() && manifest {
                self.file(&path);
            } else if kind.is_symlink() && manifest {
                self.links.push(path);
            }
        }
        Ok(())
    }

    fn below(&mut self, path: &Path) {
        match self.directory(path) {
            // Gone between two looks is as good as never there.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.unreadable.insert(path.to_owned(), error.to_string());
            }
            _ => {}
        }
    }

    /// Links to files, unless those are there anyway. Those to directories may lead round in a circle.
    fn follow_links(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let mut there: BTreeSet<PathBuf> = self.files.iter().filter_map(|file| fs::canonicalize(file).ok()).collect();
        for link in std::mem::take(&mut self.links) {
            // A link that leads nowhere is an editor's, say.
            let Ok(target) = fs::canonicalize(&link) else { continue };
            if target.is_file() && there.insert(target.clone()) {
                self.watched.insert(parent(&target));
                self.file(&link);
            }
        }
    }
}
