//! Pods of a real cluster keep the contract that every kind of fleet keeps.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use lambent_api::{FunctionSpec, Revision};
use lambent_fleet::{Instance, Order, Phase, contract, kube::KubeFleet};
use lambent_tests::{Context, with_temp_ns};
use serde_json::json;

/// A fleet, and orders for it. Their Revision belongs to no Function, so that no controller minds.
struct Orders {
    fleet: KubeFleet,
    revision: Arc<Revision>,
    spec: FunctionSpec,
}

impl Orders {
    async fn new(cx: &Context) -> Self {
        let template = json!({"image": cx.image("hello")});
        let spec = serde_json::from_value(template.clone()).expect("a spec");
        let revision = json!({
            "metadata": {"name": "contract-0123456789"}, "spec": {"function": "contract", "template": template},
        });
        Self {
            fleet: KubeFleet::new(cx.client.clone(), Some(cx.namespace.clone())),
            revision: Arc::new(cx.create(revision).await),
            spec,
        }
    }

    fn order(&self, number: u32) -> Order {
        let name = format!("contract-0123456789-{number}");
        let settings = Arc::new((&self.spec).try_into().expect("valid settings"));
        Order { name, revision: self.revision.clone(), settings }
    }
}

#[tokio::test]
async fn an_ordered_pod_is_shown_until_it_runs() {
    with_temp_ns(async |cx: Context| {
        let orders = Orders::new(&cx).await;
        contract::an_ordered_instance_is_shown_until_it_runs(&orders.fleet, &orders.order(0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_repeated_order_makes_no_second_pod() {
    with_temp_ns(async |cx: Context| {
        let orders = Orders::new(&cx).await;
        contract::a_repeated_order_makes_no_second_instance(&orders.fleet, &orders.order(0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_stopped_pod_is_shown_until_it_is_gone() {
    with_temp_ns(async |cx: Context| {
        let orders = Orders::new(&cx).await;
        contract::a_stopped_instance_is_shown_until_it_is_gone(&orders.fleet, &orders.order(0)).await;
    })
    .await;
}

#[tokio::test]
async fn stopping_a_past_pod_spares_the_new_one_of_its_name() {
    with_temp_ns(async |cx: Context| {
        let orders = Orders::new(&cx).await;
        contract::stopping_a_past_instance_spares_the_new_one_of_its_name(&orders.fleet, &orders.order(0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_new_watch_of_pods_says_everything_and_then_complete() {
    with_temp_ns(async |cx: Context| {
        let orders = Orders::new(&cx).await;
        let (one, other) = (orders.order(0), orders.order(1));
        contract::a_new_watch_says_everything_and_then_complete(&orders.fleet, &one, &other).await;
    })
    .await;
}

#[tokio::test]
async fn a_pod_deleted_by_someone_else_is_shown_stopping() {
    with_temp_ns(async |cx: Context| {
        let orders = Orders::new(&cx).await;
        let outside = async |id: lambent_api::InstanceRef| {
            cx.api::<Pod>().delete(&id.name, &DeleteParams::default()).await.expect("a deleted pod");
        };
        let (fleet, order) = (&orders.fleet, orders.order(0));
        let stopping = |instance: &Instance| instance.phase == Phase::Stopping;
        contract::an_instance_ended_by_someone_else_is_shown_so(fleet, &order, outside, stopping).await;
    })
    .await;
}
