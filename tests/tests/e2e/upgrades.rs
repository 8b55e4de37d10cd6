//! `helm upgrade` and `helm uninstall` under traffic.

use std::{fs, path::Path, process::Command};

use anyhow::ensure;
use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use lambent_tests::{
    Context, Request, alone_on_the_cluster, await_condition,
    command::{checkout, helm},
    examples::Run,
    function::uid,
    load::under_load,
    system::{COMPONENTS, NAMESPACE, System},
};
use serde_json::json;
use tempfile::TempDir;

/// A short name of Functions in another version of the chart.
const OTHER_NAME: &str = "lfn";

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
            let chart = this_chart();
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

#[tokio::test]
async fn another_version_of_the_chart_brings_its_own_definitions_and_fails_no_call() {
    alone_on_the_cluster(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let folder = TempDir::new().unwrap();
        let other = another_version(folder.path());
        let system = System::new(&cx);
        under_load(&hello, 2, "/", async {
            for (chart, is_other) in [(other, true), (this_chart(), false)] {
                helm(&cx, &["upgrade", "lambent", &chart, "--namespace", NAMESPACE, "--reuse-values"]).await.expect();
                for component in COMPONENTS {
                    system.settled(component).await;
                }
                let definitions: Api<CustomResourceDefinition> = Api::all(cx.client.clone());
                let names = definitions.get("functions.lambent.dev").await.unwrap().spec.names.short_names;
                assert_eq!(names.unwrap_or_default().contains(&OTHER_NAME.to_owned()), is_other);
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn an_uninstalled_platform_answers_what_it_has_and_leaves_functions_to_the_next() {
    alone_on_the_cluster(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"min": 1}})).await;
        let values =
            helm(&cx, &["get", "values", "lambent", "--namespace", NAMESPACE, "--output", "yaml"]).await.expect();
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("values.yaml");
        fs::write(&file, values).unwrap();
        let in_flight = slow.start("/?ms=4000").await;
        let gone = helm(&cx, &["uninstall", "lambent", "--namespace", NAMESPACE, "--wait"]).await;
        let (answer, left) = (in_flight.answer().await, slow.get().await);
        let file = file.to_string_lossy().into_owned();
        let arguments = ["install", "lambent", &this_chart(), "--namespace", NAMESPACE, "--values", &file, "--wait"];
        helm(&cx, &arguments).await.expect();
        gone.expect();
        answer.expect(200);
        left.expect("a Function stays");
        await_condition("the Function to be served again", async || {
            let answer = slow.cluster().gateway.try_send(Request::get(&slow.path("/?ms=1"))).await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })
        .await;
        System::new(&cx).settled("gateway").await;
        let other = cx.deploy("other", json!({"image": cx.image("hello")})).await;
        other.call("/").await.expect(200);
    })
    .await;
}

fn this_chart() -> String {
    checkout("charts/lambent").to_string_lossy().into_owned()
}

/// A copy of the chart that is another version, and whose Functions have one more short name.
fn another_version(folder: &Path) -> String {
    let copy = folder.join("lambent");
    let copied = Command::new("cp").arg("-r").args([Path::new(&this_chart()), &copy]).status().unwrap();
    assert!(copied.success());
    let change = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(copy.join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}");
        fs::write(copy.join(file), text.replacen(from, to, 1)).unwrap();
    };
    change("Chart.yaml", "\nversion: 0", "\nversion: 99");
    change("files/crds/crds.yaml", "    - fn\n", &format!("    - fn\n    - {OTHER_NAME}\n"));
    copy.to_string_lossy().into_owned()
}

async fn all_pods(system: &System) -> Vec<String> {
    let mut pods = Vec::new();
    for component in COMPONENTS {
        pods.extend(system.pods(component).await.expect("pods").iter().map(uid));
    }
    pods
}
