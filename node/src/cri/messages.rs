//! The parts of the Container Runtime Interface, v1, that are used here: `api.proto` of k8s.io/cri-api, with
//! its field numbers. Fields that are left out are passed over when read.

use std::collections::HashMap;

use prost::Message;

/// `VersionRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct VersionRequest {
    /// Of the kubelet's own interface; ignored by runtimes.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// `VersionResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct VersionResponse {
    /// `containerd`, say.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// Its own version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// Of the interface: `v1`.
    #[prost(string, tag = "4")]
    pub runtime_api_version: String,
}

/// `ListPodSandboxRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxRequest {
    /// All that it names must hold.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<PodSandboxFilter>,
}

/// `PodSandboxFilter`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxFilter {
    /// Sandboxes in this state.
    #[prost(message, optional, tag = "2")]
    pub state: Option<PodSandboxStateValue>,
    /// Sandboxes with all of these labels.
    #[prost(map = "string, string", tag = "3")]
    pub label_selector: HashMap<String, String>,
}

/// `PodSandboxStateValue`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PodSandboxStateValue {
    /// See [`PodSandboxState`].
    #[prost(enumeration = "PodSandboxState", tag = "1")]
    pub state: i32,
}

/// `PodSandboxState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    /// It runs, and has its network.
    Ready = 0,
    /// It does not, or not any more.
    NotReady = 1,
}

/// `ListPodSandboxResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxResponse {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// `PodSandbox`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandbox {
    /// The runtime's own.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whose.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// See [`PodSandboxState`].
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    /// The pod's.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// `PodSandboxMetadata`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    /// Name of the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Unique id of the pod.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Namespace of the pod.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// Which of the pod's sandboxes, from zero.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// `PodSandboxStatusRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatusRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
}

/// `PodSandboxStatusResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatusResponse {
    /// Of the sandbox.
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
}

/// `PodSandboxStatus`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatus {
    /// See [`PodSandboxState`].
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    /// None of a sandbox in its node's network.
    #[prost(message, optional, tag = "5")]
    pub network: Option<PodSandboxNetworkStatus>,
}

/// `PodSandboxNetworkStatus`.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxNetworkStatus {
    /// The pod's first address.
    #[prost(string, tag = "1")]
    pub ip: String,
}

/// `ListContainersRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ListContainersRequest {
    /// All that it names must hold.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<ContainerFilter>,
}

/// `ContainerFilter`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerFilter {
    /// Containers in this state.
    #[prost(message, optional, tag = "2")]
    pub state: Option<ContainerStateValue>,
    /// Containers with all of these labels.
    #[prost(map = "string, string", tag = "4")]
    pub label_selector: HashMap<String, String>,
}

/// `ContainerStateValue`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ContainerStateValue {
    /// See [`ContainerState`].
    #[prost(enumeration = "ContainerState", tag = "1")]
    pub state: i32,
}

/// `ContainerState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Its process is not started yet.
    Created = 0,
    /// It runs.
    Running = 1,
    /// It has ended.
    Exited = 2,
    /// The runtime does not know.
    Unknown = 3,
}

/// `ListContainersResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ListContainersResponse {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// `Container`.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    /// The runtime's own.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Of the pod's unique id and the container's name, among others.
    #[prost(map = "string, string", tag = "8")]
    pub labels: HashMap<String, String>,
}

/// `ContainerStatusRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatusRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Whether `info` is wanted.
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// `ContainerStatusResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatusResponse {
    /// What the runtime likes to tell; `info` is JSON, with the OCI configuration as `runtimeSpec`.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `protoc --encode` writes it by api.proto.
    #[test]
    fn messages_are_written_with_the_field_numbers_of_the_interface() {
        let filter = PodSandboxFilter {
            state: Some(PodSandboxStateValue { state: PodSandboxState::NotReady as i32 }),
            label_selector: HashMap::from([("k".into(), "v".into())]),
        };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        assert_eq!(request.encode_to_vec(), b"\x0a\x0c\x12\x02\x08\x01\x1a\x06\x0a\x01k\x12\x01v");
        let request = PodSandboxStatusRequest { pod_sandbox_id: "id".into() };
        assert_eq!(request.encode_to_vec(), b"\x0a\x02id");
        let filter = ContainerFilter {
            state: Some(ContainerStateValue { state: ContainerState::Running as i32 }),
            label_selector: HashMap::from([("k".into(), "v".into())]),
        };
        let request = ListContainersRequest { filter: Some(filter) };
        assert_eq!(request.encode_to_vec(), b"\x0a\x0c\x12\x02\x08\x01\x22\x06\x0a\x01k\x12\x01v");
        let request = ContainerStatusRequest { container_id: "id".into(), verbose: true };
        assert_eq!(request.encode_to_vec(), b"\x0a\x02id\x10\x01");
    }

    #[test]
    fn fields_that_are_of_no_interest_are_passed_over() {
        // PodSandboxStatus with id (1), createdAt (4), network (5, with an additional ip), runtimeHandler (9).
        let status = b"\x0a\x02id\x20\x05\x2a\x0e\x0a\x0410::\x12\x06\x0a\x04fd::\x4a\x04runc";
        let mut response = vec![0x0a, u8::try_from(status.len()).unwrap()];
        response.extend_from_slice(status);
        let status = PodSandboxStatusResponse::decode(&*response).unwrap().status.unwrap();
        assert_eq!(status.network.unwrap().ip, "10::");
    }
}
