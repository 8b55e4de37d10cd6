//! Parts that die, hang or are away, of Lambent and of the cluster under it: callers of what runs don't
//! notice, nothing goes for lack of news, and all goes on afterwards.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use lambent_tests::{
    Context, Deployed, Request, alone_on_the_cluster, await_condition,
    control_plane::{Daemon, compact},
    function::uid,
    load::{under_load, under_load_with_cuts},
    system::{COMPONENTS, System},
    wait::await_condition_for,
};
use serde_json::json;
use tokio::time::sleep;

/// Somebody else resumes what a test froze, should the test be killed.
const LIMIT: Duration = Duration::from_secs(120);

async fn uids(function: &Deployed) -> Vec<String> {
    let mut uids: Vec<String> = function.instances().await.unwrap().iter().map(uid).collect();
    uids.sort();
    uids
}

/// Wakes from zero and scales beyond one.
async fn scaling_goes_on(cx: &Context, name: &str) {
    let other = cx.deploy(name, json!({"image": cx.image("slow"), "scale": {"max": 3}})).await;
    for answer in other.call_at_once(9, "/?ms=500").await {
        answer.expect(200);
    }
    other.await_instances(3).await;
}

async fn api_server_answers(cx: &Context) {
    await_condition("the API server to answer", async || {
        cx.client.apiserver_version().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn while_the_api_server_hangs_for_30_s_functions_are_served_and_none_of_their_instances_goes() {
    alone_on_the_cluster(async |cx: Context| {
        let warm = json!({"image": cx.image("slow"), "scale": {"min": 2, "max": 2, "idle": "5s"}});
        let warm = cx.deploy("warm", warm).await;
        warm.await_instances(2).await;
        let asleep = json!({"image": cx.image("hello"), "scale": {"idle": "1s"}, "queue": {"timeout": "2m"}});
        let asleep = cx.deploy("asleep", asleep).await;
        asleep.await_instances(0).await;
        let before = uids(&warm).await;
        let frozen = Daemon::find(&cx, "apiserver").unwrap().freeze(LIMIT).unwrap();
        let waits = asleep.call_in_background("/");
        under_load(&warm, 2, "/?ms=20", sleep(Duration::from_secs(30))).await;
        drop(frozen);
        waits.answer().await.expect(200);
        under_load(&warm, 2, "/?ms=20", async {
            api_server_answers(&cx).await;
            scaling_goes_on(&cx, "after").await;
        })
        .await;
        assert_eq!(uids(&warm).await, before);
    })
    .await;
}

#[tokio::test]
async fn a_gateway_whose_watches_have_lost_their_place_lists_again() {
    alone_on_the_cluster(async |cx: Context| {
        let stays = cx.deploy("stays", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let goes = cx.deploy("goes", json!({"image": cx.image("hello")})).await;
        goes.call("/").await.expect(200);
        let system = System::new(&cx);
        let deaf = system.freeze("gateway", LIMIT).await;
        goes.delete().await;
        let comes = cx.deploy("comes", json!({"image": cx.image("hello")})).await;
        // Connections are cut, and what was watched from is forgotten.
        Daemon::find(&cx, "apiserver").unwrap().restart().await.unwrap();
        api_server_answers(&cx).await;
        compact(&cx).await.unwrap();
        drop(deaf);
        stays.call("/").await.expect(200);
        await_condition("the gateways to know what has changed", async || {
            let (gone, new) = (goes.call("/").await.status.as_u16(), comes.call("/").await.status.as_u16());
            ensure!((gone, new) == (404, 200), "{gone} {new}");
            Ok(())
        })
        .await;
        scaling_goes_on(&cx, "after").await;
    })
    .await;
}

#[tokio::test]
async fn ten_kills_in_a_row_cost_no_more_than_what_the_killed_gateways_had() {
    const ORDER: [&str; 10] = [
        "controller",
        "autoscaler",
        "gateway",
        "autoscaler",
        "controller",
        "gateway",
        "controller",
        "autoscaler",
        "gateway",
        "gateway",
    ];
    alone_on_the_cluster(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"min": 2, "max": 3}})).await;
        slow.await_instances(2).await;
        let before = uids(&slow).await;
        let system = System::new(&cx);
        let kills = async {
            for component in ORDER {
                system.kill(component).await;
            }
        };
        let ((), answered, cut) = under_load_with_cuts(&slow, 2, "/?ms=20", kills).await;
        // Four gateways were killed, each with two callers at most, who may be refused until the node knows.
        assert!(answered > 100 && cut < answered / 10, "{answered} answered, {cut} cut off");
        let after = uids(&slow).await;
        assert!(before.iter().all(|uid| after.contains(uid)), "no instance went: {before:?} {after:?}");
        scaling_goes_on(&cx, "after").await;
    })
    .await;
}

#[tokio::test]
async fn a_hanging_autoscaler_keeps_nobody_waiting_and_goes_on_where_it_was() {
    alone_on_the_cluster(async |cx: Context| {
        let spec = json!({"image": cx.image("slow"), "scale": {"max": 3, "idle": "10s"}});
        let slow = cx.deploy("slow", spec).await;
        slow.await_instances(0).await;
        let system = System::new(&cx);
        let hangs = system.freeze("autoscaler", LIMIT).await;
        for answer in slow.call_at_once(4, "/?ms=500").await {
            answer.expect(200);
        }
        assert_eq!(uids(&slow).await.len(), 1, "the gateway starts a first one");
        drop(hangs);
        await_condition("as many instances as the load needs", async || {
            slow.call_at_once(6, "/?ms=500").await;
            let now = slow.instances().await?.len();
            ensure!(now == 3, "{now}");
            Ok(())
        })
        .await;
        slow.await_instances(0).await;
    })
    .await;
}

#[tokio::test]
async fn functions_on_a_node_that_does_not_report_are_called_as_before() {
    alone_on_the_cluster(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        hello.await_instances(1).await;
        let before = uids(&hello).await;
        let system = System::new(&cx);
        // Without its Service, which sends to no pod of such a node.
        let gateway = system.gateway_pod().await;
        let call = async || gateway.send(Request::get(&hello.path("/"))).await.expect(200);
        let node = Daemon::find(&cx, "kubelet").unwrap().freeze(LIMIT).unwrap();
        // The node controller waits for 50 s, then says that the node's pods are not ready.
        await_condition_for(LIMIT, "the pod to be called not ready", async || {
            call().await;
            let pod = hello.instances().await?.swap_remove(0);
            ensure!(condition(&pod, "Ready").as_deref() == Some("False"), "{:?}", condition(&pod, "Ready"));
            Ok(())
        })
        .await;
        for _ in 0..100 {
            call().await;
        }
        drop(node);
        await_condition("the node to be ready", async || {
            call().await;
            let nodes: Api<Node> = Api::all(cx.client.clone());
            let node = nodes.get("node0").await?;
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            ensure!(conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"), "{conditions:?}");
            Ok(())
        })
        .await;
        assert_eq!(uids(&hello).await, before);
        for component in COMPONENTS {
            system.settled(component).await;
        }
        scaling_goes_on(&cx, "after").await;
    })
    .await;
}

fn condition(pod: &Pod, type_: &str) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    Some(conditions.iter().find(|condition| condition.type_ == type_)?.status.clone())
}
