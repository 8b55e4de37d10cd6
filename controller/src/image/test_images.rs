//! For tests: layers, and a registry of the real program with small images in it.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    manifest::{IMAGE_CONFIG_MEDIA_TYPE, OciManifest},
    secrets::RegistryAuth,
};

pub(super) const USER: &str = "alice";
pub(super) const PASSWORD: &str = "secret";
const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Regular files; a name that ends in `/` is a folder.
pub(super) fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes()); // as written, "./" and all
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn layer(entries: &[(&str, &[u8])]) -> ImageLayer {
    ImageLayer::oci_v1_gzip(gzip(&tar_of(entries)), None)
}

/// Debian's `docker-registry` on a free port of 127.0.0.1; ends with this value.
pub(super) struct Registry {
    process: Child,
    folder: PathBuf,
    pub(super) host: String,
    auth: RegistryAuth,
}

impl Registry {
    pub(super) fn open() -> Self {
        Self::start("", RegistryAuth::Anonymous)
    }

    /// Lets in only [`USER`] with [`PASSWORD`].
    pub(super) fn closed() -> Self {
        let auth = "auth: {htpasswd: {realm: test, path: FOLDER/htpasswd}}\n";
        Self::start(auth, RegistryAuth::Basic(USER.into(), PASSWORD.into()))
    }

    fn start(more: &str, auth: RegistryAuth) -> Self {
        install_tls_provider();
        let host = free_address();
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let n = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lambent-test-registry-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n{more}\
             storage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\nhttp: {{addr: '{host}'}}\n"
        );
        std::fs::write(folder.join("config.yml"), config.replace("FOLDER", &folder.to_string_lossy())).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("can't run docker-registry ({e}); install Debian's package docker-registry"));
        let mut registry = Self { process, folder, host, auth };
        registry.wait();
        registry
    }

    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&self.host).is_err() {
            assert!(self.process.try_wait().unwrap().is_none(), "docker-registry ended by itself");
            assert!(Instant::now() < until, "docker-registry does not listen on {}", self.host);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Returns the digest of the manifest.
    pub(super) async fn push(&self, name: &str, user: &str, layers: &[ImageLayer]) -> String {
        let json = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"User": user},
            "rootfs": {"type": "layers", "diff_ids": []}});
        let config = Config::new(json.to_string(), IMAGE_CONFIG_MEDIA_TYPE.to_owned(), None);
        let reference: Reference = self.name(name).parse().unwrap();
        self.client().push(&reference, layers, config, &self.auth, None).await.unwrap();
        self.client().fetch_manifest_digest(&reference, &self.auth).await.unwrap()
    }

    /// Returns the digest of the index.
    pub(super) async fn push_index(&self, name: &str, variants: &[(&str, &str)]) -> String {
        let entry = |(architecture, digest): &(&str, &str)| {
            serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 2,
                "platform": {"os": "linux", "architecture": architecture}})
        };
        let entries: Vec<_> = variants.iter().map(entry).collect();
        let index: OciManifest = serde_json::from_value(serde_json::json!({"schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}))
        .unwrap();
        let reference: Reference = self.name(name).parse().unwrap();
        let client = self.client();
        client.store_auth_if_needed(&self.host, &self.auth).await;
        client.push_manifest(&reference, &index).await.unwrap();
        client.fetch_manifest_digest(&reference, &self.auth).await.unwrap()
    }

    fn client(&self) -> Client {
        let protocol = ClientProtocol::HttpsExcept(vec![self.host.clone()]);
        Client::try_from(ClientConfig { protocol, ..ClientConfig::default() }).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An address where nobody listens now.
pub(super) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// As the binary does at its start. Through kube, which makes ring the default of the process when
/// it builds its first TLS configuration.
pub(super) fn install_tls_provider() {
    use kube::client::ConfigExt;
    let config = kube::Config::new("https://127.0.0.1".parse().unwrap());
    config.rustls_client_config().unwrap();
}
