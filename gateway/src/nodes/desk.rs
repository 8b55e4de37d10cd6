//! Which pods are awaited on which node, which agents there are, and what is said to whom. No clock and no
//! socket: what is to be said goes into a channel.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use lambent_api::node::ToNode;
use tokio::sync::mpsc::UnboundedSender;

/// Connections of one node's agent at once: one that is lost is noticed only after a while, and one in an
/// update overlaps the next.
const MAX_AGENTS: usize = 8;

/// A pod whose address is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it starts.
    pub node: Arc<str>,
}

/// Who waits for what, and who can be asked.
#[derive(Debug, Default)]
pub struct Desk {
    /// By unique id.
    awaited: HashMap<String, Pod>,
    /// By node.
    agents: HashMap<Arc<str>, Vec<Agent>>,
}

/// A connection of an agent.
#[derive(Debug)]
struct Agent {
    session: u64,
    to: UnboundedSender<ToNode>,
    /// What it was asked and has not answered. Each question is good for one answer.
    asked: HashSet<String>,
}

impl Agent {
    fn ask(&mut self, uid: &str, Pod { namespace, name, .. }: &Pod) {
        let (namespace, name) = (namespace.clone(), name.clone());
        let _ = self.to.send(ToNode::Where { namespace, name, uid: uid.to_owned() });
        self.asked.insert(uid.to_owned());
    }
}

impl Desk {
    /// Asks the agents of its node, now and when they come, until this is settled.
    pub fn await_address(&mut self, uid: &str, pod: Pod) {
        if self.awaited.contains_key(uid) {
            return;
        }
        for agent in self.agents.get_mut(&pod.node).into_iter().flatten() {
            agent.ask(uid, &pod);
        }
        self.awaited.insert(uid.to_owned(), pod);
    }

    /// Its address is known, or of no use any more.
    pub fn settle(&mut self, uid: &str) {
        let Some(pod) = self.awaited.remove(uid) else { return };
        for agent in self.agents.get_mut(&pod.node).into_iter().flatten() {
            if agent.asked.remove(uid) {
                let _ = agent.to.send(ToNode::Forget { uid: uid.to_owned() });
            }
        }
    }

    /// An agent has connected. Whether it may stay.
    pub fn join(&mut self, node: &Arc<str>, session: u64, to: UnboundedSender<ToNode>) -> bool {
        let agents = self.agents.entry(node.clone()).or_default();
        if agents.len() >= MAX_AGENTS {
            return false;
        }
        let mut agent = Agent { session, to, asked: HashSet::new() };
        let here = self.awaited.iter().filter(|(_, pod)| pod.node == *node);
        here.for_each(|(uid, pod)| agent.ask(uid, pod));
        agents.push(agent);
        true
    }

    /// A connection has ended.
    pub fn leave(&mut self, node: &str, session: u64) {
        let Some(agents) = self.agents.get_mut(node) else { return };
        agents.retain(|agent| agent.session != session);
        if agents.is_empty() {
            self.agents.remove(node);
        }
    }

    /// An agent has answered. The pod, if it was asked for that and it is still awaited.
    pub fn answered(&mut self, node: &str, session: u64, uid: &str) -> Option<Pod> {
        let agent = self.agents.get_mut(node)?.iter_mut().find(|agent| agent.session == session)?;
        agent.asked.remove(uid).then_some(())?;
        self.awaited.get(uid).cloned()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{self, UnboundedReceiver};

    use super::*;

    fn pod(node: &str) -> Pod {
        Pod { namespace: "shop".into(), name: "hello-1".into(), node: node.into() }
    }

    fn agent(desk: &mut Desk, node: &str, session: u64) -> UnboundedReceiver<ToNode> {
        let (to, said) = mpsc::unbounded_channel();
        assert!(desk.join(&node.into(), session, to));
        said
    }

    fn asked(said: &mut UnboundedReceiver<ToNode>) -> Vec<String> {
        let said = std::iter::from_fn(|| said.try_recv().ok());
        said.map(|message| match message {
            ToNode::Where { uid, .. } => uid,
            ToNode::Forget { uid } => format!("-{uid}"),
            other => panic!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn only_agents_of_a_pods_node_are_asked_also_those_that_come_later() {
        let mut desk = Desk::default();
        let (mut here, mut there) = (agent(&mut desk, "a", 1), agent(&mut desk, "b", 2));
        desk.await_address("u-1", pod("a"));
        desk.await_address("u-1", pod("a"));
        let mut late = agent(&mut desk, "a", 3);
        assert_eq!((asked(&mut here), asked(&mut late)), (vec!["u-1".to_owned()], vec!["u-1".to_owned()]));
        assert!(asked(&mut there).is_empty());
        desk.settle("u-1");
        desk.settle("u-1");
        assert_eq!((asked(&mut here), asked(&mut late)), (vec!["-u-1".to_owned()], vec!["-u-1".to_owned()]));
        assert!(asked(&mut there).is_empty());
    }

    #[test]
    fn an_answer_counts_once_and_only_from_whom_was_asked_for_what_is_awaited() {
        let mut desk = Desk::default();
        let (_here, _there) = (agent(&mut desk, "a", 1), agent(&mut desk, "b", 2));
        desk.await_address("u-1", pod("a"));
        assert_eq!(desk.answered("b", 2, "u-1"), None, "of another node");
        assert_eq!(desk.answered("b", 1, "u-1"), None);
        assert_eq!(desk.answered("a", 1, "u-2"), None, "never asked for");
        assert_eq!(desk.answered("a", 1, "u-1"), Some(pod("a")));
        assert_eq!(desk.answered("a", 1, "u-1"), None, "answered before");
        desk.await_address("u-3", pod("a"));
        desk.settle("u-3");
        assert_eq!(desk.answered("a", 1, "u-3"), None, "not awaited any more");
    }

    #[test]
    fn an_agent_that_answered_is_not_told_to_forget_and_one_that_left_says_nothing() {
        let mut desk = Desk::default();
        let mut here = agent(&mut desk, "a", 1);
        desk.await_address("u-1", pod("a"));
        desk.await_address("u-2", pod("a"));
        assert!(desk.answered("a", 1, "u-1").is_some());
        desk.settle("u-1");
        assert_eq!(asked(&mut here), ["u-1", "u-2"]);
        desk.leave("a", 1);
        assert_eq!(desk.answered("a", 1, "u-2"), None);
        assert!(desk.agents.is_empty());
    }

    #[test]
    fn connections_of_one_node_are_bounded() {
        let mut desk = Desk::default();
        for session in 0..MAX_AGENTS as u64 {
            agent(&mut desk, "a", session);
        }
        assert!(!desk.join(&"a".into(), 99, mpsc::unbounded_channel().0));
        agent(&mut desk, "b", 100);
        desk.leave("a", 0);
        agent(&mut desk, "a", 101);
    }
}
