//! The cluster that the tests run against: any with Lambent on it, named by three variables.

use std::{env, path::PathBuf};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::Gateway;

/// Where everything is.
#[derive(Clone)]
pub struct Cluster {
    /// As administrator.
    pub client: Client,
    /// The same, taking a refusal for an answer: the other one comes again when the server says so.
    pub impatient: Client,
    /// For `kubectl` and `helm`.
    pub kubeconfig: PathBuf,
    /// The image registry with the examples, `host:port`.
    pub registry: String,
    /// Lambent's public address.
    pub gateway: Gateway,
}

impl Cluster {
    /// The cluster of the environment.
    ///
    /// # Panics
    /// If a variable is missing or the kubeconfig is of no use.
    pub async fn from_env() -> Self {
        let kubeconfig = PathBuf::from(variable("LAMBENT_TEST_KUBECONFIG"));
        // Another crate of the build may bring a second provider; the first one set is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read = Kubeconfig::read_from(&kubeconfig).expect("LAMBENT_TEST_KUBECONFIG names a kubeconfig");
        let mut config =
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.expect("a whole kubeconfig");
        let client = Client::try_from(config.clone()).expect("a client of the API server");
        config.default_retry = false;
        Self {
            client,
            impatient: Client::try_from(config).expect("a client of the API server"),
            kubeconfig,
            registry: variable("REGISTRY"),
            gateway: Gateway::new(&variable("GATEWAY")),
        }
    }

    /// The image of an example.
    pub fn image(&self, example: &str) -> String {
        format!("{}/{example}:1", self.registry)
    }
}

fn variable(name: &str) -> String {
    match env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{name} is not set: run `make e2e`, which brings up a cluster and sets it"),
    }
}
