use std::collections::BTreeSet;

use lambent_api::{
    FunctionKey, FunctionSpec, InstanceRef, RevisionKey, Settings,
    signal::{Load, Message},
};
use parking_lot::Mutex;
use prometheus::Registry;

use super::*;
use crate::{
    book::{FunctionView, RevisionView},
    link::LinkEvent,
    metrics::Metrics,
    order::Reason,
};

/// An API server with one count in it, which refuses what is about another count.
#[derive(Clone)]
struct Counter {
    count: Arc<Mutex<u32>>,
    writes: mpsc::UnboundedSender<Write>,
}

impl Writer for Counter {
    async fn write(&self, order: &Write) -> bool {
        let mut count = self.count.lock();
        let good = *count == order.from;
        if good {
            *count = order.to;
            self.writes.send(order.clone()).unwrap();
        }
        good
    }
}

/// A gateway with so many idle instances.
struct Idle(u32);

impl Retirer for Idle {
    async fn retire(&self, order: &Retire) -> Option<Retired> {
        let instance = |n| InstanceRef { name: format!("i-{n}"), uid: format!("u-{n}") };
        Some(Retired { instances: (order.keep..self.0).map(instance).collect(), left: order.keep })
    }
}

struct Scene {
    news: mpsc::Sender<Input>,
    count: Arc<Mutex<u32>>,
    writes: mpsc::UnboundedReceiver<Write>,
    record: Record,
    _shutdown: tokio_util::sync::DropGuard,
}

impl Scene {
    async fn new(count: u32) -> Self {
        let (news, receiver) = mpsc::channel(64);
        let (sender, writes) = mpsc::unbounded_channel();
        let writer = Counter { count: Arc::new(Mutex::new(count)), writes: sender };
        let count_now = writer.count.clone();
        let record = Record::new(Metrics::register(&Registry::new()).unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(run_core(receiver, writer, Idle(count), record.clone(), shutdown.clone()));
        let scene = Self { news, count: count_now, writes, record, _shutdown: shutdown.drop_guard() };
        let spec: FunctionSpec =
            serde_json::from_str(r#"{"image": "a", "scale": {"max": 20, "idle": "10s"}}"#).unwrap();
        scene
            .tell(Input::Function(FunctionView {
                key: FunctionKey::new("shop", "f"),
                settings: Some(Arc::new(Settings::try_from(&spec).unwrap())),
                serving: Some("f-1".into()),
                latest: Some("f-1".into()),
            }))
            .await;
        scene.revision(count).await;
        let gateway = "10.0.0.1:8081".parse().unwrap();
        scene.tell(Input::Gateways(BTreeSet::from([gateway]))).await;
        scene.tell(Input::Link(gateway, LinkEvent::Up)).await;
        scene.tell(Input::Link(gateway, LinkEvent::Message(Message::Synced))).await;
        scene
    }

    async fn tell(&self, input: Input) {
        self.news.send(input).await.unwrap();
    }

    async fn revision(&self, wanted: u32) {
        let key = RevisionKey::new("shop", "f-1");
        self.tell(Input::Revision(RevisionView { key, function: "f".into(), wanted, proven: true })).await;
    }

    async fn queue(&self, queued: u32) {
        let load = Load {
            namespace: "shop".into(),
            function: "f".into(),
            revision: "f-1".into(),
            serving: true,
            queued,
            service_seconds: Some(1.0),
            ..Load::default()
        };
        let gateway = "10.0.0.1:8081".parse().unwrap();
        self.tell(Input::Link(gateway, LinkEvent::Message(Message::Load(load)))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_grows_during_a_write_is_decided_when_the_write_is_seen() {
    let mut scene = Scene::new(0).await;
    let begun = Instant::now();
    scene.queue(2).await;
    scene.queue(100).await;
    let first = scene.writes.recv().await.unwrap();
    assert_eq!((first.from, first.to, first.reason), (0, 2, Reason::Backlog));
    scene.revision(2).await;
    let second = scene.writes.recv().await.unwrap();
    assert_eq!((second.from, second.to, second.seen.queued), (2, 17, 100));
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing waited for a tick");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_raised_from_zero_first_costs_no_tick() {
    let mut scene = Scene::new(0).await;
    *scene.count.lock() = 1;
    let begun = Instant::now();
    scene.queue(100).await;
    scene.revision(1).await;
    let write = scene.writes.recv().await.unwrap();
    assert_eq!((write.from, write.to), (1, 17));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn idle_instances_are_asked_for_named_and_recorded() {
    let mut scene = Scene::new(2).await;
    let begun = Instant::now();
    let write = scene.writes.recv().await.unwrap();
    assert_eq!((write.from, write.to, write.reason), (2, 0, Reason::IdleWindow));
    assert_eq!(write.stopping.unwrap().len(), 2);
    assert!((10..11).contains(&begun.elapsed().as_secs()));
    scene.revision(0).await;
    tokio::task::yield_now().await;
    assert!(scene.record.decisions(&FunctionKey::new("shop", "f")).unwrap().contains(r#""reason":"IdleWindow""#));
}
