//! What makes a new Revision and what doesn't, going back, and what becomes of old ones.

use anyhow::ensure;
use lambent_api::{Conditions, meta::ANNOTATION_REDEPLOY};
use lambent_tests::{Context, Deployed, await_condition, function::revision_of, registry, with_temp_ns};
use serde_json::{Value, json};

fn env(value: &str) -> Value {
    json!({"env": [{"name": "GREETING", "value": value}]})
}

/// Changes the spec, waits until that is served, and gives the Revision.
async fn changed(function: &Deployed, spec: Value) -> String {
    function.change(spec).await;
    function.await_ready().await;
    function.serving().await
}

#[tokio::test]
async fn what_runs_makes_a_revision_and_how_much_of_it_does_not() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        let first = hello.serving().await;
        assert!(first.starts_with("hello-"), "{first}");
        for settings in [
            json!({"scale": {"max": 7, "idle": "9s"}}),
            json!({"concurrency": 4, "timeout": "9s", "streamTimeout": "9s", "startTimeout": "9s"}),
            json!({"queue": {"depth": 3, "timeout": "9s"}, "maxBody": "1M"}),
            json!({"rollout": {"maxSurge": 1, "deadline": "9s"}, "revisionHistory": 20}),
        ] {
            assert_eq!(changed(&hello, settings.clone()).await, first, "{settings}");
        }
        assert_eq!(hello.revisions().await.unwrap().len(), 1);

        let mut seen = vec![first];
        for template in [
            env("a"),
            json!({"image": cx.image("slow")}),
            json!({"resources": {"requests": {"cpu": "1m"}}}),
            json!({"port": 8081}),
        ] {
            let next = changed(&hello, template.clone()).await;
            assert!(!seen.contains(&next), "{template}");
            seen.push(next);
        }
        assert_eq!(hello.revisions().await.unwrap().len(), seen.len());
        hello.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_revision_runs_the_image_by_its_digest() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        let revision = hello.revisions().await.unwrap().remove(0);
        let digest = format!("{}/hello@sha256:", cx.registry);
        assert!(revision.spec.template.image.starts_with(&digest), "{}", revision.spec.template.image);
    })
    .await;
}

#[tokio::test]
async fn the_new_environment_is_what_callers_get() {
    with_temp_ns(async |cx: Context| {
        let mut spec = env("one");
        spec["image"] = json!(cx.image("slow"));
        let slow = cx.deploy("slow", spec).await;
        assert!(slow.call("/env").await.expect(200).text().contains("one"));
        changed(&slow, env("two")).await;
        let text = slow.call("/env").await.expect(200).text();
        assert!(text.contains("two") && text.contains("8080"), "no GREETING or no PORT: {text}");
    })
    .await;
}

#[tokio::test]
async fn no_call_fails_while_a_new_revision_takes_over() {
    with_temp_ns(async |cx: Context| {
        let mut spec = env("one");
        spec["image"] = json!(cx.image("slow"));
        spec["scale"] = json!({"min": 1, "max": 2});
        let slow = cx.deploy("slow", spec).await;
        let calls = async {
            loop {
                slow.call("/?ms=20").await.expect(200);
            }
        };
        let rollout = async {
            let next = changed(&slow, env("two")).await;
            await_condition("only the new Revision to have instances", async || {
                let instances = slow.instances().await?;
                let all = instances.iter().all(|pod| revision_of(pod) == next);
                ensure!(all && !instances.is_empty(), "{:?}", instances.iter().map(revision_of).collect::<Vec<_>>());
                Ok(())
            })
            .await;
        };
        tokio::select! {
            () = calls => {}
            () = rollout => {}
        }
        assert!(slow.call("/env").await.expect(200).text().contains("two"));
    })
    .await;
}

#[tokio::test]
async fn going_back_uses_the_old_revision_again() {
    with_temp_ns(async |cx: Context| {
        let mut spec = env("one");
        spec["image"] = json!(cx.image("slow"));
        let slow = cx.deploy("slow", spec).await;
        let one = slow.serving().await;
        let two = changed(&slow, env("two")).await;
        assert_ne!(one, two);
        assert_eq!(changed(&slow, env("one")).await, one);
        assert_eq!(slow.revisions().await.unwrap().len(), 2);
        assert!(slow.call("/env").await.expect(200).text().contains("one"));
    })
    .await;
}

#[tokio::test]
async fn revisions_beyond_the_history_are_collected_oldest_first() {
    with_temp_ns(async |cx: Context| {
        let mut spec = env("0");
        spec["image"] = json!(cx.image("hello"));
        spec["revisionHistory"] = json!(1);
        spec["scale"] = json!({"idle": "1s"});
        let hello = cx.deploy("hello", spec).await;
        let mut made = vec![hello.serving().await];
        for value in ["1", "2", "3"] {
            made.push(changed(&hello, env(value)).await);
        }
        await_condition("the serving Revision and one more", async || {
            let revisions = hello.revisions().await?;
            let mut left: Vec<_> = revisions.iter().map(|r| r.key().name).collect();
            let mut expected = made[2..].to_vec();
            left.sort();
            expected.sort();
            ensure!(left == expected, "{left:?} of {made:?}");
            Ok(())
        })
        .await;
        hello.call("/").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_moved_tag_is_looked_up_again_only_on_redeploy() {
    with_temp_ns(async |cx: Context| {
        let tag = format!("{}:latest", cx.namespace);
        registry::copy(&cx, "hello:1", &tag).await;
        let moving = cx.deploy("moving", json!({"image": format!("{}/{tag}", cx.registry)})).await;
        let first = moving.serving().await;
        let text = moving.call("/").await.expect(200).text();
        registry::copy(&cx, "slow:1", &tag).await;
        assert_eq!(changed(&moving, json!({"scale": {"max": 3}})).await, first);
        assert_eq!(moving.call("/").await.expect(200).text(), text);

        moving.patch(json!({"metadata": {"annotations": {ANNOTATION_REDEPLOY: "now"}}})).await;
        await_condition("a new Revision to serve", async || {
            let status = moving.status().await?;
            let ready = status.conditions.is_true(lambent_api::ConditionType::Ready);
            ensure!(ready && status.revision.as_ref() != Some(&first), "{status:?}");
            Ok(())
        })
        .await;
        // The gateway learns of it by its own watch, some milliseconds later than this test may.
        await_condition("requests to reach it", async || {
            let now = moving.call("/").await.expect(200).text();
            ensure!(now != text, "{now}");
            Ok(())
        })
        .await;
    })
    .await;
}
