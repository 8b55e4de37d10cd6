//! The autoscaler's last decisions about a Function, from its admin port through the API server's
//! proxy of pods: the same way on a cluster and under `lambent dev`.

use anyhow::bail;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use lambent_api::FunctionKey;
use serde::{Deserialize, Serialize};

use super::{Place, Target, refusal};

/// The autoscaler's pods.
const SELECTOR: &str = "app.kubernetes.io/name=lambent,app.kubernetes.io/component=autoscaler";
/// More replicas of it are not asked.
const ASKED: usize = 5;
/// Where each serves its admin port.
const ADMIN_PORT: u16 = 9090;

/// A change of a count, as the autoscaler's record has it; of a newer one too, which may have more reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// Of which Revision.
    pub revision: String,
    /// The count before.
    pub from: u32,
    /// The count after.
    pub to: u32,
    /// Why.
    pub reason: String,
    /// The load that was decided upon.
    pub load: Load,
}

/// The load that was decided upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Load {
    /// Requests waiting.
    pub queued: u32,
    /// Requests at instances.
    pub in_flight: u32,
    /// Instances that answer.
    pub ready: u32,
}

impl Target {
    /// The last decisions about a Function, the newest first. Replicas that do not lead have none.
    pub async fn decisions(&self, function: &FunctionKey) -> anyhow::Result<Vec<Decision>> {
        let system = &self.system_namespace;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), system);
        let params = ListParams::default().labels(SELECTOR);
        let listed = self.ask(&format!("list the pods of namespace {system}"), pods.list(&params)).await?;
        let running = listed
            .items
            .into_iter()
            .filter(|pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")));
        let names: Vec<String> = running.filter_map(|pod| pod.metadata.name).take(ASKED).collect();
        if names.is_empty() {
            bail!("no autoscaler runs in namespace {system}; if Lambent is in another one, say --system-namespace");
        }
        let mut answers = join_all(names.iter().map(|pod| self.decisions_of(pod, function))).await;
        // One that is just starting does not matter as long as another one answers.
        if answers.iter().all(Result::is_err) {
            return answers.swap_remove(0);
        }
        let mut all: Vec<Decision> = answers.into_iter().flatten().flatten().collect();
        all.sort_by_key(|decision| std::cmp::Reverse(decision.at));
        Ok(all)
    }

    async fn decisions_of(&self, pod: &str, function: &FunctionKey) -> anyhow::Result<Vec<Decision>> {
        let (system, FunctionKey { namespace, name }) = (&self.system_namespace, function);
        let uri = format!("/api/v1/namespaces/{system}/pods/{pod}:{ADMIN_PORT}/proxy/decisions/{namespace}/{name}");
        let request = http::Request::get(uri).body(Vec::new())?;
        let place = &self.place;
        let asked = async {
            Ok(self.client.request::<Vec<Decision>>(request).await.map_err(|error| words(&error, pod, system, place)))
        };
        match self.ask("ask the autoscaler", asked).await? {
            Ok(decisions) => Ok(decisions),
            Err(words) => bail!(words),
        }
    }
}

fn words(error: &kube::Error, pod: &str, system: &str, place: &Place) -> String {
    let code = match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    };
    match code {
        403 => format!(
            "you may not ask the autoscaler: that takes `get` of `pods/proxy` in namespace {system}; ask an administrator \
             for a Role with it"
        ),
        404 => format!("the autoscaler {pod} is gone, or older than this `lambent`: try again, or upgrade Lambent"),
        500.. => format!(
            "the API server can't reach port {ADMIN_PORT} of {pod}: where the chart's networkPolicy is enabled, its \
             metricsFrom must let the API server in ({})",
            refusal::chain(error)
        ),
        _ => refusal::words(error, "ask the autoscaler", place),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_the_autoscaler_records_is_read_and_unknown_reasons_too() {
        let text = r#"[{"at":"2026-01-01T00:00:00Z","revision":"f-1","from":1,"to":3,"reason":"NewReason",
            "load":{"queued":4,"inFlight":1,"ready":1,"more":true}}]"#;
        let decisions: Vec<Decision> = serde_json::from_str(text).unwrap();
        let load = Load { queued: 4, in_flight: 1, ready: 1 };
        assert_eq!((decisions[0].reason.as_str(), decisions[0].to, decisions[0].load), ("NewReason", 3, load));
    }

    #[test]
    fn who_may_not_ask_is_told_which_right_is_missing() {
        let place = Place::Cluster { name: "prod".to_owned(), inside: false };
        let of = |code| {
            let status = Status::failure("no", "No").with_code(code);
            words(&kube::Error::Api(Box::new(status)), "pod-1", "lambent-system", &place)
        };
        assert!(of(403).contains("`get` of `pods/proxy` in namespace lambent-system"));
        assert!(of(503).contains("metricsFrom"));
        assert!(of(404).contains("upgrade"));
    }
}
