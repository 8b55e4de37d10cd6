//! One attempt at a registry with one set of credentials. A new client each time: oci-client keeps
//! credentials and tokens by registry, and those of one namespace must not serve another.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt, StreamExt};
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol, SizedStream},
    config::{Architecture, Os},
    errors::OciDistributionError,
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest, OciManifest,
    },
    secrets::RegistryAuth,
};
use serde::Deserialize;

use super::ImageError;

const CALL: Duration = Duration::from_secs(10);
const MAX_JSON: usize = 4 << 20; // of a manifest or a configuration, as registries themselves limit it
const ACCEPTED: &[&str] =
    &[OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE];

pub(super) struct Session {
    client: Client,
    image: Reference,
    auth: RegistryAuth,
}

#[derive(Deserialize)]
struct ImageConfig {
    config: Option<RunConfig>,
}

#[derive(Deserialize)]
struct RunConfig {
    #[serde(rename = "User")]
    user: Option<String>,
}

impl Session {
    pub(super) async fn open(image: &Reference, auth: RegistryAuth, plain_http: &[String]) -> Result<Self, ImageError> {
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain_http.to_vec()),
            connect_timeout: Some(CALL),
            read_timeout: Some(CALL),
            user_agent: concat!("lambent/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|e| ImageError::from_registry(image, e))?;
        let session = Self { client, image: image.clone(), auth };
        // By itself: a later call would swallow the words with which a token is refused.
        session.call(session.client.auth(&session.image, &session.auth, RegistryOperation::Pull)).await?;
        Ok(session)
    }

    /// What the image's name, or `digest` in its repository, stands for, and the digest of that.
    ///
    /// oci-client reads a manifest whole, so that only the time bounds what a hostile registry sends.
    pub(super) async fn manifest(&self, digest: Option<&str>) -> Result<(OciManifest, String), ImageError> {
        let image = digest.map_or_else(|| self.image.clone(), |d| self.image.clone_with_digest(d.to_owned()));
        let (body, digest) = self.call(self.client.pull_manifest_raw(&image, &self.auth, ACCEPTED)).await?;
        if body.len() > MAX_JSON {
            return Err(ImageError::invalid(&self.image, "its manifest is too large"));
        }
        let manifest = serde_json::from_slice(&body).map_err(|_| {
            ImageError::invalid(&self.image, "what its registry has under this name is no image manifest")
        })?;
        Ok((manifest, digest))
    }

    /// The manifest for this machine's architecture, and a note if that is another one's.
    pub(super) async fn for_this_machine(
        &self,
        manifest: OciManifest,
    ) -> Result<(OciImageManifest, Option<String>), ImageError> {
        let index = match manifest {
            OciManifest::Image(image) => return Ok((image, None)),
            OciManifest::ImageIndex(index) => index,
        };
        let (entry, note) =
            choose(&index).ok_or_else(|| ImageError::invalid(&self.image, "it has no variant for Linux"))?;
        match self.manifest(Some(&entry.digest)).await?.0 {
            OciManifest::Image(image) => Ok((image, note)),
            OciManifest::ImageIndex(_) => Err(ImageError::invalid(&self.image, "its index leads to another index")),
        }
    }

    /// The field `User` of the image's configuration; empty when there is none.
    pub(super) async fn user_field(&self, config: &OciDescriptor) -> Result<String, ImageError> {
        let json = tokio::time::timeout(CALL, self.small_blob(&config.digest)).await.map_err(|_| self.too_slow())??;
        let config: ImageConfig = serde_json::from_slice(&json)
            .map_err(|_| ImageError::invalid(&self.image, "its configuration is not that of a container image"))?;
        Ok(config.config.and_then(|run| run.user).unwrap_or_default())
    }

    /// Only from the registry itself, never from another URL that a descriptor may name.
    pub(super) async fn blob(&self, digest: &str) -> Result<SizedStream, ImageError> {
        self.call(self.client.pull_blob_stream(&self.image, digest)).await
    }

    async fn small_blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let mut stream = self.blob(digest).await?;
        let mut content = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| self.unreachable(&format!("a part of it breaks off: {e}")))?;
            if content.len() + chunk.len() > MAX_JSON {
                return Err(ImageError::invalid(&self.image, "its configuration is too large"));
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    pub(super) fn unreachable(&self, why: &str) -> ImageError {
        ImageError::unreachable(&self.image, why)
    }

    fn too_slow(&self) -> ImageError {
        self.unreachable(&format!("no answer within {} s", CALL.as_secs()))
    }

    /// Bounded in time. oci-client panics on a token that fits no header: that is the registry's
    /// doing, and must not end the caller.
    async fn call<T>(&self, request: impl Future<Output = Result<T, OciDistributionError>>) -> Result<T, ImageError> {
        let guarded = Box::pin(AssertUnwindSafe(request).catch_unwind());
        match tokio::time::timeout(CALL, guarded).await {
            Err(_elapsed) => Err(self.too_slow()),
            Ok(Err(_panic)) => Err(self.unreachable("its answer can't be handled")),
            Ok(Ok(answer)) => answer.map_err(|e| ImageError::from_registry(&self.image, e)),
        }
    }
}

/// Nodes may be of another architecture than this machine; an image only for those is fine.
fn choose(index: &OciImageIndex) -> Option<(&ImageIndexEntry, Option<String>)> {
    let linux = |entry: &&ImageIndexEntry| entry.platform.as_ref().is_some_and(|p| p.os == Os::Linux);
    let ours = Architecture::default();
    let exact = |entry: &&ImageIndexEntry| entry.platform.as_ref().is_some_and(|p| p.architecture == ours);
    if let Some(entry) = index.manifests.iter().filter(linux).find(exact) {
        return Some((entry, None));
    }
    let entry = index.manifests.iter().find(linux)?;
    let its = entry.platform.as_ref().map(|p| p.architecture.to_string()).unwrap_or_default();
    Some((entry, Some(format!("the image has no variant for {ours}; its user is that of {its}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str)]) -> OciImageIndex {
        let entry = |(os, architecture): &(&str, &str)| {
            serde_json::json!({
                "mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": format!("sha256:{os}-{architecture}"), "size": 1,
                "platform": {"os": os, "architecture": architecture}})
        };
        let manifests: Vec<_> = platforms.iter().map(entry).collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
    }

    #[test]
    fn this_machines_variant_is_chosen_wherever_it_stands() {
        let ours = Architecture::default().to_string();
        let index = index(&[("windows", &ours), ("linux", "riscv64"), ("unknown", "unknown"), ("linux", &ours)]);
        let (entry, note) = choose(&index).unwrap();
        assert_eq!((entry.digest.clone(), note), (format!("sha256:linux-{ours}"), None));
    }

    #[test]
    fn without_it_another_linux_serves_and_a_note_says_so() {
        let index = index(&[("windows", "amd64"), ("linux", "riscv64")]);
        let (entry, note) = choose(&index).unwrap();
        assert_eq!(entry.digest, "sha256:linux-riscv64");
        assert!(note.unwrap().contains("riscv64"));
    }

    #[test]
    fn an_index_without_linux_gives_nothing() {
        assert!(choose(&index(&[("windows", "amd64"), ("unknown", "unknown")])).is_none());
    }
}
