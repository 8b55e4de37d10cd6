//! What callers get when the function can't answer them: bodies that are too long, functions that
//! take too long or break. What waits is in `queueing`.

use std::time::Duration;

use anyhow::ensure;
use lambent_tests::{
    Context, Request, await_condition,
    examples::{self, Run, mirror},
    in_flight::Place,
    raw::Raw,
    with_temp_ns,
};
use serde_json::json;

/// Far less than what is announced and never sent would take.
const BEFORE_IT_IS_READ: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_body_announced_as_too_long_is_refused_before_it_is_sent() {
    with_temp_ns(async |cx: Context| {
        let echo = cx.deploy("echo", json!({"image": cx.image("stream"), "maxBody": "1k"})).await;
        let mut raw = Raw::connect(&cx.gateway).await;
        let path = echo.path("/echo");
        raw.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n")).await;
        let head = tokio::time::timeout(BEFORE_IT_IS_READ, raw.head()).await.expect("an answer before the body");
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        assert!(head.to_lowercase().contains("application/problem+json"), "{head}");
    })
    .await;
}

#[tokio::test]
async fn a_chunked_body_is_refused_as_soon_as_it_is_too_long() {
    with_temp_ns(async |cx: Context| {
        let echo = cx.deploy("echo", json!({"image": cx.image("slow"), "maxBody": "1k"})).await;
        let mut raw = Raw::connect(&cx.gateway).await;
        let path = echo.path("/?ms=20000");
        raw.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")).await;
        for _ in 0..3 {
            raw.send(format!("200\r\n{}\r\n", "x".repeat(0x200))).await;
        }
        let head = tokio::time::timeout(BEFORE_IT_IS_READ, raw.head()).await.expect("an answer before the end");
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_told_with_the_limit_and_harms_nobody_else() {
    with_temp_ns(async |cx: Context| {
        let echo = cx.deploy("echo", json!({"image": cx.image("stream"), "maxBody": "1k"})).await;
        let refused = cx.gateway.send(Request::post(&echo.path("/echo"), vec![b'x'; 1001])).await;
        let words = refused.expect_refusal(413, "BodyTooLarge");
        assert!(words.contains("1000") && words.contains("maxBody"), "{words}");
        let longest = cx.gateway.send(Request::post(&echo.path("/echo"), vec![b'x'; 1000])).await.expect(200);
        assert_eq!(longest.body.len(), 1000);
    })
    .await;
}

#[tokio::test]
async fn a_function_that_runs_too_long_is_given_up() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "timeout": "1s", "scale": {"max": 2}});
        let slow = cx.deploy("slow", spec).await;
        let answer = slow.call("/?ms=30000").await;
        let words = answer.expect_refusal(504, "FunctionTimeout");
        assert!(words.contains("timeout"), "{words}");
        assert!(answer.took >= Duration::from_secs(1), "{:?}", answer.took);
        slow.call("/?ms=10").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_does_not_end_a_request_is_not_given_another() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "concurrency": 1, "timeout": "1s", "scale": {"max": 1}});
        let slow = cx.deploy("slow", spec).await;
        slow.call("/?ms=4000").await.expect_refusal(504, "FunctionTimeout");
        // Its own count says whether the first one had ended.
        let next = Run::of(&slow.call("/?ms=1").await.expect(200));
        assert_eq!(next.running, 1, "{next:?}");
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_runs_too_long_is_cut() {
    with_temp_ns(async |cx: Context| {
        let stream = cx.deploy("stream", json!({"image": cx.image("stream"), "timeout": "2s"})).await;
        let path = stream.path(&examples::lines(100, 500));
        let mut answer = cx.gateway.open(Request::get(&path)).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.line().await.unwrap().is_some());
        assert!(answer.rest().await.is_err(), "the answer ended as if it were whole");
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_dies_in_mid_request_is_told_and_not_asked_again() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow")})).await;
        // A GET may be repeated on another connection, where the first one was kept alive: this may not.
        let answer = cx.gateway.send(Request::post(&slow.path("/exit?code=1"), "x")).await;
        answer.expect_refusal(502, "InstanceFailed");
        slow.await_answer("/?ms=1").await;
        await_condition("the one restart to be told", async || {
            let pod = slow.instances().await?.remove(0);
            let restarts = pod.status.and_then(|s| s.container_statuses).map(|c| c[0].restart_count);
            ensure!(restarts == Some(1), "{restarts:?}");
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_the_function_answers_goes_through_whatever_its_status() {
    with_temp_ns(async |cx: Context| {
        let mirror = cx.deploy("mirror", mirror(&cx)).await;
        for status in [204, 301, 404, 418, 429, 500, 503] {
            let answer = mirror.call(&format!("/status/{status}")).await.expect(status);
            assert_ne!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
            assert!(answer.timing("function").is_some(), "{answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_leaves_frees_the_instance_only_when_it_is_done() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "concurrency": 1, "scale": {"max": 1}})).await;
        slow.start("/?ms=3000").await.leave().await;
        let next = Run::of(&slow.call("/?ms=1").await.expect(200));
        assert_eq!(next.running, 1, "{next:?}");
        await_condition("nothing to be in flight", async || {
            let count = slow.requests(Place::InFlight).await?;
            ensure!(count == 0, "{count}");
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_the_gateway_goes_on() {
    with_temp_ns(async |cx: Context| {
        for nonsense in [
            "GET\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "POST /fn/a/b HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            "POST /fn/a/b HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "\0\0\0\0\r\n\r\n",
        ] {
            let mut raw = Raw::connect(&cx.gateway).await;
            raw.send(nonsense).await;
            let answer = raw.to_end().await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{nonsense:?}: {answer}");
        }
        cx.function("nobody").call("/").await.expect(404);
    })
    .await;
}
