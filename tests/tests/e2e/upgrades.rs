//! `helm upgrade` under traffic.

use anyhow::ensure;
use futures::future::join_all;
use lambent_tests::{
    Context, alone_on_the_cluster, await_condition,
    command::{checkout, helm},
    examples::Run,
    function::uid,
    system::{COMPONENTS, NAMESPACE, System},
};
use serde_json::json;

#[tokio::test]
async fn an_upgrade_that_replaces_every_part_fails_no_call_and_scaling_goes_on() {
    alone_on_the_cluster(async |cx: Context| {
        let system = System::new(&cx);
        let before = all_pods(&system).await;
        let fast = cx.deploy("fast", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"min": 1, "max": 3}})).await;
        let calls = async {
            join_all([(&fast, "/"), (&slow, "/?ms=300"), (&slow, "/?ms=300")].map(async |(function, rest)| -> () {
                loop {
                    function.call(rest).await.expect(200);
                }
            }))
            .await
        };
        let upgrade = async {
            let chart = checkout("charts/lambent").to_string_lossy().into_owned();
            let mark = format!("{}", std::process::id());
            let values: Vec<String> =
                COMPONENTS.iter().map(|c| format!("{c}.podAnnotations.upgraded=x{mark}")).collect();
            let mut arguments = vec!["upgrade", "lambent", &chart, "--namespace", NAMESPACE, "--reuse-values"];
            values.iter().for_each(|value| arguments.extend(["--set", value]));
            helm(&cx, &arguments).await.expect();
            for component in COMPONENTS {
                system.settled(component).await;
            }
            // The old gateways have gone from the Service by now, or are about to.
            await_condition("the old parts to be replaced", async || {
                let now = all_pods(&system).await;
                ensure!(now.iter().all(|pod| !before.contains(pod)), "{now:?}");
                Ok(())
            })
            .await;
            await_condition("both callers to have an instance", async || {
                let now = slow.instances().await?.len();
                ensure!(now >= 2, "{now}");
                Ok(())
            })
            .await;
        };
        tokio::select! {
            _ = calls => {}
            () = upgrade => {}
        }
        Run::all(slow.call_at_once(6, "/?ms=100").await);
    })
    .await;
}

async fn all_pods(system: &System) -> Vec<String> {
    let mut pods = Vec::new();
    for component in COMPONENTS {
        pods.extend(system.pods(component).await.expect("pods").iter().map(uid));
    }
    pods
}
