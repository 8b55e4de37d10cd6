use std::time::Instant;

use lambent_api::Reason;
use proptest::prelude::*;

use super::*;

/// A Revision in words: `revision("b", 2).asks(3).proven().with([..])`. Later numbers are newer.
fn revision(name: &str, age: i64) -> RevisionView {
    RevisionView {
        name: name.to_owned(),
        created: Timestamp::from_second(age).unwrap(),
        asked: 0,
        named: Vec::new(),
        proven: false,
        held_back: false,
        instances: Vec::new(),
        ordered: Vec::new(),
    }
}

impl RevisionView {
    fn asks(self, asked: u32) -> Self {
        Self { asked, ..self }
    }

    fn proven(self) -> Self {
        Self { proven: true, ..self }
    }

    /// In slots from 0, each newer than the one before.
    fn with(mut self, states: impl IntoIterator<Item = State>) -> Self {
        for state in states {
            let slot = self.instances.len();
            let id = id(&self.name, slot);
            let created = Timestamp::from_second(i64::try_from(slot).unwrap()).unwrap();
            self.instances.push(Seen { id, created, state });
        }
        self
    }
}

fn id(revision: &str, slot: usize) -> InstanceRef {
    InstanceRef { name: format!("{revision}-{slot}"), uid: format!("uid-{revision}-{slot}") }
}

fn input(serving: Option<&str>, latest: Option<&str>, revisions: Vec<RevisionView>) -> Input {
    let name = |name: Option<&str>| name.map(str::to_owned);
    Input {
        serving: name(serving),
        latest: name(latest),
        min: 0,
        kept: 0,
        max: 10,
        surge: 2,
        deadline: Deadline::Ahead,
        history: 10,
        revisions,
    }
}

fn starting() -> State {
    State::Starting(Instant::now())
}

fn failing() -> State {
    State::Failing(Reason::new("CrashLoopBackOff", ""))
}

fn wanted(plan: &Plan) -> Vec<(&str, u32)> {
    plan.revisions.iter().map(|(name, r)| (name.as_str(), r.wanted)).collect()
}

fn stops(plan: &Plan, revision: &str) -> Vec<(String, Stop, Why)> {
    plan.revisions[revision].stop.iter().map(|r| (r.instance.name.clone(), r.how, r.why)).collect()
}

#[test]
fn traffic_moves_to_the_latest_revision_once_it_is_proven() {
    let both = |b: RevisionView| plan(&input(Some("a"), Some("b"), vec![revision("a", 1).proven(), b])).serving;
    assert_eq!(both(revision("b", 2)).as_deref(), Some("a"));
    assert_eq!(both(revision("b", 2).proven()).as_deref(), Some("b"));
}

#[test]
fn going_back_makes_the_old_revision_serve_at_once() {
    let plan = plan(&input(Some("b"), Some("a"), vec![revision("a", 1).proven(), revision("b", 2).proven()]));
    assert_eq!(plan.serving.as_deref(), Some("a"));
}

#[test]
fn while_the_latest_is_unknown_the_serving_one_goes_on() {
    let plan = plan(&input(Some("a"), None, vec![revision("a", 1).proven().asks(2)]));
    assert_eq!(plan.serving.as_deref(), Some("a"));
    assert_eq!(plan.revisions["a"].start, ["a-0", "a-1"]);
}

#[test]
fn if_the_serving_one_is_gone_the_newest_proven_one_takes_over() {
    let revisions = vec![revision("a", 1).proven(), revision("b", 2).proven(), revision("c", 3)];
    assert_eq!(plan(&input(Some("gone"), Some("c"), revisions)).serving.as_deref(), Some("b"));
    assert_eq!(plan(&input(None, Some("c"), vec![revision("c", 3)])).serving, None);
}

#[test]
fn a_burst_is_started_in_one_batch() {
    let plan = plan(&input(Some("a"), Some("a"), vec![revision("a", 1).proven().asks(4).with([State::Ready])]));
    assert_eq!(plan.revisions["a"].start, ["a-1", "a-2", "a-3"]);
}

#[test]
fn warm_instances_are_kept_whatever_the_revision_asks_for() {
    let mut input = input(Some("a"), Some("a"), vec![revision("a", 1).proven()]);
    input.min = 2;
    assert_eq!(wanted(&plan(&input)), [("a", 2)]);
}

#[test]
fn the_maximum_is_shared_out_serving_first_then_from_new_to_old() {
    let ready = |count| std::iter::repeat_n(State::Ready, count);
    let revisions = vec![
        revision("a", 1).proven().asks(3).with(ready(3)),
        revision("b", 2).proven().asks(1).with(ready(1)),
        revision("c", 3).proven().asks(6),
        revision("d", 4).asks(3),
    ];
    assert_eq!(wanted(&plan(&input(Some("c"), Some("d"), revisions))), [("a", 2), ("b", 1), ("c", 6), ("d", 1)]);
}

#[test]
fn what_was_overtaken_starts_nothing() {
    let revisions = vec![revision("a", 1).proven().asks(5).with([State::Ready]), revision("b", 2).proven().asks(1)];
    let plan = plan(&input(Some("b"), Some("b"), revisions));
    assert_eq!(wanted(&plan), [("a", 1), ("b", 1)]);
}

#[test]
fn a_rollout_under_load_exchanges_instances_step_by_step() {
    let ready = |count| std::iter::repeat_n(State::Ready, count);
    let at = |old: usize, new: usize, asked: u32| {
        let a = revision("a", 1).proven().asks(6).with(ready(old));
        let b = revision("b", 2).proven().asks(asked).with(ready(new));
        let plan = plan(&input(Some("a"), Some("b"), vec![a, b]));
        (plan.serving.clone().unwrap(), plan.revisions["a"].wanted, plan.revisions["b"].wanted)
    };
    assert_eq!(at(6, 1, 1), ("a".into(), 5, 2));
    assert_eq!(at(5, 2, 1), ("a".into(), 4, 3));
    assert_eq!(at(1, 6, 1), ("a".into(), 0, 6), "it is to ask for six first");
    assert_eq!(at(1, 6, 6), ("b".into(), 1, 6));
}

#[test]
fn after_the_deadline_the_old_revision_goes_on_alone() {
    let a = revision("a", 1).proven().asks(2).with([State::Ready]);
    let mut input = input(Some("a"), Some("b"), vec![a, revision("b", 2).asks(1).with([starting()])]);
    input.deadline = Deadline::Passed;
    let plan = plan(&input);
    assert_eq!((plan.serving.as_deref(), wanted(&plan)), (Some("a"), vec![("a", 2), ("b", 0)]));
}

#[test]
fn half_way_at_the_deadline_it_goes_back_step_by_step() {
    let ready = |count| std::iter::repeat_n(State::Ready, count);
    let at = |old: usize, starting_old: usize, new: usize| {
        let a = revision("a", 1).proven().asks(10).with(ready(old).chain((0..starting_old).map(|_| starting())));
        let b = revision("b", 2).proven().asks(1).with(ready(new).chain([starting()]));
        let mut input = input(Some("a"), Some("b"), vec![a, b]);
        input.deadline = Deadline::GivenUp;
        let plan = plan(&input);
        assert_eq!(plan.serving.as_deref(), Some("a"));
        (plan.revisions["a"].wanted, plan.revisions["a"].start.len(), plan.revisions["b"].wanted)
    };
    assert_eq!(at(2, 0, 8), (3, 1, 8), "nine new ones are still there");
    assert_eq!(at(2, 2, 8), (4, 0, 8), "none of them answers yet");
    assert_eq!(at(4, 0, 8), (4, 0, 6));
    assert_eq!(at(4, 0, 5), (6, 2, 5));
    assert_eq!(at(10, 0, 2), (10, 0, 0));
}

#[test]
fn another_change_in_mid_rollout_asks_the_serving_one_for_all_first() {
    let ready = |count| std::iter::repeat_n(State::Ready, count);
    let a = revision("a", 1).proven().asks(8).with(ready(4));
    let b = revision("b", 2).proven().asks(1).with(ready(4));
    let plan = plan(&input(Some("a"), Some("c"), vec![a, b, revision("c", 3)]));
    assert_eq!(plan.revisions["a"].start.len(), 4);
    assert!(stops(&plan, "b").iter().all(|(_, how, _)| *how == Stop::Gracefully), "requests may be there");
}

#[test]
fn the_instance_that_proves_a_revision_is_started_beyond_the_maximum() {
    let revisions = vec![revision("a", 1).proven().asks(20), revision("b", 2)];
    assert_eq!(wanted(&plan(&input(Some("a"), Some("b"), revisions))), [("a", 10), ("b", 1)]);
}

#[test]
fn a_revision_that_was_overtaken_before_it_was_proven_gets_nothing() {
    let revisions = vec![revision("a", 1).asks(1).with([failing()]), revision("b", 2)];
    let plan = plan(&input(None, Some("b"), revisions));
    assert_eq!(wanted(&plan), [("a", 0), ("b", 1)]);
    assert_eq!(stops(&plan, "a"), [("a-0".to_owned(), Stop::Idle, Why::Surplus)]);
}

#[test]
fn exactly_the_named_instances_are_stopped() {
    let mut a = revision("a", 1).proven().asks(2).with([State::Ready, State::Ready, State::Ready, State::Ready]);
    a.named = vec![id("a", 1), id("a", 2)];
    let plan = plan(&input(Some("a"), Some("a"), vec![a]));
    let named = |n: usize| (format!("a-{n}"), Stop::Idle, Why::Retired);
    assert_eq!(stops(&plan, "a"), [named(1), named(2)]);
    assert!(plan.revisions["a"].start.is_empty());
}

#[test]
fn a_named_instance_goes_even_if_another_one_is_missing() {
    let mut a = revision("a", 1).proven().asks(2).with([State::Ready, State::Ready]);
    a.named = vec![id("a", 0)];
    let plan = plan(&input(Some("a"), Some("a"), vec![a]));
    assert_eq!(stops(&plan, "a").len(), 1);
    assert_eq!(plan.revisions["a"].start, ["a-2"]);
}

#[test]
fn a_name_of_a_former_instance_is_not_meant() {
    let mut a = revision("a", 1).proven().asks(1).with([State::Ready]);
    a.named = vec![InstanceRef { name: "a-0".into(), uid: "another".into() }];
    assert_eq!(stops(&plan(&input(Some("a"), Some("a"), vec![a])), "a"), []);
}

#[test]
fn of_too_many_those_go_that_never_answered_and_then_the_newest() {
    let a = revision("a", 1).proven().with([State::Ready, State::Ready, starting(), failing()]);
    let order = |asked| stops(&plan(&input(Some("a"), Some("a"), vec![a.clone().asks(asked)])), "a");
    let names: Vec<_> = order(0).into_iter().map(|(name, how, _)| (name, how)).collect();
    let expected =
        [("a-3", Stop::Idle), ("a-2", Stop::Gracefully), ("a-1", Stop::Gracefully), ("a-0", Stop::Gracefully)];
    assert_eq!(names, expected.map(|(name, how)| (name.to_owned(), how)));
    assert_eq!(order(3).len(), 1);
}

#[test]
fn what_ended_or_never_answered_is_replaced_and_a_crash_loop_is_left_to_the_kubelet() {
    let a = revision("a", 1).proven().asks(3).with([State::Ended, State::Overdue, failing()]);
    let plan = plan(&input(Some("a"), Some("a"), vec![a]));
    let expected = [("a-0", Stop::Idle, Why::Ended), ("a-1", Stop::Gracefully, Why::StartTimeout)];
    assert_eq!(stops(&plan, "a"), expected.map(|(name, how, why)| (name.to_owned(), how, why)));
    assert_eq!(plan.revisions["a"].start, ["a-3", "a-4"]);
}

#[test]
fn stopping_instances_do_not_count_but_hold_their_names() {
    let a = revision("a", 1).proven().asks(1).with([State::Stopping]);
    assert_eq!(plan(&input(Some("a"), Some("a"), vec![a])).revisions["a"].start, ["a-1"]);
}

#[test]
fn what_was_ordered_and_is_not_seen_yet_is_not_ordered_again() {
    let mut a = revision("a", 1).proven().asks(3).with([State::Ready]);
    a.ordered = vec!["a-1".into(), "a-2".into()];
    assert!(plan(&input(Some("a"), Some("a"), vec![a])).revisions["a"].start.is_empty());
}

#[test]
fn after_failures_starting_waits_and_stopping_does_not() {
    let mut a = revision("a", 1).proven().asks(2).with([State::Ended]);
    a.held_back = true;
    let plan = plan(&input(Some("a"), Some("a"), vec![a]));
    assert!(plan.revisions["a"].start.is_empty());
    assert_eq!(stops(&plan, "a").len(), 1);
}

#[test]
fn old_revisions_beyond_the_history_are_forgotten_oldest_first() {
    let revisions = ["a", "b", "c", "d"].iter().zip(1..).map(|(name, age)| revision(name, age).proven()).collect();
    let mut input = input(Some("d"), Some("d"), revisions);
    input.history = 1;
    assert_eq!(plan(&input).forget, ["a", "b"]);
    input.history = 3;
    assert_eq!(plan(&input).forget, Vec::<String>::new());
}

#[test]
fn what_serves_is_latest_or_still_runs_is_never_forgotten() {
    let revisions = vec![
        revision("a", 1).proven(),
        revision("b", 2).proven().with([State::Stopping]),
        revision("c", 3).proven().asks(1).with([State::Ready]),
        revision("d", 4),
    ];
    let mut input = input(Some("a"), Some("d"), revisions);
    input.history = 0;
    assert_eq!(plan(&input).forget, Vec::<String>::new());
    input.latest = None;
    input.revisions.push(revision("e", 0).proven());
    assert_eq!(plan(&input).forget, Vec::<String>::new());
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        4 => Just(State::Ready),
        2 => Just(starting()),
        1 => Just(State::Unready),
        1 => Just(failing()),
        1 => Just(State::Overdue),
        1 => Just(State::Ended),
        1 => Just(State::Stopping),
    ]
}

prop_compose! {
    fn any_revision(name: &'static str)(
        age in 0_i64..5,
        asked in 0_u32..12,
        proven in any::<bool>(),
        held_back in proptest::bool::weighted(0.2),
        states in proptest::collection::vec((any_state(), any::<bool>(), 0_usize..3), 0..12),
        ordered in 0_usize..3,
    ) -> RevisionView {
        let mut view = RevisionView { asked, proven, held_back, ..revision(name, age) };
        let mut slot = 0;
        for (state, named, gap) in states {
            slot += gap + 1;
            let id = id(name, slot);
            if named {
                view.named.push(id.clone());
            }
            view.instances.push(Seen { id, created: Timestamp::from_second(slot as i64).unwrap(), state });
        }
        view.ordered = (0..ordered).map(|n| format!("{name}-{}", slot + 1 + n)).collect();
        view
    }
}

prop_compose! {
    fn any_input()(
        a in any_revision("a"), b in any_revision("b"), c in any_revision("c"),
        serving in proptest::option::of(proptest::sample::select(vec!["a", "b", "c", "gone"])),
        latest in proptest::option::of(proptest::sample::select(vec!["a", "b", "c"])),
        max in 1_u32..15, min in 0_u32..5, history in 0_usize..3,
        deadline in prop_oneof![4 => Just(Deadline::Ahead), 1 => Just(Deadline::Passed), 1 => Just(Deadline::GivenUp)],
    ) -> Input {
        Input { min: min.min(max), max, history, deadline, ..input(serving, latest, vec![a, b, c]) }
    }
}

fn counts(view: &RevisionView) -> usize {
    let named: HashSet<_> = view.named.iter().collect();
    let counts =
        |s: &&Seen| !matches!(s.state, State::Stopping | State::Ended | State::Overdue) && !named.contains(&s.id);
    view.instances.iter().filter(counts).count() + view.ordered.len()
}

/// What is there after the plan was carried out and before anything else happened.
fn carried_out(mut input: Input, plan: &Plan) -> Input {
    input.serving.clone_from(&plan.serving);
    input.revisions.retain(|r| !plan.forget.contains(&r.name));
    for view in &mut input.revisions {
        let todo = &plan.revisions[&view.name];
        view.ordered.extend(todo.start.iter().cloned());
        for seen in &mut view.instances {
            if todo.stop.iter().any(|removal| removal.instance == seen.id) {
                seen.state = State::Stopping;
            }
        }
    }
    input
}

proptest! {
    #[test]
    fn never_more_is_started_than_is_missing(input in any_input()) {
        let plan = plan(&input);
        for view in &input.revisions {
            let todo = &plan.revisions[&view.name];
            let missing = (todo.wanted as usize).saturating_sub(counts(view));
            prop_assert_eq!(todo.start.len(), if view.held_back { 0 } else { missing });
        }
    }

    #[test]
    fn all_together_stay_within_the_maximum_but_for_the_surge(input in any_input()) {
        let plan = plan(&input);
        let total: u32 = plan.revisions.values().map(|r| r.wanted).sum();
        prop_assert!(total <= input.max + input.surge);
    }

    #[test]
    fn only_what_is_named_broken_or_surplus_is_stopped(input in any_input()) {
        let plan = plan(&input);
        for view in &input.revisions {
            let todo = &plan.revisions[&view.name];
            let surplus = counts(view).saturating_sub(todo.wanted as usize);
            let stopped = todo.stop.iter().filter(|r| r.why == Why::Surplus).count();
            prop_assert!(stopped <= surplus);
            for removal in todo.stop.iter().filter(|r| r.why != Why::Surplus) {
                let seen = view.instances.iter().find(|s| s.id == removal.instance).unwrap();
                let broken = matches!(seen.state, State::Ended | State::Overdue);
                prop_assert!(broken || view.named.contains(&seen.id));
            }
        }
    }

    #[test]
    fn an_instance_is_stopped_once_and_a_stopping_one_never(input in any_input()) {
        let plan = plan(&input);
        for view in &input.revisions {
            let stopped: Vec<_> = plan.revisions[&view.name].stop.iter().map(|r| &r.instance).collect();
            prop_assert_eq!(stopped.iter().collect::<HashSet<_>>().len(), stopped.len());
            let stopping = view.instances.iter().filter(|s| s.state == State::Stopping);
            prop_assert!(stopping.into_iter().all(|s| !stopped.contains(&&s.id)));
        }
    }

    #[test]
    fn new_names_are_unique_and_free(input in any_input()) {
        let plan = plan(&input);
        for view in &input.revisions {
            let start = &plan.revisions[&view.name].start;
            prop_assert_eq!(start.iter().collect::<HashSet<_>>().len(), start.len());
            let taken = view.instances.iter().map(|s| &s.id.name).chain(&view.ordered);
            prop_assert!(taken.into_iter().all(|name| !start.contains(name)));
        }
    }

    #[test]
    fn carrying_it_out_twice_changes_nothing(input in any_input()) {
        let first = plan(&input);
        // A rollout goes on as soon as its last step is made.
        prop_assume!(!matches!(first.step, Some(Step::Run { .. } | Step::Ask { .. } | Step::GivenUp { .. })));
        let second = plan(&carried_out(input, &first));
        prop_assert_eq!(&second.serving, &first.serving);
        for todo in second.revisions.values() {
            prop_assert!(todo.start.is_empty(), "{:?}", second);
            prop_assert!(todo.stop.is_empty(), "{:?}", second);
        }
    }

    #[test]
    fn what_serves_and_what_is_latest_is_kept(input in any_input()) {
        let plan = plan(&input);
        prop_assert!(!plan.forget.iter().any(|name| Some(name) == plan.serving.as_ref() || Some(name) == input.latest.as_ref()));
    }
}

#[test]
fn parked_instances_are_kept_beside_what_the_load_needs() {
    let kept = |kept, asked| {
        let serving = revision("a", 1).proven().asks(asked);
        plan(&Input { kept, ..input(Some("a"), Some("a"), vec![serving]) }).revisions["a"].wanted
    };
    assert_eq!((kept(2, 0), kept(2, 1), kept(2, 5)), (2, 2, 5));
    assert_eq!(kept(20, 0), 10, "never more than scale.max");
}

#[test]
fn a_rollout_leaves_the_parked_ones_until_the_new_revision_serves() {
    let old = || revision("a", 1).proven().asks(1).with([State::Ready, State::Ready, State::Ready]);
    let new = || revision("b", 2).asks(1).proven().with([starting()]);
    let both = |old, new| plan(&Input { kept: 3, ..input(Some("a"), Some("b"), vec![old, new]) });
    assert_eq!(wanted(&both(old(), new())), [("a", 3), ("b", 1)]);
    let done = both(old(), revision("b", 2).asks(1).proven().with([State::Ready]));
    assert_eq!(done.serving.as_deref(), Some("b"));
    assert_eq!(wanted(&done), [("a", 1), ("b", 3)]);
}
