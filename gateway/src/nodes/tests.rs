use futures::future::BoxFuture;
use ipnet::IpNet;
use jiff::Timestamp;
use lambent_api::InstanceRef;
use lambent_fleet::Placed;
use prometheus::Registry;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};

use super::*;

/// Node `a` has 10.244.0.0/16, of which 10.244.0.9 is another pod's.
struct OneNode {
    answers: bool,
}

impl Facts for OneNode {
    fn ranges<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpNet>, Doubt>> {
        Box::pin(async { Ok(vec!["10.244.0.0/16".parse().unwrap()]) })
    }

    fn holders(&self, ip: IpAddr) -> BoxFuture<'_, Result<Vec<Holder>, Doubt>> {
        Box::pin(async move {
            if !self.answers {
                std::future::pending::<()>().await;
            }
            let other = Holder { uid: "u-other".into(), name: "shop/other".into(), ended: false };
            Ok(if ip.to_string() == "10.244.0.9" { vec![other] } else { Vec::new() })
        })
    }
}

struct Stand {
    nodes: Arc<Nodes>,
    changes: mpsc::Receiver<Change>,
}

fn stand(answers: bool) -> Stand {
    let (to, changes) = mpsc::channel(8);
    let metrics = NodeMetrics::register(&Registry::new()).unwrap();
    let nodes = Arc::new(Nodes::new(Box::new(OneNode { answers }), metrics, to));
    Stand { nodes, changes }
}

impl Stand {
    /// What an agent of node `a` says and hears.
    fn agent(&self) -> BufReader<DuplexStream> {
        let (ours, theirs) = duplex(1 << 16);
        tokio::spawn(self.nodes.clone().serve("a".into(), theirs));
        BufReader::new(ours)
    }

    /// An address that was passed on, whatever else was told.
    async fn early(&mut self) -> Option<(String, String)> {
        loop {
            if let Change::Early { uid, ip } = self.changes.recv().await? {
                return Some((uid, ip.to_string()));
            }
        }
    }

    /// Nothing but that agents come and go was passed on.
    fn nothing_is_passed_on(&mut self) -> bool {
        while let Ok(change) = self.changes.try_recv() {
            if !matches!(change, Change::Agent(..)) {
                return false;
            }
        }
        true
    }

    async fn until(&self, counted: &[(Outcome, u64)]) {
        while !counted.iter().all(|(outcome, count)| self.nodes.metrics.counted(*outcome) == *count) {
            tokio::task::yield_now().await;
        }
    }
}

async fn hears(agent: &mut BufReader<DuplexStream>) -> ToNode {
    loop {
        let mut line = String::new();
        agent.read_line(&mut line).await.unwrap();
        match serde_json::from_str(&line).unwrap() {
            ToNode::Alive => {}
            message => return message,
        }
    }
}

async fn says(agent: &mut BufReader<DuplexStream>, uid: &str, ip: &str) {
    let line = serde_json::to_string(&FromNode::At { uid: uid.into(), ip: ip.parse().unwrap() }).unwrap();
    agent.write_all(format!("{line}\n").as_bytes()).await.unwrap();
}

fn placed(uid: &str) -> Instance {
    Instance {
        id: InstanceRef { name: "hello-1-0".into(), uid: uid.into() },
        namespace: "shop".into(),
        function: "hello".into(),
        revision: "hello-1".into(),
        node: Some("a".into()),
        address: None,
        placed: Some(Placed { node: "a".into(), port: 8080 }),
        phase: Phase::Starting,
        restarts: 0,
        created: Timestamp::UNIX_EPOCH,
    }
}

fn asked(uid: &str) -> ToNode {
    ToNode::Where { namespace: "shop".into(), name: "hello-1-0".into(), uid: uid.into() }
}

#[tokio::test]
async fn what_an_agent_was_asked_for_and_tells_is_passed_on() {
    let mut stand = stand(true);
    stand.nodes.follow(&placed("u-1"));
    let mut agent = stand.agent();
    assert_eq!(hears(&mut agent).await, asked("u-1"));
    says(&mut agent, "u-1", "10.244.0.7").await;
    assert_eq!(stand.early().await, Some(("u-1".to_owned(), "10.244.0.7".to_owned())));
}

#[tokio::test]
async fn what_an_agent_makes_up_is_not_passed_on() {
    let mut stand = stand(true);
    let mut agent = stand.agent();
    for uid in ["u-1", "u-2", "u-3"] {
        stand.nodes.follow(&placed(uid));
        assert_eq!(hears(&mut agent).await, asked(uid));
    }
    says(&mut agent, "u-9", "10.244.0.7").await;
    stand.until(&[(Outcome::Unasked, 1)]).await;
    for (uid, ip) in [("u-1", "10.244.0.9"), ("u-2", "192.0.2.1"), ("u-3", "::ffff:127.0.0.1")] {
        says(&mut agent, uid, ip).await;
        // Asked once is answered once.
        says(&mut agent, uid, "10.244.0.7").await;
    }
    stand.until(&[(Outcome::Refused, 3), (Outcome::Unasked, 4)]).await;
    assert!(stand.nothing_is_passed_on());
}

#[tokio::test(start_paused = true)]
async fn what_cant_be_checked_in_time_is_not_passed_on() {
    let mut stand = stand(false);
    stand.nodes.follow(&placed("u-1"));
    let mut agent = stand.agent();
    assert_eq!(hears(&mut agent).await, asked("u-1"));
    says(&mut agent, "u-1", "10.244.0.7").await;
    while stand.nodes.metrics.counted(Outcome::Unchecked) == 0 {
        // Hears signs of life, so that time goes on.
        let mut line = String::new();
        agent.read_line(&mut line).await.unwrap();
        agent.write_all(b"{\"type\":\"alive\"}\n").await.unwrap();
    }
    assert!(stand.nothing_is_passed_on());
}

#[tokio::test]
async fn an_agent_is_asked_only_while_the_address_is_of_use() {
    let stand = stand(true);
    let mut agent = stand.agent();
    let of = |change: fn(&mut Instance)| {
        let mut instance = placed("u-1");
        change(&mut instance);
        instance
    };
    let useless: [fn(&mut Instance); 4] = [
        |i| i.address = Some(([10, 244, 0, 7], 8080).into()),
        |i| i.phase = Phase::Stopping,
        |i| i.phase = Phase::Unready,
        |i| i.placed = None,
    ];
    for change in useless {
        stand.nodes.follow(&placed("u-1"));
        stand.nodes.follow(&placed("u-1"));
        assert_eq!(hears(&mut agent).await, asked("u-1"));
        stand.nodes.follow(&of(change));
        assert_eq!(hears(&mut agent).await, ToNode::Forget { uid: "u-1".into() });
        stand.nodes.follow(&of(change));
    }
    stand.nodes.follow(&placed("u-1"));
    assert_eq!(hears(&mut agent).await, asked("u-1"));
    stand.nodes.gone("u-1");
    assert_eq!(hears(&mut agent).await, ToNode::Forget { uid: "u-1".into() });
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_ended_after_a_while_so_that_its_token_is_looked_at_again() {
    let stand = stand(true);
    let mut agent = stand.agent();
    let begun = tokio::time::Instant::now();
    let mut line = String::new();
    while agent.read_line(&mut line).await.unwrap() > 0 {
        // It may have ended after that line.
        if agent.write_all(b"{\"type\":\"alive\"}\n").await.is_err() {
            break;
        }
    }
    let lasted = begun.elapsed();
    assert!((SESSION..SESSION + Duration::from_secs(5)).contains(&lasted), "{lasted:?}");
    assert_eq!(stand.nodes.metrics.agents.get(), 0);
}
