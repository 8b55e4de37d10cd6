//! A Function of a test: applied, called, changed and looked at.

use anyhow::{Context as _, bail, ensure};
use futures::future::join_all;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, ValidationDirective},
};
use lambent_api::{
    ConditionType, Conditions, Function, FunctionStatus, Revision,
    meta::{LABEL_FUNCTION, LABEL_REVISION},
};
use serde_json::{Value, json};

use crate::{Answer, Cluster, Context, Gateway, Request, await_condition};

/// As whom the tests apply.
const MANAGER: &str = "e2e";

/// A Function by its name, whether it is there or not.
#[derive(Clone)]
pub struct Deployed {
    cx: Context,
    /// Its name.
    pub name: String,
}

impl Context {
    /// A Function's handle; nothing is applied.
    pub fn function(&self, name: &str) -> Deployed {
        Deployed { cx: self.clone(), name: name.to_owned() }
    }

    /// Applies a Function as `kubectl apply --server-side` does: unknown fields are refused.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn try_apply(&self, name: &str, spec: Value) -> kube::Result<Function> {
        let mut params = PatchParams::apply(MANAGER);
        params.field_validation = Some(ValidationDirective::Strict);
        let manifest = json!({
            "apiVersion": "lambent.dev/v1alpha1", "kind": "Function", "metadata": {"name": name}, "spec": spec,
        });
        self.api::<Function>().patch(name, &params, &Patch::Apply(manifest)).await
    }

    /// Applies a Function.
    ///
    /// # Panics
    /// If the API server refuses it.
    pub async fn apply(&self, name: &str, spec: Value) -> Deployed {
        self.try_apply(name, spec).await.expect("an applied Function");
        self.function(name)
    }

    /// Applies a Function and waits until it is Ready.
    ///
    /// # Panics
    /// If it doesn't become so.
    pub async fn deploy(&self, name: &str, spec: Value) -> Deployed {
        let function = self.apply(name, spec).await;
        function.await_ready().await;
        function
    }
}

impl Deployed {
    /// The object.
    ///
    /// # Errors
    /// If it isn't there.
    pub async fn get(&self) -> anyhow::Result<Function> {
        Ok(self.cx.api::<Function>().get(&self.name).await?)
    }

    /// What the controller says of the present spec.
    ///
    /// # Errors
    /// If it has said nothing about it.
    pub async fn status(&self) -> anyhow::Result<FunctionStatus> {
        let function = self.get().await?;
        let status = function.status.unwrap_or_default();
        let seen = (status.observed_generation, function.metadata.generation);
        ensure!(seen.0 == seen.1, "observedGeneration is {:?} of {:?}", seen.0, seen.1);
        Ok(status)
    }

    /// A condition about the present spec.
    ///
    /// # Errors
    /// If the controller hasn't set it.
    pub async fn condition(&self, type_: ConditionType) -> anyhow::Result<Condition> {
        let status = self.status().await?;
        status.conditions.find(type_).cloned().with_context(|| format!("no {type_} in {:?}", status.conditions))
    }

    /// Waits until the present spec is served.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn await_ready(&self) -> FunctionStatus {
        await_condition(format!("{} to be Ready", self.name), async || {
            let status = self.status().await?;
            ensure!(status.conditions.is_true(ConditionType::Ready), "{:?}", status.conditions);
            Ok(status)
        })
        .await
    }

    /// Waits until the present spec can't be served, for this reason. Its words.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn await_not_ready(&self, reason: &str) -> String {
        await_condition(format!("{} to be not Ready for {reason}", self.name), async || {
            let ready = self.condition(ConditionType::Ready).await?;
            ensure!(ready.status == "False" && ready.reason == reason, "{ready:?}");
            Ok(ready.message)
        })
        .await
    }

    /// The Revision that serves.
    ///
    /// # Panics
    /// If none does.
    pub async fn serving(&self) -> String {
        self.status().await.expect("a status").revision.expect("a serving Revision")
    }

    /// Merges this into the spec.
    ///
    /// # Panics
    /// If the API server refuses it.
    pub async fn change(&self, spec: Value) {
        self.patch(json!({"spec": spec})).await;
    }

    /// Merges this into the object.
    ///
    /// # Panics
    /// If the API server refuses it.
    pub async fn patch(&self, object: Value) {
        let patch = Patch::Merge(object);
        self.cx.api::<Function>().patch(&self.name, &PatchParams::default(), &patch).await.expect("a changed Function");
    }

    /// Deletes the object without waiting.
    ///
    /// # Panics
    /// If the API server refuses.
    pub async fn delete(&self) {
        self.cx.api::<Function>().delete(&self.name, &DeleteParams::default()).await.expect("a deleted Function");
    }

    /// Its Revisions, oldest first.
    ///
    /// # Errors
    /// If the API server doesn't answer.
    pub async fn revisions(&self) -> anyhow::Result<Vec<Revision>> {
        let mut revisions = self.cx.api::<Revision>().list(&self.owned()).await?.items;
        revisions.sort_by_key(|r| r.metadata.creation_timestamp.as_ref().map(|time| time.0));
        Ok(revisions)
    }

    /// All pods of it, those that are being stopped among them.
    ///
    /// # Errors
    /// If the API server doesn't answer.
    pub async fn all_pods(&self) -> anyhow::Result<Vec<Pod>> {
        Ok(self.cx.api::<Pod>().list(&self.owned()).await?.items)
    }

    /// Its instances: pods that are neither being stopped nor at their end.
    ///
    /// # Errors
    /// If the API server doesn't answer.
    pub async fn instances(&self) -> anyhow::Result<Vec<Pod>> {
        let ended = |pod: &Pod| matches!(phase(pod), "Failed" | "Succeeded");
        let counts = |pod: &Pod| pod.meta().deletion_timestamp.is_none() && !ended(pod);
        Ok(self.all_pods().await?.into_iter().filter(counts).collect())
    }

    /// Waits for exactly so many instances, all of them running.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn await_instances(&self, count: usize) -> Vec<Pod> {
        await_condition(format!("{count} instances of {}", self.name), async || {
            let instances = self.instances().await?;
            let running = instances.iter().filter(|pod| phase(pod) == "Running").count();
            ensure!((instances.len(), running) == (count, count), "{} instances, {running} run", instances.len());
            Ok(instances)
        })
        .await
    }

    /// Waits until nothing of it is left: object, Revisions, pods.
    ///
    /// # Panics
    /// If something stays.
    pub async fn await_removed(&self) {
        await_condition(format!("{} to be removed", self.name), async || {
            if self.cx.api::<Function>().get_opt(&self.name).await?.is_some() {
                bail!("the Function is there");
            }
            let (revisions, pods) = (self.revisions().await?.len(), self.all_pods().await?.len());
            ensure!((revisions, pods) == (0, 0), "{revisions} Revisions, {pods} pods");
            Ok(())
        })
        .await;
    }

    /// Where it is.
    pub fn cluster(&self) -> &Cluster {
        &self.cx
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.cx.namespace
    }

    /// The same Function, called by another way.
    #[must_use]
    pub fn through(&self, gateway: Gateway) -> Self {
        Self { cx: self.cx.through(gateway), name: self.name.clone() }
    }

    /// What to send to the gateway for this path and query of the function.
    pub fn path(&self, rest: &str) -> String {
        format!("/fn/{}/{}{rest}", self.cx.namespace, self.name)
    }

    /// Calls it.
    pub async fn call(&self, rest: &str) -> Answer {
        self.cx.gateway.send(Request::get(&self.path(rest))).await
    }

    /// Calls it until it answers with 200. A process that is just dying may still take a
    /// connection, which then breaks: so far and no further it may fail.
    ///
    /// # Panics
    /// If it answers anything else, or not in time.
    pub async fn await_answer(&self, rest: &str) -> Answer {
        await_condition(format!("{} to answer", self.name), async || {
            let answer = self.call(rest).await;
            if answer.status != 200 {
                answer.expect_refusal(502, "InstanceFailed");
                bail!("{answer:?}");
            }
            Ok(answer)
        })
        .await
    }

    /// Calls it so many times at once.
    pub async fn call_at_once(&self, count: usize, rest: &str) -> Vec<Answer> {
        join_all((0..count).map(|_| self.call(rest))).await
    }

    /// As [`Deployed::call_at_once`], where connections may be refused or cut off.
    pub async fn try_call_at_once(&self, count: usize, rest: &str) -> Vec<anyhow::Result<Answer>> {
        join_all((0..count).map(|_| self.cx.gateway.try_send(Request::get(&self.path(rest))))).await
    }

    fn owned(&self) -> ListParams {
        ListParams::default().labels(&format!("{LABEL_FUNCTION}={}", self.name))
    }
}

/// A pod's phase.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown")
}

/// A pod's unique id.
pub fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// The Revision that a pod is an instance of.
pub fn revision_of(pod: &Pod) -> String {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_REVISION)).cloned().unwrap_or_default()
}
