use lambent_api::FunctionSpec;
use proptest::prelude::*;

use super::*;

fn settings(yaml: serde_json::Value) -> Arc<Settings> {
    Arc::new(Settings::try_from(&serde_json::from_value::<FunctionSpec>(yaml).unwrap()).unwrap())
}

fn pool(concurrency: u32, depth: u32) -> Pool<u32> {
    let spec = serde_json::json!({"image": "a", "concurrency": concurrency, "queue": {"depth": depth, "timeout": "10s"}, "scale": {"max": 2}});
    let mut pool = Pool::new(settings(spec));
    pool.serve(Some(Serving { revision: "r-1".into(), next: None, wanted: 1, not_startable: None }), None);
    pool
}

fn id(n: u32) -> InstanceRef {
    InstanceRef { name: format!("r-1-{n}"), uid: n.to_string() }
}

fn ready(pool: &mut Pool<u32>, n: u32, now: Instant) -> MemberId {
    let member = pool.add(Arc::new(id(n)), "r-1".into(), now);
    pool.answered(&n.to_string(), 0, now);
    member
}

fn give_back(pool: &mut Pool<u32>, member: MemberId, held: Duration, now: Instant) -> Option<InstanceRef> {
    let member = pool.members().iter().find(|m| m.id == member)?;
    let grant = Grant {
        member: member.id,
        instance: member.instance.clone(),
        target: member.target.clone(),
        revision: member.revision.clone(),
        started: member.started,
        origin: Origin::Caller,
        epoch: 0,
    };
    pool.release(&grant, held, now).map(|drained| drained.instance)
}

fn granted(admission: Admission) -> MemberId {
    match admission {
        Admission::Granted(grant) => grant.member,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_wait_in_line_until_an_instance_answers() {
    let now = Instant::now();
    let mut pool = pool(1, 10);
    assert!(matches!(pool.admit(|| 1, Origin::Caller, false, now), Admission::Waiting(_)));
    assert!(matches!(pool.admit(|| 2, Origin::Caller, false, now), Admission::Waiting(_)));
    assert!(pool.next_grant(now).is_none());
    let member = ready(&mut pool, 0, now);
    assert_eq!(pool.next_grant(now).unwrap().0, 1);
    assert!(pool.next_grant(now).is_none());
    give_back(&mut pool, member, Duration::from_secs(1), now);
    assert_eq!(pool.next_grant(now).unwrap().0, 2);
}

#[test]
fn the_least_busy_is_picked_and_of_idle_ones_the_last_used() {
    let now = Instant::now();
    let mut pool = pool(2, 10);
    let (a, b) = (ready(&mut pool, 0, now), ready(&mut pool, 1, now));
    let first = granted(pool.admit(|| 0, Origin::Caller, false, now));
    let second = granted(pool.admit(|| 0, Origin::Caller, false, now));
    assert_ne!(first, second);
    let later = now + Duration::from_secs(1);
    give_back(&mut pool, a, Duration::ZERO, now);
    give_back(&mut pool, b, Duration::ZERO, later);
    assert_eq!(granted(pool.admit(|| 0, Origin::Caller, false, later)), b);
}

#[test]
fn a_full_queue_and_a_hopeless_wait_are_refused() {
    let now = Instant::now();
    let mut full = pool(1, 1);
    assert!(matches!(full.admit(|| 1, Origin::Caller, false, now), Admission::Waiting(_)));
    assert!(matches!(
        full.admit(|| 2, Origin::Caller, false, now),
        Admission::Refused(Refusal::QueueFull { depth: 1 })
    ));

    let mut slow = pool(1, 100);
    let member = ready(&mut slow, 0, now);
    granted(slow.admit(|| 0, Origin::Caller, false, now));
    give_back(&mut slow, member, Duration::from_secs(8), now);
    granted(slow.admit(|| 0, Origin::Caller, false, now));
    // Two instances at most, 8 s each: the fourth in line would wait for 12 s.
    let outcomes: Vec<_> = (0..4).map(|n| slow.admit(|| n, Origin::Caller, false, now)).collect();
    assert!(matches!(outcomes[2], Admission::Waiting(_)));
    assert!(matches!(outcomes[3], Admission::Refused(Refusal::QueueTooSlow { .. })));
}

#[test]
fn where_no_more_can_start_those_that_answer_decide_how_long_the_wait_will_be() {
    let now = Instant::now();
    let mut slow = pool(1, 100);
    let member = ready(&mut slow, 0, now);
    granted(slow.admit(|| 0, Origin::Caller, false, now));
    give_back(&mut slow, member, Duration::from_secs(8), now);
    let full = Some(Arc::new(Reason::new("Unschedulable", "no node has room")));
    slow.serve(Some(Serving { revision: "r-1".into(), next: None, wanted: 2, not_startable: full }), None);
    granted(slow.admit(|| 0, Origin::Caller, false, now));
    // Two would be allowed; the one that there is takes 8 s for each: the third waits for 16 s.
    let outcomes: Vec<_> = (0..3).map(|n| slow.admit(|| n, Origin::Caller, false, now)).collect();
    assert!(matches!(outcomes[1], Admission::Waiting(_)));
    assert!(matches!(outcomes[2], Admission::Refused(Refusal::QueueTooSlow { .. })));
}

#[test]
fn calls_one_after_the_other_need_one_instance_whichever_they_go_to() {
    let now = Instant::now();
    let mut pool = pool(1, 10);
    let members = [ready(&mut pool, 0, now), ready(&mut pool, 1, now)];
    pool.start_peaks_anew();
    for (n, member) in members.into_iter().enumerate() {
        let other = pool.find_mut(&(1 - n).to_string()).unwrap();
        other.usage = Use::Starting;
        assert_eq!(granted(pool.admit(|| 0, Origin::Caller, false, now)), member);
        pool.find_mut(&(1 - n).to_string()).unwrap().usage = Use::Ready;
        give_back(&mut pool, member, Duration::ZERO, now);
    }
    assert_eq!(
        pool.loads(&FunctionKey::new("shop", "hello"), now, &parking::NoAgents { since: now })[0].peak_in_flight,
        1
    );
    for _ in 0..2 {
        granted(pool.admit(|| 0, Origin::Caller, false, now));
    }
    assert_eq!(
        pool.loads(&FunctionKey::new("shop", "hello"), now, &parking::NoAgents { since: now })[0].peak_in_flight,
        2
    );
    pool.start_peaks_anew();
    assert_eq!(
        pool.loads(&FunctionKey::new("shop", "hello"), now, &parking::NoAgents { since: now })[0].peak_in_flight,
        2,
        "they still run"
    );
}

#[test]
fn what_can_not_start_is_said_unless_an_instance_is_ready() {
    let now = Instant::now();
    let mut pool = pool(1, 10);
    let broken = |reason: &str| {
        Some(Serving {
            revision: "r-1".into(),
            next: None,
            wanted: 1,
            not_startable: Some(Arc::new(Reason::new(reason, "words"))),
        })
    };
    assert!(matches!(pool.admit(|| 7, Origin::Caller, false, now), Admission::Waiting(_)));
    pool.serve(broken("Unschedulable"), None);
    assert!(pool.take_hopeless().is_none(), "a node may be coming");
    assert!(matches!(pool.waited_in_vain(Duration::ZERO), Refusal::StartFailed(_)));
    pool.serve(broken("ErrImagePull"), None);
    assert_eq!(pool.take_hopeless().unwrap().1, [7]);
    assert!(matches!(pool.admit(|| 8, Origin::Caller, false, now), Admission::Refused(Refusal::StartFailed(_))));
    ready(&mut pool, 0, now);
    granted(pool.admit(|| 9, Origin::Caller, false, now));
    assert!(matches!(pool.admit(|| 10, Origin::Caller, false, now), Admission::Waiting(_)));
}

#[test]
fn only_idle_instances_are_retired_and_named_again_until_stopped() {
    let now = Instant::now();
    let mut pool = pool(1, 10);
    for n in 0..3 {
        ready(&mut pool, n, now);
    }
    let busy = granted(pool.admit(|| 0, Origin::Caller, false, now));
    let named = pool.retire("r-1", 0, now);
    assert_eq!((named.instances.len(), named.left), (2, 1));
    assert_eq!(pool.retire("r-1", 0, now), named);
    assert!(matches!(pool.admit(|| 1, Origin::Caller, false, now), Admission::Waiting(_)), "retired ones get nothing");
    assert!(pool.retire("r-1", 0, now).instances.is_empty(), "nor does anything go while somebody waits");
    give_back(&mut pool, busy, Duration::ZERO, now);
    assert_eq!(pool.next_grant(now).unwrap().1.member, busy);
}

#[test]
fn a_retired_instance_that_nobody_stops_is_used_again() {
    let now = Instant::now();
    let mut pool = pool(1, 10);
    let member = ready(&mut pool, 0, now);
    pool.retire("r-1", 0, now);
    assert_eq!(granted(pool.admit(|| 1, Origin::Caller, false, now + RETIRED_FOR * 2)), member);
}

#[test]
fn an_instance_that_goes_keeps_its_requests_and_says_when_it_is_drained() {
    let now = Instant::now();
    let mut pool = pool(2, 10);
    let member = ready(&mut pool, 0, now);
    granted(pool.admit(|| 0, Origin::Caller, false, now));
    pool.find_mut("0").unwrap().usage = Use::Stopping;
    assert!(matches!(pool.admit(|| 1, Origin::Caller, false, now), Admission::Waiting(_)));
    assert_eq!(give_back(&mut pool, member, Duration::ZERO, now), Some(id(0)));
    pool.remove("0");
    assert!(pool.members().is_empty());
}

#[test]
fn an_instance_that_does_not_end_a_request_is_told_until_it_is_gone_and_with_whom_else_it_has() {
    let now = Instant::now();
    let mut pool = pool(2, 10);
    let member = ready(&mut pool, 0, now);
    let grants: Vec<_> = (0..2).map(|_| pool.admit(|| 0, Origin::Caller, false, now)).collect();
    let Ok([Admission::Granted(hung), Admission::Granted(other)]) = <[Admission; 2]>::try_from(grants) else {
        panic!()
    };
    pool.stuck(member);
    let told = |in_use| Drained { instance: id(0), stuck: true, in_use };
    assert_eq!(pool.release(&hung, Duration::ZERO, now), Some(told(true)), "others may come to their end");
    assert_eq!(pool.drained(), [told(true)], "and again");
    assert!(matches!(pool.admit(|| 1, Origin::Caller, false, now), Admission::Waiting(_)), "it gets nothing new");
    assert_eq!(pool.release(&other, Duration::ZERO, now), Some(told(false)));
    assert_eq!(pool.drained(), [told(false)]);
    pool.remove("0");
    assert!(pool.drained().is_empty());
}

#[test]
fn requests_go_to_the_serving_revision_only() {
    let now = Instant::now();
    let mut pool = pool(1, 10);
    ready(&mut pool, 0, now);
    pool.serve(Some(Serving { revision: "r-2".into(), next: None, wanted: 0, not_startable: None }), None);
    assert!(matches!(pool.admit(|| 1, Origin::Caller, false, now), Admission::Waiting(_)));
    assert!(pool.must_raise());
}

#[test]
fn a_revision_that_takes_over_takes_requests_first_and_counts_for_the_one_that_serves() {
    let now = Instant::now();
    let mut pool = pool(1, 10);
    let old = ready(&mut pool, 0, now);
    let new = pool.add(Arc::new(id(1)), "r-2".into(), now);
    pool.answered("1", 0, now);
    assert_eq!(granted(pool.admit(|| 0, Origin::Caller, false, now)), old, "the other one is not proven");
    give_back(&mut pool, old, Duration::ZERO, now);
    let next = Some("r-2".into());
    pool.serve(Some(Serving { revision: "r-1".into(), next, wanted: 2, not_startable: None }), None);
    assert_eq!(granted(pool.admit(|| 1, Origin::Caller, false, now)), new);
    assert_eq!(granted(pool.admit(|| 2, Origin::Caller, false, now)), old);
    let [load] = &pool.loads(&FunctionKey::new("shop", "f"), now, &parking::NoAgents { since: now })[..] else {
        panic!()
    };
    assert_eq!((load.revision.as_str(), load.ready, load.in_flight), ("r-1", 2, 2));

    give_back(&mut pool, old, Duration::ZERO, now);
    give_back(&mut pool, new, Duration::ZERO, now);
    let retired = pool.retire("r-1", 1, now);
    assert_eq!((retired.instances, retired.left), (vec![id(0)], 1));
}

#[test]
fn what_is_handed_over_is_counted_by_the_heir() {
    let now = Instant::now();
    let (mut old, mut heir) = (pool(1, 10), pool(1, 10));
    let member = ready(&mut old, 0, now);
    granted(old.admit(|| 0, Origin::Caller, false, now));
    assert!(matches!(old.admit(|| 1, Origin::Caller, false, now), Admission::Waiting(_)));
    let estate = old.hand_over();
    assert_eq!(estate.waiters, [1]);
    let [(instance, revision, requests)] = &estate.busy[..] else { panic!("{:?}", estate.busy) };
    assert_eq!((instance.uid.as_str(), *requests), ("0", 1));

    heir.start_granting();
    ready(&mut heir, 0, now);
    let taken = heir.occupy(instance, revision, Origin::Peer, now);
    assert!(matches!(heir.admit(|| 2, Origin::Caller, false, now), Admission::Waiting(_)), "it is busy");
    heir.release(&taken, Duration::ZERO, now);
    assert_eq!(heir.next_grant(now).unwrap().0, 2);

    give_back(&mut old, member, Duration::ZERO, now);
    assert!(matches!(old.admit(|| 3, Origin::Caller, false, now), Admission::Waiting(_)), "not the owner any more");
}

#[test]
fn instances_that_were_named_for_stopping_are_not_used_by_the_heir() {
    let now = Instant::now();
    let (mut old, mut heir) = (pool(1, 10), pool(1, 10));
    ready(&mut old, 0, now);
    ready(&mut heir, 0, now);
    assert_eq!(old.retire("r-1", 0, now).instances.len(), 1);
    old.hand_over().retired.iter().for_each(|instance| heir.mark_retired(&instance.uid, now));
    assert!(matches!(heir.admit(|| 1, Origin::Caller, false, now), Admission::Waiting(_)));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive,
    Release(usize),
    Cancel(usize),
    Add,
    Away(u32),
    Stop(u32),
    Remove(u32),
    Retire(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Arrive),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Cancel),
        2 => Just(Step::Add),
        1 => (0..8_u32).prop_map(Step::Away),
        1 => (0..8_u32).prop_map(Step::Stop),
        1 => (0..8_u32).prop_map(Step::Remove),
        1 => (0..4_u32).prop_map(Step::Retire),
    ]
}

proptest! {
    /// Whatever happens: no instance has more requests than allowed, every grant is counted where
    /// it was given, nobody overtakes, and nobody waits while a slot is free.
    #[test]
    fn permits_are_exact_and_the_line_is_fair(concurrency in 1..4_u32, steps in prop::collection::vec(step(), 1..120)) {
        let now = Instant::now();
        let mut pool = pool(concurrency, 20);
        let (mut running, mut waiting): (Vec<MemberId>, Vec<(Ticket, u32)>) = (Vec::new(), Vec::new());
        let (mut arrivals, mut instances) = (0_u32, 0_u32);
        for step in steps {
            match step {
                Step::Arrive => {
                    arrivals += 1;
                    match pool.admit(|| arrivals, Origin::Caller, false, now) {
                        Admission::Granted(grant) => { prop_assert!(waiting.is_empty()); running.push(grant.member); }
                        Admission::Waiting(ticket) => waiting.push((ticket, arrivals)),
                        Admission::Refused(_) => {}
                    }
                }
                Step::Release(n) if !running.is_empty() => {
                    let member = running.swap_remove(n % running.len());
                    give_back(&mut pool, member, Duration::ZERO, now);
                }
                Step::Cancel(n) if !waiting.is_empty() => pool.cancel(waiting.remove(n % waiting.len()).0),
                Step::Add => { instances += 1; ready(&mut pool, instances, now); }
                Step::Away(n) => { if let Some(id) = pool.find_mut(&n.to_string()).map(|m| m.id) { pool.away(id); } }
                Step::Stop(n) => { if let Some(m) = pool.find_mut(&n.to_string()) { m.usage = Use::Stopping; } }
                Step::Remove(n) => pool.remove(&n.to_string()),
                Step::Retire(keep) => for named in pool.retire("r-1", keep, now).instances {
                    prop_assert_eq!(pool.find_mut(&named.uid).unwrap().in_flight, 0);
                },
                _ => {}
            }
            while let Some((waiter, grant)) = pool.next_grant(now) {
                prop_assert_eq!(waiter, waiting.remove(0).1);
                running.push(grant.member);
            }
            prop_assert_eq!(pool.queued(), waiting.len());
            for member in pool.members() {
                let here = running.iter().filter(|id| **id == member.id).count();
                prop_assert_eq!(member.in_flight as usize, here);
                prop_assert!(member.in_flight <= concurrency);
                prop_assert!(waiting.is_empty() || !member.can_take(concurrency, now, RETIRED_FOR));
            }
        }
    }
}
