//! One test's place on the cluster.

use std::{
    ops::Deref,
    panic::{AssertUnwindSafe, resume_unwind},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{sync::RwLock, time::timeout};

use crate::{Cluster, Gateway, dump};

/// No test takes this long unless something hangs.
const LIMIT: Duration = Duration::from_secs(240);
/// On namespaces of tests and benchmarks.
pub const LABEL_TEST: &str = "lambent.dev/e2e";
/// Held for reading by tests that only need their namespace, for writing by those that restart
/// parts that all share.
static PARTS: RwLock<()> = RwLock::const_new(());

/// The cluster, and a namespace that nothing else uses.
#[derive(Clone)]
pub struct Context {
    cluster: Cluster,
    /// Its Pod Security is `restricted`, enforced.
    pub namespace: String,
}

impl Deref for Context {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// Runs a test in a namespace of its own, which goes with it.
pub async fn with_temp_ns<F: Future<Output = ()>>(test: impl FnOnce(Context) -> F) {
    let _others_may_run = PARTS.read().await;
    in_temp_ns(test).await;
}

/// As [`with_temp_ns`], while no other test runs: for those that take parts of Lambent away.
pub async fn alone_on_the_cluster<F: Future<Output = ()>>(test: impl FnOnce(Context) -> F) {
    let _nobody_else_runs = PARTS.write().await;
    in_temp_ns(test).await;
}

async fn in_temp_ns<F: Future<Output = ()>>(test: impl FnOnce(Context) -> F) {
    let thread = thread::current();
    let test_name = thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or("test");
    in_namespace(&format!("e2e-{test_name}"), LIMIT, test).await;
}

/// Runs something in a namespace of its own, called this and a part that no other run has; it goes
/// when the work has ended, whichever way.
///
/// # Panics
/// If the work does, or takes longer than `limit`.
pub async fn in_namespace<T, F: Future<Output = T>>(name: &str, limit: Duration, work: impl FnOnce(Context) -> F) -> T {
    let cx = Context { cluster: Cluster::from_env().await, namespace: unique(name) };
    cx.create_namespace().await;
    let work = async { timeout(limit, work(cx.clone())).await.expect("it hangs") };
    let outcome = AssertUnwindSafe(Box::pin(work)).catch_unwind().await;
    if outcome.is_err() {
        dump::print(&cx).await;
    }
    // Not waited for: others go on while it is cleaned up.
    let _ = cx.namespaces().delete(&cx.namespace, &DeleteParams::background()).await;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

impl Context {
    /// The same place, called by another way.
    #[must_use]
    pub fn through(&self, gateway: Gateway) -> Self {
        let cluster = Cluster { gateway, ..self.cluster.clone() };
        Self { cluster, namespace: self.namespace.clone() }
    }

    /// Objects of one kind in the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Namespaces.
    pub fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    /// Creates an object from JSON.
    ///
    /// # Panics
    /// If the API server refuses it.
    pub async fn create<K>(&self, object: serde_json::Value) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("an object of this kind");
        self.api::<K>().create(&PostParams::default(), &object).await.expect("a created object")
    }

    async fn create_namespace(&self) {
        let namespace = serde_json::from_value(json!({"metadata": {
            "name": self.namespace,
            "labels": {LABEL_TEST: "true", "pod-security.kubernetes.io/enforce": "restricted"},
        }}));
        let created = self.namespaces().create(&PostParams::default(), &namespace.expect("a namespace")).await;
        created.expect("a namespace for the test");
    }
}

/// The name, as far as a DNS label allows, and a part that no other run has.
fn unique(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    let run = u64::from(process::id()).wrapping_mul(0x9e37_79b9).wrapping_add(seconds) & 0xff_ffff;
    let label: String = name.chars().filter(char::is_ascii).map(|c| if c == '_' { '-' } else { c }).take(44).collect();
    format!("{}-{run:06x}-{}", label.trim_matches('-'), NUMBER.fetch_add(1, Ordering::Relaxed))
}
