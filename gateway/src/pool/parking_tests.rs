use lambent_api::{FunctionSpec, Settings};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::pool::{Admission, Grant, Origin};

const NODE: &str = "node-1";
const SECOND: Duration = Duration::from_secs(1);

struct Told {
    agent: Mutex<Agent>,
}

impl Agents for Told {
    fn of(&self, _: &str) -> Agent {
        *self.agent.lock()
    }

    fn tell(&self, _: &str, _: &Order) {}
}

/// A Function of concurrency 1 with instances `0..n` that answer, at a time that moves.
struct Scene {
    pool: Pool<u32>,
    agents: Told,
    now: Instant,
}

impl Scene {
    fn new(parked: u32, instances: u32) -> Self {
        let spec = serde_json::json!({"image": "a", "scale": {"max": 9, "parked": parked}});
        let spec: FunctionSpec = serde_json::from_value(spec).unwrap();
        let mut pool = Pool::new(Arc::new(Settings::try_from(&spec).unwrap()));
        let now = Instant::now();
        for n in 0..instances {
            pool.add(Arc::new(id(n)), "r-1".into(), now);
            pool.answered(&n.to_string(), 0, now);
            pool.find_mut(&n.to_string()).unwrap().node = Some(NODE.into());
        }
        let mut scene = Self { pool, agents: Told { agent: Mutex::new(Agent::Linked) }, now };
        scene.wanted(0);
        scene
    }

    fn wanted(&mut self, wanted: u32) {
        let serving = Serving { revision: "r-1".into(), next: None, wanted, not_startable: None };
        self.pool.serve(Some(serving), None);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn request(&mut self) -> Admission {
        self.pool.admit(|| 7, Origin::Caller, false, self.now)
    }

    fn park(&mut self) -> Vec<Order> {
        orders(self.pool.park_idle(self.now, &self.agents))
    }

    fn thaw(&mut self) -> Vec<Order> {
        orders(self.pool.thaw_needed(self.now, &self.agents))
    }

    /// All of them, after they have been idle.
    fn all_parked(mut self) -> Self {
        self.pass(SECOND);
        self.park();
        let all: Vec<String> = self.pool.members().iter().map(|m| m.instance.uid.clone()).collect();
        all.iter().for_each(|uid| drop(self.pool.parked(uid, self.now)));
        self
    }

    fn usage(&mut self, n: u32) -> Use {
        self.pool.find_mut(&n.to_string()).unwrap().usage
    }
}

fn orders(orders: Orders) -> Vec<Order> {
    orders.into_iter().map(|(_, order)| order).collect()
}

fn id(n: u32) -> InstanceRef {
    InstanceRef { name: format!("r-1-{n}"), uid: n.to_string() }
}

fn park(n: u32) -> Order {
    Order::Park(Arc::new(id(n)))
}

fn thaw(n: u32) -> Order {
    Order::Thaw(Arc::new(id(n)))
}

#[test]
fn what_the_load_does_not_need_is_parked_once_it_has_been_idle() {
    let mut scene = Scene::new(2, 3);
    scene.wanted(1);
    assert!(scene.park().is_empty(), "they have only just answered");
    scene.pass(SECOND);
    assert_eq!(scene.park(), [park(0), park(1)]);
    assert!(scene.park().is_empty());
    assert_eq!(scene.usage(2), Use::Ready);
}

#[test]
fn no_more_are_parked_than_asked_for_and_none_during_a_rollout() {
    let mut scene = Scene::new(2, 3);
    scene.pass(SECOND);
    let next = Serving { revision: "r-1".into(), next: Some("r-2".into()), wanted: 0, not_startable: None };
    scene.pool.serve(Some(next), None);
    assert!(scene.park().is_empty());
    scene.wanted(0);
    assert_eq!(scene.park().len(), 2);
}

#[test]
fn a_parked_instance_gets_no_request_and_is_thawed_for_it_once() {
    let mut scene = Scene::new(1, 1).all_parked();
    assert!(matches!(scene.request(), Admission::Waiting(_)));
    assert_eq!(scene.thaw(), [thaw(0)]);
    assert!(scene.thaw().is_empty(), "it is on its way");
    assert!(scene.pool.next_grant(scene.now).is_none());
    scene.pass(Duration::from_millis(2));
    scene.pool.running("0", scene.now);
    let (_, grant) = scene.pool.next_grant(scene.now).unwrap();
    assert_eq!(grant.started.thawed, Some((scene.now - Duration::from_millis(2), scene.now)));
}

#[test]
fn as_many_are_thawed_as_wait_or_are_wanted() {
    let mut scene = Scene::new(4, 4).all_parked();
    scene.request();
    scene.request();
    assert_eq!(scene.thaw().len(), 2);
    scene.wanted(3);
    assert_eq!(scene.thaw().len(), 1);
    assert!(scene.thaw().is_empty());
}

#[test]
fn one_that_is_being_parked_is_called_back() {
    let mut scene = Scene::new(1, 1);
    scene.pass(SECOND);
    assert_eq!(scene.park(), [park(0)]);
    scene.request();
    assert_eq!(scene.thaw(), [thaw(0)]);
    assert!(scene.pool.parked("0", scene.now).is_empty(), "the agent has not come to the second order");
    scene.pool.running("0", scene.now);
    assert!(scene.pool.next_grant(scene.now).is_some());
}

#[test]
fn one_that_can_not_be_parked_goes_on_and_is_told_of() {
    let mut scene = Scene::new(1, 1);
    scene.pass(SECOND);
    scene.park();
    scene.pool.cannot_park("0", Reason::new("FreezerUnavailable", "read-only"), scene.now);
    assert_eq!(scene.usage(0), Use::Ready);
    assert!(scene.park().is_empty(), "not again at once");
    let told = scene.pool.not_parkable(scene.now, &scene.agents).unwrap();
    assert_eq!((told.reason.as_str(), told.message.as_str()), ("FreezerUnavailable", "read-only"));
    scene.pass(REFUSED_FOR);
    assert_eq!(scene.park(), [park(0)]);
    scene.pool.cannot_park("0", Reason::new("FreezerUnavailable", "read-only"), scene.now);
    assert!(scene.park().is_empty());
    scene.pool.agent_synced(NODE, |_| false, scene.now);
    assert_eq!(scene.park(), [park(0)], "by the next agent at once");
}

#[test]
fn a_missing_agent_is_told_of_and_nothing_is_parked() {
    let mut scene = Scene::new(1, 1);
    *scene.agents.agent.lock() = Agent::Away(scene.now);
    scene.pass(SECOND);
    assert!(scene.park().is_empty());
    assert_eq!(scene.pool.not_parkable(scene.now, &scene.agents), None, "it may still come");
    scene.pass(AGENTS_COME_WITHIN);
    assert_eq!(scene.pool.not_parkable(scene.now, &scene.agents).unwrap().reason, "NoNodeAgent");
    assert!(matches!(scene.request(), Admission::Granted(_)), "it runs");
}

#[test]
fn what_nobody_can_thaw_is_replaced_when_a_request_needs_it_and_not_before() {
    let mut scene = Scene::new(2, 2).all_parked();
    *scene.agents.agent.lock() = Agent::Away(scene.now);
    scene.pass(LOST_AFTER * 2);
    assert!(scene.pool.mend_parked(scene.now, &scene.agents).is_empty());
    assert!(scene.pool.drained().is_empty(), "nobody waits");
    scene.request();
    assert!(scene.thaw().is_empty());
    scene.pool.mend_parked(scene.now, &scene.agents);
    let drained = scene.pool.drained();
    assert_eq!(drained.len(), 1);
    assert!(drained[0].stuck && !drained[0].in_use);
    scene.pool.mend_parked(scene.now, &scene.agents);
    assert_eq!(scene.pool.drained().len(), 1, "its successor is on the way");
}

#[test]
fn an_agent_that_does_not_answer_is_asked_again_and_then_given_up() {
    let mut scene = Scene::new(1, 1).all_parked();
    scene.request();
    scene.thaw();
    scene.pass(AGAIN_AFTER + Duration::from_millis(1));
    assert_eq!(orders(scene.pool.mend_parked(scene.now, &scene.agents)), [thaw(0)]);
    scene.pass(LOST_AFTER);
    scene.pool.mend_parked(scene.now, &scene.agents);
    assert!(scene.pool.drained()[0].stuck);
}

#[test]
fn what_an_agent_finds_frozen_is_claimed_and_thawed_where_a_request_is() {
    let mut scene = Scene::new(2, 2);
    assert!(matches!(scene.request(), Admission::Granted(_)));
    let busy = scene.pool.members().iter().position(|m| m.in_flight > 0).unwrap();
    let (busy, idle) = (u32::try_from(busy).unwrap(), 1 - u32::try_from(busy).unwrap());
    assert_eq!(orders(scene.pool.parked(&busy.to_string(), scene.now)), [thaw(busy)]);
    assert_eq!(orders(scene.pool.parked(&idle.to_string(), scene.now)), [park(idle)]);
    assert!(scene.pool.parked(&idle.to_string(), scene.now).is_empty(), "once");
}

#[test]
fn after_a_lost_connection_the_agent_says_what_is_frozen_and_the_rest_runs() {
    let mut scene = Scene::new(2, 2).all_parked();
    scene.pool.agent_synced(NODE, |uid| uid == "1", scene.now);
    assert_eq!((scene.usage(0), scene.usage(1)), (Use::Ready, Use::Parked));
    scene.pool.agent_synced("another", |_| false, scene.now);
    assert_eq!(scene.usage(1), Use::Parked);
}

#[test]
fn one_that_is_frozen_after_its_end_was_seen_is_let_go_on() {
    let mut scene = Scene::new(1, 1);
    scene.pool.find_mut("0").unwrap().usage = Use::Stopping;
    assert_eq!(orders(scene.pool.parked("0", scene.now)), [thaw(0)]);
    assert_eq!(scene.usage(0), Use::Stopping);
}

#[test]
fn scale_down_leaves_as_many_as_are_to_be_parked() {
    let mut scene = Scene::new(2, 5);
    scene.wanted(5);
    let retired = scene.pool.retire("r-1", 0, scene.now);
    assert_eq!((retired.instances.len(), retired.left), (3, 0), "two go out of use and stay");
    scene.wanted(0);
    scene.pass(SECOND);
    assert_eq!(scene.park().len(), 2);
    let retired = scene.pool.retire("r-1", 0, scene.now);
    assert_eq!((retired.instances.len(), retired.left), (3, 0), "the same ones");
}

#[test]
fn a_superseded_revision_keeps_nothing() {
    let mut scene = Scene::new(2, 2);
    let next = Serving { revision: "r-2".into(), next: None, wanted: 0, not_startable: None };
    scene.pool.serve(Some(next), None);
    assert_eq!(scene.pool.retire("r-1", 0, scene.now).instances.len(), 2);
}

proptest! {
    /// Whatever comes in whatever order: concurrency holds, and nothing is granted that may be frozen.
    #[test]
    fn nothing_is_sent_to_what_may_be_frozen(steps in prop::collection::vec((0..8_u32, 0..4_u32), 1..80)) {
        let mut scene = Scene::new(3, 4);
        // As the agent has it: what it was told, in order.
        let mut frozen = std::collections::HashSet::new();
        let mut told: std::collections::VecDeque<Order> = std::collections::VecDeque::new();
        let mut held: Vec<Box<Grant>> = Vec::new();
        for (step, n) in steps {
            let now = scene.now;
            match step {
                0 | 1 => if let Admission::Granted(grant) = scene.request() { held.push(grant) },
                2 => if let Some(grant) = held.pop() { scene.pool.release(&grant, SECOND, now); },
                3 => scene.pass(SECOND),
                4 => told.extend(scene.park()),
                5 => scene.wanted(n),
                _ => match told.pop_front() {
                    Some(Order::Park(id)) if n == 0 => {
                        scene.pool.cannot_park(&id.uid, Reason::new("No", ""), now);
                    }
                    Some(Order::Park(id)) => {
                        frozen.insert(id.uid.clone());
                        told.extend(orders(scene.pool.parked(&id.uid, now)));
                    }
                    Some(Order::Thaw(id)) => {
                        frozen.remove(&id.uid);
                        scene.pool.running(&id.uid, now);
                    }
                    None => {}
                },
            }
            while let Some((_, grant)) = scene.pool.next_grant(scene.now) {
                held.push(grant);
            }
            told.extend(scene.thaw());
            for grant in &held {
                let uid = &grant.instance.uid;
                prop_assert!(!frozen.contains(uid), "{uid} is frozen and has a request");
            }
            prop_assert!(scene.pool.members().iter().all(|m| m.in_flight <= 1));
        }
    }
}
