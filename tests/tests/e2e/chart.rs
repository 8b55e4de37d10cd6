//! The chart as Helm sees it, and upgrading what runs.

use std::fs;

use anyhow::ensure;
use k8s_openapi::{
    api::{core::v1::Pod, policy::v1::PodDisruptionBudget},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::{
    Api,
    api::{EvictParams, PostParams},
};
use lambent_tests::{
    Cluster, Context, alone_on_the_cluster, await_condition,
    command::{Done, checkout, helm},
    function::uid,
    load::under_load,
    system::{COMPONENTS, NAMESPACE, System},
    with_temp_ns,
};
use serde_json::json;

fn chart() -> String {
    checkout("charts/lambent").to_string_lossy().into_owned()
}

async fn template(cluster: &Cluster, more: &[&str]) -> Done {
    let chart = chart();
    // As `helm install` sees it; without a cluster helm takes some version of its own.
    let version = cluster.client.apiserver_version().await.expect("a version").git_version;
    let mut arguments = vec!["template", "lambent", &chart, "--namespace", NAMESPACE, "--kube-version", &version];
    arguments.extend(more);
    helm(cluster, &arguments).await
}

/// The values that the chart itself is tried with, beside its defaults.
fn value_files() -> Vec<String> {
    let folder = fs::read_dir(checkout("charts/lambent/ci")).into_iter().flatten().flatten();
    let mut files: Vec<_> = folder.map(|entry| entry.path().to_string_lossy().into_owned()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn the_chart_has_no_lint_even_with_strict() {
    let cluster = Cluster::from_env().await;
    helm(&cluster, &["lint", "--strict", &chart()]).await.expect();
    for values in value_files() {
        helm(&cluster, &["lint", "--strict", &chart(), "--values", &values]).await.expect();
    }
}

#[tokio::test]
async fn the_same_values_give_the_same_manifests() {
    let cluster = Cluster::from_env().await;
    for values in value_files() {
        let once = template(&cluster, &["--values", &values]).await.expect();
        let again = template(&cluster, &["--values", &values]).await.expect();
        assert!(!once.is_empty());
        assert_eq!(once, again, "{values}");
    }
}

#[tokio::test]
async fn a_value_that_does_not_exist_is_refused_with_its_name() {
    let cluster = Cluster::from_env().await;
    for (value, word) in [("gateway.replica=2", "replica"), ("gateway.service.type=Balloon", "type")] {
        let done = template(&cluster, &["--set", value]).await;
        assert!(!done.ok && done.stderr.contains(word), "{value}: {}", done.stderr);
    }
}

#[tokio::test]
async fn only_the_controllers_role_creates_pods() {
    let cluster = Cluster::from_env().await;
    let manifests = template(&cluster, &[]).await.expect();
    for manifest in manifests.split("\n---") {
        let Ok(object) = serde_yaml::from_str::<serde_json::Value>(manifest) else { continue };
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let rules = object["rules"].as_array().cloned().unwrap_or_default();
        let creates = |rule: &serde_json::Value| {
            let has = |key: &str, word: &str| rule[key].as_array().is_some_and(|list| list.contains(&json!(word)));
            (has("resources", "pods") || has("resources", "*")) && (has("verbs", "create") || has("verbs", "*"))
        };
        assert!(!rules.iter().any(creates) || name.contains("controller"), "{name} creates pods");
    }
}

#[tokio::test]
async fn nodes_are_seen_only_where_images_are_pulled_ahead() {
    let cluster = Cluster::from_env().await;
    let namespaced = ["--set", "scope=namespaced", "--set", "watchedNamespace=shop"];
    for (more, sees) in [(&[][..], true), (&["--set", "controller.pullAhead=0"][..], false), (&namespaced[..], false)] {
        let manifests = template(&cluster, more).await.expect();
        assert_eq!(manifests.contains("resources: [nodes]"), sees, "{more:?}");
    }
    let off = template(&cluster, &["--set", "controller.pullAhead=0"]).await.expect();
    assert!(off.contains(r#"{name: LAMBENT_PULL_AHEAD, value: "0"}"#), "zero is not the default");
}

#[tokio::test]
async fn only_a_part_with_several_pods_has_a_disruption_budget() {
    let cluster = Cluster::from_env().await;
    let budgets = async |more: &[&str]| -> Vec<PodDisruptionBudget> {
        let manifests = template(&cluster, more).await.expect();
        let texts = manifests.split("\n---").filter(|text| text.contains("kind: PodDisruptionBudget"));
        texts.map(|text| serde_yaml::from_str(text).expect("a PodDisruptionBudget")).collect()
    };
    assert!(budgets(&[]).await.is_empty(), "nobody could drain the node of a single one");
    let [budget] = &budgets(&["--set", "gateway.replicas=2"]).await[..] else { panic!("not one") };
    let spec = budget.spec.as_ref().unwrap();
    assert_eq!(spec.max_unavailable, Some(IntOrString::Int(1)));
    let labels = spec.selector.as_ref().and_then(|selector| selector.match_labels.as_ref()).unwrap();
    assert_eq!(labels["app.kubernetes.io/component"], "gateway");
}

#[tokio::test]
async fn the_last_gateway_is_not_evicted() {
    alone_on_the_cluster(async |cx: Context| {
        let system = System::new(&cx);
        let names: Vec<String> = system.gateways().await.unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 2, "the tests want two gateways");
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(cx.client.clone(), NAMESPACE);
        await_condition("a gateway that may go", async || {
            let status = budgets.get("lambent-gateway").await?.status.unwrap_or_default();
            ensure!(status.disruptions_allowed == 1, "{status:?}");
            Ok(())
        })
        .await;
        let pods: Api<Pod> = Api::namespaced(cx.client.clone(), NAMESPACE);
        let at_once: Api<Pod> = Api::namespaced(cx.impatient.clone(), NAMESPACE);
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        under_load(&hello, 2, "/", async {
            pods.evict(&names[0], &EvictParams::default()).await.unwrap();
            let refused = at_once.evict(&names[1], &EvictParams::default()).await;
            system.settled("gateway").await;
            let Err(kube::Error::Api(status)) = refused else { panic!("the last gateway was evicted") };
            assert!(status.code == 429 && status.message.contains("disruption budget"), "{status:?}");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn every_part_runs_where_pod_security_is_restricted() {
    with_temp_ns(async |cx: Context| {
        let namespace = cx.namespaces().get(NAMESPACE).await.unwrap();
        let labels = namespace.metadata.labels.unwrap_or_default();
        assert_eq!(labels.get("pod-security.kubernetes.io/enforce").map(String::as_str), Some("restricted"));
        let pods: Api<Pod> = Api::namespaced(cx.client.clone(), NAMESPACE);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        for component in COMPONENTS {
            let template = System::new(&cx).deployment(component).await.spec.unwrap().template;
            let metadata = ObjectMeta { generate_name: Some("restricted-".into()), ..ObjectMeta::default() };
            let mut pod = Pod { metadata, spec: template.spec, status: None };
            pods.create(&dry, &pod).await.expect("a pod within `restricted`");
            pod.spec.as_mut().unwrap().host_network = Some(true);
            let refused = pods.create(&dry, &pod).await.expect_err("a refusal").to_string();
            assert!(refused.contains("PodSecurity"), "{refused}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_charts_own_test_passes() {
    with_temp_ns(async |cx: Context| {
        helm(&cx, &["test", "lambent", "--namespace", NAMESPACE, "--timeout", "60s"]).await.expect();
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_that_changes_nothing_restarts_nothing() {
    alone_on_the_cluster(async |cx: Context| {
        let before = part_pods(&cx).await;
        let arguments = ["upgrade", "lambent", &chart(), "--namespace", NAMESPACE, "--reuse-values", "--wait"];
        helm(&cx, &arguments).await.expect();
        assert_eq!(part_pods(&cx).await, before);
        let function = cx.deploy("after-upgrade", json!({"image": cx.image("hello")})).await;
        function.call("/").await.expect(200);
    })
    .await;
}

async fn part_pods(cx: &Context) -> Vec<String> {
    let mut pods = Vec::new();
    for component in COMPONENTS {
        pods.extend(System::new(cx).pods(component).await.expect("pods").iter().map(uid));
    }
    pods
}
