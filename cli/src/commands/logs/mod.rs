//! `lambent logs`: what the instances of a Function write, each line whole; with the instance's name
//! before it as soon as there are several.

mod follow;
mod lines;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};
use lambent_api::meta::LABEL_FUNCTION;

use self::lines::Lines;
use crate::{
    args::LogsArgs,
    client::{Target, output},
};

/// Among the containers of a pod that a cluster may add to: the function's.
const CONTAINER: &str = "function";

/// Prints what was written; with --follow also what is written until Ctrl-C.
pub async fn run(args: LogsArgs) -> anyhow::Result<()> {
    let mut target = Target::find(args.target.clone()).await?;
    let function = target.function(&args.name).await?.key();
    let pods: Api<Pod> = Api::namespaced(target.client.clone(), &function.namespace);
    let selector = format!("{LABEL_FUNCTION}={}", function.name);
    let doing = format!("list the pods of namespace {}", function.namespace);
    let mut listed = target.ask(&doing, pods.list(&ListParams::default().labels(&selector))).await?.items;
    listed.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    listed.retain(has_written);
    if args.follow {
        return follow::follow(&target, pods, &selector, listed, &params(&args)).await;
    }
    if listed.is_empty() {
        output::note(&format!(
            "{function} has no instance, so that there is nothing to print: call it with `lambent invoke {function}`, or \
             wait for instances with --follow"
        ));
    }
    let mut printer = Printer::new(listed.len());
    let mut failed = None;
    for pod in listed {
        match print_all(&target, &pods, &pod, &args, &mut printer).await {
            Err(error) if error.is::<output::ReaderGone>() => return Err(error),
            // The others may be fine.
            Err(error) => failed = Some(error.context(pod.name_any())),
            Ok(()) => {}
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn print_all(
    target: &Target,
    pods: &Api<Pod>,
    pod: &Pod,
    args: &LogsArgs,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let name = pod.name_any();
    let params = LogParams { previous: args.previous, ..params(args) };
    let doing = format!("read the log of {name}");
    let mut lines = Lines::new(Box::pin(target.ask(&doing, pods.log_stream(&name, &params)).await?));
    while let Some(line) = lines.next().await? {
        printer.print(&name, &line)?;
    }
    Ok(())
}

fn params(args: &LogsArgs) -> LogParams {
    LogParams {
        container: Some(CONTAINER.to_owned()),
        tail_lines: Some(args.tail).filter(|lines| *lines >= 0),
        since_seconds: args.since.map(lambent_api::Duration::seconds_rounded_up).map(|seconds| seconds.max(1)),
        timestamps: args.timestamps,
        ..LogParams::default()
    }
}

/// Whether the function's container of a pod was ever started: else there is no log to ask for.
fn has_written(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let containers = status.container_statuses.iter().flatten();
    let started =
        |state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some() || state.terminated.is_some();
    let mut ours = containers.filter(|container| container.name == CONTAINER);
    let any = ours.any(|container| {
        container.restart_count > 0
            || container.state.as_ref().is_some_and(started)
            || container.last_state.as_ref().is_some_and(started)
    });
    any || matches!(status.phase.as_deref(), Some("Running" | "Succeeded" | "Failed"))
}

/// How often the function's container was restarted.
fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let ours = statuses.into_iter().flatten().find(|container| container.name == CONTAINER);
    ours.map_or(0, |container| container.restart_count)
}

/// Prints lines; with the instance's name once there are several.
struct Printer {
    seen: BTreeSet<String>,
    several: bool,
}

impl Printer {
    /// For so many instances at first.
    fn new(instances: usize) -> Self {
        Self { seen: BTreeSet::new(), several: instances > 1 }
    }

    fn print(&mut self, instance: &str, line: &[u8]) -> anyhow::Result<()> {
        output::write(&self.shown(instance, line))
    }

    fn shown(&mut self, instance: &str, line: &[u8]) -> Vec<u8> {
        if !self.several && !self.seen.contains(instance) {
            self.seen.insert(instance.to_owned());
            self.several = self.seen.len() > 1;
        }
        let prefix = if self.several { format!("{instance} | ") } else { String::new() };
        [prefix.as_bytes(), line, b"\n"].concat()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_instance_is_named_from_the_second_one_on() {
        let mut one = Printer::new(1);
        assert_eq!(one.shown("a", b"x"), b"x\n");
        assert_eq!(one.shown("b", b"y"), b"b | y\n");
        assert_eq!(one.shown("a", b"z"), b"a | z\n");
        assert_eq!(Printer::new(2).shown("a", b"\xff"), b"a | \xff\n");
    }

    #[test]
    fn only_a_container_that_was_started_has_written() {
        let pod = |phase: &str, name: &str, restarts: i32, state: serde_json::Value| -> Pod {
            let container = json!({
                "name": name, "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
            });
            serde_json::from_value(
                json!({"metadata": {}, "status": {"phase": phase, "containerStatuses": [container]}}),
            )
            .unwrap()
        };
        let waiting = json!({"waiting": {"reason": "ErrImagePull"}});
        assert!(!has_written(&pod("Pending", CONTAINER, 0, waiting.clone())));
        assert!(has_written(&pod("Pending", CONTAINER, 1, waiting)));
        assert!(has_written(&pod("Pending", CONTAINER, 0, json!({"running": {}}))));
        assert!(!has_written(&pod("Pending", "sidecar", 0, json!({"running": {}}))));
        assert!(has_written(&pod("Succeeded", CONTAINER, 0, json!({}))));
    }
}
