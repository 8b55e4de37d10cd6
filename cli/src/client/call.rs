//! One HTTP request on a connection of its own: straight, with TLS, or over a port that the API
//! server forwards to a gateway. Path and query go out as they were given.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header, uri::PathAndQuery};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use rustls::pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    Target, output, refusal,
    route::{Address, Route},
};

/// To be connected; while there is another way, less of it.
const CONNECT: Duration = Duration::from_secs(10);
const CONNECT_OR_ELSE: Duration = Duration::from_secs(2);
/// The gateways' pods.
const GATEWAYS: &str = "app.kubernetes.io/name=lambent,app.kubernetes.io/component=gateway";
/// Where they serve callers if their pod does not say.
const GATEWAY_PORT: u16 = 8080;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection, and what it leads to.
pub struct Connection {
    io: Box<dyn Io>,
    address: Address,
}

/// What is sent.
pub struct Call {
    /// The method.
    pub method: Method,
    /// What follows the Function's path.
    pub path: String,
    /// The caller's headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Connection {
    /// Connects. Without a target there is only the direct way.
    pub async fn open(route: Route, target: Option<&Target>) -> anyhow::Result<Self> {
        match (route, target) {
            (Route::Direct(address), _) | (Route::DirectOrForwarded(address) | Route::Forwarded(address), None) => {
                let io = direct(&address, CONNECT).await.with_context(|| {
                    format!("{} can't be reached; name the gateway's address with --gateway", address.authority)
                })?;
                Ok(Self { io, address })
            }
            (Route::DirectOrForwarded(address), Some(target)) => match direct(&address, CONNECT_OR_ELSE).await {
                Ok(io) => Ok(Self { io, address }),
                Err(error) => {
                    output::note(&format!(
                        "{} can't be reached from here ({error:#}); going through the API server",
                        address.authority
                    ));
                    Ok(Self { io: forwarded(target).await?, address })
                }
            },
            (Route::Forwarded(address), Some(target)) => Ok(Self { io: forwarded(target).await?, address }),
        }
    }

    /// Sends the request; returns when the answer's head is there.
    pub async fn send(self, call: Call) -> anyhow::Result<Response<Incoming>> {
        let Self { io, address } = self;
        let request = request(&address, call)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.context("the connection")?;
        // Ends with the answer's body, or when nobody wants it any more.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        answer.with_context(|| format!("{} broke off before it answered", address.authority))
    }
}

fn request(address: &Address, call: Call) -> anyhow::Result<Request<Full<Bytes>>> {
    let Call { method, path, headers, body } = call;
    let target = target(&address.path, &path)?;
    let mut request = Request::builder().method(method).uri(target).body(Full::new(body))?;
    let defaults = [
        (header::HOST, address.authority.as_str()),
        (header::USER_AGENT, concat!("lambent/", env!("CARGO_PKG_VERSION"))),
        (header::ACCEPT, "*/*"),
    ];
    *request.headers_mut() = headers;
    for (name, value) in defaults {
        if !request.headers().contains_key(&name) {
            request.headers_mut().insert(name, value.parse()?);
        }
    }
    Ok(request)
}

fn target(base: &str, path: &str) -> anyhow::Result<PathAndQuery> {
    if !(path.is_empty() || path.starts_with(['/', '?'])) {
        bail!("--path {path:?} must begin with / or ?");
    }
    if path.contains('#') {
        bail!("--path {path:?} has a #, which is never sent: write %23 if it is part of the path");
    }
    let target = PathAndQuery::try_from(format!("{base}{path}"));
    target.with_context(|| format!("--path {path:?} has to be percent-encoded, as in /a%20b"))
}

async fn direct(address: &Address, within: Duration) -> anyhow::Result<Box<dyn Io>> {
    let connect = async {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        if !address.tls {
            return Ok(Box::new(stream) as Box<dyn Io>);
        }
        let config = rustls::ClientConfig::with_platform_verifier().map_err(io::Error::other)?;
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?) as Box<dyn Io>)
    };
    match timeout(within, connect).await {
        Ok(result) => result.map_err(|error: io::Error| anyhow::Error::new(error)),
        Err(_) => bail!("no connection within {} s", within.as_secs()),
    }
}

/// A connection to a running gateway's own port, through the API server.
async fn forwarded(target: &Target) -> anyhow::Result<Box<dyn Io>> {
    let system = &target.system_namespace;
    let pods: Api<Pod> = Api::namespaced(target.client.clone(), system);
    let listed = target
        .ask(&format!("find a gateway in namespace {system}"), pods.list(&ListParams::default().labels(GATEWAYS)))
        .await
        .map_err(|error| error.context("--gateway says where to call without asking"))?;
    let Some(gateway) = listed.items.into_iter().find(is_ready) else {
        bail!(
            "no gateway runs in namespace {system}: see `kubectl get pods -n {system}`; if Lambent is in another \
             namespace, say --system-namespace"
        );
    };
    let (name, port) = (gateway.metadata.name.clone().unwrap_or_default(), port(&gateway));
    let forwarded = timeout(CONNECT, pods.portforward(&name, &[port])).await;
    let mut forwarder = match forwarded {
        Ok(Ok(forwarder)) => forwarder,
        Ok(Err(error)) => bail!(
            "no port can be forwarded to {name}: {}. That takes `create` and `get` of `pods/portforward` in namespace {system}; \
             --gateway says where to call without it",
            refusal::chain(&error)
        ),
        Err(_) => bail!("no port was forwarded to {name} within {} s; --gateway says where to call", CONNECT.as_secs()),
    };
    if let Some(error) = forwarder.take_error(port) {
        // The kubelet's words, when the connection breaks because of it.
        tokio::spawn(async move {
            if let Some(words) = error.await {
                output::note(&format!("the port forwarded to {name}: {words}"));
            }
        });
    }
    forwarder.take_stream(port).map(|io| Box::new(io) as Box<dyn Io>).context("the forwarded port has no stream")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// The port for callers: the one that the chart names.
fn port(gateway: &Pod) -> u16 {
    let containers = gateway.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.find(|port| port.name.as_deref() == Some("http"));
    named.and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(GATEWAY_PORT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_path_goes_out_as_it_was_given() {
        let of = |path: &str| target("/fn/a/b", path).map(|target| target.to_string());
        for path in ["", "/", "/x/../y//z", "?q=%2F", "/%2f%20?a=b&c", "/a+b;c=d"] {
            assert_eq!(of(path).unwrap(), format!("/fn/a/b{path}"));
        }
        for (path, words) in [("x", "must begin"), ("/a b", "percent-encoded"), ("/a#b", "%23")] {
            let error = of(path).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_callers_headers_go_before_ours() {
        let address = Address::parse("http://a:1/fn/x/y").unwrap();
        let headers = HeaderMap::from_iter([(header::HOST, "hello.shop.example".parse().unwrap())]);
        let call = Call { method: Method::GET, path: String::new(), headers, body: Bytes::new() };
        let request = request(&address, call).unwrap();
        assert_eq!(request.headers()[header::HOST], "hello.shop.example");
        assert!(request.headers()[header::USER_AGENT].to_str().unwrap().starts_with("lambent/"));
    }

    #[test]
    fn a_gateway_that_is_not_ready_or_goes_is_not_taken() {
        let pod = |ready: &str, deleted: Option<&str>| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"deletionTimestamp": deleted},
                "spec": {"containers": [{"name": "g", "ports": [
                    {"name": "admin", "containerPort": 9090}, {"name": "http", "containerPort": 8088}]}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        assert!(is_ready(&pod("True", None)));
        assert!(!is_ready(&pod("False", None)));
        assert!(!is_ready(&pod("True", Some("2026-01-01T00:00:00Z"))));
        assert_eq!(port(&pod("True", None)), 8088);
    }
}
