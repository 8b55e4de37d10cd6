//! Where the cgroup of a container is, from what its runtime says of it. Pure.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a container has no cgroup that may be frozen.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// Neither a path nor a unit.
    #[error("a cgroup that is not understood: {0:?}")]
    Form(String),
    /// Another pod's or another container's, by its name.
    #[error("the cgroup {0:?} is not named after its pod and its container")]
    Foreign(PathBuf),
}

/// The cgroup of a container below the root of a hierarchy. `said` is `cgroupsPath` of its OCI configuration:
///
/// | cgroup driver | said                                  | path                                              |
/// | ------------- | ------------------------------------- | ------------------------------------------------- |
/// | cgroupfs      | `/kubepods/pod<uid>/<id>`             | the same                                          |
/// | systemd       | `kubepods-pod<uid>.slice:prefix:<id>` | `kubepods.slice/kubepods-pod<uid>.slice/prefix-<id>.scope` |
///
/// It must be named after the pod and the container, so that never anything else is frozen.
///
/// # Errors
/// If it is something else.
pub fn path(said: &str, pod: &str, container: &str) -> Result<PathBuf, PathError> {
    let path = match said.split(':').collect::<Vec<_>>()[..] {
        [path] if path.starts_with('/') => PathBuf::from(path.trim_start_matches('/')),
        [slice, prefix, name] => below_slices(slice)
            .ok_or_else(|| PathError::Form(said.to_owned()))?
            .join(if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") }),
        _ => return Err(PathError::Form(said.to_owned())),
    };
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if plain && is_named_after(&path, pod, container) { Ok(path) } else { Err(PathError::Foreign(path)) }
}

/// `a-b.slice` is in `a.slice`, as systemd has it.
fn below_slices(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty())?;
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Some(ends.map(|end| format!("{}.slice", &name[..end])).collect())
}

fn is_named_after(path: &Path, pod: &str, container: &str) -> bool {
    let name = |path: Option<&Path>| path.and_then(Path::file_name).and_then(|name| name.to_str()).map(str::to_owned);
    let (own, parent) = (name(Some(path)), name(path.parent()));
    // systemd has a meaning for '-'.
    let pods = [format!("pod{pod}"), format!("pod{}", pod.replace('-', "_"))];
    let of_container =
        own.is_some_and(|own| !container.is_empty() && own.trim_end_matches(".scope").ends_with(container));
    let of_pod = parent.is_some_and(|parent| pods.iter().any(|pod| parent.trim_end_matches(".slice").ends_with(pod)));
    !pod.is_empty() && of_container && of_pod
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "be98c821-d732-485f-b7b5-7cc32569c903";
    const ID: &str = "4f15dab9f48a5128";

    #[test]
    fn both_drivers_name_the_cgroup_in_their_own_way() {
        let cgroupfs = format!("/kubepods/burstable/pod{POD}/{ID}");
        assert_eq!(path(&cgroupfs, POD, ID).unwrap(), PathBuf::from(cgroupfs.trim_start_matches('/')));
        let pod = POD.replace('-', "_");
        let systemd = format!("kubepods-burstable-pod{pod}.slice:cri-containerd:{ID}");
        let expected = format!(
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice/cri-containerd-{ID}.scope"
        );
        assert_eq!(path(&systemd, POD, ID).unwrap(), PathBuf::from(expected));
    }

    #[test]
    fn the_cgroup_of_anything_else_is_refused() {
        for said in [
            format!("/kubepods/pod{POD}"),
            format!("/kubepods/podother/{ID}"),
            format!("/kubepods/pod{POD}/another"),
            format!("/kubepods/pod{POD}/../pod{POD}/{ID}"),
            "/".to_owned(),
        ] {
            assert!(matches!(path(&said, POD, ID), Err(PathError::Foreign(_))), "{said}");
        }
        for said in ["", "kubepods", "a:b", "a:b:c:d", ".slice:x:y"] {
            assert!(matches!(path(said, POD, ID), Err(PathError::Form(_))), "{said}");
        }
        assert!(path(&format!("/kubepods/pod/{ID}"), "", ID).is_err());
        assert!(path(&format!("/kubepods/pod{POD}/x"), POD, "").is_err());
    }
}
