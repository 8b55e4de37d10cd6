//! What each part may do: checked with the API server's own answer, not by reading the chart.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::{Api, api::PostParams};
use lambent_tests::{Cluster, system::System};
use serde_json::{Value, json};

struct Subject {
    cluster: Cluster,
    spec: Value,
}

impl Subject {
    /// The ServiceAccount of a part.
    async fn part(component: &str) -> Self {
        let cluster = Cluster::from_env().await;
        let user = System::new(&cluster).service_account(component).await;
        let groups = ["system:serviceaccounts", "system:serviceaccounts:lambent-system", "system:authenticated"];
        Self { cluster, spec: json!({"user": user, "groups": groups}) }
    }

    async fn may(&self, verb: &str, group: &str, resource: &str) -> bool {
        let mut spec = self.spec.clone();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        spec["resourceAttributes"] = json!({
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": "default",
        });
        let review: SubjectAccessReview = serde_json::from_value(json!({"spec": spec})).expect("a review");
        let reviews: Api<SubjectAccessReview> = Api::all(self.cluster.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.expect("an answer");
        answer.status.is_some_and(|status| status.allowed)
    }

    async fn may_not(&self, group: &str, resource: &str, verbs: &[&str]) {
        for verb in verbs {
            assert!(!self.may(verb, group, resource).await, "{} may {verb} {resource}", self.spec["user"]);
        }
    }
}

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

#[tokio::test]
async fn the_gateway_can_not_read_secrets() {
    Subject::part("gateway").await.may_not("", "secrets", &READ).await;
}

#[tokio::test]
async fn the_gateway_can_not_make_or_change_pods() {
    let gateway = Subject::part("gateway").await;
    gateway.may_not("", "pods", &WRITE).await;
    gateway.may_not("", "pods/exec", &["create", "get"]).await;
    gateway.may_not("apps", "deployments", &WRITE).await;
    gateway.may_not("batch", "jobs", &WRITE).await;
}

#[tokio::test]
async fn the_gateway_can_not_change_what_runs() {
    let gateway = Subject::part("gateway").await;
    gateway.may_not("lambent.dev", "functions", &WRITE).await;
    gateway.may_not("lambent.dev", "revisions", &WRITE).await;
}

#[tokio::test]
async fn the_autoscaler_can_not_read_secrets_or_make_pods() {
    let autoscaler = Subject::part("autoscaler").await;
    autoscaler.may_not("", "secrets", &READ).await;
    autoscaler.may_not("", "pods", &WRITE).await;
    autoscaler.may_not("lambent.dev", "functions", &WRITE).await;
    autoscaler.may_not("lambent.dev", "revisions", &["create", "delete"]).await;
}

#[tokio::test]
async fn the_controller_can_make_pods_but_not_change_functions() {
    let controller = Subject::part("controller").await;
    assert!(controller.may("create", "", "pods").await);
    controller.may_not("lambent.dev", "functions", &WRITE).await;
    controller.may_not("", "secrets", &["list", "watch", "create", "update", "patch", "delete"]).await;
    assert!(controller.may("list", "", "nodes").await, "images are pulled ahead");
    controller.may_not("", "nodes", &WRITE).await;
    controller.may_not("rbac.authorization.k8s.io", "clusterroles", &WRITE).await;
}

#[tokio::test]
async fn who_may_view_a_namespace_sees_functions_and_who_may_edit_it_changes_them() {
    let cluster = Cluster::from_env().await;
    for (role, may_write) in [("view", false), ("edit", true)] {
        let role = ClusterRole::of(&cluster, role).await;
        assert!(role.has("get", "functions") && role.has("list", "revisions"));
        assert_eq!(role.has("create", "functions"), may_write);
        assert_eq!(role.has("patch", "functions/scale"), may_write);
    }
}

struct ClusterRole(k8s_openapi::api::rbac::v1::ClusterRole);

impl ClusterRole {
    async fn of(cluster: &Cluster, name: &str) -> Self {
        let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(cluster.client.clone());
        Self(roles.get(name).await.expect("a built-in role"))
    }

    fn has(&self, verb: &str, resource: &str) -> bool {
        let holds = |list: &Option<Vec<String>>, text: &str| list.iter().flatten().any(|item| item == text);
        let rules = self.0.rules.iter().flatten();
        rules.into_iter().any(|rule| {
            let verbs = Some(rule.verbs.clone());
            holds(&rule.api_groups, "lambent.dev") && holds(&rule.resources, resource) && holds(&verbs, verb)
        })
    }
}
