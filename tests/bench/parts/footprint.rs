//! What Lambent takes of a cluster while nobody calls: memory of its parts, objects, API writes.

use std::time::Duration;

use futures::future::join_all;
use lambent_tests::{Context, command::kubectl, system::COMPONENTS};
use tokio::time::sleep;

use super::{Plan, Rows, cold::asleep, hop, on_cluster, raw};
use crate::{
    process, progress,
    row::{Row, Wanted},
    stats::Estimate,
};

const FUNCTIONS: usize = 20;
/// Verbs of the API server's metrics that change something.
const WRITES: [&str; 6] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];
/// Renewals and questions are not about Functions.
const NOT_COUNTED: [&str; 6] =
    ["leases", "tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews", "nodes", "serviceaccounts"];

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    on_cluster("footprint", async |cx: Context| {
        let watched = Duration::from_secs(plan.rounds(60, 10) as u64);
        let (mut all, mut rows) = (0.0, Vec::new());
        for component in COMPONENTS {
            let mib = process::resident(&hop::processes(&cx, component).await?) / 1024.0;
            all += mib;
            rows.push(Row::new(format!("resident memory of the idle {component}"), "MiB", Estimate::exact(mib)));
        }
        let whole = Row::new("resident memory of the idle platform", "MiB", Estimate::exact(all));
        rows.push(whole.wanted(Wanted::AtMost(100.0)));
        progress::say("API writes without Functions");
        let quiet = writes_in(&cx, watched).await?;
        let objects_before = objects(&cx).await;
        let before = writes(&cx).await?;
        progress::say(&format!("{FUNCTIONS} Functions"));
        let spec = || asleep(&cx, "hello");
        join_all((0..FUNCTIONS).map(|n| {
            let (cx, spec) = (cx.clone(), spec());
            async move { cx.deploy(&format!("idle-{n}"), spec).await }
        }))
        .await;
        raw::nothing_runs(&cx).await;
        sleep(Duration::from_secs(5)).await;
        let each = |count: f64| Estimate::exact(count / FUNCTIONS as f64);
        let to_zero = writes(&cx).await? - before;
        let objects = objects(&cx).await - objects_before;
        progress::say("API writes with them");
        let idle = (writes_in(&cx, watched).await? - quiet).max(0.0) * 3600.0 / watched.as_secs_f64();
        rows.push(Row::new("API objects of an idle Function", "objects", each(objects)));
        rows.push(Row::new("API writes from apply over the proving instance to zero", "writes", each(to_zero)));
        rows.push(Row::new("API writes of an idle Function", "1/h", each(idle)));
        Ok(rows)
    })
    .await
}

async fn writes_in(cx: &Context, time: Duration) -> anyhow::Result<f64> {
    let before = writes(cx).await?;
    sleep(time).await;
    Ok(writes(cx).await? - before)
}

/// All writes that the API server has taken.
async fn writes(cx: &Context) -> anyhow::Result<f64> {
    let text = cx.client.request_text(hyper::Request::get("/metrics").body(Vec::new())?).await?;
    Ok(text.lines().filter_map(counted).sum())
}

/// The value of a line, if it counts writes that may be about Functions.
fn counted(line: &str) -> Option<f64> {
    let (labels, value) = line.strip_prefix("apiserver_request_total{")?.rsplit_once("} ")?;
    let label = |name: &str| {
        let found = labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\""));
        found.map(|text| text.trim_end_matches('"'))
    };
    let counts = WRITES.contains(&label("verb")?) && !NOT_COUNTED.contains(&label("resource")?);
    value.parse().ok().filter(|_| counts)
}

/// Objects of all kinds in the namespace, but for events.
async fn objects(cx: &Context) -> f64 {
    let kinds = kubectl(cx, &["api-resources", "--verbs=list", "--namespaced", "-o", "name"]).await.expect();
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let names = kubectl(cx, &["get", "-n", &cx.namespace, "-o", "name", "--ignore-not-found", &kinds.join(",")]).await;
    // Kinds of metrics servers that are away are no failure.
    names.stdout.lines().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_about_functions_count() {
        let line = |verb: &str, resource: &str| {
            format!(r#"apiserver_request_total{{code="200",resource="{resource}",verb="{verb}",version="v1"}} 7"#)
        };
        assert_eq!(counted(&line("PATCH", "revisions")), Some(7.0));
        assert_eq!(counted(&line("LIST", "revisions")), None);
        assert_eq!(counted(&line("PUT", "leases")), None);
        assert_eq!(counted("# HELP apiserver_request_total Counter"), None);
    }
}
