//! Who waits: in line, up to a number, up to a time, and no longer than the caller does.

use std::time::Duration;

use anyhow::bail;
use lambent_tests::{Context, Deployed, await_condition, examples::Run, in_flight::Place, with_temp_ns};
use serde_json::{Value, json};

/// `slow` with one instance that serves one request at a time.
async fn one_at_a_time(cx: &Context, queue: Value) -> Deployed {
    let spec = json!({"image": cx.image("slow"), "concurrency": 1, "queue": queue, "scale": {"max": 1, "idle": "1h"}});
    cx.deploy("slow", spec).await
}

#[tokio::test]
async fn a_full_queue_refuses_with_429_and_when_to_come_again() {
    with_temp_ns(async |cx: Context| {
        let slow = one_at_a_time(&cx, json!({"depth": 1})).await;
        let first = slow.start("/?ms=4000").await;
        let second = slow.enqueue("/?ms=1", 1).await;
        let third = slow.call("/?ms=1").await;
        let words = third.expect_refusal(429, "QueueFull");
        assert!(words.contains("queue.depth"), "{words}");
        assert!(third.took < Duration::from_secs(2), "{:?}", third.took);
        first.answer().await.expect(200);
        second.answer().await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_depth_of_zero_lets_nobody_wait() {
    with_temp_ns(async |cx: Context| {
        let slow = one_at_a_time(&cx, json!({"depth": 0})).await;
        let first = slow.start("/?ms=3000").await;
        slow.call("/?ms=1").await.expect_refusal(429, "QueueFull");
        first.answer().await.expect(200);
        // A slot that one gateway lent to the other comes back a message after the answer's end.
        await_condition("the next call to be served", async || {
            let next = slow.call("/?ms=1").await;
            if next.status != 200 {
                next.expect_refusal(429, "QueueFull");
                bail!("{next:?}");
            }
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn who_waited_too_long_gets_504() {
    with_temp_ns(async |cx: Context| {
        let slow = one_at_a_time(&cx, json!({"timeout": "1s"})).await;
        let first = slow.start("/?ms=5000").await;
        let second = slow.call("/?ms=1").await;
        let words = second.expect_refusal(504, "QueueTimeout");
        assert!(words.contains("queue.timeout"), "{words}");
        assert!((1.0..4.0).contains(&second.took.as_secs_f64()), "{:?}", second.took);
        first.answer().await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn who_would_wait_too_long_is_refused_at_once() {
    with_temp_ns(async |cx: Context| {
        let slow = one_at_a_time(&cx, json!({"timeout": "3s"})).await;
        // The gateway learns from these how long a request takes.
        for _ in 0..2 {
            slow.call("/?ms=1000").await.expect(200);
        }
        let answers = slow.call_at_once(12, "/?ms=1000").await;
        let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
        assert!(!refused.is_empty(), "nobody was refused at once");
        for answer in refused {
            answer.expect_refusal(429, "QueueFull");
            assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
        }
        assert!(answers.iter().filter(|answer| answer.status == 200).count() >= 2);
    })
    .await;
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_arrival() {
    with_temp_ns(async |cx: Context| {
        let slow = one_at_a_time(&cx, json!({})).await;
        let first = slow.start("/?ms=2000").await;
        let mut waiting = Vec::new();
        for queued in 1..=3 {
            waiting.push(slow.enqueue("/?ms=50", queued).await);
        }
        let mut runs = vec![Run::of(&first.answer().await.expect(200))];
        for call in waiting {
            runs.push(Run::of(&call.answer().await.expect(200)));
        }
        assert!(runs.is_sorted_by(|one, next| one.to <= next.from), "{runs:?}");
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_leaves_the_queue_frees_its_place_and_is_never_served() {
    with_temp_ns(async |cx: Context| {
        let slow = one_at_a_time(&cx, json!({"depth": 1})).await;
        let first = slow.start("/?ms=4000").await;
        slow.enqueue("/exit?code=1", 1).await.leave().await;
        slow.await_requests(Place::Queued, 0).await;
        // The place is free, and had the one that left been served, the instance would have died.
        let next = slow.enqueue("/?ms=1", 1).await;
        let first = Run::of(&first.answer().await.expect(200));
        let next = Run::of(&next.answer().await.expect(200));
        assert_eq!(next.host, first.host);
        let pod = slow.await_instances(1).await.remove(0);
        let restarts = pod.status.and_then(|s| s.container_statuses).map(|c| c[0].restart_count);
        assert_eq!(restarts, Some(0));
    })
    .await;
}

#[tokio::test]
async fn who_leaves_while_an_instance_starts_causes_no_second_one() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 5, "idle": "2s"}})).await;
        slow.await_instances(0).await;
        slow.enqueue("/?ms=1", 1).await.leave().await;
        slow.await_requests(Place::Queued, 0).await;
        let at_most_one = async || {
            let count = slow.instances().await?.len();
            anyhow::ensure!(count <= 1, "{count} instances");
            Ok(())
        };
        lambent_tests::holds_while("at most one instance", at_most_one, slow.await_instances(0)).await;
    })
    .await;
}

#[tokio::test]
async fn settings_of_the_queue_change_at_once() {
    with_temp_ns(async |cx: Context| {
        let slow = one_at_a_time(&cx, json!({"depth": 0})).await;
        let revision = slow.serving().await;
        slow.change(json!({"queue": {"depth": 5}})).await;
        slow.await_ready().await;
        let first = slow.start("/?ms=2000").await;
        let second = slow.enqueue("/?ms=1", 1).await;
        first.answer().await.expect(200);
        second.answer().await.expect(200);
        assert_eq!(slow.serving().await, revision);
    })
    .await;
}
