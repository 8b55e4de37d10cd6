//! Parked instances: frozen while no request needs them, and thawed when one does.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use lambent_api::ConditionType;
use lambent_tests::{
    Answer, Context, Deployed, agents::Agents, alone_on_the_cluster, await_condition, examples::Run,
    freezer::is_frozen, function::uid, system::System, with_temp_ns,
};
use serde_json::{Value, json};

/// Keeps the object of a pod until the test has seen its end.
const FINALIZER: &str = "e2e.lambent.dev/seen";

fn spec(cx: &Context, parked: u32, max: u32) -> Value {
    let scale = json!({"parked": parked, "max": max, "idle": "1s"});
    json!({"image": cx.image("slow"), "concurrency": 1, "timeout": "5s", "scale": scale})
}

/// A Function with so many instances, all of them parked.
async fn parked(cx: &Context, count: u32, max: u32) -> (Deployed, Vec<Pod>) {
    let slow = cx.deploy("slow", spec(cx, count, max)).await;
    let pods = slow.await_parked(count as usize).await;
    (slow, pods)
}

fn thawed(answer: Answer) -> Run {
    let answer = answer.expect(200);
    assert!(!answer.was_cold(), "{:?}", answer.headers);
    assert!(answer.timing("thaw").is_some_and(|ms| ms > 0.0), "{:?}", answer.headers);
    Run::of(&answer)
}

#[tokio::test]
async fn a_parked_instance_answers_without_a_cold_start_and_is_parked_again() {
    with_temp_ns(async |cx: Context| {
        let (slow, pods) = parked(&cx, 1, 3).await;
        let condition = slow.condition(ConditionType::Parked).await.unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "Parked"));
        for _ in 0..3 {
            assert_eq!(thawed(slow.call("/?ms=1").await).host, pods[0].name_any());
            assert!(slow.call("/?ms=1").await.expect(200).timing("thaw").is_none(), "it runs");
            let again = slow.await_parked(1).await;
            assert_eq!(uid(&again[0]), uid(&pods[0]));
        }
    })
    .await;
}

#[tokio::test]
async fn load_beyond_what_is_parked_starts_more_and_concurrency_holds() {
    with_temp_ns(async |cx: Context| {
        let (slow, pods) = parked(&cx, 2, 4).await;
        let runs = Run::all(slow.call_at_once(8, "/?ms=1500").await);
        for pod in &pods {
            assert!(runs.iter().any(|run| run.host == pod.name_any()), "{} had none: {runs:?}", pod.name_any());
        }
        for run in &runs {
            let of_it: Vec<Run> = runs.iter().filter(|other| other.host == run.host).cloned().collect();
            assert_eq!(Run::most_at_once(&of_it), 1, "{runs:?}");
        }
        assert!(Run::hosts(&runs).len() > 2, "{runs:?}");
        slow.await_parked(2).await;
    })
    .await;
}

#[tokio::test]
async fn warm_instances_run_beside_the_parked_ones() {
    with_temp_ns(async |cx: Context| {
        let mut spec = spec(&cx, 1, 4);
        spec["scale"]["min"] = json!(1);
        let slow = cx.deploy("slow", spec).await;
        await_condition("one that runs and one that is parked", async || {
            let status = slow.status().await?;
            ensure!((status.ready, status.parked, status.instances) == (1, 1, 2), "{status:?}");
            let frozen = slow.instances().await?.iter().filter_map(|pod| is_frozen(pod).ok()).filter(|f| *f).count();
            ensure!(frozen == 1, "{frozen} frozen");
            Ok(())
        })
        .await;
        assert!(slow.call("/?ms=1").await.expect(200).timing("thaw").is_none());
    })
    .await;
}

#[tokio::test]
async fn nothing_is_parked_any_more_when_that_is_not_asked_for() {
    with_temp_ns(async |cx: Context| {
        let (slow, _) = parked(&cx, 2, 4).await;
        slow.change(json!({"scale": {"parked": 0}})).await;
        slow.await_instances(0).await;
        assert!(slow.condition(ConditionType::Parked).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_new_revision_parks_its_own_instances_and_those_of_the_old_one_go() {
    with_temp_ns(async |cx: Context| {
        let (slow, old) = parked(&cx, 1, 3).await;
        slow.change(json!({"env": [{"name": "NEW", "value": "1"}]})).await;
        slow.await_ready().await;
        let new = await_condition("another instance, parked", async || {
            let all = slow.all_pods().await?;
            ensure!(all.len() == 1 && uid(&all[0]) != uid(&old[0]), "{} pods", all.len());
            ensure!(is_frozen(&all[0])?);
            all.into_iter().next().context("one")
        })
        .await;
        assert_eq!(thawed(slow.call("/?ms=1").await).host, new.name_any());
    })
    .await;
}

#[tokio::test]
async fn a_parked_instance_that_is_deleted_hears_of_its_end() {
    with_temp_ns(async |cx: Context| {
        let (slow, pods) = parked(&cx, 1, 2).await;
        let (api, name) = (cx.api::<Pod>(), pods[0].name_any());
        let finalizers = |list: Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
        api.patch(&name, &PatchParams::default(), &finalizers(json!([FINALIZER]))).await.unwrap();
        // After its preStop sleep the process is told, and ends by itself.
        api.delete(&name, &DeleteParams::default()).await.unwrap();
        let code = await_condition("its end", async || {
            let status = api.get(&name).await?.status.context("a status")?;
            let container = status.container_statuses.into_iter().flatten().next().context("a container")?;
            let end = container.state.and_then(|state| state.terminated).context("it runs")?;
            Ok(end.exit_code)
        })
        .await;
        api.patch(&name, &PatchParams::default(), &finalizers(Value::Null)).await.unwrap();
        assert_eq!(code, 0, "killed, not told");
        slow.await_parked(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_call_that_thaws_an_instance_while_it_is_deleted_is_answered() {
    with_temp_ns(async |cx: Context| {
        let (slow, pods) = parked(&cx, 1, 2).await;
        let api = cx.api::<Pod>();
        let (name, params) = (pods[0].name_any(), DeleteParams::default());
        let (answer, deleted) = tokio::join!(slow.call("/?ms=300"), api.delete(&name, &params));
        deleted.unwrap();
        answer.expect(200);
        slow.call("/?ms=1").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn restarted_gateways_know_what_is_parked() {
    alone_on_the_cluster(async |cx: Context| {
        let (slow, pods) = parked(&cx, 2, 3).await;
        let system = System::new(&cx);
        system.restart("gateway").await;
        system.settled("gateway").await;
        assert!(slow.instances().await.unwrap().iter().all(|pod| pods.iter().any(|p| uid(p) == uid(pod))));
        let run = thawed(slow.call("/?ms=1").await);
        assert!(pods.iter().any(|pod| pod.name_any() == run.host), "{run:?}");
        slow.await_parked(2).await;
    })
    .await;
}

#[tokio::test]
async fn a_call_is_answered_though_the_agent_was_killed() {
    alone_on_the_cluster(async |cx: Context| {
        let agents = Agents::new(&cx);
        let (slow, _) = parked(&cx, 1, 3).await;
        agents.kill().await;
        // By the next agent, or by an instance that takes the place of the one that nobody can thaw.
        slow.call("/?ms=1").await.expect(200);
        agents.connected().await;
        slow.await_parked(1).await;
        thawed(slow.call("/?ms=1").await);
    })
    .await;
}

#[tokio::test]
async fn without_an_agent_the_instances_run_and_the_status_says_so() {
    alone_on_the_cluster(async |cx: Context| {
        let agents = Agents::new(&cx);
        let (slow, pods) = parked(&cx, 1, 3).await;
        agents.keep_away(true).await;
        slow.await_not_parked("NoNodeAgent").await;
        let pod = slow.await_instances(1).await.remove(0);
        assert_eq!(uid(&pod), uid(&pods[0]));
        assert!(!is_frozen(&pod).unwrap());
        let answer = slow.call("/?ms=1").await.expect(200);
        assert!(!answer.was_cold() && answer.timing("thaw").is_none(), "{:?}", answer.headers);
        agents.keep_away(false).await;
        agents.connected().await;
        slow.await_parked(1).await;
    })
    .await;
}

#[tokio::test]
async fn where_no_freezer_is_the_instances_run_and_the_status_says_so() {
    alone_on_the_cluster(async |cx: Context| {
        let agents = Agents::new(&cx);
        agents.take_freezer_away(true).await;
        let slow = cx.deploy("slow", spec(&cx, 1, 3)).await;
        slow.await_not_parked("FreezerUnavailable").await;
        let words = slow.condition(ConditionType::Parked).await.unwrap().message;
        assert!(words.contains("no freezer at /var"), "{words}");
        let pod = slow.await_instances(1).await.remove(0);
        let answer = slow.call("/?ms=1").await.expect(200);
        assert!(!answer.was_cold() && answer.timing("thaw").is_none(), "{:?}", answer.headers);
        agents.take_freezer_away(false).await;
        assert_eq!(uid(&slow.await_parked(1).await[0]), uid(&pod));
        thawed(slow.call("/?ms=1").await);
    })
    .await;
}
