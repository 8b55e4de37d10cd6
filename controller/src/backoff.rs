//! When to try again after a failure: at once is no option for what is refused or keeps ending.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Doubles from a second to five minutes until something succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Counts a failure. One that comes while the last one is still waited out belongs to the same
    /// attempt: ten instances ordered together that all end are one failure.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.wait(now).is_some() {
            return;
        }
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = now.checked_add(pause);
    }

    /// Forgets all failures.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// How long to wait still; none if nothing is to be waited for.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..11 {
            backoff.failed(now);
            let pause = backoff.wait(now).unwrap();
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(backoff.wait(now), None);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn failures_of_one_attempt_count_once() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for _ in 0..10 {
            backoff.failed(now);
        }
        assert_eq!(backoff.wait(now), Some(FIRST));
    }

    #[test]
    fn a_success_makes_the_next_failure_the_first() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(now);
        backoff.failed(now + FIRST);
        backoff.reset();
        assert_eq!(backoff.wait(now), None);
        backoff.failed(now);
        assert_eq!(backoff.wait(now), Some(FIRST));
    }
}
