//! Which Function a request is for, and what of the request it sees.

use lambent_tests::{Context, Request, await_condition, examples, raw::Raw, system::System, with_temp_ns};
use serde_json::json;

/// What the function sees as path and query of a request line that is sent byte for byte.
async fn seen(cx: &Context, target: &str) -> String {
    let mut raw = Raw::connect(&cx.gateway).await;
    raw.send(format!("GET {target} HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n")).await;
    let answer = raw.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
    examples::seen_path(&answer)
}

#[tokio::test]
async fn the_prefix_is_cut_off_and_the_rest_is_untouched() {
    with_temp_ns(async |cx: Context| {
        let mirror = cx.deploy("mirror", examples::mirror(&cx)).await;
        for (rest, expected) in [
            ("", "/"),
            ("/", "/"),
            ("?a=1", "/?a=1"),
            ("/?", "/?"),
            ("/a/b/", "/a/b/"),
            ("//a//b", "//a//b"),
            ("/a%2Fb%20c%25", "/a%2Fb%20c%25"),
            ("/%e4%bd%a0?q=%E4+x&&y=;", "/%e4%bd%a0?q=%E4+x&&y=;"),
            ("/a/../b/./c", "/a/../b/./c"),
            ("/fn/other/name", "/fn/other/name"),
        ] {
            assert_eq!(seen(&cx, &mirror.path(rest)).await, expected, "{rest}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_of_the_domain_names_a_function() {
    with_temp_ns(async |cx: Context| {
        let domain = System::new(&cx).domain().await;
        let mirror = cx.deploy("mirror", examples::mirror(&cx)).await;
        let host = format!("{}.{}.{domain}", mirror.name, cx.namespace);
        for host in [host.clone(), format!("{host}:8080"), host.to_uppercase()] {
            let answer = cx.gateway.send(Request::get("/a//b?c=d").header("host", &host)).await.expect(200);
            assert_eq!(examples::seen_path(&answer.text()), "/a//b?c=d");
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_of_the_domain_wins_over_the_path() {
    with_temp_ns(async |cx: Context| {
        let domain = System::new(&cx).domain().await;
        let mirror = cx.deploy("mirror", examples::mirror(&cx)).await;
        let host = format!("{}.{}.{domain}", mirror.name, cx.namespace);
        let answer = cx.gateway.send(Request::get("/fn/a/b").header("host", &host)).await.expect(200);
        assert_eq!(examples::seen_path(&answer.text()), "/fn/a/b");

        let nobody = format!("nobody.{}.{domain}", cx.namespace);
        let answer = cx.gateway.send(Request::get(&mirror.path("/")).header("host", &nobody)).await;
        answer.expect_refusal(404, "FunctionNotFound");
    })
    .await;
}

#[tokio::test]
async fn an_unknown_function_is_not_found() {
    with_temp_ns(async |cx: Context| {
        let answer = cx.function("nobody").call("/").await;
        let words = answer.expect_refusal(404, "FunctionNotFound");
        assert!(words.contains("nobody") && words.contains(&cx.namespace), "{words}");
    })
    .await;
}

#[tokio::test]
async fn a_path_that_names_no_function_is_not_found() {
    with_temp_ns(async |cx: Context| {
        for path in ["/", "/fn", "/fn/", "/fn/only-one", "/fn//", "/else", "/metrics", "/healthz", "/readyz"] {
            cx.gateway.send(Request::get(path)).await.expect_refusal(404, "FunctionNotFound");
        }
    })
    .await;
}

#[tokio::test]
async fn a_function_sees_the_callers_headers_and_who_called() {
    with_temp_ns(async |cx: Context| {
        let mirror = cx.deploy("mirror", examples::mirror(&cx)).await;
        let request = Request::get(&mirror.path("/headers"))
            .header("x-mine", "kept")
            .header("x-forwarded-for", "192.0.2.7")
            .header("connection", "x-for-one-hop")
            .header("x-for-one-hop", "dropped")
            .header("x-request-id", "one-two");
        let seen = cx.gateway.send(request).await.expect(200).text().to_lowercase();
        assert!(seen.contains("kept") && seen.contains("one-two"), "{seen}");
        assert!(seen.contains("192.0.2.7, "), "the caller's address is not added: {seen}");
        assert!(!seen.contains("dropped"), "{seen}");
    })
    .await;
}

#[tokio::test]
async fn every_method_and_an_unfit_one_is_passed_on() {
    with_temp_ns(async |cx: Context| {
        let mirror = cx.deploy("mirror", examples::mirror(&cx)).await;
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = cx.gateway.send(Request::new(method, &mirror.path("/"))).await;
            assert!(answer.header("server-timing").is_some_and(|t| t.contains("function")), "{method}: {answer:?}");
            assert_ne!(answer.header("content-type"), Some("application/problem+json"), "{method}: {answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_serves_one_function_after_the_other() {
    with_temp_ns(async |cx: Context| {
        let (one, two) = tokio::join!(
            cx.deploy("one", json!({"image": cx.image("hello")})),
            cx.deploy("two", json!({"image": cx.image("slow")})),
        );
        let mut connection = cx.gateway.connect().await.unwrap();
        for _ in 0..3 {
            connection.send(Request::get(&one.path("/"))).await.unwrap().expect(200);
            connection.send(Request::get(&two.path("/"))).await.unwrap().expect(200);
            connection.send(Request::get("/nothing")).await.unwrap().expect(404);
        }
    })
    .await;
}

#[tokio::test]
async fn a_deleted_function_is_not_found_at_once() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        hello.call("/").await.expect(200);
        hello.delete().await;
        await_condition("the gateway to know of the deletion", async || {
            let status = hello.call("/").await.status.as_u16();
            anyhow::ensure!(status == 404, "it answers {status}");
            Ok(())
        })
        .await;
    })
    .await;
}
