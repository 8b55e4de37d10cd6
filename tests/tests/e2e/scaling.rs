//! As many instances as the load needs, never more than may be, and none while nobody calls.

use std::pin::pin;

use anyhow::ensure;
use futures::future::join_all;
use lambent_tests::{Context, await_condition, examples::Run, function::uid, holds_while, with_temp_ns};
use serde_json::json;

#[tokio::test]
async fn an_instance_never_has_more_requests_than_its_concurrency() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "concurrency": 1, "scale": {"max": 3}});
        let slow = cx.deploy("slow", spec).await;
        let answers = slow.call_at_once(30, "/?ms=100").await;
        let runs = Run::all(answers);
        assert_eq!(Run::most_at_once(&runs), 1, "{runs:?}");
    })
    .await;
}

#[tokio::test]
async fn a_concurrency_of_three_is_used_and_not_exceeded() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "concurrency": 3, "scale": {"max": 1}});
        let slow = cx.deploy("slow", spec).await;
        let answers = slow.call_at_once(12, "/?ms=300").await;
        let runs = Run::all(answers);
        assert_eq!(Run::most_at_once(&runs), 3, "{runs:?}");
    })
    .await;
}

#[tokio::test]
async fn load_multiplies_instances_up_to_the_maximum_and_never_above() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 3}})).await;
        let at_most_three = async || {
            let count = slow.instances().await?.len();
            ensure!(count <= 3, "{count} instances");
            Ok(())
        };
        let answers = holds_while("at most 3 instances", at_most_three, slow.call_at_once(12, "/?ms=1500")).await;
        let runs = Run::all(answers);
        assert_eq!(Run::hosts(&runs).len(), 3, "{runs:?}");
        assert_eq!(Run::most_at_once(&runs), 1, "{runs:?}");
    })
    .await;
}

#[tokio::test]
async fn a_burst_of_one_function_does_not_hold_up_the_start_of_another() {
    with_temp_ns(async |cx: Context| {
        let spec = |max| json!({"image": cx.image("slow"), "scale": {"max": max, "idle": "1s"}});
        let (big, small) = (cx.deploy("big", spec(15)).await, cx.deploy("small", spec(1)).await);
        big.await_instances(0).await;
        small.await_instances(0).await;
        let meanwhile = async {
            await_condition("the burst's pods to be under way", async || {
                let count = big.instances().await?.len();
                ensure!(count >= 10, "{count} instances");
                Ok(())
            })
            .await;
            small.call("/?ms=1").await.expect(200)
        };
        let mut burst = pin!(big.call_at_once(60, "/?ms=2000"));
        tokio::select! {
            answers = &mut burst => panic!("{} were answered first", answers.len()),
            answer = meanwhile => assert!(answer.was_cold()),
        }
        assert_eq!(Run::hosts(&Run::all(burst.await)).len(), 15);
    })
    .await;
}

#[tokio::test]
async fn a_burst_on_a_sleeping_function_is_served_by_many() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 4, "idle": "1s"}})).await;
        slow.await_instances(0).await;
        let answers = slow.call_at_once(8, "/?ms=2000").await;
        let runs = Run::all(answers);
        assert_eq!(Run::hosts(&runs).len(), 4, "{runs:?}");
    })
    .await;
}

#[tokio::test]
async fn who_waits_behind_a_long_call_gets_an_instance_of_his_own() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 2}})).await;
        let runs = Run::all(slow.call_at_once(2, "/?ms=10000").await);
        assert_eq!(Run::hosts(&runs).len(), 2, "{runs:?}");
    })
    .await;
}

#[tokio::test]
async fn functions_wake_side_by_side() {
    with_temp_ns(async |cx: Context| {
        let names = ["one", "two", "three", "four"];
        let spec = || json!({"image": cx.image("hello"), "scale": {"idle": "1s"}});
        let functions = join_all(names.map(|name| cx.deploy(name, spec()))).await;
        join_all(functions.iter().map(|function| function.await_instances(0))).await;
        for answer in join_all(functions.iter().map(|function| function.call("/"))).await {
            assert!(answer.expect(200).was_cold());
        }
    })
    .await;
}

#[tokio::test]
async fn one_call_starts_one_instance() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"idle": "2s"}})).await;
        slow.await_instances(0).await;
        let at_most_one = async || {
            let count = slow.instances().await?.len();
            ensure!(count <= 1, "{count} instances");
            Ok(())
        };
        let back_to_none = async {
            slow.call("/?ms=500").await.expect(200);
            slow.await_instances(0).await;
        };
        holds_while("at most one instance", at_most_one, back_to_none).await;
    })
    .await;
}

#[tokio::test]
async fn a_burst_starts_no_more_instances_than_it_has_calls() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 50, "idle": "2s"}})).await;
        slow.await_instances(0).await;
        let no_more = async || {
            let count = slow.instances().await?.len();
            ensure!(count <= 6, "{count} instances");
            Ok(())
        };
        let answers = holds_while("at most 6 instances", no_more, slow.call_at_once(6, "/?ms=6000")).await;
        let runs = Run::all(answers);
        assert_eq!(Run::most_at_once(&runs), 1, "{runs:?}");
        assert!(Run::hosts(&runs).len() > 3, "one waited for the other: {runs:?}");
    })
    .await;
}

#[tokio::test]
async fn a_burst_on_one_function_does_not_keep_another_asleep() {
    with_temp_ns(async |cx: Context| {
        let burst = cx.deploy("burst", json!({"image": cx.image("slow"), "scale": {"max": 8, "idle": "2s"}})).await;
        let single = cx.deploy("single", json!({"image": cx.image("slow"), "scale": {"idle": "2s"}})).await;
        tokio::join!(burst.await_instances(0), single.await_instances(0));
        let (runs, other) = tokio::join!(burst.call_at_once(40, "/?ms=1000"), single.call("/?ms=1"));
        let other = Run::of(&other.expect(200));
        let last = Run::all(runs).iter().map(|run| run.to).max();
        assert!(last > Some(other.to), "the single call was answered after the burst: {other:?}");
    })
    .await;
}

#[tokio::test]
async fn an_idle_function_goes_to_zero_and_says_so() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 3, "idle": "2s"}})).await;
        slow.call_at_once(6, "/?ms=500").await;
        slow.await_instances(0).await;
        await_condition("a status without instances, still Ready", async || {
            let status = slow.status().await?;
            ensure!((status.instances, status.ready) == (0, 0), "{status:?}");
            Ok(())
        })
        .await;
        slow.await_ready().await;
    })
    .await;
}

#[tokio::test]
async fn a_busy_instance_is_kept_however_short_the_idle_time() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 2, "idle": "1s"}})).await;
        let (long, short) = tokio::join!(slow.call("/?ms=5000"), slow.call("/?ms=10"));
        let runs = [Run::of(&long.expect(200)), Run::of(&short.expect(200))];
        assert_eq!(Run::most_at_once(&runs), 1, "{runs:?}");
    })
    .await;
}

#[tokio::test]
async fn calls_go_on_without_an_error_while_instances_go_away() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 3, "idle": "1s"}})).await;
        slow.call_at_once(9, "/?ms=500").await;
        let calls = async {
            loop {
                slow.call("/?ms=20").await.expect(200);
            }
        };
        tokio::select! {
            () = calls => {}
            _ = slow.await_instances(1) => {}
        }
        slow.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_lowered_maximum_takes_instances_away() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"min": 2, "max": 2}})).await;
        slow.await_instances(2).await;
        slow.change(json!({"scale": {"min": 1, "max": 1, "idle": "1s"}})).await;
        let left = slow.await_instances(1).await;
        slow.call("/").await.expect(200);
        assert_eq!(slow.instances().await.unwrap().iter().map(uid).collect::<Vec<_>>(), [uid(&left[0])]);
    })
    .await;
}
