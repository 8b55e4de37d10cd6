//! A gateway on a free port, with instances that are small HTTP servers in this process.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Future, Stream, StreamExt, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use lambent_api::{FunctionKey, FunctionSpec, InstanceRef, Protocol, Reason, RevisionKey, Settings};
use lambent_fleet::{Event, Instance, Phase, Placed};
use lambent_gateway::{
    directory::{Applier, Change, Directory, FunctionView, RevisionView},
    forward::Forwarder,
    hub::{Hub, News, Raise},
    metrics::Metrics,
    pool::parking::NoAgents,
    server::{self, Drain},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub type Body = BoxBody<Bytes, Infallible>;

pub fn text(text: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(text.into()).boxed()
}

pub fn chunks(stream: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(stream.map(|c| Ok(Frame::data(c)))))
}

/// One Function `shop/hello` of Revision `hello-1`.
pub struct Gateway {
    pub address: SocketAddr,
    pub directory: Arc<Directory>,
    pub news: mpsc::UnboundedReceiver<News>,
    pub raised: Arc<AtomicU32>,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<io::Result<()>>,
    applier: Applier,
    instances: u32,
    protocol: Protocol,
}

struct CountRaises(Arc<AtomicU32>);

impl Raise for CountRaises {
    fn raise<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {})
    }
}

impl Gateway {
    pub async fn start(spec: serde_json::Value) -> Self {
        Self::start_with(spec, Protocol::Http1).await
    }

    pub async fn start_with(spec: serde_json::Value, protocol: Protocol) -> Self {
        let (news, receiver) = mpsc::unbounded_channel();
        let raised = Arc::new(AtomicU32::new(0));
        let hub = Arc::new(Hub::new(
            news,
            Box::new(CountRaises(raised.clone())),
            Arc::new(NoAgents { since: tokio::time::Instant::now() }),
        ));
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        let directory = Arc::new(Directory::default());
        let applier = Applier::new(directory.clone(), hub, metrics, None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let forwarder = Arc::new(Forwarder { directory: directory.clone(), domain: Some("fn.example".into()) });
        let drain = Drain { delay: Duration::from_millis(50), grace: Duration::from_secs(20) };
        let served = tokio::spawn(server::run(listener, forwarder, drain, shutdown.clone()));
        let mut gateway =
            Self { address, directory, news: receiver, raised, shutdown, served, applier, instances: 0, protocol };
        gateway.apply_function(spec, None);
        gateway.apply_revision(0, None);
        gateway
    }

    pub fn apply_function(&mut self, mut spec: serde_json::Value, stalled: Option<Reason>) {
        spec["image"] = "a".into();
        let spec: FunctionSpec = serde_json::from_value(spec).unwrap();
        self.applier.apply(Change::Function(FunctionView {
            key: FunctionKey::new("shop", "hello"),
            settings: Some(Arc::new(Settings::try_from(&spec).unwrap())),
            revision: Some("hello-1".into()),
            next: None,
            stalled,
        }));
    }

    pub fn delete_function(&mut self) {
        self.applier.apply(Change::FunctionGone(FunctionKey::new("shop", "hello")));
    }

    /// As after a broken watch: there are no others.
    pub fn list(&mut self, functions: &[&str], revisions: &[&str]) {
        let functions = functions.iter().map(|name| FunctionKey::new("shop", *name)).collect();
        let revisions = revisions.iter().map(|name| RevisionKey::new("shop", *name)).collect();
        self.applier.apply(Change::OnlyFunctions(functions));
        self.applier.apply(Change::OnlyRevisions(revisions));
    }

    pub fn apply_revision(&mut self, wanted: u32, not_startable: Option<Reason>) {
        let (key, protocol) = (RevisionKey::new("shop", "hello-1"), self.protocol);
        let stopping = Vec::new();
        self.applier.apply(Change::Revision(RevisionView {
            key,
            wanted,
            proven: true,
            protocol,
            not_startable,
            stopping,
        }));
    }

    /// As when another gateway has named an instance, and has died.
    pub fn name_for_stopping(&mut self, instance: &Instance, wanted: u32) {
        let (key, protocol) = (RevisionKey::new("shop", "hello-1"), self.protocol);
        let stopping = vec![instance.id.clone()];
        let view = RevisionView { key, wanted, proven: true, protocol, not_startable: None, stopping };
        self.applier.apply(Change::Revision(view));
    }

    /// An instance that answers with `handler`.
    pub async fn add<F>(&mut self, handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Instance
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let address = serve(handler).await;
        self.add_at(address)
    }

    pub fn add_at(&mut self, address: SocketAddr) -> Instance {
        let instance = self.instance(Some(address), Phase::Running);
        self.change(&instance, Phase::Running);
        instance
    }

    /// One that starts on a node, and will listen at this port of an address that the API does not show yet.
    pub fn add_placed(&mut self, port: u16) -> Instance {
        let placed = Some(Placed { node: "a".into(), port });
        let instance = Instance { placed, ..self.instance(None, Phase::Starting) };
        self.change(&instance, Phase::Starting);
        instance
    }

    /// What an agent tells of it, and what was not found to be wrong.
    pub fn tell(&mut self, instance: &Instance, ip: IpAddr) {
        self.applier.apply(Change::Early { uid: instance.id.uid.clone(), ip });
    }

    /// What the API shows of it at last.
    pub fn show_at(&mut self, instance: &Instance, address: SocketAddr) {
        let shown = Instance { address: Some(address), placed: None, ..instance.clone() };
        self.change(&shown, Phase::Running);
    }

    fn instance(&mut self, address: Option<SocketAddr>, phase: Phase) -> Instance {
        let n = self.instances;
        self.instances += 1;
        Instance {
            id: InstanceRef { name: format!("hello-1-{n}"), uid: format!("uid-{n}") },
            namespace: "shop".into(),
            function: "hello".into(),
            revision: "hello-1".into(),
            node: None,
            address,
            phase,
            placed: None,
            restarts: 0,
            created: Timestamp::now(),
        }
    }

    pub fn change(&mut self, instance: &Instance, phase: Phase) {
        let instance = Instance { phase, ..instance.clone() };
        self.applier.apply(Change::Fleet(Event::Applied(instance)));
    }

    pub fn remove(&mut self, instance: &Instance) {
        self.applier.apply(Change::Fleet(Event::Gone(instance.clone())));
    }

    pub async fn call(&self, request: Request<Body>) -> Answer {
        let answer = tokio::time::timeout(Duration::from_secs(20), call(self.address, request)).await;
        answer.expect("an answer in time").expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(get(path)).await
    }

    pub fn queued(&self) -> u32 {
        let function = self.directory.any("shop", "hello").unwrap();
        function.loads().iter().map(|l| l.queued).sum()
    }

    pub fn in_flight(&self) -> u32 {
        let function = self.directory.any("shop", "hello").unwrap();
        function.loads().iter().map(|l| l.in_flight).sum()
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn reason(&self) -> String {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["requestId"], self.headers["x-request-id"].to_str().unwrap());
        problem["reason"].as_str().unwrap().to_owned()
    }
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "gateway").body(text("")).unwrap()
}

pub async fn call(address: SocketAddr, request: Request<Body>) -> Result<Answer, hyper::Error> {
    let response = open(address, request).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: String::from_utf8_lossy(&body).into() })
}

/// The answer's head, with its body still to come.
pub async fn open(address: SocketAddr, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

pub async fn serve<F>(handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// An instance that speaks HTTP/2 without TLS.
pub async fn serve_http2<F>(handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// A connection that speaks HTTP/2 without TLS.
pub async fn connect_http2(address: SocketAddr) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Waits for a condition, at most 10 s.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
