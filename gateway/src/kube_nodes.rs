//! What the API server says of nodes and of who has which address.

use std::net::IpAddr;

use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::nodes::{Doubt, Facts, Holder};

/// Asks the API server anew each time.
pub struct KubeFacts(pub Client);

impl Facts for KubeFacts {
    fn ranges<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Vec<IpNet>, Doubt>> {
        Box::pin(async move {
            let nodes: Api<Node> = Api::all(self.0.clone());
            ranges(&nodes.get(node).await.map_err(|error| unknown(&error))?)
        })
    }

    fn holders(&self, ip: IpAddr) -> BoxFuture<'_, Result<Vec<Holder>, Doubt>> {
        Box::pin(async move {
            let pods: Api<Pod> = Api::all(self.0.clone());
            let with_it = ListParams::default().fields(&format!("status.podIP={ip}"));
            Ok(pods.list(&with_it).await.map_err(|error| unknown(&error))?.iter().map(holder).collect())
        })
    }
}

fn unknown(error: &impl ToString) -> Doubt {
    Doubt::Unknown(error.to_string())
}

/// A range that can't be read is no reason to believe more.
fn ranges(node: &Node) -> Result<Vec<IpNet>, Doubt> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
    let first = spec.and_then(|spec| spec.pod_cidr.as_ref()).filter(|_| all.is_empty());
    all.iter().chain(first).map(|range| range.parse().map_err(|error| unknown(&error))).collect()
}

/// One that is being deleted may still run.
fn holder(pod: &Pod) -> Holder {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    Holder {
        uid: pod.uid().unwrap_or_default(),
        name: format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()),
        ended: matches!(phase, Some("Succeeded" | "Failed")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(spec: &serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_node_has_one_range_or_two_or_none() {
        assert_eq!(ranges(&node(&json!({}))), Ok(Vec::new()));
        let one: Vec<IpNet> = vec!["10.244.3.0/24".parse().unwrap()];
        assert_eq!(ranges(&node(&json!({"podCIDR": "10.244.3.0/24"}))), Ok(one.clone()));
        assert_eq!(ranges(&node(&json!({"podCIDR": "10.244.3.0/24", "podCIDRs": ["10.244.3.0/24"]}))), Ok(one));
        assert_eq!(ranges(&node(&json!({"podCIDRs": ["10.244.3.0/24", "fd00:3::/64"]}))).unwrap().len(), 2);
        assert!(matches!(ranges(&node(&json!({"podCIDRs": ["all"]}))), Err(Doubt::Unknown(_))));
    }

    #[test]
    fn a_pod_holds_its_address_until_it_has_ended() {
        let pod = |phase: &str| -> Pod {
            let metadata = json!({"name": "hello-1", "namespace": "shop", "uid": "u-1"});
            serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap()
        };
        let running = holder(&pod("Running"));
        assert_eq!((running.uid.as_str(), running.name.as_str(), running.ended), ("u-1", "shop/hello-1", false));
        assert!(!holder(&pod("Pending")).ended && holder(&pod("Failed")).ended && holder(&pod("Succeeded")).ended);
    }
}
