//! What operators see: the admin port of each part, its counts and its logs.

use anyhow::{Context as _, ensure};
use lambent_tests::{
    Context, Request, await_condition, examples,
    system::{COMPONENTS, System},
    with_temp_ns,
};
use serde_json::{Value, json};

#[tokio::test]
async fn each_part_tells_that_it_lives_and_is_ready() {
    with_temp_ns(async |cx: Context| {
        let system = System::new(&cx);
        for component in COMPONENTS {
            for pod in system.running(component).await.expect("pods") {
                for path in ["/healthz", "/readyz"] {
                    system.admin(&pod, path).await.unwrap_or_else(|error| panic!("{pod}{path}: {error:#}"));
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn each_part_explains_all_that_it_counts() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        hello.call("/").await.expect(200);
        for component in COMPONENTS {
            let system = System::new(&cx);
            let pod = system.pod(component).await.expect("a pod");
            let text = system.admin(&pod, "/metrics").await.expect("metrics");
            assert!(text.contains("lambent_"), "{component} counts nothing of ours: {text}");
            for line in text.lines().filter(|line| line.starts_with("# HELP")) {
                assert!(line.split_whitespace().count() > 3, "{component}: {line}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn requests_are_counted_by_function_and_code() {
    with_temp_ns(async |cx: Context| {
        let mirror = cx.deploy("mirror", examples::mirror(&cx)).await;
        for _ in 0..3 {
            mirror.call("/").await.expect(200);
        }
        mirror.call("/status/404").await.expect(404);
        let system = System::new(&cx);
        for (code, expected) in [("200", 3.0), ("404", 1.0)] {
            let labels = [("namespace", &*cx.namespace), ("function", "mirror"), ("code", code)];
            await_condition(format!("{expected} requests of code {code}"), async || {
                let counted = system.metric("gateway", "lambent_requests_total", &labels).await?;
                ensure!(counted == Some(expected), "{counted:?}");
                Ok(())
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn cold_starts_are_counted_by_stage_and_instances_by_state() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"idle": "2s"}})).await;
        hello.await_instances(0).await;
        let answer = hello.call("/").await.expect(200);
        assert!(answer.was_cold());
        let of_stage = |stage: &str| answer.timing(&format!("cold-{stage}"));
        let system = System::new(&cx);
        let labels = |more| [("namespace", &*cx.namespace), ("function", "hello"), more];
        await_condition("one instance that is ready", async || {
            let ready = system.metric("controller", "lambent_instances", &labels(("state", "ready"))).await?;
            ensure!(ready == Some(1.0), "{ready:?}");
            Ok(())
        })
        .await;
        // Of these the end is always seen; who decided and wrote may be another gateway.
        let stages = ["order", "schedule", "address", "answer", "forward", "total"];
        for stage in stages {
            let count = system.metric("gateway", "lambent_cold_start_seconds_count", &labels(("stage", stage))).await;
            assert_eq!(count.unwrap(), Some(1.0), "{stage}");
        }
        let until_answered = ["decide", "write", "order", "schedule", "address", "answer"];
        let said: f64 = until_answered.into_iter().filter_map(of_stage).sum();
        let whole = answer.timing("cold").unwrap();
        assert!((said - whole).abs() < 0.1 && whole > 0.0, "{said} {whole} {answer:?}");
        assert!(of_stage("answer").is_some_and(|millis| millis > 0.0), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_counted_of_a_function_goes_with_it() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        hello.call("/").await.expect(200);
        hello.delete().await;
        hello.await_removed().await;
        for component in COMPONENTS {
            await_condition(format!("{component} to forget it"), async || {
                let system = System::new(&cx);
                for pod in system.running(component).await? {
                    let text = system.admin(&pod, "/metrics").await?;
                    let line = text.lines().find(|line| line.contains(&cx.namespace));
                    ensure!(line.is_none(), "{pod}: {line:?}");
                }
                Ok(())
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn decisions_are_counted_and_logged_with_their_reason() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 2}})).await;
        let system = System::new(&cx);
        let decisions = async || system.metric("autoscaler", "lambent_scaling_decisions_total", &[]).await;
        let before = decisions().await.unwrap().unwrap_or(0.0);
        slow.call_at_once(4, "/?ms=1000").await;
        await_condition("one more decision", async || {
            let now = decisions().await?.unwrap_or(0.0);
            ensure!(now > before, "{now} after {before}");
            Ok(())
        })
        .await;
        let revision = slow.serving().await;
        let line = logged(&cx, "autoscaler", |line| says(line, &revision)).await;
        let reason = line["reason"].as_str().or(line["fields"]["reason"].as_str());
        assert!(reason.is_some_and(|reason| !reason.is_empty()), "{line}");
    })
    .await;
}

#[tokio::test]
async fn a_request_is_logged_with_all_that_identifies_it() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"idle": "1s"}})).await;
        hello.await_instances(0).await;
        let id = format!("logged-{}", cx.namespace);
        let request = Request::get(&hello.path("/secret?token=abc")).header("x-request-id", &id);
        cx.gateway.send(request).await;
        let line = logged(&cx, "gateway", |line| says(line, &id)).await;
        let fields = if line["fields"].is_object() { &line["fields"] } else { &line };
        assert_eq!(fields["request_id"], *id, "{line}");
        assert_eq!((&fields["namespace"], &fields["function"]), (&json!(cx.namespace), &json!("hello")), "{line}");
        assert_eq!(fields["revision"], json!(hello.serving().await), "{line}");
        assert!(fields["status"].is_u64() && fields["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
        assert_eq!(fields["cold_start"], true, "{line}");
        assert!(!line.to_string().contains("abc"), "the query is in the log: {line}");
    })
    .await;
}

#[tokio::test]
async fn each_line_of_each_log_is_json() {
    with_temp_ns(async |cx: Context| {
        for component in COMPONENTS {
            let text = System::new(&cx).logs(component).await.expect("a log");
            for line in text.lines() {
                let parsed: Result<Value, _> = serde_json::from_str(line);
                assert!(parsed.is_ok_and(|line| line["level"].is_string()), "{component}: {line}");
            }
        }
    })
    .await;
}

fn says(line: &Value, text: &str) -> bool {
    line.to_string().contains(text)
}

/// The first line of a part's log that is meant.
async fn logged(cx: &Context, component: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
    await_condition(format!("a line in the log of {component}"), async || {
        let text = System::new(cx).logs(component).await?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| is_meant(line)).context("none so far")
    })
    .await
}
