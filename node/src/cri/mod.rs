//! The container runtime, asked over the Container Runtime Interface v1 by gRPC on its unix socket.

pub mod containers;
pub mod messages;

use std::{collections::HashMap, net::IpAddr, time::Duration};

use http::uri::PathAndQuery;
use prost::Message;
use thiserror::Error;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use self::messages::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
    PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest, VersionResponse,
};

/// No answer takes longer from a runtime that is well.
const CALL: Duration = Duration::from_secs(2);
/// The label with a pod's unique id on its sandbox.
const LABEL_UID: &str = "io.kubernetes.pod.uid";
/// More pods than this are found faster in one list of all.
const ONE_BY_ONE: usize = 4;

/// Why the runtime could not be asked.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// An endpoint that can't be one.
    #[error("no endpoint of a container runtime: {0}")]
    Endpoint(#[from] tonic::transport::Error),
    /// It is away, or refuses.
    #[error("the container runtime: {0}")]
    Status(#[from] Status),
}

/// A container runtime. It connects when it is asked, and again when the connection is lost.
#[derive(Clone, Debug)]
pub struct Runtime {
    channel: Channel,
}

impl Runtime {
    /// At an endpoint such as `unix:///run/containerd/containerd.sock`.
    ///
    /// # Errors
    /// If that is no endpoint.
    pub fn new(endpoint: &str) -> Result<Self, RuntimeError> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?.connect_timeout(CALL).timeout(CALL);
        Ok(Self { channel: endpoint.connect_lazy() })
    }

    /// What it is.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn version(&self) -> Result<VersionResponse, RuntimeError> {
        Ok(self.call("/runtime.v1.RuntimeService/Version", VersionRequest::default()).await?)
    }

    /// The addresses of those of these pods whose sandbox has one.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn addresses(&self, uids: &[String]) -> Result<Vec<(String, IpAddr)>, RuntimeError> {
        let mut sandboxes = Vec::new();
        if uids.len() > ONE_BY_ONE {
            sandboxes = self.ready_sandboxes(None).await?;
        } else {
            for uid in uids {
                sandboxes.extend(self.ready_sandboxes(Some(uid.as_str())).await?);
            }
        }
        let mut found = Vec::new();
        for (uid, sandbox) in latest(sandboxes).into_iter().filter(|(uid, _)| uids.contains(uid)) {
            if let Some(ip) = self.address(sandbox).await? {
                found.push((uid, ip));
            }
        }
        Ok(found)
    }

    async fn ready_sandboxes(&self, uid: Option<&str>) -> Result<Vec<PodSandbox>, Status> {
        let filter = PodSandboxFilter {
            state: Some(PodSandboxStateValue { state: PodSandboxState::Ready as i32 }),
            label_selector: uid.map(|uid| (LABEL_UID.to_owned(), uid.to_owned())).into_iter().collect(),
        };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        let response: ListPodSandboxResponse = self.call("/runtime.v1.RuntimeService/ListPodSandbox", request).await?;
        Ok(response.items)
    }

    /// None if the sandbox is gone, or has the network of its node.
    async fn address(&self, sandbox: String) -> Result<Option<IpAddr>, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox };
        let answer = self.call("/runtime.v1.RuntimeService/PodSandboxStatus", request).await;
        let response: PodSandboxStatusResponse = match answer {
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            answer => answer?,
        };
        let status = response.status.filter(|status| status.state == PodSandboxState::Ready as i32);
        Ok(status.and_then(|status| status.network?.ip.parse().ok()))
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(method);
        let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }
}

/// A pod may have several sandboxes for a moment, when one is made anew: the last of each counts.
fn latest(sandboxes: Vec<PodSandbox>) -> HashMap<String, String> {
    let mut latest: HashMap<String, (u32, String)> = HashMap::new();
    for PodSandbox { id, metadata, .. } in sandboxes {
        let Some(metadata) = metadata else { continue };
        let known = latest.entry(metadata.uid).or_default();
        if known.1.is_empty() || metadata.attempt > known.0 {
            *known = (metadata.attempt, id);
        }
    }
    latest.into_iter().map(|(uid, (_, id))| (uid, id)).collect()
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
