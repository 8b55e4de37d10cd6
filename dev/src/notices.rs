//! What a cluster does for a Function and this machine does not, said once, by name.

use std::collections::{BTreeMap, BTreeSet};

use lambent_api::{Function, FunctionKey};

/// What a Function says that says nothing.
const DEFAULT_PORT: i32 = 8080;

/// Sentences about what these Functions ask for in vain.
pub(crate) fn notices<'a>(functions: impl Iterator<Item = (&'a Function, bool)>) -> Vec<String> {
    let mut fields: BTreeMap<String, BTreeSet<FunctionKey>> = BTreeMap::new();
    for (function, process) in functions {
        for field in ignored(function, process) {
            fields.entry(field).or_default().insert(function.key());
        }
    }
    let sentence = |(field, functions): (String, BTreeSet<FunctionKey>)| {
        let names: Vec<String> = functions.iter().map(ToString::to_string).collect();
        format!("{field} is for a cluster and has no effect here: {}", names.join(", "))
    };
    fields.into_iter().map(sentence).collect()
}

fn ignored(function: &Function, process: bool) -> Vec<String> {
    let template = &function.spec.template;
    let by_reference = template.env.iter().any(|var| var.value_from.is_some());
    // A process has our environment, a container its own.
    let (env_from, value_from) = if process {
        (
            "envFrom (set what it has in the environment of lambent dev)",
            "env valueFrom (set it in the environment of lambent dev)",
        )
    } else {
        ("envFrom (write what it has into env)", "env valueFrom (write the value into env)")
    };
    let all = [
        ("resources", template.resources.is_some()),
        ("securityContext", template.security_context.is_some()),
        ("volumeMounts", !template.volume_mounts.is_empty()),
        ("readinessProbe", template.readiness_probe.is_some()),
        ("livenessProbe", template.liveness_probe.is_some()),
        ("lifecycle", template.lifecycle.is_some()),
        (env_from, !template.env_from.is_empty()),
        (value_from, by_reference),
        ("imagePullPolicy", template.image_pull_policy.is_some()),
        ("port (the process gets a free one as PORT)", process && template.port != DEFAULT_PORT),
        (
            "workingDir (the annotation dev.lambent.dev/workdir says where it runs)",
            process && template.working_dir.is_some(),
        ),
        ("command (the annotation dev.lambent.dev/command is run)", process && !template.command.is_empty()),
        ("args (the annotation dev.lambent.dev/command is run)", process && !template.args.is_empty()),
    ];
    let parked = function.spec.scale.parked > 0;
    let all = all.into_iter().chain([("scale.parked (nothing is frozen: those instances run)", parked)]);
    let own = all.filter(|(_, is_set)| *is_set).map(|(field, _)| field.to_owned());
    own.chain(pod_fields(function)).collect()
}

/// `pod.volumes` and so on.
fn pod_fields(function: &Function) -> Vec<String> {
    let pod = serde_json::to_value(&function.spec.template.pod).unwrap_or_default();
    pod.as_object().into_iter().flat_map(|fields| fields.keys()).map(|field| format!("pod.{field}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, spec: &str) -> Function {
        let head = "apiVersion: lambent.dev/v1alpha1, kind: Function";
        serde_yaml::from_str(&format!("{{{head}, metadata: {{name: {name}, namespace: shop}}, spec: {spec}}}")).unwrap()
    }

    #[test]
    fn what_has_no_effect_is_named_with_its_functions() {
        let plain = function("plain", "{image: a}");
        let one = function("one", "{image: a, resources: {limits: {cpu: 1}}, args: [x]}");
        let two = function("two", "{image: a, resources: {}, pod: {runtimeClassName: gvisor, volumes: [{name: v}]}}");
        let said = notices([(&plain, true), (&one, false), (&two, true)].into_iter());
        assert_eq!(
            said,
            [
                "pod.runtimeClassName is for a cluster and has no effect here: shop/two",
                "pod.volumes is for a cluster and has no effect here: shop/two",
                "resources is for a cluster and has no effect here: shop/one, shop/two",
            ]
        );
    }

    #[test]
    fn what_a_process_gets_otherwise_than_a_container_is_said_of_it_alone() {
        let spec = "{image: a, workingDir: /w, port: 9000, imagePullPolicy: Always, pod: {volumes: [{name: v}]}, \
                    env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}";
        let all = function("f", spec);
        let fields = |process| -> Vec<String> {
            let said = notices([(&all, process)].into_iter());
            said.iter().filter_map(|line| line.split(" is for a cluster").next().map(str::to_owned)).collect()
        };
        assert_eq!(fields(false), ["env valueFrom (write the value into env)", "imagePullPolicy", "pod.volumes"]);
        assert_eq!(
            fields(true),
            [
                "env valueFrom (set it in the environment of lambent dev)",
                "imagePullPolicy",
                "pod.volumes",
                "port (the process gets a free one as PORT)",
                "workingDir (the annotation dev.lambent.dev/workdir says where it runs)",
            ]
        );
    }
}
