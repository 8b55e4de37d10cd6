use lambent_api::{FunctionSpec, InstanceRef};

use super::*;
use crate::order::Write;

const GATEWAY: &str = "10.0.0.1:8081";

/// Of a Revision that has no requests yet, of one second each.
fn serving(revision: &str) -> Load {
    Load {
        namespace: "shop".into(),
        function: "f".into(),
        revision: revision.into(),
        serving: true,
        service_seconds: Some(1.0),
        ..Load::default()
    }
}

struct Scene {
    book: Book,
    now: Instant,
}

impl Scene {
    fn new(scale: &serde_json::Value) -> Self {
        let now = Instant::now();
        let mut scene = Self { book: Book::default(), now };
        scene.function(scale, Some("f-1"), "f-1");
        scene.revision("f-1", 0);
        let gateway = GATEWAY.parse().unwrap();
        scene.apply(Input::Gateways(BTreeSet::from([gateway])));
        scene.apply(Input::Link(gateway, LinkEvent::Up));
        scene.apply(Input::Link(gateway, LinkEvent::Message(Message::Synced)));
        scene
    }

    fn apply(&mut self, input: Input) -> Vec<Order> {
        self.book.apply(input, self.now)
    }

    fn function(&mut self, scale: &serde_json::Value, serving: Option<&str>, latest: &str) -> Vec<Order> {
        let spec: FunctionSpec = serde_json::from_value(serde_json::json!({"image": "a", "scale": scale})).unwrap();
        self.apply(Input::Function(FunctionView {
            key: FunctionKey::new("shop", "f"),
            settings: Some(Arc::new(Settings::try_from(&spec).unwrap())),
            serving: serving.map(Name::from),
            latest: Some(latest.into()),
        }))
    }

    fn revision(&mut self, name: &str, wanted: u32) -> Vec<Order> {
        let key = RevisionKey::new("shop", name);
        self.apply(Input::Revision(RevisionView { key, function: "f".into(), wanted, proven: true }))
    }

    fn load(&mut self, revision: &str, queued: u32, in_flight: u32, ready: u32) -> Vec<Order> {
        self.told(Load { in_flight, queued, peak_in_flight: in_flight, ready, ..serving(revision) })
    }

    fn told(&mut self, load: Load) -> Vec<Order> {
        self.apply(Input::Link(GATEWAY.parse().unwrap(), LinkEvent::Message(Message::Load(load))))
    }

    fn after(&mut self, seconds: u64) -> Vec<Order> {
        self.now += Duration::from_secs(seconds);
        self.apply(Input::Tick)
    }

    fn retired(&mut self, names: &[&str], left: u32) -> Vec<Order> {
        let instances = names.iter().map(|n| InstanceRef { name: (*n).into(), uid: (*n).into() }).collect();
        self.apply(Input::Retired(RevisionKey::new("shop", "f-1"), Retired { instances, left }))
    }
}

fn writes(orders: &[Order]) -> Vec<(u32, u32, Reason)> {
    let write = |order: &Order| match order {
        Order::Write(Write { from, to, reason, .. }) => Some((*from, *to, *reason)),
        Order::Retire { .. } => None,
    };
    orders.iter().filter_map(write).collect()
}

fn keeps(orders: &[Order]) -> Vec<u32> {
    let keep = |order: &Order| if let Order::Retire { keep, .. } = order { Some(*keep) } else { None };
    orders.iter().filter_map(keep).collect()
}

#[test]
fn a_burst_is_decided_in_one_step_and_not_again() {
    let mut scene = Scene::new(&serde_json::json!({"max": 20}));
    let orders = scene.load("f-1", 100, 0, 0);
    assert_eq!(writes(&orders), [(0, 17, Reason::Backlog)]);
    assert!(scene.load("f-1", 100, 0, 0).is_empty());
    scene.revision("f-1", 17);
    assert!(scene.load("f-1", 100, 0, 0).is_empty());
}

#[test]
fn a_write_that_failed_is_decided_again() {
    let mut scene = Scene::new(&serde_json::json!({"max": 20}));
    scene.load("f-1", 100, 0, 0);
    scene.apply(Input::Failed(RevisionKey::new("shop", "f-1")));
    assert_eq!(writes(&scene.load("f-1", 100, 0, 0)), [(0, 17, Reason::Backlog)]);
}

#[test]
fn warm_instances_are_wanted_at_once() {
    let mut scene = Scene::new(&serde_json::json!({"min": 0}));
    let orders = scene.function(&serde_json::json!({"min": 3}), Some("f-1"), "f-1");
    assert_eq!(writes(&orders), [(0, 3, Reason::WarmMinimum)]);
}

#[test]
fn idle_instances_go_after_the_window_and_are_named() {
    let mut scene = Scene::new(&serde_json::json!({"min": 1, "idle": "10s"}));
    scene.revision("f-1", 3);
    scene.load("f-1", 0, 3, 3);
    scene.now += Duration::from_secs(5);
    scene.load("f-1", 0, 2, 3);
    assert!(scene.after(4).is_empty(), "the peak of 3 is 9 s old");
    assert_eq!(keeps(&scene.after(2)), [2]);
    let orders = scene.retired(&["f-1-2"], 2);
    assert_eq!(writes(&orders), [(3, 2, Reason::IdleWindow)]);
    let Order::Write(write) = &orders[0] else { panic!() };
    assert_eq!(write.stopping.as_ref().unwrap()[0].name, "f-1-2");
    scene.revision("f-1", 2);
    assert_eq!(keeps(&scene.after(20)), [1], "never below scale.min");
}

#[test]
fn nothing_goes_that_the_gateway_still_uses() {
    let mut scene = Scene::new(&serde_json::json!({"idle": "10s"}));
    scene.revision("f-1", 3);
    assert_eq!(keeps(&scene.after(20)), [0]);
    assert!(scene.retired(&[], 3).is_empty());
}

#[test]
fn nothing_goes_for_lack_of_news() {
    let gateway: SocketAddr = GATEWAY.parse().unwrap();
    let mut scene = Scene::new(&serde_json::json!({"idle": "10s"}));
    scene.revision("f-1", 3);
    scene.apply(Input::Link(gateway, LinkEvent::Down));
    assert!(scene.after(1000).is_empty());
    scene.apply(Input::Link(gateway, LinkEvent::Up));
    assert!(scene.after(1000).is_empty(), "connected, but nothing said yet");
    scene.apply(Input::Link(gateway, LinkEvent::Message(Message::Synced)));
    assert!(scene.after(9).is_empty(), "the window begins anew");
    assert_eq!(keeps(&scene.after(2)), [0]);
    let other = "10.0.0.2:8081".parse().unwrap();
    scene.apply(Input::Gateways(BTreeSet::from([gateway, other])));
    assert!(scene.after(1000).is_empty(), "one gateway has not said anything");
}

#[test]
fn a_revision_that_proves_itself_is_left_alone_and_a_superseded_one_goes_at_once() {
    let mut scene = Scene::new(&serde_json::json!({}));
    scene.function(&serde_json::json!({}), Some("f-1"), "f-2");
    scene.revision("f-2", 1);
    scene.revision("f-1", 0);
    assert!(scene.after(1000).is_empty());
    scene.function(&serde_json::json!({}), Some("f-2"), "f-2");
    scene.revision("f-1", 2);
    let orders = scene.after(1);
    assert!(orders.contains(&Order::Retire { revision: RevisionKey::new("shop", "f-1"), keep: 0 }));
}

#[test]
fn a_revision_that_its_function_does_not_name_yet_is_not_taken_for_superseded() {
    let mut scene = Scene::new(&serde_json::json!({}));
    scene.revision("f-2", 4);
    assert!(scene.after(1).is_empty(), "it was just made");
    scene.function(&serde_json::json!({}), Some("f-1"), "f-2");
    assert!(scene.after(1).is_empty());
    scene.revision("f-3", 1);
    scene.function(&serde_json::json!({}), Some("f-1"), "f-3");
    assert_eq!(keeps(&scene.after(1)), [0], "it was named before");
}

#[test]
fn a_revision_that_is_never_named_goes_all_the_same() {
    let mut scene = Scene::new(&serde_json::json!({}));
    scene.revision("f-0", 2);
    assert!(scene.after(9).is_empty());
    assert_eq!(keeps(&scene.after(1)), [0]);
}

#[test]
fn what_waited_for_a_superseded_revision_holds_it_until_the_gateway_serves_the_next() {
    let mut scene = Scene::new(&serde_json::json!({}));
    scene.revision("f-1", 1);
    scene.revision("f-2", 1);
    scene.load("f-1", 1, 1, 1);
    scene.function(&serde_json::json!({}), Some("f-2"), "f-2");
    assert!(keeps(&scene.after(1)).is_empty(), "the gateway sends requests there");
    scene.load("f-2", 1, 1, 1);
    assert_eq!(keeps(&scene.after(0)), [0]);
    assert_eq!(writes(&scene.retired(&["f-1-0"], 0)), [(1, 0, Reason::Superseded)]);
    assert!(scene.revision("f-1", 0).is_empty(), "nothing waits for it any more");
}

#[test]
fn a_lowered_maximum_holds_at_once() {
    let mut scene = Scene::new(&serde_json::json!({"max": 10, "idle": "1h"}));
    scene.revision("f-1", 8);
    scene.load("f-1", 0, 8, 8);
    assert!(scene.after(1).is_empty());
    scene.function(&serde_json::json!({"max": 5, "idle": "1h"}), Some("f-1"), "f-1");
    assert_eq!(keeps(&scene.after(1)), [5]);
}

#[test]
fn a_write_on_its_way_is_waited_for_and_then_decided_again() {
    let mut scene = Scene::new(&serde_json::json!({"max": 20}));
    assert_eq!(writes(&scene.load("f-1", 2, 0, 0)), [(0, 2, Reason::Backlog)]);
    assert!(scene.load("f-1", 100, 0, 0).is_empty());
    assert_eq!(writes(&scene.revision("f-1", 2)), [(2, 17, Reason::Backlog)]);
}

#[test]
fn the_first_instance_is_asked_for_by_the_gateway_and_by_the_tick_if_that_could_not() {
    let mut scene = Scene::new(&serde_json::json!({"max": 20}));
    assert!(scene.load("f-1", 1, 0, 0).is_empty());
    assert!(scene.load("f-1", 1, 0, 0).is_empty());
    assert_eq!(writes(&scene.after(1)), [(0, 1, Reason::Backlog)]);
}

#[test]
fn a_refused_write_is_decided_again_as_soon_as_the_other_count_is_known() {
    let failed = || Input::Failed(RevisionKey::new("shop", "f-1"));
    let mut scene = Scene::new(&serde_json::json!({"max": 20}));
    scene.load("f-1", 100, 0, 0);
    assert!(scene.apply(failed()).is_empty(), "the other count is still to be seen");
    assert_eq!(writes(&scene.revision("f-1", 1)), [(1, 17, Reason::Backlog)]);
    let mut scene = Scene::new(&serde_json::json!({"max": 20}));
    scene.load("f-1", 100, 0, 0);
    assert!(scene.revision("f-1", 1).is_empty(), "the answer is still to come");
    assert_eq!(writes(&scene.apply(failed())), [(1, 17, Reason::Backlog)]);
}

#[test]
fn a_lost_write_is_tried_again_by_the_tick() {
    let mut scene = Scene::new(&serde_json::json!({"max": 20}));
    scene.load("f-1", 100, 0, 0);
    scene.apply(Input::Failed(RevisionKey::new("shop", "f-1")));
    assert_eq!(writes(&scene.after(1)), [(0, 17, Reason::Backlog)]);
}

#[test]
fn a_short_queue_does_not_ask_for_less_than_is_to_be_warm() {
    let mut scene = Scene::new(&serde_json::json!({"min": 2}));
    scene.apply(Input::Failed(RevisionKey::new("shop", "f-1")));
    assert_eq!(writes(&scene.load("f-1", 1, 0, 0)), [(0, 2, Reason::Backlog)]);
}

#[test]
fn what_the_gateway_thaws_is_asked_for_and_kept_for_the_window() {
    let mut scene = Scene::new(&serde_json::json!({"parked": 3, "max": 20, "idle": "10s"}));
    assert_eq!(writes(&scene.load("f-1", 0, 2, 2)), [(0, 2, Reason::Thawed)]);
    scene.revision("f-1", 2);
    assert!(scene.load("f-1", 0, 1, 2).is_empty());
    let mut without = Scene::new(&serde_json::json!({"max": 20}));
    assert!(without.load("f-1", 0, 2, 2).is_empty(), "only where instances are parked");
}

#[test]
fn parked_instances_are_as_good_as_ready_for_those_who_wait() {
    let mut scene = Scene::new(&serde_json::json!({"parked": 5, "max": 20}));
    let queue = |scene: &mut Scene, queued, parked| writes(&scene.told(Load { queued, parked, ..serving("f-1") }));
    assert_eq!(queue(&mut scene, 2, 5), [(0, 2, Reason::Backlog)], "no more than wait");
}

#[test]
fn an_unproven_revision_gets_no_more_than_its_one_instance() {
    let mut scene = Scene::new(&serde_json::json!({"max": 20}));
    let key = RevisionKey::new("shop", "f-1");
    let view = |proven| RevisionView { key: key.clone(), function: "f".into(), wanted: 1, proven };
    scene.apply(Input::Revision(view(false)));
    assert!(scene.load("f-1", 100, 0, 0).is_empty());
    assert_eq!(writes(&scene.apply(Input::Revision(view(true)))), [(1, 17, Reason::Backlog)]);
}

#[test]
fn nothing_goes_while_it_is_not_said_which_revision_serves() {
    let mut scene = Scene::new(&serde_json::json!({"idle": "10s"}));
    scene.revision("f-1", 3);
    scene.apply(Input::Function(FunctionView {
        key: FunctionKey::new("shop", "f"),
        settings: None,
        serving: None,
        latest: None,
    }));
    assert!(scene.after(1000).is_empty());
}

#[test]
fn what_is_not_in_a_new_list_is_gone() {
    let mut scene = Scene::new(&serde_json::json!({"min": 2}));
    assert!(!scene.after(10).is_empty(), "it is to be warm");
    scene.apply(Input::OnlyRevisions([RevisionKey::new("shop", "f-1")].into()));
    scene.apply(Input::OnlyFunctions([FunctionKey::new("shop", "f")].into()));
    assert_eq!((scene.book.revisions.iter().count(), scene.book.functions.iter().count()), (1, 1));
    scene.apply(Input::OnlyRevisions([RevisionKey::new("shop", "f-2")].into()));
    scene.apply(Input::OnlyFunctions(HashSet::new()));
    assert_eq!((scene.book.revisions.iter().count(), scene.book.functions.iter().count()), (0, 0));
    assert!(scene.after(10).is_empty());
}

#[test]
fn what_waited_at_a_gateway_that_is_gone_is_forgotten() {
    let mut scene = Scene::new(&serde_json::json!({"idle": "10s"}));
    scene.revision("f-1", 3);
    scene.load("f-1", 5, 3, 3);
    scene.now += Duration::from_secs(2);
    let other: SocketAddr = "10.0.0.2:8081".parse().unwrap();
    scene.apply(Input::Gateways(BTreeSet::from([other])));
    scene.apply(Input::Link(other, LinkEvent::Up));
    scene.apply(Input::Link(other, LinkEvent::Message(Message::Synced)));
    assert!(scene.after(9).is_empty());
    assert_eq!(keeps(&scene.after(2)), [0]);
}

#[test]
fn a_window_of_a_second_does_not_fall_between_two_messages() {
    let mut scene = Scene::new(&serde_json::json!({"idle": "1s"}));
    scene.revision("f-1", 3);
    scene.now += Duration::from_secs(5);
    scene.load("f-1", 0, 3, 3);
    scene.now += Duration::from_millis(1200);
    assert!(scene.apply(Input::Tick).is_empty());
    assert_eq!(keeps(&scene.after(3)), [0], "it was not said again");
}

#[test]
fn a_revision_that_begins_to_serve_has_a_window_of_its_own() {
    let mut scene = Scene::new(&serde_json::json!({"idle": "10s"}));
    scene.revision("f-2", 4);
    scene.now += Duration::from_secs(1000);
    scene.function(&serde_json::json!({"idle": "10s"}), Some("f-2"), "f-2");
    assert!(scene.after(9).is_empty());
    assert_eq!(keeps(&scene.after(2)), [0]);
}

mod invariants {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Load { queued: u32, in_flight: u32, ready: u32 },
        Pass(u64),
        Lost,
        Found,
        Settle,
        Refuse,
        Retired(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..60_u32, 0..12_u32, 0..12_u32)
                .prop_map(|(queued, in_flight, ready)| Step::Load { queued, in_flight, ready }),
            4 => (1..8000_u64).prop_map(Step::Pass),
            1 => Just(Step::Lost),
            1 => Just(Step::Found),
            4 => Just(Step::Settle),
            1 => Just(Step::Refuse),
            2 => (0..12_u32).prop_map(Step::Retired),
        ]
    }

    proptest! {
        #[test]
        fn counts_stay_within_bounds_and_nothing_goes_without_full_coverage(
            steps in prop::collection::vec(step(), 1..120), min in 0..3_u32, more in 1..10_u32,
        ) {
            let (max, idle) = (min + more, Duration::from_secs(10));
            let mut scene = Scene::new(&serde_json::json!({"min": min, "max": max, "idle": "10s"}));
            let gateway = GATEWAY.parse().unwrap();
            let mut covered = Some(scene.now);
            let (mut count, mut written): (u32, Option<u32>) = (0, None);
            for step in steps {
                let orders = match step {
                    Step::Load { queued, in_flight, ready } => scene.load("f-1", queued, in_flight, ready),
                    Step::Pass(millis) => {
                        scene.now += Duration::from_millis(millis);
                        scene.apply(Input::Tick)
                    }
                    Step::Lost => {
                        covered = None;
                        scene.apply(Input::Link(gateway, LinkEvent::Down))
                    }
                    Step::Found => {
                        covered.get_or_insert(scene.now);
                        scene.apply(Input::Link(gateway, LinkEvent::Message(Message::Synced)))
                    }
                    Step::Settle => {
                        count = written.take().unwrap_or(count);
                        scene.revision("f-1", count)
                    }
                    Step::Refuse => {
                        written = None;
                        scene.apply(Input::Failed(RevisionKey::new("shop", "f-1")))
                    }
                    Step::Retired(left) => scene.retired(&[], left),
                };
                for order in orders {
                    match order {
                        Order::Write(write) => {
                            prop_assert_eq!(write.from, count);
                            prop_assert!(write.to <= max && write.to >= min, "{:?}", write);
                            prop_assert!(write.to > write.from || write.stopping.is_some());
                            written = Some(write.to);
                        }
                        Order::Retire { keep, .. } => {
                            prop_assert!(keep >= min && keep < count);
                            prop_assert!(covered.is_some_and(|since| scene.now - since >= idle));
                        }
                    }
                }
            }
        }
    }
}
