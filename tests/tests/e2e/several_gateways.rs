//! Two gateways, one of which dies or is replaced.

use anyhow::ensure;
use lambent_tests::{
    Context, Deployed, Gateway, alone_on_the_cluster, await_condition, examples::Run, in_flight::Place, system::System,
    with_temp_ns,
};
use serde_json::json;

/// The metric that tells how many Functions a gateway owns is summed over all: each has one owner.
async fn requests_end(function: &Deployed) {
    await_condition("no request to be counted", async || {
        let now = function.requests(Place::InFlight).await?;
        ensure!(now == 0, "{now}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn calls_through_all_gateways_share_the_concurrency_of_an_instance() {
    with_temp_ns(async |cx: Context| {
        assert!(System::new(&cx).running("gateway").await.unwrap().len() > 1, "the tests want two gateways");
        let spec = json!({"image": cx.image("slow"), "concurrency": 3, "scale": {"max": 1}});
        let slow = cx.deploy("slow", spec).await;
        // Each call has a connection of its own: they go to both.
        let runs = Run::all(slow.call_at_once(60, "/?ms=30").await);
        assert_eq!(Run::most_at_once(&runs), 3);
        requests_end(&slow).await;
    })
    .await;
}

#[tokio::test]
async fn a_killed_gateway_takes_down_only_its_own_requests_and_the_other_takes_over() {
    alone_on_the_cluster(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "concurrency": 2, "scale": {"min": 2, "max": 2}, "timeout": "5s"});
        let slow = cx.deploy("slow", spec).await;
        let system = System::new(&cx);
        let gateways = system.gateways().await.unwrap();
        let [(victim, killed), (_, survivor)] = &gateways[..] else { panic!("the tests want two gateways") };
        let calls = async |gateway: &Gateway| slow.through(gateway.clone()).try_call_at_once(12, "/?ms=800").await;
        let kill = async {
            await_condition("all slots to be used", async || {
                let now = slow.requests(Place::InFlight).await?;
                ensure!(now == 4, "{now}");
                Ok(())
            })
            .await;
            system.kill_pod("gateway", victim).await;
        };
        let (lost, kept, ()) = tokio::join!(calls(killed), calls(survivor), kill);
        assert!(lost.iter().any(Result::is_err), "it was not killed in time");
        lost.into_iter().flatten().for_each(|answer| drop(answer.expect(200)));
        for answer in kept {
            answer.expect("an answer of the one that lives").expect(200);
        }
        await_condition("the other one to serve", async || {
            let answer = cx.gateway.try_send(lambent_tests::Request::get(&slow.path("/?ms=1"))).await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })
        .await;
        system.settled("gateway").await;
        Run::all(slow.call_at_once(12, "/?ms=30").await);
    })
    .await;
}
