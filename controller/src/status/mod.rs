//! What is told about Functions and Revisions in their status: computed from values, and written
//! only when something changed.

pub(crate) mod function;
pub(crate) mod revision;

use std::time::{Duration, Instant};

use crate::memory::{Seen, State};

/// Numbers alone are written so long after the first of them has changed: nothing decides by them, in a burst
/// they change with every instance, and each write takes the API server's time from the start that it tells of.
const NUMBERS_EVERY: Duration = Duration::from_millis(500);

/// Instances by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that answer.
    pub(crate) ready: i32,
    /// Those that are frozen until a request needs them.
    pub(crate) parked: i32,
    /// Those that have not answered yet, ordered ones among them.
    pub(crate) starting: i32,
    /// Those whose readiness probe fails.
    pub(crate) unready: i32,
    /// Those that can't start.
    pub(crate) failing: i32,
    /// Those that are being stopped.
    pub(crate) stopping: i32,
}

impl Counts {
    /// Counts instances that were seen and such as were only ordered so far.
    pub(crate) fn of<'a>(seen: impl IntoIterator<Item = &'a Seen>, ordered: usize) -> Self {
        let starting = i32::try_from(ordered).unwrap_or(i32::MAX);
        seen.into_iter().fold(Self { starting, ..Self::default() }, |mut counts, seen| {
            *match seen.state {
                State::Ready => &mut counts.ready,
                State::Starting(_) => &mut counts.starting,
                State::Unready => &mut counts.unready,
                State::Failing(_) => &mut counts.failing,
                State::Overdue | State::Ended | State::Stopping => &mut counts.stopping,
            } += 1;
            counts
        })
    }

    /// Those that exist and are not stopping.
    pub(crate) fn live(&self) -> i32 {
        self.ready + self.parked + self.starting + self.unready + self.failing
    }

    /// So many of those that answered are frozen, by the gateway's word.
    pub(crate) fn with_parked(self, parked: u32) -> Self {
        let parked = i32::try_from(parked).unwrap_or(i32::MAX).min(self.ready);
        Self { ready: self.ready - parked, parked, ..self }
    }

    /// Both taken together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            ready: self.ready + other.ready,
            parked: self.parked + other.parked,
            starting: self.starting + other.starting,
            unready: self.unready + other.unready,
            failing: self.failing + other.failing,
            stopping: self.stopping + other.stopping,
        }
    }
}

/// When a status is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It says something new, or has been waiting for long enough.
    Now,
    /// Only numbers are new, and more of them may follow.
    In(Duration),
}

/// When to write a status that differs from the old one since `differs`. `same_words` tells whether only its
/// numbers do.
pub(crate) fn due(same_words: bool, differs: Instant, now: Instant) -> Due {
    let wait = (differs + NUMBERS_EVERY).saturating_duration_since(now);
    if same_words && !wait.is_zero() { Due::In(wait) } else { Due::Now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_ones_are_not_ready_and_never_more_than_have_answered() {
        let counts = Counts { ready: 3, ..Counts::default() };
        let told = counts.with_parked(2);
        assert_eq!((told.ready, told.parked, told.live()), (1, 2, 3));
        assert_eq!(counts.with_parked(9).ready, 0);
    }

    #[test]
    fn words_are_written_at_once_and_numbers_together_after_a_moment() {
        let now = Instant::now();
        let ago = |millis| now - Duration::from_millis(millis);
        assert_eq!(due(false, now, now), Due::Now);
        assert_eq!(due(true, now, now), Due::In(NUMBERS_EVERY));
        assert_eq!(due(true, ago(100), now), Due::In(Duration::from_millis(400)));
        assert_eq!(due(true, ago(500), now), Due::Now);
    }
}
