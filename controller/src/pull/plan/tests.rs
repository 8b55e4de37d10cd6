use proptest::prelude::*;

use super::*;
use crate::pull::{nodes::tests::node, target::tests::revision};

/// A world of plain words, from which inputs borrow.
#[derive(Clone, Debug, Default)]
struct World {
    nodes: BTreeMap<String, Node>,
    targets: Vec<Target>,
    done: Vec<BTreeMap<String, Outcome>>,
    pods: Vec<PullPod>,
    held_back: bool,
    refused: Option<Reason>,
}

const NOW: i64 = 10_000;

impl World {
    /// Nodes that joined long ago, and one Revision that is to be on them.
    fn new(nodes: &[&str]) -> Self {
        Self::default().nodes(nodes, 100).target("{image: a@sha256:1}", "{}")
    }

    fn nodes(mut self, names: &[&str], joined: i64) -> Self {
        self.nodes.extend(names.iter().map(|name| ((*name).to_owned(), node(joined, &[]))));
        self
    }

    fn target(mut self, template: &str, status: &str) -> Self {
        let name = format!("r{}", self.targets.len());
        self.targets.push(Target { revision: revision(&name, template, status), on: BTreeMap::new() });
        self.done.push(BTreeMap::new());
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn done(self, node: &str, outcome: Outcome) -> Self {
        self.with(|world| drop(world.done[0].insert(node.to_owned(), outcome)))
    }

    fn pod(self, target: usize, node: &str, state: State) -> Self {
        self.with(|world| {
            let target = &world.targets[target];
            let (revision, revision_uid) = (target.key(), target.uid().to_owned());
            let (name, uid) = (format!("{}-{node}", revision.name), String::new());
            let (created, function) = (Timestamp::from_second(NOW).unwrap(), "f".to_owned());
            world.pods.push(PullPod {
                revision,
                revision_uid,
                function,
                name,
                uid,
                node: node.to_owned(),
                created,
                state,
            });
        })
    }

    fn plan(&self, at_once: usize) -> Plan {
        let goals = self.targets.iter().zip(&self.done);
        let goal = |(target, done)| Goal { target, done, refused: self.refused.as_ref(), held_back: self.held_back };
        plan(&Input {
            at: Timestamp::from_second(NOW).unwrap(),
            at_once,
            nodes: &self.nodes,
            goals: goals.map(goal).collect(),
            pods: self.pods.iter().collect(),
        })
    }

    fn starts(&self, at_once: usize) -> Vec<String> {
        self.plan(at_once).start.into_iter().map(|(i, node)| format!("{i} {node}")).collect()
    }

    /// Nodes, pulled, failed, and up to when.
    fn told(&self) -> (i32, i32, i32, Option<i64>) {
        let told = &self.plan(1).progress[&self.targets[0].key()];
        (told.nodes, told.pulled, told.failed, told.nodes_until.as_ref().map(|time| time.0.as_second()))
    }

    fn message(&self) -> String {
        self.plan(1).progress[&self.targets[0].key()].message.clone().unwrap_or_default()
    }
}

fn failed() -> Outcome {
    Outcome::Failed(Reason::new("ErrImagePull", "no such image"))
}

#[test]
fn every_node_that_may_run_it_is_pulled_to() {
    let world = World::new(&["a", "b", "c"]).with(|world| world.nodes.get_mut("b").unwrap().open = false);
    assert_eq!(world.starts(9), ["0 a", "0 c"]);
    assert_eq!(world.told(), (2, 0, 0, None));
    let none = World::default().nodes(&["a"], 100).target("{image: a, pod: {nodeSelector: {gpu: one}}}", "{}");
    assert!(none.starts(9).is_empty());
    assert_eq!(none.told(), (0, 0, 0, Some(100)));
}

#[test]
fn what_has_the_image_is_left_alone() {
    let world = World::new(&["done", "pulls", "starts"])
        .done("done", Outcome::Pulled)
        .pod(0, "pulls", State::Pulling)
        .with(|world| world.targets[0].on.extend([("starts".to_owned(), false)]));
    assert!(world.starts(9).is_empty());
    assert_eq!(world.told(), (3, 1, 0, None));
}

#[test]
fn a_kubelet_that_lists_the_image_has_it_but_a_tag_may_have_moved() {
    let listing = |template: &str| {
        let status = serde_yaml::from_str(
            "{metadata: {name: n}, status: {conditions: [{type: Ready, status: 'True'}], images: [{names: ['a@sha256:1', 'a:1']}]}}",
        );
        let node = Node::from(&status.unwrap());
        let world =
            World::default().target(template, "{}").with(|world| drop(world.nodes.insert("n".to_owned(), node)));
        world.starts(9).is_empty()
    };
    assert!(listing("{image: 'a@sha256:1'}"));
    assert!(listing("{image: 'a@sha256:1', imagePullPolicy: Always}"));
    assert!(listing("{image: 'a:1'}"));
    assert!(!listing("{image: 'a:1', imagePullPolicy: Always}"));
    assert!(!listing("{image: 'a@sha256:2'}"));
}

#[test]
fn a_round_ends_when_all_nodes_were_tried() {
    let world = World::new(&["a", "b"]).nodes(&["c"], 200).done("a", Outcome::Pulled).done("b", failed());
    assert_eq!(world.told(), (3, 1, 1, None));
    let over = world.done("c", Outcome::Pulled);
    assert_eq!(over.told(), (3, 2, 1, Some(200)));
    assert_eq!(over.message(), "b: ErrImagePull: no such image");
    assert!(over.starts(9).is_empty(), "what failed is not tried again");
}

#[test]
fn where_the_scheduler_places_nothing_counts_as_no_node() {
    let world = World::new(&["a", "b"]).done("a", Outcome::Pulled).done("b", Outcome::NotPlaced);
    assert_eq!(world.told(), (1, 1, 0, Some(100)));
}

#[test]
fn nodes_that_join_later_are_pulled_to_and_the_others_count_as_before() {
    let status = "{images: {nodes: 2, pulled: 1, failed: 1, message: 'a: no', nodesUntil: 1970-01-01T00:01:40Z}}";
    let world = World::default().nodes(&["a", "b"], 100).nodes(&["c"], 200).target("{image: a}", status);
    assert_eq!(world.starts(9), ["0 c"]);
    assert_eq!(world.told(), (3, 1, 1, Some(100)));
    assert_eq!(world.message(), "a: no");
    assert_eq!(world.clone().done("c", Outcome::Pulled).told(), (3, 2, 1, Some(200)));
    let gone = world.with(|world| world.nodes.retain(|name, _| name == "c"));
    assert_eq!((gone.told(), gone.message().as_str()), ((1, 0, 0, Some(100)), ""));
}

#[test]
fn a_node_that_has_just_joined_is_waited_for_until_it_takes_pods() {
    let joined = |second| {
        let world = World::new(&["a"]).done("a", Outcome::Pulled).nodes(&["new"], second);
        world.with(|world| world.nodes.get_mut("new").unwrap().open = false)
    };
    let fresh = joined(NOW - 60);
    assert_eq!(fresh.told(), (1, 1, 0, None));
    assert_eq!(fresh.plan(9).again, Some(Duration::from_secs(540)));
    assert_eq!(joined(NOW - 600).told(), (1, 1, 0, Some(NOW - 600)));
    let ready = fresh.with(|world| world.nodes.get_mut("new").unwrap().open = true);
    assert_eq!(ready.starts(9), ["0 new"]);
}

#[test]
fn a_refusal_is_told_and_nothing_is_tried_while_it_is_early() {
    let world = World::new(&["a"]).with(|world| {
        world.refused = Some(Reason::new("QuotaExceeded", "no pods left"));
        world.held_back = true;
    });
    assert_eq!((world.starts(9).len(), world.message().as_str()), (0, "QuotaExceeded: no pods left"));
    assert_eq!(world.told(), (1, 0, 0, None));
    let later = world.with(|world| world.held_back = false);
    assert_eq!(later.starts(9), ["0 a"]);
}

#[test]
fn functions_take_turns_and_those_with_instances_come_first() {
    let mut world = World::new(&["a", "b", "c", "d"]).target("{image: b}", "{}");
    // Another Function's.
    let mut other = (*world.targets[1].revision).clone();
    other.spec.function = "g".to_owned();
    world.targets[1].revision = other.into();
    assert_eq!(world.starts(4), ["0 a", "1 b", "0 c", "1 d"]);
    world.targets[1].on.insert("a".to_owned(), true);
    assert_eq!(world.starts(3), ["1 b", "0 a", "1 c"]);
}

#[test]
fn one_function_has_half_of_all_pods_at_most() {
    let world = World::new(&["a", "b", "c", "d", "e"]);
    assert_eq!(world.starts(4).len(), 2);
    assert_eq!(world.starts(1).len(), 1);
    assert!(world.starts(0).is_empty());
    assert_eq!(world.pod(0, "a", State::Pulling).starts(4), ["0 b"]);
}

#[test]
fn a_node_pulls_one_image_at_a_time() {
    let two = World::new(&["a"]).target("{image: b}", "{}");
    assert_eq!(two.starts(9), ["0 a"]);
    assert!(two.clone().pod(1, "a", State::Failing(Reason::new("ErrImagePull", ""))).starts(9).is_empty());
    assert_eq!(two.pod(1, "a", State::Stopping).starts(9), ["0 a"]);
}

#[test]
fn a_pod_is_judged_by_its_state_and_age() {
    let reason = || Reason::new("ErrImagePull", "no");
    let at = |age: i64| Timestamp::from_second(NOW + age).unwrap();
    let judged = |state: State, age| {
        let world = World::new(&["a"]).pod(0, "a", state);
        judge(&world.pods[0], true, at(age))
    };
    assert_eq!(judged(State::Pulling, 599), None);
    let late = judged(State::Pulling, 600);
    assert!(
        matches!(&late, Some(Verdict::Done(Outcome::Failed(reason))) if reason.reason == "DeadlineExceeded"),
        "{late:?}"
    );
    assert_eq!(judged(State::Pulled, 0), Some(Verdict::Done(Outcome::Pulled)));
    assert_eq!(judged(State::Failing(reason()), 19), None);
    assert_eq!(judged(State::Failing(reason()), 20), Some(Verdict::Done(Outcome::Failed(reason()))));
    assert_eq!(judged(State::Failed(reason()), 0), Some(Verdict::Done(Outcome::Failed(reason()))));
    assert_eq!(judged(State::NotPlaced, 0), Some(Verdict::Done(Outcome::NotPlaced)));
    assert_eq!(judged(State::Stopping, 9999), None);
    let unwanted = World::new(&["a"]).pod(0, "a", State::Pulling);
    assert_eq!(judge(&unwanted.pods[0], false, at(0)), Some(Verdict::Cancelled));
}

#[test]
fn it_comes_again_when_a_pod_grows_too_old() {
    let world = World::new(&["a", "b"]).pod(0, "a", State::Pulling);
    assert_eq!(world.plan(9).again, Some(DEADLINE));
    let failing = world.pod(0, "b", State::Failing(Reason::new("ErrImagePull", "")));
    assert_eq!(failing.plan(9).again, Some(SECOND_TRY));
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![Just(Outcome::Pulled), Just(failed()), Just(Outcome::NotPlaced)]
}

fn state() -> impl Strategy<Value = State> {
    let failing = State::Failing(Reason::new("ErrImagePull", ""));
    prop_oneof![Just(State::Pulling), Just(failing), Just(State::Stopping)]
}

prop_compose! {
    fn world()(
        nodes in prop::collection::btree_map("[a-f]", (0..NOW, prop::bool::weighted(0.8)), 0..6),
        targets in prop::collection::vec(
            (prop::collection::btree_map("[a-f]", outcome(), 0..4), prop::option::of(0..NOW),
             prop::collection::btree_map("[a-f]", any::<bool>(), 0..2), 0..4_i32),
            0..4,
        ),
        pods in prop::collection::btree_map((0..4_usize, "[a-f]"), state(), 0..6),
    ) -> World {
        let mut world = World::default();
        for (name, (joined, open)) in nodes {
            let mut node = node(joined, &[]);
            node.open = open;
            world.nodes.insert(name, node);
        }
        for (done, until, on, failed) in targets {
            let until = until.map(|second| Timestamp::from_second(second).unwrap());
            let until = until.map_or_else(String::new, |until| format!(", nodesUntil: '{until}'"));
            world = world.target("{image: a}", &format!("{{images: {{failed: {failed}{until}}}}}"));
            let last = world.targets.len() - 1;
            world.done[last] = done;
            world.targets[last].on = on;
        }
        for ((target, node), state) in pods {
            if target < world.targets.len() {
                world = world.pod(target, &node, state);
            }
        }
        world
    }
}

proptest! {
    #[test]
    fn bounds_hold_and_nothing_is_pulled_twice_or_in_vain(world in world(), at_once in 0..6_usize) {
        let plan = world.plan(at_once);
        let pulling: Vec<&PullPod> = world.pods.iter().filter(|pod| pod.state != State::Stopping).collect();
        prop_assert!(plan.start.is_empty() || pulling.len() + plan.start.len() <= at_once);
        // All targets are of one Function here.
        prop_assert!(plan.start.is_empty() || pulling.len() + plan.start.len() <= at_once.div_ceil(2));
        let mut nodes: HashSet<&str> = pulling.iter().map(|pod| pod.node.as_str()).collect();
        for (i, name) in &plan.start {
            prop_assert!(nodes.insert(name), "two at once on {name}");
            prop_assert!(world.nodes[name].open);
            prop_assert!(!world.done[*i].contains_key(name) && !world.targets[*i].on.contains_key(name));
            prop_assert!(world.targets[*i].until().is_none_or(|until| world.nodes[name].created > until));
        }
    }

    #[test]
    fn numbers_add_up_and_an_end_means_that_nothing_is_left(world in world()) {
        let plan = world.plan(64);
        for target in &world.targets {
            let told = &plan.progress[&target.key()];
            prop_assert!(told.pulled >= 0 && told.failed >= 0 && told.pulled + told.failed <= told.nodes, "{told:?}");
            let until = told.nodes_until.as_ref().map(|time| time.0);
            prop_assert!(until >= target.until(), "it never goes back");
            if until > target.until() {
                prop_assert_eq!(told.pulled + told.failed, told.nodes);
                prop_assert!(world.nodes.values().all(|node| Some(node.created) <= until));
            }
        }
    }

    #[test]
    fn it_comes_to_an_end(world in world()) {
        let mut world = world;
        world.pods.clear();
        world.targets.iter_mut().for_each(|target| target.on.clear());
        world.nodes.values_mut().for_each(|node| node.open = true);
        for _ in 0..100 {
            for (i, name) in world.plan(2).start {
                world.done[i].insert(name, Outcome::Pulled);
            }
        }
        let newest = world.nodes.values().map(|node| node.created).max();
        for told in world.plan(2).progress.values() {
            prop_assert!(told.nodes_until.as_ref().map(|time| time.0) >= newest, "{told:?}");
        }
    }
}
