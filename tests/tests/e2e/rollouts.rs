//! A new Revision takes the place of the old one under load: step by step, or not at all.

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use lambent_api::{ConditionType, Conditions};
use lambent_tests::{
    Context, Deployed, await_condition, examples::mirror, function::revision_of, load::under_load,
    wait::await_condition_for, with_temp_ns,
};
use serde_json::json;

/// Instances by Revision.
async fn instances(function: &Deployed) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut count = BTreeMap::new();
    for pod in function.instances().await? {
        *count.entry(revision_of(&pod)).or_insert(0) += 1;
    }
    Ok(count)
}

#[tokio::test]
async fn instances_are_exchanged_under_load_within_the_surge_and_no_call_fails() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({
            "image": cx.image("slow"), "env": [{"name": "V", "value": "one"}],
            "scale": {"min": 4, "max": 4, "idle": "1h"}, "rollout": {"maxSurge": 1},
        });
        let slow = cx.deploy("slow", spec).await;
        slow.await_instances(4).await;
        let old = slow.serving().await;
        let (mut most, mut both) = (0, false);
        under_load(&slow, 4, "/?ms=40", async {
            slow.change(json!({"env": [{"name": "V", "value": "two"}]})).await;
            await_condition("only the new Revision to have instances", async || {
                let now = instances(&slow).await?;
                most = most.max(now.values().sum::<usize>());
                both |= now.len() == 2 && now.values().all(|count| *count >= 2);
                ensure!(now.len() == 1 && !now.contains_key(&old), "{now:?}");
                Ok(())
            })
            .await;
        })
        .await;
        assert!(most <= 5, "{most} instances at once");
        assert!(both, "they were not exchanged step by step");
        let status = slow.await_ready().await;
        assert_ne!(status.revision.as_ref(), Some(&old));
        assert!(status.rollout_since.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_revision_that_is_not_ready_at_the_deadline_is_given_up_and_tried_again_when_asked() {
    with_temp_ns(async |cx: Context| {
        let spec = json!({
            "image": cx.image("hello"), "scale": {"min": 1, "max": 2}, "rollout": {"deadline": "4s"},
        });
        let hello = cx.deploy("hello", spec).await;
        let good = hello.serving().await;
        under_load(&hello, 1, "/", async {
            // It runs and never listens.
            let arguments = ["healthcheck", "--timeout-seconds=900", "http://127.0.0.1:9/"];
            hello.change(json!({"image": cx.image("lambent"), "args": arguments})).await;
            let words = hello.await_not_ready("RolloutDeadlineExceeded").await;
            assert!(words.contains("rollout.deadline") && words.contains(&good), "{words}");
            assert!(hello.status().await.unwrap().conditions.is_true(ConditionType::Stalled));
            await_condition("nothing of it to run any more", async || {
                let now = instances(&hello).await?;
                ensure!(now.keys().all(|revision| *revision == good), "{now:?}");
                Ok(())
            })
            .await;
        })
        .await;
        hello.change(json!({"image": cx.image("hello"), "args": null})).await;
        hello.await_ready().await;
        assert_eq!(hello.serving().await, good);
    })
    .await;
}

#[tokio::test]
async fn a_rollout_that_is_stuck_half_way_goes_back_at_the_deadline_and_no_call_fails() {
    with_temp_ns(async |cx: Context| {
        // Of the second version only the first two instances ever listen.
        let stuck = "import os, time\nwhile os.environ['V'] == 'two' and os.uname().nodename[-1] not in '01':\n \
                     time.sleep(1)\n";
        let mut spec = mirror(&cx);
        spec["command"][2] = json!(format!("{stuck}{}", spec["command"][2].as_str().unwrap()));
        spec["env"] = json!([{"name": "V", "value": "one"}]);
        spec["scale"] = json!({"min": 4, "max": 4, "idle": "1h"});
        spec["rollout"] = json!({"maxSurge": 1, "deadline": "30s"});
        let function = cx.deploy("stuck", spec).await;
        function.await_instances(4).await;
        let good = function.serving().await;
        let (mut most, mut fewest_old) = (0, 4);
        under_load(&function, 4, "/", async {
            function.change(json!({"env": [{"name": "V", "value": "two"}]})).await;
            await_condition_for(Duration::from_secs(120), "the first version to go on alone", async || {
                let now = instances(&function).await?;
                let (old, all) = (now.get(&good).copied().unwrap_or(0), now.values().sum::<usize>());
                (most, fewest_old) = (most.max(all), fewest_old.min(old));
                let ready = function.condition(ConditionType::Ready).await?;
                ensure!(ready.reason == "RolloutDeadlineExceeded" && (old, all) == (4, 4), "{now:?} {ready:?}");
                Ok(())
            })
            .await;
        })
        .await;
        assert!(fewest_old == 2, "not half-way: {fewest_old} old ones at the least");
        assert!(most <= 5, "{most} instances at once");
        assert_eq!(function.serving().await, good);
    })
    .await;
}

#[tokio::test]
async fn going_back_under_load_fails_no_call() {
    with_temp_ns(async |cx: Context| {
        let spec =
            json!({"image": cx.image("slow"), "env": [{"name": "V", "value": "one"}], "scale": {"min": 2, "max": 4}});
        let slow = cx.deploy("slow", spec).await;
        let first = slow.serving().await;
        under_load(&slow, 3, "/?ms=20", async {
            for (value, back) in [("two", false), ("one", true)] {
                slow.change(json!({"env": [{"name": "V", "value": value}]})).await;
                slow.await_ready().await;
                assert_eq!(slow.serving().await == first, back);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        })
        .await;
        assert_eq!(slow.revisions().await.unwrap().len(), 2);
    })
    .await;
}
