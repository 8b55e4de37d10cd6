//! What is told about Functions and Revisions in their status: computed from values, and written
//! only when something changed.

pub(crate) mod function;
pub(crate) mod revision;

use std::time::{Duration, Instant};

use crate::memory::{Seen, State};

/// Numbers alone are written this often at most: in a burst they change with every instance, and
/// nothing decides by them.
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
    /// It says the same.
    Never,
    /// It says something new.
    Now,
    /// Only numbers are new, and some were written a moment ago.
    In(Duration),
}

/// When to write a status. `same_words` tells whether only its numbers differ from the old one.
pub(crate) fn due(same: bool, same_words: bool, written: Option<Instant>, now: Instant) -> Due {
    if same {
        return Due::Never;
    }
    let wait = written.and_then(|at| (at + NUMBERS_EVERY).checked_duration_since(now)).filter(|wait| !wait.is_zero());
    match wait {
        Some(wait) if same_words => Due::In(wait),
        _ => Due::Now,
    }
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
    fn words_are_written_at_once_and_numbers_now_and_then() {
        let now = Instant::now();
        let recently = Some(now - Duration::from_millis(100));
        assert_eq!(due(true, true, None, now), Due::Never);
        assert_eq!(due(false, false, recently, now), Due::Now);
        assert_eq!(due(false, true, recently, now), Due::In(Duration::from_millis(400)));
        assert_eq!(due(false, true, Some(now - NUMBERS_EVERY), now), Due::Now);
        assert_eq!(due(false, true, None, now), Due::Now);
    }
}
