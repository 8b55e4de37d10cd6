//! Lambent as a user of `kubectl` sees it.

use std::fs;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use kube::Api;
use lambent_tests::{
    Context, await_condition,
    command::{checkout, kubectl, kubectl_with_input},
    with_temp_ns,
};
use serde_json::json;

async fn in_namespace(cx: &Context, arguments: &[&str]) -> String {
    kubectl(cx, &[&["-n", &cx.namespace], arguments].concat()).await.expect()
}

/// An example's manifest for this cluster and the test's namespace.
fn manifest(cx: &Context, example: &str) -> String {
    let text = fs::read_to_string(checkout(&format!("examples/{example}/function.yaml"))).expect("a manifest");
    let mut manifest: serde_json::Value = serde_yaml::from_str(&text).expect("YAML");
    manifest["metadata"]["namespace"] = json!(cx.namespace);
    manifest["spec"]["image"] = json!(cx.image(example));
    manifest.to_string()
}

#[tokio::test]
async fn the_first_example_is_named_hello_and_is_applied_to_default() {
    let text = fs::read_to_string(checkout("examples/hello/function.yaml")).expect("a manifest");
    let manifest: serde_json::Value = serde_yaml::from_str(&text).expect("YAML");
    assert_eq!(manifest["metadata"]["name"], "hello");
    let namespace = manifest["metadata"]["namespace"].as_str();
    assert!(matches!(namespace, None | Some("default")), "{namespace:?}");
}

#[tokio::test]
async fn client_side_apply_and_wait_work_and_a_diff_is_clean_after() {
    with_temp_ns(async |cx: Context| {
        let manifest = manifest(&cx, "hello");
        kubectl_with_input(&cx, &["apply", "-f", "-"], &manifest).await.expect();
        in_namespace(&cx, &["wait", "--for=condition=Ready", "fn/hello", "--timeout=60s"]).await;
        kubectl_with_input(&cx, &["diff", "-f", "-"], &manifest).await.expect();
        let again = kubectl_with_input(&cx, &["apply", "-f", "-"], &manifest).await.expect();
        assert!(again.contains("unchanged"), "{again}");
        kubectl_with_input(&cx, &["delete", "-f", "-", "--timeout=60s"], &manifest).await.expect();
        cx.function("hello").await_removed().await;
    })
    .await;
}

#[tokio::test]
async fn server_side_apply_goes_with_the_controllers_writes() {
    with_temp_ns(async |cx: Context| {
        let manifest = manifest(&cx, "hello");
        for _ in 0..2 {
            kubectl_with_input(&cx, &["apply", "--server-side", "-f", "-"], &manifest).await.expect();
            cx.function("hello").await_ready().await;
        }
        kubectl_with_input(&cx, &["diff", "--server-side", "-f", "-"], &manifest).await.expect();
    })
    .await;
}

#[tokio::test]
async fn kubectl_refuses_a_misspelt_field() {
    with_temp_ns(async |cx: Context| {
        let manifest = manifest(&cx, "hello").replace("\"image\"", "\"imagee\"");
        let done = kubectl_with_input(&cx, &["apply", "-f", "-"], &manifest).await;
        assert!(!done.ok && done.stderr.contains("imagee"), "{}", done.stderr);
    })
    .await;
}

#[tokio::test]
async fn get_shows_the_columns_that_matter() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let revision = hello.serving().await;
        await_condition("one instance in the status", async || {
            let instances = hello.status().await?.instances;
            anyhow::ensure!(instances == 1, "{instances} instances");
            Ok(())
        })
        .await;
        let table = in_namespace(&cx, &["get", "fn"]).await;
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "READY", "REVISION", "INSTANCES", "URL", "AGE", "REASON"]);
        let row = &lines[1];
        assert_eq!((row[0], row[1], row[2], row[3]), ("hello", "True", &*revision, "1"), "{table}");
        assert!(row[4].ends_with(&hello.path("")), "{table}");

        let table = in_namespace(&cx, &["get", "revisions.lambent.dev"]).await;
        let header: Vec<_> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(header, ["NAME", "FUNCTION", "READY", "WANTED", "INSTANCES", "AGE", "REASON"]);
        assert!(table.contains(&revision), "{table}");
    })
    .await;
}

#[tokio::test]
async fn all_names_of_the_kinds_are_known() {
    with_temp_ns(async |cx: Context| {
        for name in ["fn", "functions", "functions.lambent.dev", "revisions.lambent.dev", "lambent"] {
            in_namespace(&cx, &["get", name]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn explain_describes_each_field() {
    with_temp_ns(async |cx: Context| {
        for (field, words) in [
            ("fn", "runs only while it is called"),
            ("fn.spec.concurrency", "Never exceeded"),
            ("fn.spec.scale.idle", "How long the load must have been lower"),
            ("fn.spec.queue.depth", "429"),
            ("fn.status.url", "Where to call it"),
            ("revision.spec.instances", "Instances wanted"),
        ] {
            let text = kubectl(&cx, &["explain", "--api-version=lambent.dev/v1alpha1", field]).await.expect();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(words), "{field}: {text}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_field_of_ours_is_without_a_description() {
    with_temp_ns(async |cx: Context| {
        let crds: Api<CustomResourceDefinition> = Api::all(cx.client.clone());
        for name in ["functions.lambent.dev", "revisions.lambent.dev"] {
            let crd = crds.get(name).await.expect("a definition");
            let schema = crd.spec.versions[0].schema.clone().and_then(|s| s.open_api_v3_schema).expect("a schema");
            let properties = schema.properties.expect("properties");
            for part in ["spec", "status"] {
                let missing = undescribed(part, &properties[part], 2);
                assert!(missing.is_empty(), "{name}: {missing:?}");
            }
        }
    })
    .await;
}

/// Fields without a description, down to a depth below which they are Kubernetes' own.
fn undescribed(path: &str, schema: &JSONSchemaProps, depth: u32) -> Vec<String> {
    let Some(properties) = schema.properties.as_ref().filter(|_| depth > 0) else { return Vec::new() };
    let each = properties.iter().flat_map(|(name, field)| {
        let path = format!("{path}.{name}");
        let own = field.description.as_ref().is_none_or(|text| text.trim().is_empty()).then(|| path.clone());
        own.into_iter().chain(undescribed(&path, field, depth - 1))
    });
    each.collect()
}
