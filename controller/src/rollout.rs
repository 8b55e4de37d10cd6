//! How a new Revision takes the place of the one that serves: step by step, with bounded extra
//! instances, and never with fewer that answer than the load needs. Pure.
//!
//! While both run, both take requests: each new instance that answers lets an old one go. The new
//! Revision serves once as many of its instances answer as the load needs.

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// Instances that the load needs: what the Revision that serves asks for, at least `scale.min`.
    pub(crate) need: u32,
    /// Extra instances while two Revisions run; at least one.
    pub(crate) surge: u32,
    /// Instances of the old Revision that are not being stopped.
    pub(crate) old_live: u32,
    /// Instances of the new Revision that answer.
    pub(crate) new_ready: u32,
    /// What the new Revision asks for by itself.
    pub(crate) new_asked: u32,
    /// Whether an instance of the new Revision ever answered.
    pub(crate) proven: bool,
    /// Whether `rollout.deadline` has passed.
    pub(crate) expired: bool,
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
    /// The old one goes on alone.
    GivenUp,
}

impl Rollout {
    /// | new Revision                         | then                                             |
    /// | ------------------------------------ | ------------------------------------------------ |
    /// | enough answer, and it asks for them  | it serves                                        |
    /// | enough answer                        | it is made to ask for them                       |
    /// | too few at the deadline              | the old one goes on alone                        |
    /// | never answered                       | one instance to prove it, beside all old ones    |
    /// | some answer                          | as many old ones less; new ones up to the surge  |
    pub(crate) fn step(&self) -> Step {
        let enough = self.proven && self.new_ready >= self.need;
        if enough && self.new_asked >= self.need {
            return Step::Done;
        }
        if enough {
            return Step::Ask { new: self.need };
        }
        if self.expired {
            return Step::GivenUp;
        }
        if !self.proven {
            return Step::Run { old: self.need, new: 1 };
        }
        let old = self.need - self.new_ready;
        let room = (self.need + self.surge.max(1)).saturating_sub(self.old_live.max(old));
        Step::Run { old, new: room.min(self.need) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rollout(need: u32, surge: u32) -> Rollout {
        Rollout { need, surge, old_live: need, new_ready: 0, new_asked: 1, proven: true, expired: false }
    }

    #[test]
    fn an_unproven_revision_proves_itself_with_one_instance() {
        let unproven = Rollout { proven: false, ..rollout(8, 3) };
        assert_eq!(unproven.step(), Step::Run { old: 8, new: 1 });
        assert_eq!(Rollout { expired: true, ..unproven }.step(), Step::GivenUp);
    }

    #[test]
    fn without_load_a_proven_revision_serves_at_once() {
        assert_eq!(rollout(0, 1).step(), Step::Done);
        assert_eq!(Rollout { expired: true, ..rollout(0, 1) }.step(), Step::Done);
    }

    #[test]
    fn instances_are_exchanged_in_steps_of_the_surge() {
        let begun = rollout(8, 3);
        assert_eq!(begun.step(), Step::Run { old: 8, new: 3 });
        let further = Rollout { new_ready: 3, ..begun };
        assert_eq!(further.step(), Step::Run { old: 5, new: 3 }, "old ones are still there");
        assert_eq!(Rollout { old_live: 5, ..further }.step(), Step::Run { old: 5, new: 6 });
    }

    #[test]
    fn it_serves_when_enough_answer_and_it_will_keep_them() {
        let ready = Rollout { new_ready: 8, old_live: 1, ..rollout(8, 3) };
        assert_eq!(ready.step(), Step::Ask { new: 8 });
        assert_eq!(Rollout { new_asked: 8, ..ready }.step(), Step::Done);
    }

    #[test]
    fn too_few_at_the_deadline_leave_the_old_one_serving() {
        assert_eq!(Rollout { new_ready: 4, expired: true, ..rollout(8, 3) }.step(), Step::GivenUp);
    }

    proptest! {
        /// Whatever comes up or goes down in whatever order: never more instances than allowed are
        /// asked for, never fewer than needed answer, and it comes to its end.
        #[test]
        fn a_rollout_keeps_its_bounds_and_ends(need in 0..40_u32, surge in 0..10_u32, order in prop::collection::vec(0..4_u8, 400)) {
            let (mut old_live, mut new_live, mut new_ready, mut asked) = (need, 1_u32, 1_u32, 1_u32);
            let mut order = order.into_iter();
            for _ in 0..400 {
                let now = Rollout { need, surge, old_live, new_ready, new_asked: asked, proven: true, expired: false };
                let (old, new) = match now.step() {
                    Step::Run { old, new } => (old, new),
                    Step::Ask { new } => { asked = new; continue; }
                    Step::Done => break,
                    Step::GivenUp => unreachable!(),
                };
                prop_assert!(old + new_ready >= need);
                new_live = new_live.max(new);
                prop_assert!(old_live.max(old) + new <= need + surge.max(1));
                match order.next().unwrap_or(0) {
                    0 | 1 => new_ready = (new_ready + 1).min(new_live),
                    2 => old_live = old_live.saturating_sub(1).max(old),
                    _ => old_live = old,
                }
            }
            let end = Rollout { need, surge, old_live, new_ready, new_asked: asked, proven: true, expired: false };
            prop_assert_eq!(end.step(), Step::Done);
        }
    }
}
