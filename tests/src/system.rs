//! Lambent's own parts on the cluster.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{Cluster, Gateway, await_condition, process};

/// Where Lambent runs.
pub const NAMESPACE: &str = "lambent-system";
/// Its parts, as their label `app.kubernetes.io/component` has it.
pub const COMPONENTS: [&str; 3] = ["controller", "gateway", "autoscaler"];

/// Lambent's namespace.
pub struct System {
    client: Client,
}

impl System {
    /// On this cluster.
    pub fn new(cluster: &Cluster) -> Self {
        Self { client: cluster.client.clone() }
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The Deployment of a part.
    ///
    /// # Panics
    /// If there is not exactly one.
    pub async fn deployment(&self, component: &str) -> Deployment {
        let mut found = self.deployments().list(&of(component)).await.expect("Deployments").items;
        assert_eq!(found.len(), 1, "Deployments of {component}");
        found.remove(0)
    }

    /// The domain under which functions have hosts of their own.
    ///
    /// # Panics
    /// If the gateway was told none.
    pub async fn domain(&self) -> String {
        let pod = self.deployment("gateway").await.spec.and_then(|d| d.template.spec);
        let containers = pod.map(|pod| pod.containers).unwrap_or_default();
        let mut variables = containers.into_iter().flat_map(|c| c.env.unwrap_or_default());
        let domain = variables.find(|variable| variable.name == "LAMBENT_DOMAIN").and_then(|variable| variable.value);
        domain.expect("the Lambent under test has no gateway.domain")
    }

    /// The name of a part's ServiceAccount, as RBAC sees it.
    pub async fn service_account(&self, component: &str) -> String {
        let pod = self.deployment(component).await.spec.and_then(|d| d.template.spec);
        let name = pod.and_then(|p| p.service_account_name).unwrap_or_else(|| "default".to_owned());
        format!("system:serviceaccount:{NAMESPACE}:{name}")
    }

    /// The running pods of a part that are not being stopped.
    ///
    /// # Errors
    /// If the API server doesn't answer.
    pub async fn pods(&self, component: &str) -> anyhow::Result<Vec<Pod>> {
        let pods = self.pod_api().list(&of(component)).await?.items;
        Ok(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
    }

    /// The name of one running pod of a part.
    ///
    /// # Errors
    /// If there is none.
    pub async fn pod(&self, component: &str) -> anyhow::Result<String> {
        Ok(self.running(component).await?.swap_remove(0))
    }

    /// The names of all running pods of a part.
    ///
    /// # Errors
    /// If there is none.
    pub async fn running(&self, component: &str) -> anyhow::Result<Vec<String>> {
        let running = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        let pods = self.pods(component).await?.into_iter().filter(running);
        let names: Vec<_> = pods.filter_map(|pod| pod.metadata.name).collect();
        ensure!(!names.is_empty(), "no pod of {component} runs");
        Ok(names)
    }

    /// The gateway of one pod, without the Service before it.
    ///
    /// # Panics
    /// If there is none that runs.
    pub async fn gateway_pod(&self) -> Gateway {
        self.gateways().await.expect("pods").into_iter().next().expect("a gateway").1
    }

    /// The gateways that are ready, by the names of their pods, without the Service before them.
    ///
    /// # Errors
    /// If the API server doesn't answer.
    pub async fn gateways(&self) -> anyhow::Result<Vec<(String, Gateway)>> {
        let ready = self.pods("gateway").await?.into_iter().filter(is_ready);
        let gateway = |pod: Pod| {
            let address = pod.status.and_then(|status| status.pod_ip)?;
            Some((pod.metadata.name?, Gateway::new(&format!("http://{address}:8080"))))
        };
        Ok(ready.filter_map(gateway).collect())
    }

    /// What a part's pods logged.
    ///
    /// # Errors
    /// If there is no pod or no log.
    pub async fn logs(&self, component: &str) -> anyhow::Result<String> {
        let mut all = String::new();
        for pod in self.running(component).await? {
            all += &self.pod_api().logs(&pod, &LogParams::default()).await?;
        }
        Ok(all)
    }

    /// What the admin port of a part's pod answers.
    ///
    /// # Errors
    /// If it answers anything but 200.
    pub async fn admin(&self, pod: &str, path: &str) -> anyhow::Result<String> {
        let uri = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy{path}");
        Ok(self.client.request_text(hyper::Request::get(uri).body(Vec::new())?).await?)
    }

    /// The value of a metric over all pods of a part, of series whose labels include these.
    ///
    /// # Errors
    /// If an admin port doesn't answer.
    pub async fn metric(&self, component: &str, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<Option<f64>> {
        let mut values = Vec::new();
        for pod in self.running(component).await? {
            let text = self.admin(&pod, "/metrics").await?;
            values.extend(text.lines().filter_map(|line| value(line, name, labels)));
        }
        Ok((!values.is_empty()).then(|| values.iter().sum()))
    }

    /// Who holds the Lease of a part, if anyone.
    ///
    /// # Errors
    /// If there is no Lease of it.
    pub async fn leader(&self, component: &str) -> anyhow::Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let all = leases.list(&ListParams::default()).await?.items;
        let named = |lease: &Lease| lease.metadata.name.as_ref().is_some_and(|name| name.contains(component));
        let lease = all.into_iter().find(named).with_context(|| format!("no Lease of {component}"))?;
        Ok(lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
    }

    /// Sets how many replicas a part has, and waits until that is so.
    ///
    /// # Panics
    /// If it doesn't come true.
    pub async fn scale(&self, component: &str, replicas: i32) {
        let name = self.deployment(component).await.metadata.name.expect("a name");
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.deployments().patch_scale(&name, &PatchParams::default(), &patch).await.expect("a scaled Deployment");
        self.settled(component).await;
    }

    /// Restarts a part as `kubectl rollout restart` does, without waiting for it.
    ///
    /// # Panics
    /// If the API server refuses.
    pub async fn restart(&self, component: &str) {
        let name = self.deployment(component).await.metadata.name.expect("a name");
        self.deployments().restart(&name).await.expect("a restarted Deployment");
    }

    /// Kills the process of one of a part's pods, and removes that pod: the kubelet would wait longer each
    /// time before it starts a process again in the same one. Waits until another one is ready.
    ///
    /// # Panics
    /// If there is none on this machine, or none takes its place.
    pub async fn kill(&self, component: &str) {
        let name = self.pods(component).await.expect("pods").swap_remove(0).metadata.name.expect("a name");
        self.kill_pod(component, &name).await;
    }

    /// As [`System::kill`], this one of a part's pods.
    ///
    /// # Panics
    /// If it is not on this machine, or none takes its place.
    pub async fn kill_pod(&self, component: &str, name: &str) {
        let pods = self.pods(component).await.expect("pods");
        let count = pods.len();
        let is_it = |pod: &Pod| pod.metadata.name.as_deref() == Some(name);
        let pod = pods.into_iter().find(is_it).expect("the pod");
        for pid in process::of_containers(&pod).expect("processes on this machine") {
            process::signal("KILL", pid).expect("a killed process");
        }
        let at_once = DeleteParams::default().grace_period(0);
        self.pod_api().delete(name, &at_once).await.expect("a deleted pod");
        await_condition(format!("another pod of {component}"), async || {
            let ready = self.pods(component).await?.into_iter().filter(is_ready);
            let others = ready.filter(|other| other.metadata.uid != pod.metadata.uid).count();
            ensure!(others == count, "{others} of {count} are ready");
            Ok(())
        })
        .await;
    }

    /// Stops the processes of all of a part's pods until what is returned is dropped.
    ///
    /// # Panics
    /// If there are none on this machine.
    pub async fn freeze(&self, component: &str, limit: Duration) -> process::Frozen {
        let pods = self.pods(component).await.expect("pods");
        let pids = pods.iter().flat_map(|pod| process::of_containers(pod).expect("processes on this machine"));
        process::Frozen::new(pids.collect(), limit).expect("stopped processes")
    }

    /// Stops the processes of one pod until what is returned is dropped.
    ///
    /// # Panics
    /// If there are none on this machine.
    pub async fn freeze_pod(&self, name: &str, limit: Duration) -> process::Frozen {
        let pod = self.pod_api().get(name).await.expect("the pod");
        process::Frozen::new(process::of_containers(&pod).expect("processes on this machine"), limit)
            .expect("stopped processes")
    }

    /// Waits until a part's Deployment is as it is wanted and its former pods are gone, so that
    /// no request goes to one of them any more.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn settled(&self, component: &str) {
        await_condition(format!("the Deployment of {component} to settle"), async || {
            let deployment = self.deployment(component).await;
            let wanted = deployment.spec.and_then(|s| s.replicas).unwrap_or(1);
            let status = deployment.status.unwrap_or_default();
            let counts = [status.replicas, status.updated_replicas, status.available_replicas];
            let current = status.observed_generation == deployment.metadata.generation;
            ensure!(current && counts.iter().all(|n| n.unwrap_or(0) == wanted), "{status:?}");
            let pods = self.pod_api().list(&of(component)).await?.items.len();
            ensure!(i32::try_from(pods)? == wanted, "{pods} pods with those that are stopping");
            Ok(())
        })
        .await;
    }
}

fn of(component: &str) -> ListParams {
    ListParams::default().labels(&format!("app.kubernetes.io/part-of=lambent,app.kubernetes.io/component={component}"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The value of a line of the Prometheus text format, if it is of this series.
fn value(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let (series, value) = line.rsplit_once(' ')?;
    let (found, rest) = series.split_once('{').unwrap_or((series, ""));
    let pairs = rest.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    let has: BTreeMap<&str, &str> = pairs.map(|(key, text)| (key, text.trim_matches('"'))).collect();
    let matches = found == name && labels.iter().all(|(key, text)| has.get(key) == Some(text));
    value.parse().ok().filter(|_| matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_name_and_labels() {
        let line = r#"lambent_requests_total{code="200",function="a",namespace="b"} 3"#;
        assert_eq!(value(line, "lambent_requests_total", &[("function", "a"), ("code", "200")]), Some(3.0));
        assert_eq!(value(line, "lambent_requests_total", &[("function", "b")]), None);
        assert_eq!(value(line, "lambent_requests", &[]), None);
        assert_eq!(value("up 1", "up", &[]), Some(1.0));
    }
}
