//! A container runtime on a unix socket, with the sandboxes that a test puts there.

use std::{
    convert::Infallible,
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture, stream};
use http::{Request, Response};
use lambent_api::meta::LABEL_FUNCTION;
use parking_lot::Mutex;
use prost::Message;
use tempfile::TempDir;
use tokio::{net::UnixListener, task::JoinHandle};
use tonic::{
    Status,
    body::Body,
    server::{Grpc, NamedService},
    transport::Server,
};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::messages::{
    Container, ContainerStatusRequest, ContainerStatusResponse, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata, PodSandboxNetworkStatus,
    PodSandboxState, PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest,
    VersionResponse,
};

/// A sandbox as the runtime has it.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) uid: String,
    pub(crate) attempt: u32,
    pub(crate) state: PodSandboxState,
    pub(crate) ip: String,
    /// The cgroup of the function that runs in it, if one does.
    pub(crate) function: Option<String>,
}

impl Sandbox {
    /// One of a Function, whose container is called `c-<uid>`.
    pub(crate) fn function(uid: &str, cgroup: &str) -> Self {
        Self { function: Some(cgroup.to_owned()), ..Self::ready(uid, "10.244.0.9") }
    }

    pub(crate) fn ready(uid: &str, ip: &str) -> Self {
        Self { uid: uid.to_owned(), attempt: 0, state: PodSandboxState::Ready, ip: ip.to_owned(), function: None }
    }

    fn id(&self) -> String {
        format!("{}-{}", self.uid, self.attempt)
    }
}

#[derive(Debug, Default)]
struct State {
    sandboxes: Vec<Sandbox>,
    /// Listed, but gone when their status is asked for.
    vanishing: bool,
    lists: u32,
    /// A second hold on each, to end them.
    connections: Vec<UnixStream>,
}

/// The runtime; it stops when it is dropped.
pub(crate) struct FakeRuntime {
    folder: TempDir,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl FakeRuntime {
    pub(crate) fn start() -> Self {
        let (folder, state) = (TempDir::new().unwrap(), Arc::default());
        let task = serve(folder.path().join("runtime.sock"), Service(Arc::clone(&state)));
        Self { folder, state, task }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("runtime.sock")
    }

    pub(crate) fn put(&self, sandbox: Sandbox) {
        self.state.lock().sandboxes.push(sandbox);
    }

    pub(crate) fn vanish(&self) {
        self.state.lock().vanishing = true;
    }

    /// How often it was asked for sandboxes.
    pub(crate) fn lists(&self) -> u32 {
        self.state.lock().lists
    }

    /// As a runtime that is stopped: its socket stays, and nobody listens.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        for connection in self.state.lock().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// As one that starts again: another socket in place of the old one.
    pub(crate) fn start_again(&mut self) {
        std::fs::remove_file(self.socket()).unwrap();
        self.task = serve(self.socket(), Service(self.state.clone()));
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve(socket: PathBuf, service: Service) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let state = service.0.clone();
    let incoming = stream::unfold((listener, state), |(listener, state)| async {
        let stream = listener.accept().await.map(|(stream, _)| stream);
        if let Ok(stream) = &stream {
            state.lock().connections.push(stream.as_fd().try_clone_to_owned().unwrap().into());
        }
        Some((stream, (listener, state)))
    });
    tokio::spawn(async move {
        Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    })
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

impl NamedService for Service {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = self.0.clone();
        match request.uri().path().rsplit('/').next() {
            Some("Version") => unary(request, |_: VersionRequest| {
                Ok(VersionResponse {
                    runtime_name: "fake".into(),
                    runtime_version: "1".into(),
                    runtime_api_version: "v1".into(),
                })
            }),
            Some("ListPodSandbox") => unary(request, move |asked| Ok(state.lock().list(&asked))),
            Some("PodSandboxStatus") => unary(request, move |asked| state.lock().status(&asked)),
            Some("ListContainers") => unary(request, move |asked| Ok(state.lock().containers(&asked))),
            Some("ContainerStatus") => unary(request, move |asked| state.lock().container(&asked)),
            other => panic!("{other:?}"),
        }
    }
}

fn unary<Q, A>(
    request: Request<Body>,
    answer: impl FnOnce(Q) -> Result<A, Status> + Send + 'static,
) -> BoxFuture<'static, Result<Response<Body>, Infallible>>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
{
    let mut answer = Some(answer);
    let service = service_fn(move |asked: tonic::Request<Q>| {
        let answer = answer.take().expect("one call")(asked.into_inner());
        async move { answer.map(tonic::Response::new) }
    });
    async move { Ok(Grpc::new(ProstCodec::<A, Q>::default()).unary(service, request).await) }.boxed()
}

impl State {
    fn list(&mut self, asked: &ListPodSandboxRequest) -> ListPodSandboxResponse {
        self.lists += 1;
        let filter = asked.filter.clone().unwrap_or_default();
        let fits = |sandbox: &&Sandbox| {
            let uid = filter.label_selector.get("io.kubernetes.pod.uid");
            uid.is_none_or(|uid| *uid == sandbox.uid) && filter.state.is_none_or(|s| s.state == sandbox.state as i32)
        };
        let item = |sandbox: &Sandbox| PodSandbox {
            id: sandbox.id(),
            metadata: Some(PodSandboxMetadata {
                uid: sandbox.uid.clone(),
                attempt: sandbox.attempt,
                ..PodSandboxMetadata::default()
            }),
            state: sandbox.state as i32,
            labels: sandbox.function.iter().map(|_| (LABEL_FUNCTION.to_owned(), "hello".to_owned())).collect(),
        };
        ListPodSandboxResponse { items: self.sandboxes.iter().filter(fits).map(item).collect() }
    }

    fn containers(&self, asked: &ListContainersRequest) -> ListContainersResponse {
        let labels = asked.filter.clone().unwrap_or_default().label_selector;
        let uid = labels.get("io.kubernetes.pod.uid");
        let there = self.sandboxes.iter().filter(|s| s.function.is_some() && uid.is_none_or(|uid| *uid == s.uid));
        let container = |sandbox: &Sandbox| Container {
            id: format!("c-{}", sandbox.uid),
            labels: [("io.kubernetes.pod.uid".to_owned(), sandbox.uid.clone())].into(),
        };
        ListContainersResponse { containers: there.map(container).collect() }
    }

    fn container(&self, asked: &ContainerStatusRequest) -> Result<ContainerStatusResponse, Status> {
        let found = self.sandboxes.iter().find(|sandbox| asked.container_id == format!("c-{}", sandbox.uid));
        let cgroup = found.and_then(|sandbox| sandbox.function.clone());
        let cgroup = cgroup.ok_or_else(|| Status::not_found("no such container"))?;
        let info = serde_json::json!({"runtimeSpec": {"linux": {"cgroupsPath": cgroup}}}).to_string();
        Ok(ContainerStatusResponse { info: [("info".to_owned(), info)].into() })
    }

    fn status(&self, asked: &PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse, Status> {
        let found = self.sandboxes.iter().find(|sandbox| sandbox.id() == asked.pod_sandbox_id && !self.vanishing);
        let sandbox = found.ok_or_else(|| Status::not_found("no such sandbox"))?;
        let network = PodSandboxNetworkStatus { ip: sandbox.ip.clone() };
        let status = PodSandboxStatus { state: sandbox.state as i32, network: Some(network) };
        Ok(PodSandboxStatusResponse { status: Some(status) })
    }
}
