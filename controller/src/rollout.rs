//! How a new Revision takes the place of the one that serves, and how it goes back: step by step, with
//! bounded extra instances, and never with fewer that answer than the load needs. Pure.
//!
//! While both run, both take requests: each new instance that answers lets an old one go. The new
//! Revision serves once as many of its instances answer as the load needs. If it is given up, each old
//! instance that answers lets a new one go.

use std::time::Duration;

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// Instances that the load needs: what the Revision that serves asks for, at least `scale.min`.
    pub(crate) need: u32,
    /// Extra instances while two Revisions run; at least one.
    pub(crate) surge: u32,
    /// Instances of the old Revision that are not being stopped.
    pub(crate) old_live: u32,
    /// Instances of these that answer.
    pub(crate) old_ready: u32,
    /// Instances of the new Revision that are not being stopped.
    pub(crate) new_live: u32,
    /// Instances of these that answer.
    pub(crate) new_ready: u32,
    /// What the new Revision asks for by itself.
    pub(crate) new_asked: u32,
    /// Whether an instance of the new Revision ever answered.
    pub(crate) proven: bool,
    /// How it stands with `rollout.deadline`.
    pub(crate) deadline: Deadline,
}

/// How a rollout stands with `rollout.deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// There is time.
    Ahead,
    /// It has passed, maybe while no controller was there to see that enough answer.
    Passed,
    /// It was told that the Revision is not tried any more, and that holds.
    GivenUp,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many instances of the old and of the new Revision.
    Run { old: u32, new: u32 },
    /// Enough answer; the new Revision is to ask for so many before it serves, lest it lose them.
    Ask { new: u32 },
    /// The new Revision serves.
    Done,
    /// The old one goes on, alone once enough of its instances answer. So many of each until then.
    GivenUp { old: u32, new: u32 },
}

impl Deadline {
    /// From the time that is left (none if there is no rollout), whether the status says already that the
    /// Revision is not tried any more, and whether it says so of the spec as it is. A later deadline in a
    /// changed spec gives it time again; a wall clock that was set back doesn't.
    pub(crate) fn of(left: Option<Duration>, told: bool, of_this_spec: bool) -> Self {
        match left {
            None => Self::Ahead,
            Some(left) if told && (left.is_zero() || of_this_spec) => Self::GivenUp,
            Some(left) if left.is_zero() => Self::Passed,
            Some(_) => Self::Ahead,
        }
    }
}

impl Rollout {
    /// | new Revision                         | then                                             |
    /// | ------------------------------------ | ------------------------------------------------ |
    /// | not tried any more                   | as many new ones less as old ones answer         |
    /// | enough answer, and it asks for them  | it serves                                        |
    /// | enough answer                        | it is made to ask for them                       |
    /// | too few at the deadline              | it is not tried any more                         |
    /// | never answered                       | one instance to prove it, beside all old ones    |
    /// | some answer                          | as many old ones less; new ones up to the surge  |
    pub(crate) fn step(&self) -> Step {
        let enough = self.proven && self.new_ready >= self.need;
        match self.deadline {
            Deadline::GivenUp => self.back(),
            _ if enough && self.new_asked >= self.need => Step::Done,
            _ if enough => Step::Ask { new: self.need },
            Deadline::Passed => self.back(),
            Deadline::Ahead if !self.proven => Step::Run { old: self.need, new: 1 },
            Deadline::Ahead => self.forth(),
        }
    }

    /// The new ones that answer stay, though the load needs fewer than it did.
    fn forth(&self) -> Step {
        let old = self.need - self.new_ready;
        let room = self.most().saturating_sub(self.old_live.max(old));
        Step::Run { old, new: room.clamp(self.new_ready, self.need) }
    }

    /// Of the new Revision only what answers in place of old ones that don't yet; old ones are started
    /// where new ones have gone.
    fn back(&self) -> Step {
        let answer = self.old_ready.min(self.need);
        let new = self.new_ready.min(self.need - answer);
        let free = self.most().saturating_sub(self.new_live);
        let kept = self.old_live.min(self.most() - new);
        Step::GivenUp { old: free.max(kept).clamp(answer, self.need), new }
    }

    fn most(&self) -> u32 {
        self.need + self.surge.max(1)
    }
}

#[cfg(test)]
mod tests;
