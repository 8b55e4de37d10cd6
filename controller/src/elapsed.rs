//! How long ago something was that the status notes by the wall clock. That clock is asked once for each
//! such time; what passes from then on is counted by one that nobody can set.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Remembers what the wall clock said at first.
#[derive(Debug, Default)]
pub(crate) struct Elapsed(Option<First>);

#[derive(Debug)]
struct First {
    since: Timestamp,
    before: Duration,
    seen: Instant,
}

impl Elapsed {
    /// Whether nothing is counted.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_none()
    }

    /// Nothing is to be counted any more.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }

    /// How long ago `since` was. `at` is the wall clock and `now` the other one, both of this moment.
    pub(crate) fn since(&mut self, since: Timestamp, at: Timestamp, now: Instant) -> Duration {
        let first = self.0.take().filter(|first| first.since == since).unwrap_or_else(|| {
            // Noted by a clock that is ahead of this one: it was just now.
            let before = Duration::try_from(at.duration_since(since)).unwrap_or_default();
            First { since, before, seen: now }
        });
        let elapsed = first.before + now.duration_since(first.seen);
        self.0 = Some(first);
        elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_clock_that_is_set_changes_nothing() {
        let (mut elapsed, begun) = (Elapsed::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(elapsed.since(second(100), second(103), begun), Duration::from_secs(3));
        assert_eq!(elapsed.since(second(100), second(9000), after(1)), Duration::from_secs(4), "set forward");
        assert_eq!(elapsed.since(second(100), second(5), after(2)), Duration::from_secs(5), "set back");
    }

    #[test]
    fn another_time_is_looked_at_anew() {
        let (mut elapsed, now) = (Elapsed::default(), Instant::now());
        elapsed.since(second(100), second(200), now);
        assert_eq!(elapsed.since(second(190), second(200), now), Duration::from_secs(10));
    }

    #[test]
    fn what_a_faster_clock_noted_was_just_now() {
        assert_eq!(Elapsed::default().since(second(100), second(50), Instant::now()), Duration::ZERO);
    }
}
