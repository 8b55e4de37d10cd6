//! Lambent's node agents on the cluster, and one that a test makes up.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    authentication::v1::TokenRequest,
    core::v1::{Node, Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use lambent_api::node::{self, FromNode, ToNode};
use lambent_wire::{connect, session};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::{Cluster, await_condition, process, system::System};

/// Where the agents run: not among the other parts, which Pod Security restricts.
pub const AGENTS: &str = "lambent-system-node";
/// Their DaemonSet and ServiceAccount.
const NAME: &str = "lambent-node";
const MAX_LINE: usize = 16 << 10;

/// The agents, which the tests want to be enabled.
pub struct Agents {
    client: Client,
    system: System,
}

impl Agents {
    /// Of this cluster.
    pub fn new(cluster: &Cluster) -> Self {
        Self { client: cluster.client.clone(), system: System::new(cluster) }
    }

    /// Their pods that are not being stopped.
    ///
    /// # Errors
    /// If there is none.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let component = ListParams::default().labels("app.kubernetes.io/component=node");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), AGENTS);
        let mut pods = pods.list(&component).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        ensure!(!pods.is_empty(), "no agent: install the chart with node.enabled=true");
        Ok(pods)
    }

    /// Waits until each gateway is connected to the agent of each node.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn connected(&self) {
        await_condition("agents at all gateways", async || {
            let all: usize = self.pods().await?.len() * self.system.running("gateway").await?.len();
            let now = self.system.metric("gateway", "lambent_gateway_node_agents", &[]).await?;
            ensure!(now == Some(all as f64), "{now:?} of {all}");
            Ok(())
        })
        .await;
    }

    /// Waits until no gateway is connected to any.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn gone(&self) {
        await_condition("no agent at any gateway", async || {
            let now = self.system.metric("gateway", "lambent_gateway_node_agents", &[]).await?;
            ensure!(now == Some(0.0), "{now:?}");
            Ok(())
        })
        .await;
    }

    /// How many addresses that agents told have come to this end at the gateways.
    ///
    /// # Errors
    /// If the metrics can't be read.
    pub async fn told(&self, outcome: &str) -> anyhow::Result<f64> {
        let name = "lambent_gateway_early_addresses_total";
        Ok(self.system.metric("gateway", name, &[("outcome", outcome)]).await?.unwrap_or(0.0))
    }

    /// Stops their processes until what is returned is dropped.
    ///
    /// # Panics
    /// If there are none on this machine.
    pub async fn freeze(&self, limit: Duration) -> process::Frozen {
        process::Frozen::new(self.processes().await, limit).expect("stopped processes")
    }

    /// Their processes.
    ///
    /// # Panics
    /// If there are none on this machine.
    pub async fn processes(&self) -> Vec<u32> {
        let pods = self.pods().await.expect("agents");
        pods.iter().flat_map(|pod| process::of_containers(pod).expect("processes on this machine")).collect()
    }

    /// Kills their processes, and removes their pods: the kubelet would wait longer each time before it
    /// starts one again.
    ///
    /// # Panics
    /// If there are none on this machine.
    pub async fn kill(&self) {
        for pid in self.processes().await {
            process::signal("KILL", pid).expect("a killed process");
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), AGENTS);
        for pod in self.pods().await.expect("agents") {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.expect("a deleted pod");
        }
    }

    /// Keeps them off all nodes, or lets them come back.
    ///
    /// # Panics
    /// If the API server refuses.
    pub async fn keep_away(&self, away: bool) {
        let selector = if away { json!({"lambent.dev/no-such-node": "true"}) } else { json!(null) };
        self.change(json!({"nodeSelector": selector})).await;
    }

    /// Replaces them with ones that find no freezer where they look for it, or with ones that do.
    ///
    /// # Panics
    /// If the API server refuses, or agents with it don't connect.
    pub async fn take_freezer_away(&self, away: bool) {
        // Also in their container, without any cgroup below it.
        let at = if away { "/var" } else { "/run/cgroup" };
        let container = json!({"name": "node", "env": [{"name": "LAMBENT_CGROUPS", "value": at}]});
        self.change(json!({"containers": [container]})).await;
        await_condition(format!("agents that look in {at}"), async || {
            let value = |pod: &Pod| {
                let env = pod.spec.as_ref()?.containers.first()?.env.as_ref()?;
                env.iter().find(|one| one.name == "LAMBENT_CGROUPS")?.value.clone()
            };
            let values: Vec<_> = self.pods().await?.iter().map(value).collect();
            ensure!(values.iter().all(|value| value.as_deref() == Some(at)), "{values:?}");
            Ok(())
        })
        .await;
        self.connected().await;
    }

    /// Changes the spec of their pods; lists are merged by name.
    async fn change(&self, spec: Value) {
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": spec}}}));
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), AGENTS);
        sets.patch(NAME, &PatchParams::default(), &patch).await.expect("a changed DaemonSet");
    }

    /// A token as an agent has it: of its account, and bound to its pod if one is named.
    ///
    /// # Panics
    /// If the API server refuses.
    pub async fn token(&self, pod: Option<&Pod>) -> String {
        let mut spec = json!({"audiences": ["lambent-gateway"], "expirationSeconds": 600});
        if let Some(pod) = pod {
            spec["boundObjectRef"] =
                json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.metadata.uid});
        }
        let request: TokenRequest = serde_json::from_value(json!({"spec": spec})).expect("a request");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), AGENTS);
        let answer = accounts.create_token_request(NAME, &PostParams::default(), &request).await;
        answer.expect("a token").status.expect("a token").token
    }

    /// The internal ports of all gateways.
    ///
    /// # Errors
    /// If there is none.
    pub async fn gateways(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let pods = self.system.pods("gateway").await?.into_iter();
        let address = |pod: Pod| -> anyhow::Result<SocketAddr> {
            let ip = pod.status.and_then(|status| status.pod_ip).context("a gateway without address")?;
            Ok(SocketAddr::new(ip.parse()?, 8081))
        };
        pods.map(address).collect()
    }

    /// What their ServiceAccount is called by RBAC.
    pub fn account(&self) -> String {
        format!("system:serviceaccount:{AGENTS}:{NAME}")
    }

    /// Makes the cluster's nodes take new pods, or not.
    ///
    /// # Panics
    /// If the API server refuses.
    pub async fn cordon(&self, cordoned: bool) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
        for node in nodes.list(&ListParams::default()).await.expect("nodes") {
            nodes.patch(&node.name_any(), &PatchParams::default(), &patch).await.expect("a changed node");
        }
    }
}

/// A connection to a gateway as an agent's.
pub struct MadeUp {
    to: UnboundedSender<FromNode>,
    task: tokio::task::JoinHandle<()>,
}

impl MadeUp {
    /// Connects with the token in this file. Asked for pods of `namespace` it tells what `answer` makes up
    /// of their unique ids.
    ///
    /// # Errors
    /// If the gateway does not let it in.
    pub async fn connect(
        gateway: SocketAddr,
        token: &Path,
        namespace: &str,
        answer: impl Fn(String) -> FromNode + Send + 'static,
    ) -> anyhow::Result<Self> {
        let stream = connect::upgrade(gateway, token, node::PATH, node::PROTOCOL).await?;
        let (to, mut outgoing) = mpsc::unbounded_channel();
        let (asked, answers) = (namespace.to_owned(), to.clone());
        let take = move |message| {
            if let ToNode::Where { namespace, uid, .. } = message
                && namespace == asked
            {
                let _ = answers.send(answer(uid));
            }
        };
        let task = tokio::spawn(async move {
            let _ = session::run(stream, MAX_LINE, &FromNode::Alive, &mut outgoing, take).await;
        });
        Ok(Self { to, task })
    }

    /// Tells something unasked.
    pub fn tell(&self, message: FromNode) {
        let _ = self.to.send(message);
    }
}

impl Drop for MadeUp {
    fn drop(&mut self) {
        self.task.abort();
    }
}
