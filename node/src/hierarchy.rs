//! Where a node has the cgroups of a controller: each mounted for itself in version 1, all in one place in
//! version 2.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Which version of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    One,
    /// One for all.
    Two,
}

/// The cgroups of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where they are.
    pub root: PathBuf,
    /// How they are spoken to.
    pub version: Version,
}

impl Hierarchy {
    /// That of `controller` below `root`, the directory where the node has its cgroups; none if it has none there.
    /// `mounts` is what `/proc/self/mountinfo` says. Version 1 where there is one, as then containers are in it.
    pub fn find(root: &Path, mounts: &str, controller: &str) -> Option<Self> {
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let one = mounts.iter().find(|m| {
            m.kind == "cgroup" && m.at.starts_with(root) && m.options.split(',').any(|option| option == controller)
        });
        let two = || mounts.iter().find(|m| m.kind == "cgroup2" && m.at == root);
        let hierarchy = |m: &Mount<'_>, version| Self { root: m.at.to_owned(), version };
        one.map(|m| hierarchy(m, Version::One)).or_else(|| two().map(|m| hierarchy(m, Version::Two)))
    }

    /// Where a file of a cgroup is.
    pub fn file(&self, cgroup: &Path, name: &str) -> PathBuf {
        self.root.join(cgroup).join(name)
    }

    /// Removes a cgroup of a test with those around it. What was in it has ended, or is just ending.
    #[cfg(test)]
    pub(crate) fn remove(&self, cgroup: &Path) {
        let begun = std::time::Instant::now();
        for directory in cgroup.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            while fs::remove_dir(self.root.join(directory)).is_err() && begun.elapsed().as_secs() < 2 {
                std::thread::yield_now();
            }
        }
    }
}

/// Writes to a file of a cgroup. Never makes one: only the kernel does.
///
/// # Errors
/// If the kernel refuses.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(path)?, text.as_bytes())
}

/// A line of `mountinfo`.
struct Mount<'a> {
    at: &'a Path,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 / /where rw,noatime master:1 - kind source options`
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let at = Path::new(before.split(' ').nth(4)?);
        Some(Self { at, kind: after.next()?, options: after.nth(1)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/sys/fs/cgroup";

    #[test]
    fn a_controller_is_found_by_the_version_that_has_it() {
        let find = |mounts| Hierarchy::find(Path::new(ROOT), mounts, "freezer").map(|h| (h.version, h.root));
        let one = "30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            32 30 0:28 / /sys/fs/cgroup/freezer rw,relatime shared:9 master:1 - cgroup cgroup rw,freezer\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(find(one), Some((Version::One, "/sys/fs/cgroup/freezer".into())));
        assert_eq!(Hierarchy::find(Path::new(ROOT), one, "memory"), None);
        let two = "30 29 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(find(two), Some((Version::Two, ROOT.into())));
        assert_eq!(find("30 29 0:26 / /elsewhere rw - cgroup2 cgroup2 rw"), None);
        assert_eq!(find("nonsense"), None);
    }
}
