//! The manifest of an instance's Pod: a pure function of the order. It meets Pod Security
//! `restricted` by itself, and mounts nothing that its author didn't ask for, as any volume costs
//! a cold start some 300 ms.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, Lifecycle, LifecycleHandler, Pod, PodSecurityContext, PodSpec,
        SeccompProfile, SecurityContext, SleepAction,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use lambent_api::{
    Revision, Template,
    meta::{LABEL_FUNCTION, LABEL_REVISION},
};

use crate::Order;

/// Name of the one container that is the function.
pub const CONTAINER: &str = "function";
/// Name of its port, for probes that prefer names.
const PORT_NAME: &str = "http";
/// After the preStop sleep: how long the process has from SIGTERM to its end.
const SECONDS_AFTER_SIGTERM: i64 = 10;

/// The Pod that carries out an order.
pub fn pod(order: &Order) -> Pod {
    let template = &order.revision.spec.template;
    let busy = seconds_rounded_up(order.settings.timeout);
    Pod { metadata: metadata(order), spec: Some(spec(template, order.revision.spec.image_user, busy)), status: None }
}

fn metadata(order: &Order) -> ObjectMeta {
    ObjectMeta {
        name: Some(order.name.clone()),
        namespace: order.revision.metadata.namespace.clone(),
        labels: Some(labels(&order.revision)),
        owner_references: Some(vec![owner(&order.revision)]),
        ..ObjectMeta::default()
    }
}

fn labels(revision: &Revision) -> BTreeMap<String, String> {
    let function = revision.spec.function.clone();
    let name = revision.metadata.name.clone().unwrap_or_default();
    [
        (LABEL_FUNCTION, function.clone()),
        (LABEL_REVISION, name),
        ("app.kubernetes.io/name", function),
        ("app.kubernetes.io/component", "function".to_owned()),
        ("app.kubernetes.io/part-of", "lambent".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Deleting the Revision takes its Pods along, and never waits for them.
fn owner(revision: &Revision) -> OwnerReference {
    OwnerReference {
        api_version: Revision::api_version(&()).into_owned(),
        kind: Revision::kind(&()).into_owned(),
        name: revision.metadata.name.clone().unwrap_or_default(),
        uid: revision.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

fn spec(template: &Template, image_user: i64, busy_seconds: i64) -> PodSpec {
    let fields = &template.pod;
    PodSpec {
        containers: vec![container(template, busy_seconds)],
        restart_policy: Some("Always".to_owned()),
        automount_service_account_token: Some(fields.service_account_name.is_some()),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(busy_seconds.saturating_add(SECONDS_AFTER_SIGTERM)),
        security_context: Some(pod_security(template.security_context.as_deref(), image_user)),
        volumes: non_empty(&fields.volumes),
        node_selector: Some(fields.node_selector.clone()).filter(|map| !map.is_empty()),
        tolerations: non_empty(&fields.tolerations),
        affinity: fields.affinity.as_deref().cloned(),
        topology_spread_constraints: non_empty(&fields.topology_spread_constraints),
        runtime_class_name: fields.runtime_class_name.clone(),
        service_account_name: fields.service_account_name.clone(),
        image_pull_secrets: non_empty(&fields.image_pull_secrets),
        priority_class_name: fields.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn container(template: &Template, busy_seconds: i64) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        env: Some(env(template)),
        ports: Some(vec![ContainerPort {
            name: Some(PORT_NAME.to_owned()),
            container_port: template.port,
            ..ContainerPort::default()
        }]),
        image_pull_policy: Some(template.image_pull_policy.clone().unwrap_or_else(|| "IfNotPresent".to_owned())),
        security_context: Some(container_security(template.security_context.as_deref().cloned().unwrap_or_default())),
        lifecycle: Some(lifecycle(template.lifecycle.as_deref().cloned().unwrap_or_default(), busy_seconds)),
        ..Container::from(template)
    }
}

/// PORT is ours and comes first, so that values after it may refer to it as `$(PORT)`.
fn env(template: &Template) -> Vec<EnvVar> {
    let port = EnvVar { name: "PORT".to_owned(), value: Some(template.port.to_string()), ..EnvVar::default() };
    let own = template.env.iter().filter(|var| var.name != "PORT").cloned();
    std::iter::once(port).chain(own).collect()
}

/// Whoever deletes the Pod, its process lives on as long as a request may run. The controller cuts
/// this short when the gateway says that none is left.
fn lifecycle(own: Lifecycle, busy_seconds: i64) -> Lifecycle {
    let sleep =
        || LifecycleHandler { sleep: Some(SleepAction { seconds: busy_seconds }), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: own.pre_stop.or_else(|| Some(sleep())), ..own }
}

/// What the whole Pod says must not contradict what its author says for the container: uid 0 can't
/// be non-root.
fn pod_security(own: Option<&SecurityContext>, image_user: i64) -> PodSecurityContext {
    let user = own.and_then(|own| own.run_as_user).unwrap_or(image_user);
    let non_root = own.and_then(|own| own.run_as_non_root).unwrap_or(user != 0);
    PodSecurityContext {
        run_as_user: Some(user),
        run_as_non_root: Some(non_root),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// The restricted defaults, each replaced where the author says otherwise.
fn container_security(own: SecurityContext) -> SecurityContext {
    let own_capabilities = own.capabilities.clone().unwrap_or_default();
    SecurityContext {
        allow_privilege_escalation: own.allow_privilege_escalation.or((!escalates(&own)).then_some(false)),
        capabilities: Some(Capabilities {
            drop: own_capabilities.drop.or_else(|| Some(vec!["ALL".to_owned()])),
            add: own_capabilities.add,
        }),
        ..own
    }
}

/// The API server refuses "no escalation" together with these.
fn escalates(own: &SecurityContext) -> bool {
    let added = own.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    own.privileged == Some(true) || added.into_iter().any(|name| name.ends_with("SYS_ADMIN"))
}

fn non_empty<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    Some(list.to_vec()).filter(|list| !list.is_empty())
}

/// Whole seconds, at least one: older API servers refuse a sleep of none.
fn seconds_rounded_up(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
pub(super) mod tests;
