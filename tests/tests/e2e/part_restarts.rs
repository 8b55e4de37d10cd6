//! Parts of Lambent that are away, or come back.

use std::time::Duration;

use anyhow::ensure;
use lambent_tests::{
    Context, Request, alone_on_the_cluster, await_condition, examples::Run, function::uid, holds_while,
    in_flight::Place, system::System, wait::await_condition_for,
};
use serde_json::json;

/// A Lease that is not given back can be taken after 15 s.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_function_wakes_from_zero_without_an_autoscaler() {
    alone_on_the_cluster(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"idle": "1s"}})).await;
        slow.await_instances(0).await;
        let system = System::new(&cx);
        system.scale("autoscaler", 0).await;
        let answers = slow.call_at_once(3, "/?ms=100").await;
        let instances = slow.instances().await.unwrap().len();
        system.scale("autoscaler", 1).await;
        let runs = Run::all(answers);
        assert_eq!((instances, Run::most_at_once(&runs)), (1, 1), "{runs:?}");
        // It carries on from what runs.
        slow.await_instances(0).await;
    })
    .await;
}

#[tokio::test]
async fn a_restarted_autoscaler_takes_nothing_down_for_lack_of_news() {
    alone_on_the_cluster(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "scale": {"max": 2, "idle": "20s"}});
        let slow = cx.deploy("slow", spec).await;
        slow.call_at_once(6, "/?ms=1000").await;
        let pods = slow.await_instances(2).await;
        let busy = [slow.call_in_background("/?ms=12000"), slow.call_in_background("/?ms=12000")];
        slow.await_requests(Place::InFlight, 2).await;
        let system = System::new(&cx);
        let before = system.leader("autoscaler").await.unwrap();
        let same_two = async || {
            let now = slow.instances().await?;
            ensure!(pods.iter().all(|pod| now.iter().any(|n| uid(n) == uid(pod))), "{} instances", now.len());
            Ok(())
        };
        let restarted = async {
            system.restart("autoscaler").await;
            await_new_leader(&system, "autoscaler", before.as_deref()).await;
            system.settled("autoscaler").await;
        };
        holds_while("the two instances", same_two, restarted).await;
        for call in busy {
            call.answer().await.expect(200);
        }
        slow.await_instances(0).await;
    })
    .await;
}

#[tokio::test]
async fn a_restarted_controller_gives_its_lease_back_and_touches_no_pod() {
    alone_on_the_cluster(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 2}})).await;
        let pods = hello.await_instances(2).await;
        let system = System::new(&cx);
        let before = system.leader("controller").await.unwrap();
        system.restart("controller").await;
        await_new_leader(&system, "controller", before.as_deref()).await;
        system.settled("controller").await;
        let other = cx.deploy("other", json!({"image": cx.image("hello")})).await;
        other.call("/").await.expect(200);
        let now = hello.await_instances(2).await;
        assert!(pods.iter().all(|pod| now.iter().any(|n| uid(n) == uid(pod))));
    })
    .await;
}

#[tokio::test]
async fn instances_answer_while_there_is_no_controller_and_pods_are_replaced_after() {
    alone_on_the_cluster(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let pod = hello.await_instances(1).await.remove(0);
        let system = System::new(&cx);
        system.scale("controller", 0).await;
        let answer = hello.call("/").await;
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = cx.api();
        let name = pod.metadata.name.clone().unwrap();
        pods.delete(&name, &kube::api::DeleteParams::default().grace_period(1)).await.unwrap();
        system.scale("controller", 1).await;
        answer.expect(200);
        await_condition("another instance", async || {
            let instances = hello.instances().await?;
            ensure!(instances.iter().any(|now| uid(now) != uid(&pod)), "{} instances", instances.len());
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_replaced_gateway_answers_what_it_has_and_callers_notice_nothing() {
    alone_on_the_cluster(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "concurrency": 1, "scale": {"max": 1, "idle": "1h"}});
        let slow = cx.deploy("slow", spec).await;
        let in_flight = slow.start("/?ms=8000").await;
        let queued = slow.enqueue("/?ms=1000", 1).await;
        let system = System::new(&cx);
        system.restart("gateway").await;
        let other = cx.deploy("other", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let calls = async {
            loop {
                other.call("/").await.expect(200);
            }
        };
        tokio::select! {
            () = calls => {}
            () = system.settled("gateway") => {}
        }
        in_flight.answer().await.expect(200);
        queued.answer().await.expect(200);
        slow.call("/?ms=1").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_stops_says_so_on_its_connections() {
    alone_on_the_cluster(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let mut connection = cx.gateway.connect().await.unwrap();
        connection.send(Request::get(&hello.path("/"))).await.unwrap().expect(200);
        let system = System::new(&cx);
        system.restart("gateway").await;
        await_condition_for(GIVEN_BACK_WITHIN * 6, "Connection: close on an old connection", async || {
            let answer = connection.send(Request::get(&hello.path("/"))).await?;
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(answer.header("connection") == Some("close"), "{:?}", answer.headers);
            Ok(())
        })
        .await;
        system.settled("gateway").await;
        hello.call("/").await.expect(200);
    })
    .await;
}

async fn await_new_leader(system: &System, component: &str, before: Option<&str>) {
    // From the moment on that the old one may have begun to stop.
    let what = format!("another leader of {component}");
    await_condition_for(GIVEN_BACK_WITHIN * 3, what, async || {
        let leader = system.leader(component).await?;
        ensure!(leader.is_some() && leader.as_deref() != before, "{leader:?} leads");
        Ok(())
    })
    .await;
}
