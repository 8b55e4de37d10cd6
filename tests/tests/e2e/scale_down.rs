//! Going down while a part that has a say in it is dead or hangs: no request is hit, and it goes on later.

use std::time::Duration;

use anyhow::ensure;
use lambent_tests::{
    Context, Deployed, Gateway, alone_on_the_cluster, await_condition, load::under_load, system::System,
};
use serde_json::json;

/// Before the kubelet takes a process that hangs for dead.
const LIMIT: Duration = Duration::from_secs(50);

/// Four instances, of which the load that follows needs two, and a third for a moment now and then.
async fn too_many(cx: &Context) -> Deployed {
    let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"max": 4, "idle": "3s"}})).await;
    for answer in slow.call_at_once(8, "/?ms=2000").await {
        answer.expect(200);
    }
    assert_eq!(slow.instances().await.unwrap().len(), 4);
    slow
}

/// Under short requests and long ones.
async fn under_both<T>(function: &Deployed, work: impl Future<Output = T>) -> T {
    under_load(function, 1, "/?ms=20", under_load(function, 1, "/?ms=1500", work)).await
}

async fn await_fewer(function: &Deployed) {
    await_condition("the instances to go that nobody needs", async || {
        let now = function.instances().await?.len();
        ensure!(now < 4, "{now}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn instances_that_go_while_the_autoscaler_is_killed_have_no_request() {
    alone_on_the_cluster(async |cx: Context| {
        let slow = too_many(&cx).await;
        let system = System::new(&cx);
        let killed_twice = async {
            system.kill("autoscaler").await;
            await_fewer(&slow).await;
            // And in the middle of going down.
            slow.call_at_once(8, "/?ms=2000").await.into_iter().for_each(|answer| drop(answer.expect(200)));
            system.kill("autoscaler").await;
            await_fewer(&slow).await;
        };
        under_both(&slow, Box::pin(killed_twice)).await;
        slow.await_instances(0).await;
    })
    .await;
}

#[tokio::test]
async fn instances_that_go_while_a_gateway_hangs_have_no_request_of_the_other() {
    alone_on_the_cluster(async |cx: Context| {
        let system = System::new(&cx);
        let gateways = system.gateways().await.unwrap();
        let [(hanging, _), (_, survivor)] = &gateways[..] else { panic!("the tests want two gateways") };
        // Callers of the one that hangs would have to wait for it.
        let slow = too_many(&cx).await.through(Gateway::clone(survivor));
        let frozen_for_a_while = async {
            let frozen = system.freeze_pod(hanging, LIMIT).await;
            await_ready_gateways(&system, 1).await;
            slow.call_at_once(20, "/?ms=100").await.into_iter().for_each(|answer| drop(answer.expect(200)));
            drop(frozen);
            await_ready_gateways(&system, 2).await;
            await_fewer(&slow).await;
        };
        under_both(&slow, Box::pin(frozen_for_a_while)).await;
        slow.await_instances(0).await;
        system.settled("gateway").await;
    })
    .await;
}

async fn await_ready_gateways(system: &System, count: usize) {
    await_condition(format!("{count} gateways to be ready"), async || {
        let now = system.gateways().await?.len();
        ensure!(now == count, "{now}");
        Ok(())
    })
    .await;
}
