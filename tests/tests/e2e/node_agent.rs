//! Cold starts with the node agent, without it, and with one that lies.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::ensure;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};
use lambent_api::node::FromNode;
use lambent_tests::{
    Context, Deployed,
    agents::{Agents, MadeUp},
    alone_on_the_cluster, await_condition,
    control_plane::Daemon,
    examples::Run,
    in_flight::Place,
};
use serde_json::json;
use tempfile::NamedTempFile;

/// Longer than a test takes.
const LIMIT: Duration = Duration::from_secs(200);
/// In the range of the node's pods, and of no pod: the pods' addresses are given from the other end.
const NOBODYS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 255, 250));

async fn asleep(cx: &Context, name: &str) -> Deployed {
    cx.deploy(name, json!({"image": cx.image("slow"), "timeout": "5s", "scale": {"idle": "1s"}})).await
}

/// A call while nothing of it runs: answered by an instance of its own that was started for it.
async fn cold_start(function: &Deployed) {
    function.await_instances(0).await;
    let answer = function.call("/?ms=1").await.expect(200);
    assert!(answer.was_cold());
    let host = Run::of(&answer).host;
    assert!(host.starts_with(&format!("{}-", function.name)), "{host} has answered");
}

#[tokio::test]
async fn an_instance_answers_at_an_address_that_the_api_does_not_show_yet() {
    alone_on_the_cluster(async |cx: Context| {
        let (agents, slow) = (Agents::new(&cx), asleep(&cx, "slow").await);
        agents.connected().await;
        let told = async |outcome| agents.told(outcome).await.unwrap();
        let (answered, confirmed) = (told("answered").await, told("confirmed").await);
        let contradicted = told("contradicted").await;
        // Now and then the API is as fast.
        await_condition("an early start", async || {
            cold_start(&slow).await;
            ensure!(agents.told("answered").await? > answered);
            Ok(())
        })
        .await;
        await_condition("the API's word", async || {
            ensure!(agents.told("confirmed").await? > confirmed);
            Ok(())
        })
        .await;
        assert_eq!(told("contradicted").await, contradicted);
    })
    .await;
}

#[tokio::test]
async fn functions_start_while_agents_hang_are_killed_or_are_not_there() {
    alone_on_the_cluster(async |cx: Context| {
        let (agents, slow) = (Agents::new(&cx), asleep(&cx, "slow").await);
        agents.connected().await;
        {
            let _hangs = agents.freeze(LIMIT).await;
            cold_start(&slow).await;
        }
        // What it says now is late.
        agents.connected().await;
        cold_start(&slow).await;
        slow.await_instances(0).await;
        let waiting = slow.call_in_background("/?ms=1");
        agents.kill().await;
        waiting.answer().await.expect(200);
        agents.connected().await;
        agents.keep_away(true).await;
        agents.gone().await;
        let before = agents.told("believed").await.unwrap();
        cold_start(&slow).await;
        let after = agents.told("believed").await.unwrap();
        agents.keep_away(false).await;
        agents.connected().await;
        assert_eq!(before, after);
    })
    .await;
}

#[tokio::test]
async fn agents_are_found_by_gateways_that_were_replaced() {
    alone_on_the_cluster(async |cx: Context| {
        let (agents, system) = (Agents::new(&cx), lambent_tests::system::System::new(&cx));
        agents.connected().await;
        system.kill("gateway").await;
        agents.connected().await;
    })
    .await;
}

#[tokio::test]
async fn a_container_runtime_that_starts_again_is_asked_again() {
    alone_on_the_cluster(async |cx: Context| {
        let (agents, slow) = (Agents::new(&cx), asleep(&cx, "slow").await);
        agents.connected().await;
        slow.await_instances(0).await;
        Daemon::find(&cx, "containerd").unwrap().restart().await.unwrap();
        let before = agents.told("answered").await.unwrap();
        await_condition("an early start", async || {
            cold_start(&slow).await;
            ensure!(agents.told("answered").await? > before);
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_call_waits_for_a_cordoned_node() {
    alone_on_the_cluster(async |cx: Context| {
        let (agents, slow) = (Agents::new(&cx), asleep(&cx, "slow").await);
        agents.connected().await;
        slow.await_instances(0).await;
        agents.cordon(true).await;
        let waiting = slow.call_in_background("/?ms=1");
        slow.await_requests(Place::Queued, 1).await;
        agents.cordon(false).await;
        waiting.answer().await.expect(200);
        agents.connected().await;
    })
    .await;
}

/// Agents of all gateways that tell this address of any pod of the test.
async fn liars(cx: &Context, agents: &Agents, token: &str, lie: IpAddr) -> anyhow::Result<Vec<MadeUp>> {
    let mut file = NamedTempFile::new()?;
    file.write_all(token.as_bytes())?;
    let mut liars = Vec::new();
    for gateway in agents.gateways().await? {
        let answer = move |uid| FromNode::At { uid, ip: lie };
        liars.push(MadeUp::connect(gateway, file.path(), &cx.namespace, answer).await?);
    }
    Ok(liars)
}

#[tokio::test]
async fn a_lying_agent_is_believed_in_nothing_that_can_be_checked() {
    alone_on_the_cluster(async |cx: Context| {
        let agents = Agents::new(&cx);
        agents.connected().await;
        let spec = json!({"image": cx.image("slow"), "scale": {"min": 1}});
        let victim = cx.deploy("victim", spec).await.await_instances(1).await.remove(0);
        let victim: IpAddr = victim.status.unwrap().pod_ip.unwrap().parse().unwrap();
        let slow = asleep(&cx, "slow").await;
        let token = agents.token(agents.pods().await.unwrap().first()).await;
        let _honest_ones_hang = agents.freeze(LIMIT).await;
        agents.gone().await;
        let nodes_own = cx.registry.split(':').next().unwrap().parse().unwrap();
        // Each gateway is lied to, and so each refuses.
        for (lie, outcome) in [(victim, "refused"), (nodes_own, "refused"), (NOBODYS, "contradicted")] {
            let liars = liars(&cx, &agents, &token, lie).await.unwrap();
            let before = agents.told(outcome).await.unwrap();
            cold_start(&slow).await;
            await_condition(format!("{lie} to be {outcome}"), async || {
                let now = agents.told(outcome).await?;
                ensure!(now == before + liars.len() as f64, "{now} after {before}");
                Ok(())
            })
            .await;
        }
        let liars = liars(&cx, &agents, &token, NOBODYS).await.unwrap();
        let before = agents.told("unasked").await.unwrap();
        liars[0].tell(FromNode::At { uid: "of no pod".into(), ip: NOBODYS });
        await_condition("it to be noticed", async || {
            ensure!(agents.told("unasked").await? == before + 1.0);
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_token_that_names_no_node_lets_nobody_in() {
    alone_on_the_cluster(async |cx: Context| {
        let agents = Agents::new(&cx);
        let token = agents.token(None).await;
        let refused = liars(&cx, &agents, &token, NOBODYS).await.err().expect("a refusal");
        assert!(refused.to_string().contains("403"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn an_agent_has_no_rights_in_the_cluster() {
    alone_on_the_cluster(async |cx: Context| {
        let user = Agents::new(&cx).account();
        let reviews: Api<SubjectAccessReview> = Api::all(cx.client.clone());
        for (verb, resource) in [("get", "pods"), ("patch", "pods"), ("get", "nodes"), ("list", "secrets"), ("*", "*")]
        {
            let attributes = ResourceAttributes {
                verb: Some(verb.into()),
                resource: Some(resource.into()),
                namespace: Some(cx.namespace.clone()),
                ..ResourceAttributes::default()
            };
            let groups = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned).to_vec();
            let spec = SubjectAccessReviewSpec {
                user: Some(user.clone()),
                groups: Some(groups),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            let status = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
            assert!(!status.allowed, "{user} may {verb} {resource}");
        }
    })
    .await;
}
