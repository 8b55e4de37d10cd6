//! A registry that lets nobody in without the right password: before the cluster's own one, in the
//! process of the test.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Mutex, MutexGuard},
    task::AbortHandle,
};

use crate::{Cluster, Context, Gateway, Request};

/// On the address of the cluster's registry; node and controller ask it over plain http.
const PORT: u16 = 5001;
const MAX_HEAD: usize = 1 << 16;
/// What of an answer is handed on.
const HANDED_ON: [&str; 3] = ["content-type", "content-length", "docker-content-digest"];

/// There is one port, which tests take one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Asked until it is dropped.
pub struct LockedRegistry {
    folder: String,
    door: Arc<Door>,
    task: AbortHandle,
}

struct Door {
    /// `host:port` of this registry.
    authority: String,
    behind: Gateway,
    /// What the `Authorization` header has to be.
    key: String,
    /// Before the name of each image.
    folder: String,
}

impl LockedRegistry {
    /// Has the images of the cluster's registry in this folder, which nobody else uses: a node may keep
    /// images that it has loaded once.
    ///
    /// # Panics
    /// If another process has its port, or this machine does not have the address of the cluster's registry.
    pub async fn start(cluster: &Cluster, folder: &str, password: &str) -> Self {
        let (host, _) = cluster.registry.rsplit_once(':').expect("host:port");
        let authority = format!("{host}:{PORT}");
        let behind = Gateway::new(&format!("http://{}", cluster.registry));
        let key = format!("Basic {}", encoded(password));
        let door = Arc::new(Door { authority, behind, key, folder: folder.to_owned() });
        let alone = ALONE.lock().await;
        let listener = TcpListener::bind(&door.authority).await.expect("a free port: run this on the test cluster");
        let task = tokio::spawn(serve(alone, listener, door.clone())).abort_handle();
        Self { folder: folder.to_owned(), door, task }
    }

    /// An example's image.
    pub fn image(&self, example: &str) -> String {
        format!("{}/{}/{example}:1", self.door.authority, self.folder)
    }

    /// Makes the Secret `pull` with this password, or gives it another one.
    ///
    /// # Panics
    /// If the API server does not want it.
    pub async fn pull_secret(&self, cx: &Context, password: &str) {
        let config = json!({"auths": {&self.door.authority: {"auth": encoded(password)}}});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "pull"}, "stringData": {".dockerconfigjson": config.to_string()},
        });
        let written = cx.api::<Secret>().patch("pull", &PatchParams::apply("test"), &Patch::Apply(secret)).await;
        written.expect("a pull secret");
    }
}

impl Drop for LockedRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn encoded(password: &str) -> String {
    let text = serde_json::to_value(ByteString(format!("tests:{password}").into_bytes()));
    text.ok().and_then(|text| text.as_str().map(str::to_owned)).expect("base64")
}

/// Whoever has the port is alone until the listener is really gone.
async fn serve(_alone: MutexGuard<'static, ()>, listener: TcpListener, door: Arc<Door>) {
    while let Ok((stream, _)) = listener.accept().await {
        let door = door.clone();
        // Whoever leaves in mid-answer has what he wants.
        tokio::spawn(async move { door.answer(stream).await });
    }
}

impl Door {
    async fn answer(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let head = head(&mut stream).await?;
        let mut lines = head.lines();
        let mut words = lines.next().context("no request line")?.split(' ');
        let (method, path) = (words.next().context("no method")?, words.next().context("no path")?);
        let headers: Vec<(String, &str)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect();
        if !headers.iter().any(|(name, value)| name == "authorization" && *value == self.key) {
            return Ok(stream.write_all(closed_door().as_bytes()).await?);
        }
        let path = path.replacen(&format!("/v2/{}/", self.folder), "/v2/", 1);
        let accepted = headers.iter().filter(|(name, _)| name == "accept");
        let request = accepted.fold(Request::new(method, &path), |request, (name, value)| request.header(name, value));
        let answer = self.behind.try_send(request).await?;
        let mut text = format!("HTTP/1.1 {}\r\nconnection: close\r\n", answer.status);
        for name in HANDED_ON {
            if let Some(value) = answer.header(name) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        Ok(stream.write_all(&answer.body).await?)
    }
}

async fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD && stream.read_buf(&mut head).await? > 0, "no whole head");
    }
    Ok(String::from_utf8(head)?)
}

fn closed_door() -> String {
    let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}).to_string();
    let headers = "connection: close\r\nwww-authenticate: Basic realm=\"tests\"\r\ncontent-type: application/json";
    format!("HTTP/1.1 401 Unauthorized\r\n{headers}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
