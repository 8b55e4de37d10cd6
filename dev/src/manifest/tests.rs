use super::*;

fn function(spec: &str) -> String {
    format!("apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata:\n  name: hello\nspec:\n{spec}")
}

/// What is wrong with a text, each with its line.
fn problems(text: &str) -> Vec<String> {
    let contents = read(Path::new("f.yaml"), text);
    contents.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_manifest_of_one_line_of_spec_is_enough() {
    let contents = read(Path::new("f.yaml"), &function("  image: a\n"));
    assert_eq!(contents.problems, []);
    let manifest = &contents.manifests[0];
    assert_eq!(manifest.function.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(manifest.line, 4);
}

#[test]
fn each_kind_of_fault_is_told_with_its_line_and_path() {
    for (spec, expected) in [
        ("  image: a\n  concurency: 2\n", "f.yaml:7: spec.concurency: unknown field; did you mean concurrency?"),
        ("  image: a\n  concurrency: two\n", "f.yaml:7: spec.concurrency: must be a whole number, is \"two\""),
        ("  image: a\n  concurrency: 0\n", "f.yaml:7: spec.concurrency: is 0, and must be at least 1"),
        ("  port: 80\n", "f.yaml:5: spec: image is missing"),
        ("  image: ''\n", "f.yaml:6: spec.image: must not be empty"),
        ("  image: a\n  protocol: spdy\n", "f.yaml:7: spec.protocol: is \"spdy\", and must be one of "),
        ("  image: a\n  timeout: 1h\n", "f.yaml:7: spec.timeout: timeout must be more than 0s and at most 15m"),
        (
            "  image: a\n  scale:\n    min: 3\n    max: 2\n",
            "f.yaml:7: spec.scale: scale.min must not be more than scale.max",
        ),
        (
            "  image: a\n  rollout: {maxSurge: lots}\n",
            "f.yaml:7: spec.rollout.maxSurge: rollout.maxSurge must be at least 1",
        ),
        ("  image: a\n  env:\n  - name: A\n  - nam: B\n", "f.yaml:9: spec.env[1]: name is missing"),
        ("  image: a\n  env: [{name: A}, {name: A}]\n", "f.yaml:7: spec.env[1]: \"A\" is there twice"),
    ] {
        let found = problems(&function(spec));
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{spec}{found:#?}");
    }
}

#[test]
fn rules_let_pass_what_they_allow() {
    let spec = "  image: a\n  timeout: 15m\n  scale: {min: 2, max: 2, idle: 1s}\n  rollout: {maxSurge: 1}\n";
    assert_eq!(problems(&function(spec)), Vec::<String>::new());
}

#[test]
fn names_follow_the_rules_of_the_definition() {
    let named = |name: &str| function("  image: a\n").replace("hello", name);
    assert!(problems(&named(&"x".repeat(41)))[0].contains("the name must have at most 40 characters"));
    assert!(problems(&named("Hello"))[0].contains("the name must be a DNS label"));
}

#[test]
fn broken_yaml_is_told_with_its_line_also_in_a_later_document() {
    let text = format!("{}---\n# two\na: [1\nb: 2\n", function("  image: a\n"));
    let contents = read(Path::new("f.yaml"), &text);
    assert_eq!(contents.manifests.len(), 1);
    assert_eq!(contents.problems.len(), 1);
    assert!((9..=11).contains(&contents.problems[0].line), "{}", contents.problems[0]);
}

#[test]
fn other_kinds_are_not_ours() {
    let text = format!("kind: ConfigMap\napiVersion: v1\n---\n---\n{}", function("  image: a\n"));
    let contents = read(Path::new("f.yaml"), &text);
    assert_eq!((contents.others, contents.manifests.len()), (1, 1));
    assert_eq!(contents.manifests[0].line, 8);
}

#[test]
fn annotations_for_development_are_parsed_and_their_typos_found() {
    let with = |line: &str| {
        function("  image: a\n").replace("  name: hello\n", &format!("  name: hello\n  annotations:\n    {line}\n"))
    };
    let contents = read(Path::new("f.yaml"), &with("dev.lambent.dev/command: sh -c 'exec serve \"$PORT\"'"));
    let command = contents.manifests[0].annotations.command.clone().unwrap();
    assert_eq!(command, ["sh", "-c", "exec serve \"$PORT\""]);
    let found = problems(&with("dev.lambent.dev/comand: x"));
    assert!(found[0].starts_with("f.yaml:6: dev.lambent.dev/comand: not known; there are"), "{found:?}");
    assert!(problems(&with("dev.lambent.dev/command: \"sh -c 'x\""))[0].contains("f.yaml:6:"));
    assert!(problems(&with("team: 7"))[0].contains("must be a string"));
}

#[test]
fn what_is_left_empty_has_its_default_as_on_a_cluster() {
    for spec in [
        "  image: a\n  timeout:\n  scale:\n  queue: {depth: null}\n",
        "  image: a\n  env:\n  args: null\n  resources:\n  rollout: {maxSurge: }\n",
        "  image: a\n  env: [{name: A, value: }]\n  imagePullPolicy:\n  pod: {nodeSelector: {a: null}}\n",
    ] {
        let contents = read(Path::new("f.yaml"), &function(spec));
        assert_eq!(contents.problems, [], "{spec}");
        let spec = &contents.manifests[0].function.spec;
        assert_eq!((spec.timeout.to_string().as_str(), spec.scale.max, spec.queue.depth), ("30s", 100, 1000));
    }
    for (spec, expected) in [
        ("  image:\n", "f.yaml:5: spec: image is missing"),
        ("  image: a\n  concurency:\n", "f.yaml:7: spec.concurency: unknown field; did you mean concurrency?"),
        ("  image: a\n  env: [null]\n", "f.yaml:7: spec.env[0]: must be a map, is null"),
    ] {
        let found = problems(&function(spec));
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{spec}{found:#?}");
    }
}

#[test]
fn bare_words_mean_what_they_mean_to_kubectl() {
    for word in ["yes", "On", "n"] {
        let found = problems(&function(&format!("  image: a\n  env:\n  - name: A\n    value: {word}\n")));
        assert!(found[0].starts_with("f.yaml:9: spec.env[0].value: must be a string, is "), "{found:?}");
        let quoted = format!("  image: a\n  env: [{{name: A, value: '{word}'}}, {{name: B, value: \"{word}\"}}]\n");
        assert_eq!(problems(&function(&quoted)), Vec::<String>::new());
    }
    let spec = "  image: a\n  concurrency: 2.0\n  env: [{name: ä, value: nothing}]\n  pod:\n    volumes:\n    \
                - {name: v, configMap: {name: c, defaultMode: 0644}}\n";
    let contents = read(Path::new("f.yaml"), &function(spec));
    assert_eq!(contents.problems, []);
    let spec = serde_json::to_value(&contents.manifests[0].function.spec).unwrap();
    assert_eq!(spec["pod"]["volumes"][0]["configMap"]["defaultMode"], 420);
    assert_eq!(spec["concurrency"], 2);
}
