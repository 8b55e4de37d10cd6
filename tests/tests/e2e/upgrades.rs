//! `helm upgrade` and `helm uninstall` under traffic.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use lambent_tests::{
    Context, Deployed, Gateway, Request, alone_on_the_cluster, await_condition,
    command::{checkout, helm},
    examples::{self, Run, mirror},
    function::uid,
    http::Streaming,
    load::under_load,
    raw::Raw,
    registry,
    system::{COMPONENTS, NAMESPACE, System},
};
use serde_json::json;
use tempfile::TempDir;

/// A short name of Functions in another version of the chart.
const OTHER_NAME: &str = "lfn";
/// Longer than the chart's gateway.drainDelaySeconds.
const DRAIN_DELAY: Duration = Duration::from_secs(8);

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
async fn streams_that_are_open_when_the_image_is_upgraded_go_on_until_they_end() {
    alone_on_the_cluster(async |cx: Context| {
        let system = System::new(&cx);
        let spec = json!({"image": cx.image("stream"), "concurrency": 20, "scale": {"max": 1}});
        let stream = cx.deploy("stream", spec).await;
        let mut mirrors = mirror(&cx);
        mirrors["concurrency"] = json!(20);
        let mirror = cx.deploy("mirror", mirrors).await;
        let (mut events, mut sockets) = (Vec::new(), Vec::new());
        for (_, gateway) in system.gateways().await.unwrap() {
            events.push(gateway.open(Request::get(&stream.path(&examples::events(100_000, 200)))).await.unwrap());
            sockets.push(upgraded(&gateway, &mirror).await);
        }
        let before = system.running("gateway").await.unwrap();
        let image = image_of(&system).await;
        let (name, tag) = image.strip_prefix(&format!("{}/", cx.registry)).unwrap().split_once(':').unwrap();
        let other = format!("{tag}-again");
        registry::copy(&cx, &format!("{name}:{tag}"), &format!("{name}:{other}")).await;
        under_load(&stream, 2, &examples::lines(1, 1), async {
            upgrade_to(&cx, &other).await;
            await_condition("none but new gateways", async || {
                let now = system.running("gateway").await?;
                ensure!(now.len() == before.len() && now.iter().all(|pod| !before.contains(pod)), "{now:?}");
                Ok(())
            })
            .await;
            assert!(image_of(&system).await.ends_with(&other));
            for events in &mut events {
                still_come(events).await;
            }
            for socket in &mut sockets {
                socket.send("late\n").await;
                assert_eq!(socket.line().await, "late\n");
            }
            drop((events, sockets));
            // The old ones were there for nothing but these.
            system.settled("gateway").await;
            upgrade_to(&cx, tag).await;
            for component in COMPONENTS {
                system.settled(component).await;
            }
        })
        .await;
        assert_eq!(image_of(&system).await, image);
    })
    .await;
}

/// Events for longer than a gateway that stops serves on for those who don't know yet.
async fn still_come(events: &mut Streaming) {
    let begun = Instant::now();
    while begun.elapsed() < DRAIN_DELAY {
        events.line().await.unwrap().expect("more events");
    }
}

/// A connection on which each line comes back.
async fn upgraded(gateway: &Gateway, mirror: &Deployed) -> Raw {
    let mut raw = Raw::connect(gateway).await;
    let path = mirror.path("/");
    raw.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")).await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    raw
}

async fn image_of(system: &System) -> String {
    let pod = system.deployment("gateway").await.spec.and_then(|spec| spec.template.spec).unwrap();
    pod.containers.into_iter().next().and_then(|container| container.image).unwrap()
}

async fn upgrade_to(cx: &Context, tag: &str) {
    let (chart, set) = (this_chart(), format!("image.tag={tag}"));
    let arguments = ["upgrade", "lambent", &chart, "--namespace", NAMESPACE, "--reuse-values", "--set-string", &set];
    helm(cx, &arguments).await.expect();
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
