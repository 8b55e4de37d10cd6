//! A session of processes, found again by its number. A supervisor leads one, and all that it starts
//! is in it, in whatever group, unless it leaves by itself.

use std::{collections::HashSet, fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// Kills every process of this session. Only Linux says who they are; elsewhere there is none.
pub(super) fn kill_session(session: Pid) {
    let mut killed = HashSet::new();
    loop {
        // What was killed forks no more, however long it takes to end: a look without a new one is the last.
        let new: Vec<Pid> = processes().filter(|pid| !killed.contains(pid) && runs_in(*pid, session)).collect();
        if new.is_empty() {
            return;
        }
        for pid in new {
            let _ = kill_process(pid, Signal::KILL);
            killed.insert(pid);
        }
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn runs_in(pid: Pid, session: Pid) -> bool {
    let stat = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("stat");
    fs::read_to_string(stat).is_ok_and(|stat| running_session(&stat) == Some(session.as_raw_nonzero().get()))
}

/// The session of a process that runs, by its `stat`: `7 (a name) S parent group session …`.
fn running_session(stat: &str) -> Option<i32> {
    // A name may have all that separates.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(2)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_a_session_whatever_its_name() {
        assert_eq!(running_session("71 (sh) S 70 71 69 0 -1 4194560"), Some(69));
        assert_eq!(running_session("71 (a ) Z 1 2 3) R 70 71 69 0"), Some(69));
        assert_eq!(running_session("71 (sh) Z 70 71 69 0"), None);
        assert_eq!(running_session("71 (sh"), None);
        assert_eq!(running_session(""), None);
    }
}
