//! More than a Function can bear: it does what it can, the rest is refused at once, and nobody else notices.

use lambent_tests::{
    Context, Deployed,
    in_flight::Place,
    load::{at_a_rate, under_load},
    with_temp_ns,
};
use serde_json::json;

/// Two instances that serve one request of 100 ms at a time: 20 a second.
const CAPACITY: u32 = 20;
const SECONDS: u32 = 10;

async fn limited(cx: &Context, queue: serde_json::Value) -> Deployed {
    let spec = json!({
        "image": cx.image("slow"), "concurrency": 1, "queue": queue, "scale": {"min": 2, "max": 2, "idle": "1h"},
    });
    let slow = cx.deploy("slow", spec).await;
    slow.await_instances(2).await;
    slow
}

#[tokio::test]
async fn five_times_too_much_is_served_at_capacity_and_the_rest_refused_by_the_expected_wait() {
    with_temp_ns(async |cx: Context| {
        // A queue that would never be full.
        let slow = limited(&cx, json!({"depth": 10_000, "timeout": "1s"})).await;
        let other = cx.deploy("other", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let answers = under_load(&other, 1, "/", at_a_rate(&slow, 5 * CAPACITY, SECONDS, "/?ms=100")).await;
        let of = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
        let (served, refused, late) = (of(200), of(429), of(504));
        assert_eq!(served + refused + late, answers.len());
        assert!(served >= (CAPACITY * SECONDS * 8 / 10) as usize, "{served} of {}", answers.len());
        assert!(refused > late * 10, "{refused} were refused at once, {late} waited in vain");
        for answer in answers.iter().filter(|answer| answer.status == 429) {
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        }
        slow.call("/?ms=1").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn who_floods_one_function_keeps_no_other_from_being_served() {
    with_temp_ns(async |cx: Context| {
        let slow = limited(&cx, json!({"depth": 300, "timeout": "5m"})).await;
        let other = cx.deploy("other", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let flood: Vec<_> = (0..300).map(|_| slow.call_in_background("/?ms=200")).collect();
        slow.await_requests(Place::InFlight, 2).await;
        let asleep = cx.deploy("asleep", json!({"image": cx.image("hello")})).await;
        for _ in 0..100 {
            other.call("/").await.expect(200);
        }
        asleep.call("/").await.expect(200);
        assert!(slow.requests(Place::Queued).await.unwrap() > 0, "the flood was over before the others were served");
        for call in flood {
            call.answer().await.expect(200);
        }
    })
    .await;
}
