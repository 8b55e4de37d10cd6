use proptest::prelude::*;

use super::*;

fn rollout(need: u32, surge: u32) -> Rollout {
    Rollout {
        need,
        surge,
        old_live: need,
        old_ready: need,
        new_live: 0,
        new_ready: 0,
        new_asked: 1,
        proven: true,
        deadline: Deadline::Ahead,
    }
}

#[test]
fn an_unproven_revision_proves_itself_with_one_instance() {
    let unproven = Rollout { proven: false, ..rollout(8, 3) };
    assert_eq!(unproven.step(), Step::Run { old: 8, new: 1 });
    assert_eq!(Rollout { deadline: Deadline::Passed, ..unproven }.step(), Step::GivenUp { old: 8, new: 0 });
}

#[test]
fn without_load_a_proven_revision_serves_at_once() {
    assert_eq!(rollout(0, 1).step(), Step::Done);
}

#[test]
fn what_was_ready_at_a_deadline_that_nobody_saw_pass_serves() {
    let passed = Rollout { deadline: Deadline::Passed, ..rollout(0, 1) };
    assert_eq!(passed.step(), Step::Done);
    let enough = Rollout { new_ready: 8, need: 8, ..passed };
    assert_eq!(enough.step(), Step::Ask { new: 8 });
}

#[test]
fn what_is_given_up_stays_so_when_the_load_goes() {
    let given_up = Rollout { deadline: Deadline::GivenUp, ..rollout(0, 1) };
    assert_eq!(given_up.step(), Step::GivenUp { old: 0, new: 0 });
}

#[test]
fn what_was_told_holds_until_the_spec_gives_more_time() {
    let (none, some) = (Some(Duration::ZERO), Some(Duration::from_secs(1)));
    assert_eq!(Deadline::of(None, true, true), Deadline::Ahead, "no rollout");
    assert_eq!(Deadline::of(some, false, true), Deadline::Ahead);
    assert_eq!(Deadline::of(none, false, true), Deadline::Passed);
    assert_eq!(Deadline::of(none, true, true), Deadline::GivenUp);
    assert_eq!(Deadline::of(none, true, false), Deadline::GivenUp, "other settings, the same deadline");
    assert_eq!(Deadline::of(some, true, true), Deadline::GivenUp, "a clock that was set back");
    assert_eq!(Deadline::of(some, true, false), Deadline::Ahead, "a later deadline");
}

#[test]
fn instances_are_exchanged_in_steps_of_the_surge() {
    let begun = rollout(8, 3);
    assert_eq!(begun.step(), Step::Run { old: 8, new: 3 });
    let further = Rollout { new_ready: 3, ..begun };
    assert_eq!(further.step(), Step::Run { old: 5, new: 3 }, "old ones are still there");
    assert_eq!(Rollout { old_live: 5, old_ready: 5, ..further }.step(), Step::Run { old: 5, new: 6 });
}

#[test]
fn new_ones_that_answer_stay_when_the_load_needs_fewer() {
    let fewer = Rollout { need: 6, old_live: 7, old_ready: 7, new_ready: 4, ..rollout(6, 1) };
    assert_eq!(fewer.step(), Step::Run { old: 2, new: 4 });
}

#[test]
fn it_serves_when_enough_answer_and_it_will_keep_them() {
    let ready = Rollout { new_ready: 8, old_live: 1, old_ready: 1, ..rollout(8, 3) };
    assert_eq!(ready.step(), Step::Ask { new: 8 });
    assert_eq!(Rollout { new_asked: 8, ..ready }.step(), Step::Done);
}

#[test]
fn half_way_it_goes_back_in_steps_of_the_surge() {
    let begun = Rollout { old_live: 2, old_ready: 2, new_live: 8, new_ready: 8, ..rollout(10, 2) };
    let half_way = Rollout { deadline: Deadline::Passed, ..begun };
    assert_eq!(half_way.step(), Step::GivenUp { old: 4, new: 8 });
    let told = Rollout { deadline: Deadline::GivenUp, old_live: 4, ..half_way };
    assert_eq!(told.step(), Step::GivenUp { old: 4, new: 8 }, "none of them answers yet");
    let further = Rollout { old_ready: 4, ..told };
    assert_eq!(further.step(), Step::GivenUp { old: 4, new: 6 }, "new ones are still there");
    assert_eq!(Rollout { new_live: 6, new_ready: 6, ..further }.step(), Step::GivenUp { old: 6, new: 6 });
    let nearly = Rollout { old_live: 10, old_ready: 9, new_live: 2, new_ready: 2, ..told };
    assert_eq!(nearly.step(), Step::GivenUp { old: 10, new: 1 });
    assert_eq!(Rollout { old_ready: 10, ..nearly }.step(), Step::GivenUp { old: 10, new: 0 });
}

/// What may happen between two steps.
#[derive(Clone, Copy, Debug)]
enum Event {
    OldAnswers,
    NewAnswers,
    OldDies,
    NewDies,
    Needs(u32),
    DeadlinePasses,
    Nothing,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::OldAnswers),
        8 => Just(Event::NewAnswers),
        1 => Just(Event::OldDies),
        1 => Just(Event::NewDies),
        1 => (0..40_u32).prop_map(Event::Needs),
        1 => Just(Event::DeadlinePasses),
        1 => Just(Event::Nothing),
    ]
}

/// Instances of two Revisions. Those that answer are counted among those that live.
#[derive(Debug)]
struct World {
    now: Rollout,
}

impl World {
    fn answering(&self) -> u32 {
        self.now.old_ready + self.now.new_ready
    }

    /// What is missing is started, and of too many those go first that don't answer. Whether it goes on.
    fn carry_out(&mut self, step: Step) -> bool {
        let (old, new) = match step {
            Step::Run { old, new } => (old, new),
            Step::Ask { new } => {
                self.now.new_asked = new;
                (0, self.now.new_live.clamp(new, new + self.now.surge))
            }
            Step::GivenUp { old, new } => {
                self.now.deadline = Deadline::GivenUp;
                (old, new)
            }
            Step::Done => return false,
        };
        (self.now.old_live, self.now.new_live) = (old, new);
        self.now.old_ready = self.now.old_ready.min(old);
        self.now.new_ready = self.now.new_ready.min(new);
        true
    }

    fn happen(&mut self, event: Event) {
        let now = &mut self.now;
        match event {
            Event::OldAnswers => now.old_ready = (now.old_ready + 1).min(now.old_live),
            Event::NewAnswers => {
                now.new_ready = (now.new_ready + 1).min(now.new_live);
                now.proven |= now.new_ready > 0;
            }
            Event::OldDies => {
                now.old_ready = now.old_ready.saturating_sub(1);
                now.old_live = now.old_live.saturating_sub(1);
            }
            Event::NewDies => {
                now.new_ready = now.new_ready.saturating_sub(1);
                now.new_live = now.new_live.saturating_sub(1);
            }
            Event::Needs(need) => now.need = need,
            Event::DeadlinePasses if now.deadline == Deadline::Ahead => now.deadline = Deadline::Passed,
            Event::DeadlinePasses | Event::Nothing => {}
        }
    }

    /// Whether there is nothing more to do.
    fn is_over(&self) -> bool {
        let Rollout { need, old_ready, .. } = self.now;
        match self.now.step() {
            Step::Done => true,
            Step::GivenUp { old, new } => (old, new) == (need, 0) && old_ready >= need,
            Step::Run { .. } | Step::Ask { .. } => false,
        }
    }
}

proptest! {
    /// Whatever comes up, goes down or passes in whatever order: never more instances than allowed are
    /// asked for, no step takes away one that the load needs, and it comes to its end.
    #[test]
    fn a_rollout_keeps_its_bounds_and_ends(
        need in 0..40_u32,
        surge in 0..10_u32,
        order in prop::collection::vec(any_event(), 0..200),
    ) {
        let mut world = World { now: Rollout { proven: false, ..rollout(need, surge) } };
        let then_all_goes_well = std::iter::repeat_n([Event::OldAnswers, Event::NewAnswers], 400).flatten();
        for event in order.into_iter().chain(then_all_goes_well) {
            let (step, before) = (world.now.step(), world.answering());
            if let Step::Run { old, new } | Step::GivenUp { old, new } = step {
                // One proves it, whatever the load.
                let most = (world.now.need + surge.max(1)).max(old + 1);
                prop_assert!(old + new <= most, "{step:?} of {world:?}");
                // Those that go are there until they are told to.
                let Rollout { old_live, new_live, .. } = world.now;
                let most = most.max(old_live + new_live);
                prop_assert!(old.max(old_live) + new.max(new_live) <= most, "{step:?} of {world:?}");
            }
            if !world.carry_out(step) {
                break;
            }
            prop_assert!(world.answering() >= before.min(world.now.need), "{step:?} to {world:?}");
            world.happen(event);
        }
        prop_assert!(world.is_over(), "{world:?}");
    }

    #[test]
    fn what_is_given_up_never_serves(need in 0..40_u32, order in prop::collection::vec(any_event(), 0..200)) {
        let now = Rollout { new_live: need / 2, new_ready: need / 2, deadline: Deadline::GivenUp, ..rollout(need, 2) };
        let mut world = World { now };
        for event in order {
            let step = world.now.step();
            prop_assert!(matches!(step, Step::GivenUp { .. }), "{step:?} of {world:?}");
            world.carry_out(step);
            world.happen(event);
        }
    }
}
