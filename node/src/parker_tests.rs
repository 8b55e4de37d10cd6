use prometheus::Registry;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::*;
use crate::{
    cri::fake::{FakeRuntime, Sandbox},
    freezer::testing::Counting,
    reclaim::tests::{FILE, Reader},
};

const POD: &str = "u-1";

struct Stand {
    fake: FakeRuntime,
    parker: Parker,
    process: Counting,
}

/// One function that runs; none where this machine can't freeze.
fn stand() -> Option<Stand> {
    let Some(process) = Counting::start(&format!("pod{POD}/c-{POD}")) else {
        eprintln!("skipped: no freezer that this user may use");
        return None;
    };
    let fake = FakeRuntime::start();
    fake.put(Sandbox::function(POD, &format!("/{}", process.path.display())));
    let parker = parker(&fake, Ok(process.freezer.clone()));
    Some(Stand { fake, parker, process })
}

fn parker(fake: &FakeRuntime, freezer: Result<Freezer, String>) -> Parker {
    Parker::new(Runtime::new(&fake.endpoint()).unwrap(), freezer, None, Metrics::register(&Registry::new()).unwrap())
}

/// A gateway, and what it is told.
fn gateway(parker: &Parker, link: u64) -> UnboundedReceiver<FromNode> {
    let (to, told) = mpsc::unbounded_channel();
    parker.join(link, to);
    told
}

fn parked(uid: &str) -> FromNode {
    FromNode::Parked { uid: uid.into() }
}

fn running(uid: &str) -> FromNode {
    FromNode::Running { uid: uid.into() }
}

/// Waits until it is told this.
async fn hears(told: &mut UnboundedReceiver<FromNode>, what: &FromNode) {
    loop {
        match told.recv().await.expect("it goes on telling") {
            news if news == *what => return,
            FromNode::CantPark { why, .. } => panic!("{why}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_function_is_frozen_and_goes_on_and_every_gateway_hears_of_it() {
    let Some(Stand { parker, process, fake: _fake }) = stand() else { return };
    let (mut a, mut b) = (gateway(&parker, 1), gateway(&parker, 2));
    for told in [&mut a, &mut b] {
        assert_eq!(told.recv().await, Some(FromNode::Synced));
    }
    parker.order(POD, true);
    assert_eq!((a.recv().await, b.recv().await), (Some(parked(POD)), Some(parked(POD))));
    assert!(process.is_frozen());
    let mut late = gateway(&parker, 3);
    assert_eq!((late.recv().await, late.recv().await), (Some(parked(POD)), Some(FromNode::Synced)));
    parker.order(POD, false);
    assert_eq!((a.recv().await, b.recv().await), (Some(running(POD)), Some(running(POD))));
    assert!(!process.is_frozen());
}

#[tokio::test]
async fn the_last_order_holds() {
    let Some(Stand { parker, process, fake: _fake }) = stand() else { return };
    let mut told = gateway(&parker, 1);
    for _ in 0..20 {
        parker.order(POD, true);
        parker.order(POD, false);
    }
    parker.order(POD, true);
    hears(&mut told, &parked(POD)).await;
    // What is said is so.
    assert!(process.is_frozen());
    parker.order(POD, false);
    hears(&mut told, &running(POD)).await;
    assert!(!process.is_frozen());
}

#[tokio::test]
async fn what_runs_is_said_to_run_and_what_is_no_function_is_refused() {
    let Some(Stand { fake, parker, process: _process }) = stand() else { return };
    let mut told = gateway(&parker, 1);
    assert_eq!(told.recv().await, Some(FromNode::Synced));
    parker.order(POD, false);
    assert_eq!(told.recv().await, Some(running(POD)));
    fake.put(Sandbox::ready("u-2", "10.244.0.7"));
    fake.put(Sandbox::function("u-3", "/kubepods/podu-9/c-u-3"));
    for uid in ["u-2", "u-3"] {
        parker.order(uid, true);
        assert!(matches!(told.recv().await, Some(FromNode::CantPark { uid: refused, .. }) if refused == uid));
    }
}

#[tokio::test]
async fn without_a_freezer_it_says_why() {
    let fake = FakeRuntime::start();
    let parker = parker(&fake, Err("no freezer".into()));
    let mut told = gateway(&parker, 1);
    parker.order(POD, true);
    assert_eq!(told.recv().await, Some(FromNode::Synced));
    assert_eq!(told.recv().await, Some(FromNode::CantPark { uid: POD.into(), why: "no freezer".into() }));
}

#[tokio::test]
async fn without_a_gateway_functions_go_on_after_a_while() {
    let Some(Stand { parker, process, fake: _fake }) = stand() else { return };
    let mut told = gateway(&parker, 1);
    parker.order(POD, true);
    hears(&mut told, &parked(POD)).await;
    let now = Instant::now();
    parker.look(now + UNCLAIMED_FOR);
    assert!(process.is_frozen(), "a gateway is there");
    parker.leave(1);
    parker.look(Instant::now());
    assert!(process.is_frozen(), "it may come back");
    parker.look(Instant::now() + UNCLAIMED_FOR);
    assert!(!process.is_frozen());
}

#[tokio::test]
async fn what_an_agent_before_has_left_frozen_goes_on_unless_a_gateway_claims_it() {
    let Some(Stand { fake, process, .. }) = stand() else { return };
    for claimed in [true, false] {
        process.freezer.freeze(&process.path, || true).await.unwrap();
        let parker = parker(&fake, Ok(process.freezer.clone()));
        parker.find_left().await;
        let mut told = gateway(&parker, 1);
        assert_eq!(told.recv().await, Some(parked(POD)));
        if claimed {
            parker.order(POD, true);
            assert_eq!((told.recv().await, told.recv().await), (Some(FromNode::Synced), Some(parked(POD))));
        }
        parker.look(Instant::now() + UNCLAIMED_FOR);
        assert_eq!(process.is_frozen(), claimed);
        process.freezer.thaw(&process.path).unwrap();
    }
}

#[tokio::test]
async fn all_go_on_when_the_agent_stops_and_nothing_is_frozen_after() {
    let Some(Stand { parker, process, fake: _fake }) = stand() else { return };
    let mut told = gateway(&parker, 1);
    parker.order(POD, true);
    hears(&mut told, &parked(POD)).await;
    parker.close().await;
    assert!(!process.is_frozen());
    assert_eq!(told.recv().await, Some(running(POD)));
    parker.order(POD, true);
    assert_eq!(told.recv().await, Some(running(POD)), "not any more");
    assert!(!process.is_frozen());
}

#[tokio::test]
async fn what_is_frozen_has_its_memory_pushed_out_afterwards() {
    let Some(Stand { process, fake, .. }) = stand() else { return };
    let Some(reader) = Reader::start(process.path.clone()) else { return };
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let runtime = Runtime::new(&fake.endpoint()).unwrap();
    let reclaimer = Some(reader.reclaimer.clone());
    let parker = Parker::new(runtime, Ok(process.freezer.clone()), reclaimer, metrics.clone());
    let mut told = gateway(&parker, 1);
    parker.order(POD, true);
    hears(&mut told, &parked(POD)).await;
    let pushed = async {
        while metrics.pushed_out.get() < FILE / 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), pushed).await.expect("its memory is pushed out");
    assert!(process.is_frozen());
}

#[tokio::test]
async fn what_goes_on_by_itself_is_told() {
    let Some(Stand { parker, process, fake: _fake }) = stand() else { return };
    let mut told = gateway(&parker, 1);
    parker.order(POD, true);
    hears(&mut told, &parked(POD)).await;
    process.freezer.thaw(&process.path).unwrap();
    parker.look(Instant::now());
    assert_eq!(told.recv().await, Some(running(POD)));
}
