//! Who may reach whom by the chart's NetworkPolicies. The test cluster's network enforces none, so the
//! rendered ones are read here as the API's documentation of NetworkPolicy has it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicySpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use lambent_tests::{
    Cluster,
    agents::AGENTS,
    command::{checkout, helm},
    system::NAMESPACE,
};

type Labels = BTreeMap<String, String>;

/// A pod, as a policy sees it.
struct Pod {
    namespace: &'static str,
    labels: Labels,
}

impl Pod {
    fn new(namespace: &'static str, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { namespace, labels }
    }

    fn part(component: &str) -> Self {
        Self::new(NAMESPACE, &[("app.kubernetes.io/name", "lambent"), ("app.kubernetes.io/component", component)])
    }

    fn function(namespace: &'static str) -> Self {
        let component = [("app.kubernetes.io/part-of", "lambent"), ("app.kubernetes.io/component", "function")];
        Self::new(namespace, &component)
    }
}

async fn policies(cluster: &Cluster) -> Vec<NetworkPolicy> {
    let chart = checkout("charts/lambent").to_string_lossy().into_owned();
    let arguments = ["template", "lambent", &chart, "--namespace", NAMESPACE, "--set", "networkPolicy.enabled=true"];
    let namespaces = ["--set", "networkPolicy.functionNamespaces={shop}", "--set", "node.enabled=true"];
    let version = cluster.client.apiserver_version().await.expect("a version").git_version;
    let all = [&arguments[..], &namespaces, &["--kube-version", &version]].concat();
    let text = helm(cluster, &all).await.expect();
    let objects = text.split("\n---").filter(|text| text.contains("kind: NetworkPolicy"));
    objects.map(|text| serde_yaml::from_str(text).expect("a NetworkPolicy")).collect()
}

/// Allowed if no policy selects the pod, or if one that does allows it.
fn may(policies: &[NetworkPolicy], from: &Pod, to: &Pod, port: i32) -> bool {
    let of_its_namespace = policies.iter().filter(|p| p.metadata.namespace.as_deref() == Some(to.namespace));
    let specs = of_its_namespace.filter_map(|policy| policy.spec.as_ref());
    let selecting: Vec<_> = specs.filter(|spec| selects(spec.pod_selector.as_ref(), &to.labels)).collect();
    selecting.is_empty() || selecting.iter().any(|spec| allows(spec, from, to, port))
}

fn allows(spec: &NetworkPolicySpec, from: &Pod, to: &Pod, port: i32) -> bool {
    spec.ingress.iter().flatten().any(|rule| {
        let ports = rule.ports.as_deref().unwrap_or_default();
        let peers = rule.from.as_deref().unwrap_or_default();
        let is_port = ports.is_empty() || ports.iter().any(|p| p.port == Some(IntOrString::Int(port)));
        is_port && (peers.is_empty() || peers.iter().any(|peer| is_peer(peer, from, to.namespace)))
    })
}

fn is_peer(peer: &NetworkPolicyPeer, pod: &Pod, own_namespace: &str) -> bool {
    assert!(peer.ip_block.is_none(), "addresses are not read here");
    let namespace = [("kubernetes.io/metadata.name".to_owned(), pod.namespace.to_owned())].into();
    let is_there = match &peer.namespace_selector {
        None => pod.namespace == own_namespace,
        selector => selects(selector.as_ref(), &namespace),
    };
    is_there && selects(peer.pod_selector.as_ref(), &pod.labels)
}

/// An empty or missing selector selects all.
fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(LabelSelector { match_expressions, match_labels }) = selector else { return true };
    match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

fn holds(LabelSelectorRequirement { key, operator, values }: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let is_one = || labels.get(key).is_some_and(|value| values.iter().flatten().any(|v| v == value));
    match &**operator {
        "In" => is_one(),
        "NotIn" => !is_one(),
        "Exists" => labels.contains_key(key),
        "DoesNotExist" => !labels.contains_key(key),
        other => panic!("no such operator: {other}"),
    }
}

#[tokio::test]
async fn only_who_needs_it_may_reach_the_parts_and_the_functions() {
    let policies = policies(&Cluster::from_env().await).await;
    assert!(!policies.is_empty());
    let (gateway, controller, autoscaler) = (Pod::part("gateway"), Pod::part("controller"), Pod::part("autoscaler"));
    let (stranger, function) = (Pod::new("else", &[("app", "x")]), Pod::function("shop"));
    let impostor = Pod { namespace: "else", labels: gateway.labels.clone() };
    let agent = Pod { namespace: AGENTS, ..Pod::part("node") };
    let rows = [
        (&agent, &gateway, 8081, true, "addresses"),
        (&Pod::part("node"), &gateway, 8081, false, "no agent is in this namespace"),
        (&gateway, &agent, 9090, false, "nobody calls an agent"),
        (&stranger, &gateway, 8080, true, "anyone may call"),
        (&stranger, &gateway, 8081, false, "the internal port"),
        (&impostor, &gateway, 8081, false, "labels of another namespace"),
        (&function, &gateway, 8081, false, "functions"),
        (&gateway, &gateway, 8081, true, "gateways lend each other slots"),
        (&autoscaler, &gateway, 8081, true, "loads"),
        (&controller, &gateway, 8081, true, "what is drained"),
        (&stranger, &gateway, 9090, false, "metrics"),
        (&gateway, &autoscaler, 9090, false, "nobody calls the autoscaler"),
        (&gateway, &controller, 9090, false, "nobody calls the controller"),
        (&gateway, &function, 3000, true, "requests"),
        (&controller, &function, 3000, true, "proving"),
        (&autoscaler, &function, 3000, false, "no request"),
        (&stranger, &function, 3000, false, "past the gateway"),
        (&impostor, &function, 3000, false, "past the gateway, in disguise"),
        (&function, &function, 3000, false, "functions call each other through the gateway"),
    ];
    for (from, to, port, expected, why) in rows {
        assert_eq!(may(&policies, from, to, port), expected, "port {port}: {why}");
    }
}

#[tokio::test]
async fn a_function_pod_has_the_labels_that_the_policy_selects() {
    lambent_tests::with_temp_ns(async |cx: lambent_tests::Context| {
        let policies = policies(&cx).await;
        let of_functions = policies.iter().find(|p| p.metadata.namespace.as_deref() == Some("shop")).unwrap();
        let hello = cx.deploy("hello", serde_json::json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        let pod = hello.await_instances(1).await.swap_remove(0);
        let selector = of_functions.spec.as_ref().unwrap().pod_selector.as_ref();
        assert!(selects(selector, &pod.metadata.labels.unwrap()));
    })
    .await;
}
