//! A warm request through the installed gateway, with all that lies between: node port, pod
//! network, and an instance in its cgroup.

use anyhow::Context as _;
use lambent_tests::{Context, Deployed, system::System};
use serde_json::json;
use tokio::net::lookup_host;

use super::{Plan, Rows, on_cluster, warm};
use crate::{load::Target, local::Contestant, process};

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    on_cluster("hop", async |cx: Context| {
        let spec = json!({"image": cx.image("hello"), "concurrency": 100, "scale": {"min": 1, "max": 1}});
        let hello = cx.deploy("hello", spec).await;
        let contestants = [direct(&hello).await?, through_gateway(&cx, &hello).await?];
        let columns = warm::measure(&contestants, &plan).await?;
        let mut rows = warm::rows(&columns, &["direct", "Lambent"])?;
        rows.iter_mut().for_each(|row| row.metric.insert_str(0, "in the cluster: "));
        Ok(rows)
    })
    .await
}

async fn direct(function: &Deployed) -> anyhow::Result<Contestant> {
    let pod = function.await_instances(1).await.remove(0);
    let ip = pod.status.and_then(|status| status.pod_ip).context("no address")?;
    let pids = process::of_pod(&pod.metadata.uid.context("no uid")?)?;
    Ok(Contestant { name: "direct", target: Target { address: format!("{ip}:8080").parse()?, path: "/".into() }, pids })
}

async fn through_gateway(cx: &Context, function: &Deployed) -> anyhow::Result<Contestant> {
    Ok(Contestant {
        name: "Lambent",
        target: target(cx, &function.path("/")).await?,
        pids: processes(cx, "gateway").await?,
    })
}

/// A path of the installed gateway.
pub async fn target(cx: &Context, path: &str) -> anyhow::Result<Target> {
    let address = lookup_host(&cx.gateway.authority).await?.next().context("GATEWAY names no address")?;
    Ok(Target { address, path: path.to_owned() })
}

/// The processes of one of Lambent's parts.
pub async fn processes(cx: &Context, component: &str) -> anyhow::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for pod in System::new(cx).pods(component).await? {
        pids.extend(process::of_pod(&pod.metadata.uid.context("no uid")?)?);
    }
    Ok(pids)
}
