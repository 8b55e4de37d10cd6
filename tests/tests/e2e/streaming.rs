//! Bodies go through as they come, both ways.

use lambent_tests::{Context, Request, examples, in_flight::Place, raw::Raw, with_temp_ns};
use serde_json::json;

#[tokio::test]
async fn the_first_line_arrives_long_before_the_last_is_sent() {
    with_temp_ns(async |cx: Context| {
        let stream = cx.deploy("stream", json!({"image": cx.image("stream")})).await;
        let request = Request::get(&stream.path(&examples::lines(4, 700)));
        let mut answer = cx.gateway.open(request).await.unwrap();
        let mut arrivals = Vec::new();
        while answer.line().await.unwrap().is_some() {
            arrivals.push(std::time::Instant::now());
        }
        assert_eq!(arrivals.len(), 4);
        for pair in arrivals.windows(2) {
            assert!(pair[1] - pair[0] > std::time::Duration::from_millis(350), "{arrivals:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_sent_comes_back_before_more_is_sent() {
    with_temp_ns(async |cx: Context| {
        let stream = cx.deploy("stream", json!({"image": cx.image("stream")})).await;
        let (request, upload) = Request::upload(&stream.path("/echo"));
        upload.send("first");
        let mut answer = cx.gateway.open(request).await.unwrap();
        assert_eq!(answer.bytes(5).await.unwrap(), "first");
        upload.send("second");
        assert_eq!(answer.bytes(6).await.unwrap(), "second");
        drop(upload);
        assert!(answer.rest().await.unwrap().body.is_empty());
    })
    .await;
}

#[tokio::test]
async fn megabytes_come_back_byte_for_byte() {
    with_temp_ns(async |cx: Context| {
        let stream = cx.deploy("stream", json!({"image": cx.image("stream")})).await;
        let bytes: Vec<u8> = (0..6_u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        assert_eq!(bytes.len(), 6 << 20);
        let answer = cx.gateway.send(Request::post(&stream.path("/echo"), bytes.clone())).await.expect(200);
        assert!(answer.body == bytes, "{} bytes came back", answer.body.len());
    })
    .await;
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    with_temp_ns(async |cx: Context| {
        let stream = cx.deploy("stream", json!({"image": cx.image("stream")})).await;
        let mut answer = cx.gateway.open(Request::get(&stream.path(&examples::events(20, 300)))).await.unwrap();
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        let mut events = 0;
        while events < 2 {
            let line = answer.line().await.unwrap().expect("more events");
            events += usize::from(line.starts_with("data:"));
        }
    })
    .await;
}

#[tokio::test]
async fn events_may_last_longer_than_the_timeout_of_other_answers() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("stream"), "timeout": "1s", "streamTimeout": "1m"});
        let stream = cx.deploy("stream", spec).await;
        let mut answer = cx.gateway.open(Request::get(&stream.path(&examples::events(20, 300)))).await.unwrap();
        let started = std::time::Instant::now();
        while started.elapsed() < std::time::Duration::from_secs(3) {
            assert!(answer.line().await.unwrap().is_some(), "ended after {:?}", started.elapsed());
        }
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_leaves_a_stream_frees_the_instance() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({"image": cx.image("stream"), "concurrency": 1, "scale": {"max": 1}});
        let stream = cx.deploy("stream", spec).await;
        let request = Request::get(&stream.path(&examples::lines(1000, 100)));
        let mut answer = cx.gateway.open(request).await.unwrap();
        assert!(answer.line().await.unwrap().is_some());
        drop(answer);
        stream.await_requests(Place::InFlight, 0).await;
        cx.gateway.send(Request::post(&stream.path("/echo"), "still here")).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn another_protocol_goes_both_ways_once_it_is_agreed_on() {
    with_temp_ns(async |cx: Context| {
        let mirror = cx.deploy("mirror", examples::mirror(&cx)).await;
        let mut raw = Raw::connect(&cx.gateway).await;
        let path = mirror.path("/");
        raw.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: lines\r\n\r\n")).await;
        let head = raw.head().await.to_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: lines"), "{head}");
        for line in ["one\n", "two\n"] {
            raw.send(line).await;
            assert_eq!(raw.line().await, line);
        }
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_expects_100_continue_is_told_to_go_on() {
    with_temp_ns(async |cx: Context| {
        let stream = cx.deploy("stream", json!({"image": cx.image("stream")})).await;
        let mut raw = Raw::connect(&cx.gateway).await;
        let path = stream.path("/echo");
        let head = "host: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 4";
        raw.send(format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n")).await;
        let go_on = raw.head().await;
        // This function answers before it reads, and its answer may be the word.
        assert!(go_on.starts_with("HTTP/1.1 100 ") || go_on.starts_with("HTTP/1.1 200 "), "{go_on}");
        raw.send("ping").await;
        let answer = go_on + &raw.to_end().await;
        assert!(answer.contains("HTTP/1.1 200 ") && answer.ends_with("ping"), "{answer}");
    })
    .await;
}
