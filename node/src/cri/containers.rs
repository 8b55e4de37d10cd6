//! The container that is a pod's function, and its cgroup.

use std::collections::{HashMap, HashSet};

use lambent_api::meta::LABEL_FUNCTION;
use serde::Deserialize;
use tonic::{Code, Status};

use super::{
    LABEL_UID, Runtime, RuntimeError,
    messages::{
        Container, ContainerFilter, ContainerState, ContainerStateValue, ContainerStatusRequest,
        ContainerStatusResponse, ListContainersRequest, ListContainersResponse,
    },
};

/// The label with a container's name.
const LABEL_NAME: &str = "io.kubernetes.container.name";
/// The name of the container that is the function.
const FUNCTION: &str = "function";

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The unique id of its pod.
    pub pod: String,
    /// The runtime's own id.
    pub id: String,
    /// Its cgroup, as its OCI configuration says it.
    pub cgroup: String,
}

/// What is read of a container's `info`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    runtime_spec: Option<RuntimeSpec>,
}

#[derive(Deserialize)]
struct RuntimeSpec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    cgroups_path: Option<String>,
}

impl Runtime {
    /// The running functions: that of one pod, or all. Only pods of Functions have any.
    ///
    /// # Errors
    /// If the runtime does not answer.
    pub async fn functions(&self, pod: Option<&str>) -> Result<Vec<Running>, RuntimeError> {
        let sandboxes = self.ready_sandboxes(pod).await?;
        let ours = sandboxes.into_iter().filter(|sandbox| sandbox.labels.contains_key(LABEL_FUNCTION));
        let pods: HashSet<String> = ours.filter_map(|sandbox| Some(sandbox.metadata?.uid)).collect();
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        let mut functions = Vec::new();
        for (pod, id) in self.running(pod).await?.into_iter().filter(|(pod, _)| pods.contains(pod)) {
            if let Some(cgroup) = self.cgroup(id.clone()).await? {
                functions.push(Running { pod, id, cgroup });
            }
        }
        Ok(functions)
    }

    /// Pods and ids.
    async fn running(&self, pod: Option<&str>) -> Result<Vec<(String, String)>, Status> {
        let mut label_selector = HashMap::from([(LABEL_NAME.to_owned(), FUNCTION.to_owned())]);
        label_selector.extend(pod.map(|pod| (LABEL_UID.to_owned(), pod.to_owned())));
        let state = Some(ContainerStateValue { state: ContainerState::Running as i32 });
        let request = ListContainersRequest { filter: Some(ContainerFilter { state, label_selector }) };
        let response: ListContainersResponse = self.call("/runtime.v1.RuntimeService/ListContainers", request).await?;
        let pod_of = |Container { id, mut labels }: Container| Some((labels.remove(LABEL_UID)?, id));
        Ok(response.containers.into_iter().filter_map(pod_of).collect())
    }

    /// None if the container is gone, or the runtime keeps it to itself.
    async fn cgroup(&self, id: String) -> Result<Option<String>, Status> {
        let request = ContainerStatusRequest { container_id: id, verbose: true };
        let answer = self.call("/runtime.v1.RuntimeService/ContainerStatus", request).await;
        let response: ContainerStatusResponse = match answer {
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            answer => answer?,
        };
        Ok(response.info.get("info").and_then(|info| cgroup_of(info)))
    }
}

fn cgroup_of(info: &str) -> Option<String> {
    serde_json::from_str::<Info>(info).ok()?.runtime_spec?.linux?.cgroups_path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_read_from_the_configuration() {
        let info = r#"{"pid": 7, "runtimeSpec": {"process": {}, "linux": {"cgroupsPath": "/kubepods/podx/y"}}}"#;
        assert_eq!(cgroup_of(info).as_deref(), Some("/kubepods/podx/y"));
        for other in ["", "{}", r#"{"runtimeSpec": null}"#, r#"{"runtimeSpec": {"linux": {}}}"#] {
            assert_eq!(cgroup_of(other), None, "{other}");
        }
    }
}
