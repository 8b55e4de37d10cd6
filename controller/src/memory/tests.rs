use super::*;

const START: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn instance(phase: Phase) -> Instance {
    Instance {
        id: InstanceRef { name: "r-0".into(), uid: "u".into() },
        namespace: "shop".into(),
        function: "hello".into(),
        revision: "r".into(),
        node: None,
        address: None,
        placed: None,
        phase,
        restarts: 0,
        created: Timestamp::UNIX_EPOCH,
    }
}

fn look(memory: &mut Memory, instance: &Instance, now: Instant) -> State {
    memory.look(instance, false, START, now).state
}

fn reason() -> Reason {
    Reason::new("Evicted", "words")
}

#[test]
fn an_instance_is_ready_once_it_has_accepted_a_connection() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    let running = instance(Phase::Running);
    assert_eq!(look(&mut memory, &running, now), State::Starting(now + START));
    assert!(!memory.revision("r").proven);
    memory.answered("u", 0);
    assert_eq!(look(&mut memory, &running, now), State::Ready);
    assert!(memory.revision("r").proven);
}

#[test]
fn it_may_answer_before_the_kubelet_says_that_it_runs() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    look(&mut memory, &instance(Phase::Starting), now);
    memory.answered("u", 0);
    assert_eq!(look(&mut memory, &instance(Phase::Starting), now), State::Ready);
}

#[test]
fn its_authors_readiness_probe_decides_where_there_is_one() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    let mut look = |phase| memory.look(&instance(phase), true, START, now).state;
    assert_eq!(look(Phase::Unready), State::Starting(now + START));
    assert_eq!(look(Phase::Running), State::Ready);
    assert_eq!(look(Phase::Unready), State::Unready);
}

#[test]
fn a_new_process_has_to_answer_anew_with_its_own_time() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    look(&mut memory, &instance(Phase::Running), now);
    memory.answered("u", 0);
    let again = Instance { restarts: 1, ..instance(Phase::Running) };
    let later = now + START * 2;
    assert_eq!(look(&mut memory, &again, later), State::Starting(later + START));
    memory.answered("u", 0);
    assert_eq!(look(&mut memory, &again, later), State::Starting(later + START), "that was the old process");
    assert!(memory.revision("r").proven);
}

#[test]
fn who_does_not_answer_in_time_is_overdue_and_one_failure() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    look(&mut memory, &instance(Phase::Starting), now);
    let later = now + START;
    assert_eq!(look(&mut memory, &instance(Phase::Starting), later), State::Overdue);
    let revision = memory.revision("r");
    assert_eq!(revision.trouble.as_ref().unwrap().reason, "StartTimeout");
    assert_eq!(revision.backoff.wait(later), Some(SECOND));
    look(&mut memory, &instance(Phase::Starting), later + SECOND);
    assert_eq!(memory.revision("r").backoff.wait(later + SECOND), None);
}

#[test]
fn time_spent_failing_is_no_time_to_start_in() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    look(&mut memory, &instance(Phase::Starting), now);
    let later = now + START * 3;
    assert_eq!(look(&mut memory, &instance(Phase::Failing(reason())), later), State::Failing(reason()));
    assert_eq!(look(&mut memory, &instance(Phase::Running), later), State::Starting(later + START));
}

#[test]
fn an_end_is_a_failure_only_of_what_never_answered() {
    let now = Instant::now();
    let mut never = Memory::default();
    assert_eq!(look(&mut never, &instance(Phase::Ended(reason())), now), State::Ended);
    assert_eq!(never.revision("r").trouble, Some(reason()));
    assert!(never.revision("r").backoff.wait(now).is_some());
    let mut once = Memory::default();
    look(&mut once, &instance(Phase::Running), now);
    once.answered("u", 0);
    look(&mut once, &instance(Phase::Ended(reason())), now);
    assert_eq!(once.revision("r").trouble, None);
    assert_eq!(once.revision("r").backoff.wait(now), None);
}

#[test]
fn between_two_crashes_the_trouble_stays() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    let crashed = |restarts, phase| Instance { restarts, ..instance(phase) };
    look(&mut memory, &crashed(0, Phase::Failing(reason())), now);
    assert_eq!(memory.revision("r").trouble, None, "a pull that is tried again has its own words");
    look(&mut memory, &crashed(2, Phase::Failing(reason())), now);
    look(&mut memory, &crashed(3, Phase::Running), now);
    assert_eq!(memory.revision("r").trouble, Some(reason()));
}

#[test]
fn an_answer_ends_all_trouble_but_only_when_it_comes() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    look(&mut memory, &instance(Phase::Running), now);
    memory.revision("r").refused(reason(), now);
    memory.answered("u", 0);
    look(&mut memory, &instance(Phase::Running), now);
    assert_eq!(memory.revision("r").trouble, None);
    memory.revision("r").refused(reason(), now);
    look(&mut memory, &instance(Phase::Running), now);
    assert_eq!(memory.revision("r").trouble, Some(reason()), "a new refusal is not forgotten for old instances");
}

#[test]
fn a_taken_order_ends_a_refusal_and_no_other_trouble() {
    let now = Instant::now();
    let mut revision = RevisionMemory::default();
    revision.refused(reason(), now);
    revision.taken();
    assert_eq!((revision.trouble.as_ref(), revision.backoff.wait(now)), (None, None));
    revision.failed(reason(), now);
    revision.taken();
    assert_eq!(revision.trouble, Some(reason()));
}

#[test]
fn a_stop_counts_as_soon_as_it_is_sent_and_until_it_seems_lost() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    look(&mut memory, &instance(Phase::Running), now);
    memory.stopping("u", now);
    assert_eq!(look(&mut memory, &instance(Phase::Running), now), State::Stopping);
    assert!(memory.unconfirmed().is_some());
    assert_ne!(look(&mut memory, &instance(Phase::Running), now + CONFIRMED_WITHIN), State::Stopping);
    memory.stop_failed("u");
    assert_ne!(look(&mut memory, &instance(Phase::Running), now), State::Stopping);
}

#[test]
fn an_order_counts_until_the_watch_shows_it_or_it_seems_lost() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    for name in ["r-0", "r-1"] {
        memory.ordering("r", name, now);
    }
    memory.ordering("other", "other-0", now);
    memory.order_settled("r-0");
    assert_eq!(memory.ordered("r", now), ["r-1"]);
    assert!(memory.ordered("r", now + CONFIRMED_WITHIN).is_empty());
}

#[test]
fn a_late_cache_does_not_hide_what_was_written() {
    let now = Instant::now();
    let mut written = Written::default();
    assert_eq!(written.or_cached("cached", now), "cached");
    written.set("written", now);
    assert_eq!(written.or_cached("cached", now + SECOND), "written");
    assert_eq!(written.or_cached("cached", now + WRITTEN_HOLDS), "cached");
}

#[test]
fn what_is_gone_is_forgotten() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    look(&mut memory, &instance(Phase::Running), now);
    assert!(memory.wants_probe("u"));
    memory.keep_only(|_| false, |_| false);
    assert!(!memory.wants_probe("u"));
    assert!(memory.revisions.is_empty());
}

#[test]
fn what_the_objects_tell_anyway_can_be_forgotten_and_nothing_else() {
    let now = Instant::now();
    let asleep = || {
        let mut memory = Memory::default();
        memory.revision("r").proven = true;
        memory
    };
    assert!(asleep().is_dispensable());
    let is_kept = |change: &dyn Fn(&mut Memory)| {
        let mut memory = asleep();
        change(&mut memory);
        !memory.is_dispensable()
    };
    assert!(is_kept(&|memory| drop(look(memory, &instance(Phase::Running), now))));
    assert!(is_kept(&|memory| memory.ordering("r", "r-0", now)));
    assert!(is_kept(&|memory| memory.errors.failed(now)));
    assert!(is_kept(&|memory| memory.revision("r").refused(reason(), now)));
    assert!(is_kept(&|memory| memory.unreadable = Some("words".into())));
    assert!(is_kept(&|memory| {
        memory.rollout.since(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, now);
    }));
    assert!(is_kept(&|memory| memory.written.set(FunctionStatus::default(), now)), "the cache may not show it yet");
    let mut memory = asleep();
    memory.written.set(FunctionStatus::default(), now);
    memory.written.or_cached(FunctionStatus::default(), now);
    assert!(memory.is_dispensable());
}
