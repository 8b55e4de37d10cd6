//! Pull secrets: which credentials a `kubernetes.io/dockerconfigjson` Secret holds for an image.
//! Their text appears in no `Debug`, no error and no log.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use k8s_openapi::ByteString;
use oci_client::{Reference, secrets::RegistryAuth};
use serde::Deserialize;

const MAX_SECRET: usize = 1 << 20; // what a Kubernetes Secret may hold
const MAX_CANDIDATES: usize = 8;

/// The credentials of one Secret of type `kubernetes.io/dockerconfigjson`.
#[derive(Clone)]
pub struct PullSecret {
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    place: Place,
    auth: RegistryAuth,
}

/// What an entry of `auths` is for: a host, which may have `*` as a label, and a path below it.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    host: String,
    path: String,
}

/// A Secret that holds no readable Docker configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PullSecretError {
    /// It is no JSON of the right shape. The words of the parser would quote the secret.
    #[error("it is not a Docker configuration in JSON (line {line}, column {column})")]
    Malformed {
        /// Where the parser stopped.
        line: usize,
        /// Where the parser stopped.
        column: usize,
    },
    /// `auth` of an entry can't be decoded.
    #[error("the auth for {0} is not user:password in base64")]
    BadAuth(String),
    /// Larger than a Secret can be.
    #[error("it is larger than 1 MiB")]
    TooLarge,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

impl PullSecret {
    /// Reads the value of the key `.dockerconfigjson`.
    ///
    /// # Errors
    /// If it is not a Docker configuration. The error does not repeat its content.
    pub fn from_docker_config_json(json: &[u8]) -> Result<Self, PullSecretError> {
        if json.len() > MAX_SECRET {
            return Err(PullSecretError::TooLarge);
        }
        let config: DockerConfig = serde_json::from_slice(json)
            .map_err(|e| PullSecretError::Malformed { line: e.line(), column: e.column() })?;
        let mut entries = Vec::new();
        for (key, auth) in config.auths {
            let auth = auth.into_registry_auth().map_err(|BadBase64| PullSecretError::BadAuth(key.clone()))?;
            entries.extend(auth.map(|auth| Entry { place: Place::parse(&key), auth }));
        }
        Ok(Self { entries })
    }
}

struct BadBase64;

impl DockerAuth {
    /// None where the entry is empty: credential helpers leave such ones behind.
    fn into_registry_auth(self) -> Result<Option<RegistryAuth>, BadBase64> {
        let some = |text: Option<String>| text.filter(|t| !t.is_empty());
        if let Some(token) = some(self.registrytoken) {
            return Ok(Some(RegistryAuth::Bearer(token)));
        }
        if let Some(auth) = some(self.auth) {
            let (user, password) = decode(&auth).ok_or(BadBase64)?;
            return Ok(Some(RegistryAuth::Basic(user, password)));
        }
        Ok(some(self.username).map(|user| RegistryAuth::Basic(user, self.password.unwrap_or_default())))
    }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let bare = auth.trim().trim_end_matches('='); // written with padding or without
    let padded = format!("{bare}{}", "=".repeat(bare.len().wrapping_neg() % 4));
    let ByteString(bytes) = serde_json::from_value(padded.into()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.trim_end_matches('\0').split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

impl Place {
    fn parse(key: &str) -> Self {
        let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let path = match path.trim_matches('/') {
            "v1" | "v2" => "", // the API's own path, which `docker login` writes for Docker Hub
            path => path,
        };
        Self { host: canonical(host), path: path.to_owned() }
    }

    fn covers(&self, image: &Reference) -> bool {
        host_matches(&self.host, &canonical(image.registry())) && path_covers(&self.path, image.repository())
    }
}

/// Docker Hub has several names.
fn canonical(host: &str) -> String {
    match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

/// As the kubelet matches: `*` stands for one label or a part of it, never for a dot.
fn host_matches(pattern: &str, host: &str) -> bool {
    let mut labels = host.split('.');
    pattern.split('.').all(|p| labels.next().is_some_and(|l| label_matches(p, l))) && labels.next().is_none()
}

fn label_matches(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == label,
        Some((start, end)) => {
            label.len() >= start.len() + end.len() && label.starts_with(start) && label.ends_with(end)
        }
    }
}

fn path_covers(path: &str, repository: &str) -> bool {
    let rest = repository.strip_prefix(path);
    path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What to try in turn for this image: the most specific first. Without any, nobody in particular.
pub(super) fn candidates(image: &Reference, secrets: &[PullSecret]) -> Vec<RegistryAuth> {
    let entries = secrets.iter().flat_map(|secret| &secret.entries);
    let mut matching: Vec<&Entry> = entries.filter(|entry| entry.place.covers(image)).collect();
    matching.sort_by_key(|entry| (Reverse(entry.place.path.len()), entry.place.host.contains('*')));
    matching.truncate(MAX_CANDIDATES);
    if matching.is_empty() {
        return vec![RegistryAuth::Anonymous];
    }
    matching.into_iter().map(|entry| entry.auth.clone()).collect()
}

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.place)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(json: &str) -> PullSecret {
        PullSecret::from_docker_config_json(json.as_bytes()).unwrap()
    }

    fn basic(user: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(user.into(), password.into())
    }

    fn chosen(json: &str, image: &str) -> Vec<RegistryAuth> {
        candidates(&image.parse().unwrap(), &[secret(json)])
    }

    #[test]
    fn auth_and_username_and_token_are_read() {
        let json = r#"{"auths": {
            "a.example": {"auth": "dTpwOnc="}, "b.example": {"username": "u", "password": "p"},
            "c.example": {"registrytoken": "t"}, "d.example": {"auth": "dTpwOnc"}, "e.example": {}}}"#;
        assert_eq!(chosen(json, "a.example/x"), [basic("u", "p:w")]);
        assert_eq!(chosen(json, "b.example/x"), [basic("u", "p")]);
        assert_eq!(chosen(json, "c.example/x"), [RegistryAuth::Bearer("t".into())]);
        assert_eq!(chosen(json, "d.example/x"), [basic("u", "p:w")]);
        assert_eq!(chosen(json, "e.example/x"), [RegistryAuth::Anonymous]);
    }

    #[test]
    fn every_name_of_docker_hub_matches_its_images() {
        for key in ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io", "index.docker.io/v2"] {
            let json = format!(r#"{{"auths": {{"{key}": {{"username": "u", "password": "p"}}}}}}"#);
            for image in ["nginx", "docker.io/library/nginx:1", "someone/app"] {
                assert_eq!(chosen(&json, image), [basic("u", "p")], "{key} {image}");
            }
        }
    }

    #[test]
    fn a_port_is_a_part_of_the_host() {
        let json = r#"{"auths": {"http://registry.example:5000": {"username": "u", "password": "p"}}}"#;
        assert_eq!(chosen(json, "registry.example:5000/x"), [basic("u", "p")]);
        assert_eq!(chosen(json, "registry.example/x"), [RegistryAuth::Anonymous]);
        assert_eq!(chosen(json, "registry.example:5001/x"), [RegistryAuth::Anonymous]);
    }

    #[test]
    fn the_longest_path_comes_first_and_covers_whole_segments() {
        let json = r#"{"auths": {
            "r.example": {"username": "all", "password": ""}, "r.example/team": {"username": "team", "password": ""}}}"#;
        assert_eq!(chosen(json, "r.example/team/x"), [basic("team", ""), basic("all", "")]);
        assert_eq!(chosen(json, "r.example/teams/x"), [basic("all", "")]);
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let json = r#"{"auths": {"*.r.example": {"username": "u", "password": ""}}}"#;
        assert_eq!(chosen(json, "eu.r.example/x"), [basic("u", "")]);
        for other in ["r.example/x", "a.b.r.example/x", "eu.r.example.org/x"] {
            assert_eq!(chosen(json, other), [RegistryAuth::Anonymous], "{other}");
        }
    }

    #[test]
    fn neither_debug_nor_errors_show_a_secret() {
        let good = secret(r#"{"auths": {"r.example": {"username": "user7", "password": "hunter2"}}}"#);
        let shape = PullSecret::from_docker_config_json(br#"{"auths": "hunter2"}"#).unwrap_err();
        let auth =
            PullSecret::from_docker_config_json(br#"{"auths": {"r.example": {"auth": "hunter2"}}}"#).unwrap_err();
        for text in [format!("{good:?}"), format!("{shape} {shape:?}"), format!("{auth} {auth:?}")] {
            assert!(!text.contains("hunter2") && !text.contains("user7"), "{text}");
        }
        assert_eq!(auth, PullSecretError::BadAuth("r.example".into()));
    }
}
