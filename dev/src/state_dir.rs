//! The private directory of a running `lambent dev`: what instances wrote, and where and with which
//! token the other commands reach it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

const ENDPOINT: &str = "endpoint.json";
const OUTPUT: &str = "output";
/// What each one's directory is called, before the number of its process: it may stand among files of others.
const PREFIX: &str = "lambent-dev-";
/// What says that a directory is ours to clear away, whatever it is called.
const MARKER: &str = ".lambent-dev";

/// No directory could be made.
#[derive(Debug, Error)]
#[error("no directory to write in, tried {tried}; name one with --state-dir")]
pub struct NoStateDir {
    tried: String,
}

/// How to reach a running `lambent dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its API server.
    pub server: String,
    /// The token for that.
    pub token: String,
    /// Its gateway.
    pub gateway: String,
    /// Its process.
    pub pid: i32,
}

/// The directory of this process; it goes with this value.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Where directories of all running ones are: as told, or where the user's runtime or state files are.
pub fn bases(told: Option<&Path>) -> Vec<PathBuf> {
    if let Some(told) = told {
        return vec![told.to_owned()];
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let bases = [variable("XDG_RUNTIME_DIR"), state].into_iter().flatten();
    bases.map(|base| base.join("lambent/dev")).collect()
}

impl StateDir {
    /// Makes one in the first of the places where that can be done, and clears away what ended
    /// processes left there.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn create(bases: &[PathBuf]) -> Result<Self, NoStateDir> {
        let mut tried = Vec::new();
        for base in bases {
            match make(base) {
                Ok(path) => return Ok(Self { path }),
                Err(error) => tried.push(format!("{} ({error})", base.display())),
            }
        }
        let tried =
            if tried.is_empty() { "neither XDG_RUNTIME_DIR nor HOME is set".to_owned() } else { tried.join(", ") };
        Err(NoStateDir { tried })
    }

    /// Where what instances write is kept.
    pub fn output(&self) -> PathBuf {
        self.path.join(OUTPUT)
    }

    /// Tells the other commands how to reach this one.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn tell(&self, endpoint: &Endpoint) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join(ENDPOINT))?;
        file.write_all(serde_json::to_string(endpoint)?.as_bytes())
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // What is left is cleared away by the next one.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Nothing is changed but what is made here: the base may be a directory with files of its owner's.
fn make(base: &Path) -> io::Result<PathBuf> {
    let mut private = DirBuilder::new();
    private.mode(0o700);
    private.recursive(true).create(base)?;
    for (pid, path) in each(base) {
        // One of our own number is of a past process.
        if !runs(pid) || is_own(pid) {
            let _ = fs::remove_dir_all(path);
        }
    }
    let path = base.join(format!("{PREFIX}{}", std::process::id()));
    private.recursive(false).create(&path)?;
    // Before all else: without it nobody clears the directory away.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(MARKER))?;
    private.create(path.join(OUTPUT))?;
    Ok(path)
}

/// The directories that were made here, with their processes.
fn each(base: &Path) -> impl Iterator<Item = (i32, PathBuf)> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
        Some(entry.path()).filter(|path| is_ours(path)).map(|path| (pid, path))
    })
}

/// Made here and by this user: in a directory that others may write in, one of theirs is not believed.
fn is_ours(directory: &Path) -> bool {
    let user = rustix::process::geteuid();
    let marker = fs::symlink_metadata(directory.join(MARKER)).is_ok_and(|marker| marker.is_file());
    let own = |meta: fs::Metadata| meta.is_dir() && (user.is_root() || meta.uid() == user.as_raw());
    marker && fs::symlink_metadata(directory).is_ok_and(own)
}

fn is_own(pid: i32) -> bool {
    u32::try_from(pid) == Ok(std::process::id())
}

fn runs(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The `lambent dev` that was started last and runs.
pub fn find(bases: &[PathBuf]) -> Option<Endpoint> {
    let all = bases.iter().flat_map(|base| each(base)).filter(|(pid, _)| runs(*pid));
    let told = all.filter_map(|(_, path)| {
        let file = path.join(ENDPOINT);
        let endpoint = serde_json::from_str(&fs::read_to_string(&file).ok()?).ok()?;
        Some((fs::metadata(&file).and_then(|meta| meta.modified()).ok()?, endpoint))
    });
    told.max_by_key(|(at, _)| *at).map(|(_, endpoint)| endpoint)
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_endpoint_is_found_while_its_process_runs_and_is_private() {
        let base = tempfile::tempdir().unwrap();
        let bases = [base.path().join("a/b")];
        let directory = StateDir::create(&bases).unwrap();
        assert_eq!(find(&bases), None);
        let pid = i32::try_from(std::process::id()).unwrap();
        let endpoint = Endpoint { server: "s".into(), token: "t".into(), gateway: "g".into(), pid };
        directory.tell(&endpoint).unwrap();
        assert_eq!(find(&bases), Some(endpoint));
        assert_eq!((mode(&directory.path), mode(&directory.path.join(ENDPOINT))), (0o700, 0o600));
        drop(directory);
        assert_eq!(find(&bases), None);
    }

    #[test]
    fn where_nothing_can_be_written_the_error_names_what_was_tried() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = StateDir::create(&[file.path().join("x")]).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()) && error.contains("--state-dir"), "{error}");
    }

    #[test]
    fn a_directory_with_files_of_its_owner_stays_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        // No process has these numbers.
        let theirs = ["2147483647", "lambent-dev-2147483646", "notes"].map(|name| base.path().join(name));
        for directory in &theirs {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "theirs").unwrap();
        }
        fs::set_permissions(base.path(), Permissions::from_mode(0o755)).unwrap();
        let left = base.path().join("lambent-dev-2147483645");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(MARKER), "").unwrap();
        let directory = StateDir::create(&[base.path().to_owned()]).unwrap();
        assert_eq!((mode(base.path()), mode(&directory.path)), (0o755, 0o700));
        assert!(theirs.iter().all(|directory| directory.join("file").exists()));
        assert!(!left.exists(), "what a killed one has left is cleared away");
        drop(directory);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), theirs.len());
    }
}
