//! The chart as Helm sees it, and upgrading what runs.

use std::fs;

use lambent_tests::{
    Cluster, Context, alone_on_the_cluster,
    command::{Done, checkout, helm},
    function::uid,
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
