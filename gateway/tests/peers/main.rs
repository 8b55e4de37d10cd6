//! Several gateways: one owner a Function, concurrency exact whoever comes, leaves or dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(unreachable_pub)]
mod node;
#[allow(unreachable_pub, dead_code)]
#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use lambent_api::Reason;
use node::World;
use serde_json::json;
use support::{call, get, until};

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn all_gateways_together_keep_the_concurrency_of_an_instance() {
    let mut world = World::of(&["a", "b", "c"]).await;
    world.function("hello", json!({"concurrency": 2})).await;
    let counts = world.instance("hello", 3 * MS).await;
    world.settled(&["hello"]).await;
    let calls = (0..120).map(|n| call(world.nodes[n % 3].public, get("/fn/shop/hello")));
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(counts.most(), 2);
}

#[tokio::test]
async fn functions_are_shared_and_stay_where_they_are_when_others_come() {
    let mut world = World::of(&["a", "b"]).await;
    let names: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        world.function(name, json!({})).await;
    }
    world.settled(&names).await;
    let before: Vec<_> = names.iter().map(|f| world.owner_of(f)).collect();
    assert!((4..=16).contains(&before.iter().filter(|owner| **owner == 0).count()), "{before:?}");
    world.join("c").await;
    until("the third has a share", || names.iter().any(|f| world.nodes[2].is_owner(f))).await;
    world.settled(&names).await;
    for (name, before) in names.iter().zip(before) {
        let now = world.owner_of(name);
        assert!(now == before || now == 2, "{name} went from {before} to {now}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_owner_reaches_the_caller_of_another_gateway() {
    let mut world = World::of(&["a", "b"]).await;
    world.function("hello", json!({})).await;
    world.revision("hello", Some(Reason::new("ErrImagePull", "no such image"))).await;
    world.settled(&["hello"]).await;
    let other = 1 - world.owner_of("hello");
    let answer = call(world.nodes[other].public, get("/fn/shop/hello")).await.unwrap();
    assert_eq!((answer.status, answer.reason().as_str()), (503, "StartFailed"));
    assert!(answer.body.contains("no such image"));
}

#[tokio::test]
async fn a_caller_who_leaves_leaves_the_line_at_the_owner_too() {
    let mut world = World::of(&["a", "b"]).await;
    world.function("hello", json!({})).await;
    world.settled(&["hello"]).await;
    let owner = world.owner_of("hello");
    let caller = tokio::spawn(call(world.nodes[1 - owner].public, get("/fn/shop/hello")));
    until("it waits at the owner", || world.nodes[owner].queued_or_running("hello") == 1).await;
    caller.abort();
    until("it has left", || world.nodes[owner].queued_or_running("hello") == 0).await;
}

#[tokio::test]
async fn what_has_lost_its_owner_is_claimed_again() {
    let mut world = World::of(&["a", "b"]).await;
    world.function("hello", json!({})).await;
    let _counts = world.instance("hello", MS).await;
    world.settled(&["hello"]).await;
    let owner = world.owner_of("hello");
    for losers in [vec![0, 1], vec![owner], vec![1 - owner]] {
        for at in losers {
            world.nodes[at].directory.any("shop", "hello").unwrap().await_owner();
        }
        world.settled(&["hello"]).await;
        for node in &world.nodes {
            assert_eq!(call(node.public, get("/fn/shop/hello")).await.unwrap().status, 200);
        }
    }
}

/// Lists of pods reach gateways at different times. Who was claimed from by one that is on no list yet claims
/// again, but needs its word for that as well.
#[tokio::test]
async fn a_gateway_that_the_others_have_not_heard_of_is_asked_all_the_same() {
    let mut world = World::of(&["a"]).await;
    let name = node::function_of("b", &["a", "b"]);
    world.function(&name, json!({"concurrency": 1})).await;
    let counts = world.instance(&name, 5 * MS).await;
    world.settled(&[&name]).await;
    world.join_unheard("b").await;
    until("it has its share", || world.nodes[1].is_owner(&name)).await;
    let path = format!("/fn/shop/{name}");
    let waits = tokio::spawn(call(world.nodes[0].public, get(&path)));
    for _ in 0..60 {
        let (one, other) =
            tokio::join!(call(world.nodes[1].public, get(&path)), call(world.nodes[1].public, get(&path)));
        assert_eq!((one.unwrap().status, other.unwrap().status), (200, 200));
        assert!(!(world.nodes[0].is_owner(&name) && world.nodes[1].is_owner(&name)), "both grant");
    }
    world.tell_pods();
    assert_eq!(waits.await.unwrap().unwrap().status, 200);
    assert_eq!(counts.most(), 1);
}

#[tokio::test]
async fn an_owner_that_leaves_hands_its_line_on() {
    let mut world = World::of(&["a", "b"]).await;
    world.function("hello", json!({"concurrency": 1})).await;
    let counts = world.instance("hello", 40 * MS).await;
    world.settled(&["hello"]).await;
    let owner = world.owner_of("hello");
    let addresses = [world.nodes[0].public, world.nodes[1].public];
    let calls = join_all((0..16).map(|n| tokio::spawn(call(addresses[n % 2], get("/fn/shop/hello")))));
    until("it is busy", || counts.now() == 1).await;
    let served = world.leave(owner).served.clone();
    for answer in calls.await {
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
    assert_eq!(counts.most(), 1);
    served.cancelled().await;
}

#[tokio::test]
async fn when_the_owner_dies_only_its_own_callers_fail() {
    let mut world = World::of(&["a", "b"]).await;
    world.function("hello", json!({"concurrency": 3})).await;
    let counts = world.instance("hello", 60 * MS).await;
    world.settled(&["hello"]).await;
    let owner = world.owner_of("hello");
    let other = world.nodes[1 - owner].public;
    // Some run, some wait, all of them by way of the one that lives.
    let calls = join_all((0..12).map(|_| tokio::spawn(call(other, get("/fn/shop/hello")))));
    until("it is busy", || counts.now() == 3).await;
    world.kill(owner);
    for answer in calls.await {
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
    assert_eq!(counts.most(), 3);
    assert!(world.nodes[0].is_owner("hello"));
}

#[tokio::test]
async fn nobody_waits_for_the_answer_of_a_gateway_that_was_deleted_by_force() {
    let mut world = World::of(&["a", "b"]).await;
    world.function("hello", json!({})).await;
    world.settled(&["hello"]).await;
    let owner = world.owner_of("hello");
    let caller = tokio::spawn(call(world.nodes[1 - owner].public, get("/fn/shop/hello")));
    until("it waits at the owner", || world.nodes[owner].queued_or_running("hello") == 1).await;
    world.unlist(owner);
    until("it waits at the other", || world.nodes[1 - owner].queued_or_running("hello") == 1).await;
    world.instance("hello", MS).await;
    assert_eq!(caller.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn slots_of_a_gateway_that_died_are_free_again() {
    let mut world = World::of(&["a", "b"]).await;
    world.function("hello", json!({"concurrency": 1})).await;
    let counts = world.instance("hello", 300 * MS).await;
    world.settled(&["hello"]).await;
    let owner = world.owner_of("hello");
    let lost = tokio::spawn(call(world.nodes[1 - owner].public, get("/fn/shop/hello")));
    until("it is busy", || counts.now() == 1).await;
    world.kill(1 - owner);
    assert!(lost.await.unwrap().is_err());
    assert_eq!(call(world.nodes[0].public, get("/fn/shop/hello")).await.unwrap().status, 200);
}

/// Gateways come and drain while callers never stop: nobody notices, and no instance ever has more
/// than it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_come_and_go_under_load_and_no_caller_notices() {
    let functions = ["f1", "f2", "f3"];
    let mut world = World::of(&["g0", "g1"]).await;
    let mut counts = Vec::new();
    for name in functions {
        world.function(name, json!({"concurrency": 2})).await;
        counts.push(world.instance(name, 2 * MS).await);
        counts.push(world.instance(name, 5 * MS).await);
    }
    world.settled(&functions).await;
    // What a Service sends to: gateways that are ready.
    let ready = Arc::new(parking_lot::Mutex::new(Vec::new()));
    *ready.lock() = world.nodes.iter().map(|n| n.public).collect();
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let callers = join_all((0..24_usize).map(|n| {
        let (ready, stop, served) = (ready.clone(), stop.clone(), served.clone());
        tokio::spawn(async move {
            for round in n.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let to = {
                    let ready = ready.lock();
                    ready[round % ready.len()]
                };
                let answer = call(to, get(&format!("/fn/shop/{}", functions[n % 3]))).await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.body);
                served.fetch_add(1, Ordering::SeqCst);
            }
        })
    }));
    for round in 2..10 {
        let before = served.load(Ordering::SeqCst);
        until("the load goes on", || served.load(Ordering::SeqCst) > before + 100).await;
        world.join(&format!("g{round}")).await;
        *ready.lock() = world.nodes.iter().map(|n| n.public).collect();
        until("the new one has a share", || {
            functions.iter().all(|f| world.nodes.iter().filter(|n| n.is_owner(f)).count() == 1)
        })
        .await;
        let before = served.load(Ordering::SeqCst);
        until("the load goes on", || served.load(Ordering::SeqCst) > before + 100).await;
        // The oldest goes: first unready, then drained.
        *ready.lock() = world.nodes[1..].iter().map(|n| n.public).collect();
        let drained = world.leave(0).served.clone();
        tokio::time::timeout(Duration::from_secs(20), drained.cancelled()).await.unwrap();
        world.kill(0);
        world.tell_pods();
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers.await {
        caller.unwrap();
    }
    for counts in counts {
        assert!(counts.most() <= 2, "{} at once", counts.most());
    }
}
