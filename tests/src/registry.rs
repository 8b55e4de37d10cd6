//! Moving tags in the registry, as a push from elsewhere would.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde_json::Value;

use crate::{Answer, Cluster, Gateway, Request};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Makes `to` (`name:tag`) the same image as `from`, within the cluster's registry.
///
/// # Panics
/// If the registry doesn't take part.
pub async fn copy(cluster: &Cluster, from: &str, to: &str) {
    try_copy(cluster, from, to).await.expect("a copied image");
}

async fn try_copy(cluster: &Cluster, from: &str, to: &str) -> anyhow::Result<()> {
    let registry = Gateway::new(&format!("http://{}", cluster.registry));
    let (source, tag) = from.split_once(':').context("name:tag")?;
    let (target, new_tag) = to.split_once(':').context("name:tag")?;
    let accept = format!("{MANIFEST}, {DOCKER_MANIFEST}");
    let request = Request::get(&format!("/v2/{source}/manifests/{tag}")).header("accept", &accept);
    let manifest = ok(registry.try_send(request).await?)?;
    let parsed: Value = serde_json::from_slice(&manifest.body)?;
    let layers = parsed["layers"].as_array().context("layers")?;
    for blob in layers.iter().chain([&parsed["config"]]) {
        let digest = blob["digest"].as_str().context("digest")?;
        let path = format!("/v2/{target}/blobs/uploads/?mount={digest}&from={source}");
        ok(registry.try_send(Request::post(&path, Bytes::new())).await?)?;
    }
    let kind = manifest.header("content-type").unwrap_or(MANIFEST).to_owned();
    let path = format!("/v2/{target}/manifests/{new_tag}");
    let put = Request::with_body("PUT", &path, manifest.body).header("content-type", &kind);
    ok(registry.try_send(put).await?).map(drop)
}

fn ok(answer: Answer) -> anyhow::Result<Answer> {
    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
    Ok(answer)
}
