use std::net::IpAddr;

use lambent_api::node::FromNode;
use prometheus::Registry;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::cri::fake::{FakeRuntime, Sandbox};

struct Stand {
    fake: FakeRuntime,
    awaited: Arc<Awaited>,
    metrics: Metrics,
    _looks: AbortOnDropHandle<()>,
}

fn stand() -> Stand {
    let (fake, awaited) = (FakeRuntime::start(), Arc::new(Awaited::default()));
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let runtime = Runtime::new(&fake.endpoint()).unwrap();
    let looks = AbortOnDropHandle::new(tokio::spawn(run(awaited.clone(), runtime, metrics.clone())));
    Stand { fake, awaited, metrics, _looks: looks }
}

impl Stand {
    fn ask(&self, uid: &str) -> UnboundedReceiver<FromNode> {
        let (to, told) = mpsc::unbounded_channel();
        assert!(self.awaited.change(|board| board.ask(uid.into(), 1, to, Instant::now())));
        told
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn tells(told: &mut UnboundedReceiver<FromNode>) -> IpAddr {
    match told.recv().await {
        Some(FromNode::At { ip, .. }) => ip,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_address_is_told_when_the_sandbox_is_there_and_then_nobody_asks_any_more() {
    let stand = stand();
    let mut told = stand.ask("u-1");
    stand.until(|stand| stand.fake.lists() > 2).await;
    assert!(told.try_recv().is_err(), "there is nothing to tell");
    stand.fake.put(Sandbox::ready("u-1", "10.244.0.7"));
    assert_eq!(tells(&mut told).await.to_string(), "10.244.0.7");
    // It waits for news, and asks once more for the next pod only.
    let asked = stand.fake.lists();
    stand.fake.put(Sandbox::ready("u-2", "10.244.0.8"));
    let mut told = stand.ask("u-2");
    assert_eq!(tells(&mut told).await.to_string(), "10.244.0.8");
    assert_eq!(stand.fake.lists(), asked + 1);
}

#[tokio::test]
async fn a_runtime_that_was_away_is_asked_on() {
    let mut stand = stand();
    stand.fake.stop().await;
    let mut told = stand.ask("u-1");
    stand.until(|stand| stand.metrics.errors.get() > 1).await;
    stand.fake.put(Sandbox::ready("u-1", "10.244.0.7"));
    stand.fake.start_again();
    assert_eq!(tells(&mut told).await.to_string(), "10.244.0.7");
}

#[test]
fn looks_take_a_fifth_of_the_time_at_most() {
    assert_eq!(pause_after(Duration::from_millis(1), Duration::ZERO), PAUSE);
    assert_eq!(pause_after(Duration::from_millis(20), Duration::ZERO), Duration::from_millis(80));
}

#[test]
fn a_pod_that_does_not_come_is_looked_for_more_and_more_seldom() {
    let pause = |waited| pause_after(Duration::from_millis(1), Duration::from_millis(waited));
    assert_eq!((pause(250), pause(500)), (PAUSE, PAUSE * 2));
    assert_eq!((pause(5000), pause(100_000)), (Duration::from_millis(100), LAST_PAUSE));
}

#[test]
fn an_outage_is_tried_more_and_more_seldom_until_it_is_over() {
    let (mut outage, away) = (Outage::default(), RuntimeError::Status(tonic::Status::unavailable("away")));
    let retries: Vec<_> = (0..7).map(|_| outage.goes_on(&away)).collect();
    assert_eq!((retries[0], retries[1], retries[6]), (FIRST_RETRY, FIRST_RETRY * 2, LAST_RETRY));
    outage.over();
    assert_eq!(outage.goes_on(&away), FIRST_RETRY);
}
