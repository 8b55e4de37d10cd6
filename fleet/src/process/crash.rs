//! What follows when a process ended by itself: it is started again in place, as the kubelet does,
//! and later and later while it keeps ending soon.

use std::time::Duration;

use lambent_api::Reason;

/// One that ran for longer and then ended is started again at once.
const CRASHES_WITHIN: Duration = Duration::from_secs(10);
/// The first wait, which doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Shorter than a cluster's five minutes: someone sits in front of it.
const LAST_WAIT: Duration = Duration::from_secs(30);

/// Counts crashes in a row.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    in_a_row: u32,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start it again at once.
    Again,
    /// Say why, and start it again after a while.
    After(Duration, Reason),
}

impl Crashes {
    /// | ran for               | then                                   |
    /// | --------------------- | -------------------------------------- |
    /// | at least 10 s         | again at once                          |
    /// | less, the first time  | again at once                          |
    /// | less, time after time | `CrashLoopBackOff`, 1 s, 2 s, ... 30 s |
    pub(super) fn ended(&mut self, ran_for: Duration, words: &str) -> Next {
        if ran_for >= CRASHES_WITHIN {
            self.in_a_row = 0;
            return Next::Again;
        }
        self.in_a_row += 1;
        match self.in_a_row.checked_sub(2) {
            None => Next::Again,
            Some(before) => self.wait(before, "CrashLoopBackOff", words),
        }
    }

    /// It could not even be started.
    pub(super) fn not_started(&mut self, reason: &str, words: &str) -> Next {
        self.in_a_row += 1;
        self.wait(self.in_a_row - 1, reason, words)
    }

    fn wait(&self, before: u32, reason: &str, words: &str) -> Next {
        let wait = FIRST_WAIT.saturating_mul(1_u32.checked_shl(before.min(16)).unwrap_or(u32::MAX)).min(LAST_WAIT);
        Next::After(wait, Reason::new(reason, format!("{words}; next try in {} s", wait.as_secs())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[test]
    fn a_process_that_keeps_crashing_is_started_later_and_later() {
        let mut crashes = Crashes::default();
        assert_eq!(crashes.ended(SOON, "exit code 1"), Next::Again);
        let waits: Vec<u64> = (0..8)
            .map(|_| match crashes.ended(SOON, "exit code 1") {
                Next::After(wait, reason) => {
                    assert_eq!(reason.reason, "CrashLoopBackOff");
                    wait.as_secs()
                }
                Next::Again => 0,
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(crashes.ended(CRASHES_WITHIN, ""), Next::Again);
        assert_eq!(crashes.ended(SOON, ""), Next::Again);
    }

    #[test]
    fn what_can_not_be_started_is_told_at_once() {
        let mut crashes = Crashes::default();
        let Next::After(wait, reason) = crashes.not_started("CommandNotFound", "nope: not found") else { panic!() };
        assert_eq!((wait, reason.reason.as_str()), (FIRST_WAIT, "CommandNotFound"));
        assert!(reason.message.starts_with("nope: not found; next try"), "{}", reason.message);
    }
}
