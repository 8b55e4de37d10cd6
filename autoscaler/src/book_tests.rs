use lambent_api::{FunctionSpec, InstanceRef};

use super::*;
use crate::order::Write;

const GATEWAY: &str = "10.0.0.1:8081";

struct Scene {
    book: Book,
    now: Instant,
}

impl Scene {
    fn new(scale: serde_json::Value) -> Self {
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

    fn function(&mut self, scale: serde_json::Value, serving: Option<&str>, latest: &str) -> Vec<Order> {
        let spec: FunctionSpec = serde_json::from_value(serde_json::json!({"image": "a", "scale": scale})).unwrap();
        self.apply(Input::Function(FunctionView {
            key: FunctionKey::new("shop", "f"),
            settings: Some(Settings::try_from(&spec).unwrap()),
            serving: serving.map(str::to_owned),
            latest: Some(latest.to_owned()),
        }))
    }

    fn revision(&mut self, name: &str, wanted: u32) -> Vec<Order> {
        let key = RevisionKey::new("shop", name);
        self.apply(Input::Revision(RevisionView { key, function: "f".into(), wanted, proven: true }))
    }

    fn load(&mut self, revision: &str, queued: u32, in_flight: u32, ready: u32) -> Vec<Order> {
        let load = Load {
            namespace: "shop".into(),
            function: "f".into(),
            revision: revision.into(),
            serving: true,
            in_flight,
            queued,
            peak_in_flight: in_flight,
            ready,
            service_seconds: Some(1.0),
            ..Load::default()
        };
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
    let mut scene = Scene::new(serde_json::json!({"max": 20}));
    let orders = scene.load("f-1", 100, 0, 0);
    assert_eq!(writes(&orders), [(0, 17, Reason::Backlog)]);
    assert!(scene.load("f-1", 100, 0, 0).is_empty());
    scene.revision("f-1", 17);
    assert!(scene.load("f-1", 100, 0, 0).is_empty());
}

#[test]
fn a_write_that_failed_is_decided_again() {
    let mut scene = Scene::new(serde_json::json!({"max": 20}));
    scene.load("f-1", 100, 0, 0);
    scene.apply(Input::Failed(RevisionKey::new("shop", "f-1")));
    assert_eq!(writes(&scene.load("f-1", 100, 0, 0)), [(0, 17, Reason::Backlog)]);
}

#[test]
fn warm_instances_are_wanted_at_once() {
    let mut scene = Scene::new(serde_json::json!({"min": 0}));
    let orders = scene.function(serde_json::json!({"min": 3}), Some("f-1"), "f-1");
    assert_eq!(writes(&orders), [(0, 3, Reason::WarmMinimum)]);
}

#[test]
fn idle_instances_go_after_the_window_and_are_named() {
    let mut scene = Scene::new(serde_json::json!({"min": 1, "idle": "10s"}));
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
    let mut scene = Scene::new(serde_json::json!({"idle": "10s"}));
    scene.revision("f-1", 3);
    assert_eq!(keeps(&scene.after(20)), [0]);
    assert!(scene.retired(&[], 3).is_empty());
}

#[test]
fn nothing_goes_for_lack_of_news() {
    let gateway: SocketAddr = GATEWAY.parse().unwrap();
    let mut scene = Scene::new(serde_json::json!({"idle": "10s"}));
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
    let mut scene = Scene::new(serde_json::json!({}));
    scene.function(serde_json::json!({}), Some("f-1"), "f-2");
    scene.revision("f-2", 1);
    scene.revision("f-1", 0);
    assert!(scene.after(1000).is_empty());
    scene.function(serde_json::json!({}), Some("f-2"), "f-2");
    scene.revision("f-1", 2);
    let orders = scene.after(1);
    assert!(orders.contains(&Order::Retire { revision: RevisionKey::new("shop", "f-1"), keep: 0 }));
}

#[test]
fn a_lowered_maximum_holds_at_once() {
    let mut scene = Scene::new(serde_json::json!({"max": 10, "idle": "1h"}));
    scene.revision("f-1", 8);
    scene.load("f-1", 0, 8, 8);
    assert!(scene.after(1).is_empty());
    scene.function(serde_json::json!({"max": 5, "idle": "1h"}), Some("f-1"), "f-1");
    assert_eq!(keeps(&scene.after(1)), [5]);
}
