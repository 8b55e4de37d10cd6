use std::sync::Arc;

use lambent_api::{FunctionSpec, Settings};

use super::*;

pub(in crate::kube) fn order(function: &str) -> Order {
    let spec: FunctionSpec = serde_yaml::from_str(function).unwrap();
    let revision = format!(
        "
metadata: {{namespace: shop, name: hello-0123456789, uid: u-r}}
spec: {{function: hello, template: {}, imageUser: 1234}}",
        serde_json::to_string(&spec.template).unwrap()
    );
    Order {
        name: "hello-0123456789-0".to_owned(),
        revision: Arc::new(
            serde_yaml::from_str(&format!("apiVersion: lambent.dev/v1alpha1\nkind: Revision{revision}")).unwrap(),
        ),
        settings: Arc::new(Settings::try_from(&spec).unwrap()),
    }
}

fn spec_of(function: &str) -> PodSpec {
    pod(&order(function)).spec.unwrap()
}

fn container_of(function: &str) -> Container {
    spec_of(function).containers.remove(0)
}

/// What the admission plugin of Pod Security checks at level `restricted`, as far as we set it.
fn is_restricted(spec: &PodSpec) -> bool {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = spec.containers[0].security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(pod.run_as_user);
    let seccomp = own.seccomp_profile.or(pod.seccomp_profile).map(|profile| profile.type_);
    let capabilities = own.capabilities.unwrap_or_default();
    own.allow_privilege_escalation == Some(false)
        && own.run_as_non_root.or(pod.run_as_non_root) == Some(true)
        && user != Some(0)
        && seccomp.as_deref() == Some("RuntimeDefault")
        && capabilities.drop.is_some_and(|drop| drop.contains(&"ALL".to_owned()))
        && capabilities.add.unwrap_or_default().iter().all(|name| name == "NET_BIND_SERVICE")
        && own.privileged != Some(true)
}

#[test]
fn an_image_alone_makes_a_pod_that_meets_pod_security_restricted() {
    let spec = spec_of("image: a");
    assert!(is_restricted(&spec), "{spec:?}");
    assert_eq!(spec.security_context.unwrap().run_as_user, Some(1234));
}

#[test]
fn nothing_is_mounted_or_linked_unless_asked_for() {
    let spec = spec_of("image: a");
    assert_eq!((spec.volumes, spec.service_account_name), (None, None));
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(spec.enable_service_links, Some(false));
    assert_eq!(spec.containers[0].volume_mounts, None);
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
}

#[test]
fn a_service_account_brings_its_token() {
    let spec = spec_of("{image: a, pod: {serviceAccountName: teller}}");
    assert_eq!(spec.automount_service_account_token, Some(true));
    assert_eq!(spec.service_account_name.as_deref(), Some("teller"));
}

#[test]
fn the_pod_belongs_to_its_revision_and_function() {
    let metadata = pod(&order("image: a")).metadata;
    let labels = metadata.labels.unwrap();
    assert_eq!((labels[LABEL_FUNCTION].as_str(), labels[LABEL_REVISION].as_str()), ("hello", "hello-0123456789"));
    assert_eq!(labels["app.kubernetes.io/part-of"], "lambent");
    let owner = &metadata.owner_references.unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()), ("Revision", "hello-0123456789", "u-r"));
    assert_eq!(owner.api_version, "lambent.dev/v1alpha1");
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(false)));
}

#[test]
fn port_is_told_first_and_only_by_us() {
    let container = container_of("{image: a, port: 3000, env: [{name: A, value: $(PORT)}, {name: PORT, value: '1'}]}");
    let env = container.env.unwrap();
    let names: Vec<_> = env.iter().map(|var| (var.name.as_str(), var.value.as_deref().unwrap())).collect();
    assert_eq!(names, [("PORT", "3000"), ("A", "$(PORT)")]);
    assert_eq!(container.ports.unwrap()[0].container_port, 3000);
}

#[test]
fn a_deleted_pod_lives_on_as_long_as_a_request_may_run() {
    let spec = spec_of("{image: a, timeout: 1500ms}");
    assert_eq!(spec.termination_grace_period_seconds, Some(12));
    let sleep = spec.containers[0].lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap().sleep.as_ref().unwrap();
    assert_eq!(sleep.seconds, 2);
}

#[test]
fn an_own_pre_stop_replaces_the_sleep_and_an_own_post_start_does_not() {
    let own = container_of("{image: a, lifecycle: {preStop: {exec: {command: [sync]}}}}").lifecycle.unwrap();
    assert!(own.pre_stop.unwrap().exec.is_some());
    let other = container_of("{image: a, lifecycle: {postStart: {exec: {command: [sync]}}}}").lifecycle.unwrap();
    assert!(other.pre_stop.unwrap().sleep.is_some() && other.post_start.is_some());
}

#[test]
fn images_are_pulled_once_unless_asked_otherwise() {
    assert_eq!(container_of("image: a").image_pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(container_of("{image: a, imagePullPolicy: Always}").image_pull_policy.as_deref(), Some("Always"));
}

#[test]
fn root_is_had_by_asking_for_it() {
    for asked in ["{runAsUser: 0}", "{runAsUser: 0, runAsNonRoot: false}"] {
        let security = spec_of(&format!("{{image: a, securityContext: {asked}}}")).security_context.unwrap();
        assert_eq!((security.run_as_user, security.run_as_non_root), (Some(0), Some(false)), "{asked}");
    }
}

#[test]
fn own_security_fields_replace_ours_one_by_one() {
    let asked = "{image: a, securityContext: {runAsUser: 7, readOnlyRootFilesystem: true, capabilities: {add: [NET_BIND_SERVICE]}}}";
    let spec = spec_of(asked);
    assert!(is_restricted(&spec));
    let own = spec.containers[0].security_context.clone().unwrap();
    assert_eq!((own.run_as_user, own.read_only_root_filesystem), (Some(7), Some(true)));
    assert_eq!(own.capabilities.unwrap().add, Some(vec!["NET_BIND_SERVICE".to_owned()]));
}

#[test]
fn what_forbids_no_escalation_is_not_contradicted() {
    for asked in ["{privileged: true}", "{capabilities: {add: [CAP_SYS_ADMIN]}}"] {
        let own = container_of(&format!("{{image: a, securityContext: {asked}}}")).security_context.unwrap();
        assert_eq!(own.allow_privilege_escalation, None, "{asked}");
    }
}

#[test]
fn fields_of_the_pod_are_taken_over() {
    let spec = spec_of(
        "{image: a, volumeMounts: [{name: v, mountPath: /v}], pod: {volumes: [{name: v, emptyDir: {}}],
          nodeSelector: {disk: ssd}, tolerations: [{operator: Exists}], runtimeClassName: gvisor,
          imagePullSecrets: [{name: s}], priorityClassName: high, affinity: {nodeAffinity: {}},
          topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}}",
    );
    assert_eq!(spec.volumes.unwrap()[0].name, "v");
    assert_eq!(spec.containers[0].volume_mounts.as_ref().unwrap()[0].mount_path, "/v");
    assert_eq!(spec.node_selector.unwrap()["disk"], "ssd");
    assert_eq!(spec.runtime_class_name.as_deref(), Some("gvisor"));
    assert_eq!(spec.priority_class_name.as_deref(), Some("high"));
    assert_eq!(spec.image_pull_secrets.unwrap()[0].name, "s");
    assert!(spec.affinity.is_some() && spec.tolerations.is_some() && spec.topology_spread_constraints.is_some());
}
