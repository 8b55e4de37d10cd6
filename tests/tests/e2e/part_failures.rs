//! Parts that die, hang or are away, of Lambent and of the cluster under it: callers of what runs don't
//! notice, nothing goes for lack of news, and all goes on afterwards.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::ensure;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use lambent_tests::{
    Context, Deployed, Gateway, Request, alone_on_the_cluster, await_condition,
    control_plane::{Daemon, compact},
    function::uid,
    load::under_load,
    system::{COMPONENTS, System},
    wait::await_condition_for,
};
use parking_lot::Mutex;
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
    // The autoscaler may still be on its way back to the API server.
    await_condition(format!("3 instances of {name} under load"), async || {
        for answer in other.call_at_once(9, "/?ms=500").await {
            answer.expect(200);
        }
        let instances = other.instances().await?.len();
        ensure!(instances == 3, "{instances}");
        Ok(())
    })
    .await;
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
        // One more caller than instances: both are needed all the time, and would go a second later.
        let busy = json!({"image": cx.image("slow"), "scale": {"max": 2, "idle": "1s"}});
        let busy = cx.deploy("busy", busy).await;
        let asleep = json!({"image": cx.image("hello"), "scale": {"idle": "1s"}, "queue": {"timeout": "2m"}});
        let asleep = cx.deploy("asleep", asleep).await;
        asleep.await_instances(0).await;
        let hang = async {
            busy.await_instances(2).await;
            let before = uids(&busy).await;
            let frozen = Daemon::find(&cx, "apiserver").unwrap().freeze(LIMIT).unwrap();
            let waits = asleep.call_in_background("/");
            sleep(Duration::from_secs(30)).await;
            drop(frozen);
            waits.answer().await.expect(200);
            api_server_answers(&cx).await;
            // What had been decided meanwhile would have been carried out by now.
            scaling_goes_on(&cx, "after").await;
            assert_eq!(uids(&busy).await, before);
        };
        under_load(&busy, 3, "/?ms=1500", hang).await;
        busy.await_instances(0).await;
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
        let gateways = Gateways::of(&system).await;
        let kills = async {
            for component in ORDER {
                let pod = system.pod(component).await.unwrap();
                gateways.retire(&pod);
                system.kill_pod(component, &pod).await;
                gateways.look(&system).await;
            }
        };
        let answered = through_all(&slow, &gateways, 2, kills).await;
        assert!(answered > 100, "{answered} answered");
        let after = uids(&slow).await;
        assert!(before.iter().all(|uid| after.contains(uid)), "no instance went: {before:?} {after:?}");
        scaling_goes_on(&cx, "after").await;
    })
    .await;
}

/// The gateways that are called, and those that must not be relied on any more.
#[derive(Default)]
struct Gateways {
    live: Mutex<Vec<(String, Gateway)>>,
    killed: Mutex<HashSet<String>>,
}

impl Gateways {
    async fn of(system: &System) -> Self {
        let gateways = Self::default();
        gateways.look(system).await;
        gateways
    }

    async fn look(&self, system: &System) {
        let live = await_condition("gateways", async || {
            let live = system.gateways().await?;
            ensure!(live.len() > 1, "{live:?}: the tests want two gateways");
            Ok(live)
        })
        .await;
        *self.live.lock() = live;
    }

    fn retire(&self, name: &str) {
        self.killed.lock().insert(name.to_owned());
    }

    fn pick(&self, number: usize) -> (String, Gateway) {
        let live = self.live.lock();
        live[number % live.len()].clone()
    }
}

/// Calls through all gateways in turn until the work is done: how many were answered. Only a gateway that
/// is being killed may lose one.
async fn through_all(
    function: &Deployed,
    gateways: &Gateways,
    callers: usize,
    work: impl Future<Output = ()>,
) -> usize {
    let answered = AtomicUsize::new(0);
    let caller = async |first: usize| -> () {
        for number in first.. {
            let (name, gateway) = gateways.pick(number);
            match gateway.try_send(Request::get(&function.path("/?ms=20"))).await {
                Ok(answer) => {
                    answer.expect(200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => assert!(gateways.killed.lock().contains(&name), "{name} lives: {error:#}"),
            }
        }
    };
    tokio::select! {
        _ = join_all((0..callers).map(caller)) => unreachable!("callers don't end"),
        () = work => {}
    }
    answered.into_inner()
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
