//! Freezing the processes of a cgroup, and letting them go on.
//!
//! | version | freeze                     | is it frozen?                  |
//! | ------- | -------------------------- | ------------------------------ |
//! | 1       | `FROZEN` > `freezer.state` | `freezer.state` says `FROZEN`  |
//! | 2       | `1` > `cgroup.freeze`      | `cgroup.events`: `frozen 1`    |
//!
//! Version 2 is written after the kernel's documentation (cgroup-v2.rst); the test on a real one says so where
//! there is none. These files belong to the kernel: reading and writing them takes microseconds and never
//! waits for a disk, so it is done in place.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::hierarchy::{self, Hierarchy, Version};

/// A process in the middle of a long call into the kernel is not frozen before that has ended.
const FROZEN_WITHIN: Duration = Duration::from_millis(500);
/// A process that has vforked can't be frozen while its child is, which then never comes to its exec. Both are let
/// go on for a moment after so long, and frozen again.
const STUCK_AFTER: Duration = Duration::from_millis(20);
const GOES_ON_FOR: Duration = Duration::from_millis(2);
/// Between two looks at whether it is.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// The freezer of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freezer(Hierarchy);

/// Why a cgroup is not frozen.
#[derive(Debug, Error)]
pub enum FreezeError {
    /// The kernel refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It takes too long; it was let go on.
    #[error("not frozen within {} ms", FROZEN_WITHIN.as_millis())]
    Slow,
    /// It is not wanted any more; it was let go on.
    #[error("called back")]
    CalledBack,
}

impl FreezeError {
    /// Whether there is no such cgroup.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Io { error, .. }
            if matches!(error.kind(), io::ErrorKind::NotFound) || error.raw_os_error() == Some(ENODEV))
    }
}

/// What the kernel says of a file in a cgroup that is being removed.
const ENODEV: i32 = 19;

impl Freezer {
    /// The one of this hierarchy.
    pub fn new(hierarchy: Hierarchy) -> Self {
        Self(hierarchy)
    }

    /// Freezes a cgroup, and returns when it is. `wanted` is asked now and then; if it is not any more, or if
    /// it takes too long, the cgroup is let go on.
    ///
    /// # Errors
    /// Why it is not frozen.
    pub async fn freeze(&self, cgroup: &Path, wanted: impl Fn() -> bool) -> Result<(), FreezeError> {
        let begun = Instant::now();
        let (mut asked, mut pause) = (begun, FIRST_PAUSE);
        self.set(cgroup, true)?;
        let error = loop {
            match self.is_frozen(cgroup) {
                Ok(true) => return Ok(()),
                Ok(false) if begun.elapsed() > FROZEN_WITHIN => break FreezeError::Slow,
                Ok(false) if !wanted() => break FreezeError::CalledBack,
                Ok(false) if asked.elapsed() > STUCK_AFTER => {
                    self.set(cgroup, false)?;
                    sleep(GOES_ON_FOR).await;
                    self.set(cgroup, true)?;
                    (asked, pause) = (Instant::now(), FIRST_PAUSE);
                }
                Ok(false) => {}
                Err(error) => break error,
            }
            // Ends at FROZEN_WITHIN.
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        };
        self.thaw(cgroup)?;
        Err(error)
    }

    /// Lets a cgroup go on. One that is gone is no error.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn thaw(&self, cgroup: &Path) -> Result<(), FreezeError> {
        match self.set(cgroup, false) {
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether all of a cgroup is frozen.
    ///
    /// # Errors
    /// If it is gone, say.
    pub fn is_frozen(&self, cgroup: &Path) -> Result<bool, FreezeError> {
        match self.0.version {
            Version::One => Ok(self.read(cgroup, "freezer.state")?.trim() == "FROZEN"),
            Version::Two => Ok(self.read(cgroup, "cgroup.events")?.lines().any(|line| line == "frozen 1")),
        }
    }

    fn set(&self, cgroup: &Path, frozen: bool) -> Result<(), FreezeError> {
        let (file, text) = match (self.0.version, frozen) {
            (Version::One, true) => ("freezer.state", "FROZEN"),
            (Version::One, false) => ("freezer.state", "THAWED"),
            (Version::Two, true) => ("cgroup.freeze", "1"),
            (Version::Two, false) => ("cgroup.freeze", "0"),
        };
        let path = self.0.file(cgroup, file);
        hierarchy::write(&path, text).map_err(|error| FreezeError::Io { path, error })
    }

    fn read(&self, cgroup: &Path, file: &str) -> Result<String, FreezeError> {
        let path = self.0.file(cgroup, file);
        fs::read_to_string(&path).map_err(|error| FreezeError::Io { path, error })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
