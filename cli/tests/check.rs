//! `lambent check` as a user has it.

#![allow(clippy::expect_used)] // Helpers of tests.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn lambent_check() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambent"));
    command.arg("check");
    command
}

fn check(text: &str) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("f.yaml");
    std::fs::write(&file, text).expect("a file");
    lambent_check().arg(&file).output().expect("lambent")
}

fn problems(text: &str) -> String {
    let output = check(text);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const GOOD: &str = "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {name: hello}\nspec:\n  image: a\n";

#[test]
fn a_good_manifest_is_well() {
    let output = check(GOOD);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 Function, well\n");
}

#[test]
fn each_problem_has_its_line_and_the_command_fails() {
    let text = problems(&format!("{GOOD}  concurency: 2\n  timeout: 1h\n"));
    assert!(text.contains("f.yaml:6: spec.concurency: unknown field; did you mean concurrency?"), "{text}");
    assert!(text.contains("f.yaml:7: spec.timeout: timeout must be more than 0s and at most 15m"), "{text}");
}

#[test]
fn the_schema_is_the_clusters() {
    for (more, words) in [
        ("  concurrency: many\n", "f.yaml:6: spec.concurrency"),
        ("  concurrency: 0\n", "f.yaml:6: spec.concurrency"),
        ("  scale:\n    min: 1\n    max: -1\n", "f.yaml:8: spec.scale.max"),
        ("  protocol: http3\n", "f.yaml:6: spec.protocol"),
        ("  env:\n  - value: x\n", "f.yaml:7: spec.env[0]"),
    ] {
        let text = problems(&format!("{GOOD}{more}"));
        assert!(text.contains(words), "{more}: {text}");
    }
    let text = problems(&GOOD.replace("  image: a\n", "  port: 80\n"));
    assert!(text.contains("image"), "{text}");
}

#[test]
fn what_is_left_empty_is_well_as_on_a_cluster() {
    let output = check(&format!("{GOOD}  timeout:\n  scale:\n  rollout: {{maxSurge: null}}\n  env:\n"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 Function, well\n");
}

#[test]
fn metadata_is_checked_as_on_a_cluster() {
    for (metadata, words) in [
        ("{name: hello, namespace: Sh_op}", "f.yaml:3: metadata.namespace: is \"Sh_op\", and must be a DNS label"),
        ("{name: hello, labels: {team: two words}}", "f.yaml:3: metadata.labels.team: is \"two words\""),
        ("{name: hello, labels: {a b: x}}", "f.yaml:3: metadata.labels.a b: is no key of labels"),
        ("{name: hello, labels: {team: yes}}", "f.yaml:3: metadata.labels.team: must be a string: write \"true\""),
        ("{name: a.b}", "the name must be a DNS label"),
    ] {
        let text = problems(&GOOD.replace("{name: hello}", metadata));
        assert!(text.contains(words), "{metadata}: {text}");
    }
}

#[test]
fn rules_over_several_fields_hold() {
    let text = problems(&format!("{GOOD}  scale: {{min: 5, max: 2}}\n"));
    assert!(text.contains("f.yaml:6: spec.scale: scale.min must not be more than scale.max"), "{text}");
    let text = problems(&GOOD.replace("name: hello", "name: Hello_World"));
    assert!(text.contains("the name must be a DNS label"), "{text}");
    let text = problems(&GOOD.replace("hello", &"a".repeat(41)));
    assert!(text.contains("at most 40 characters"), "{text}");
}

#[test]
fn all_documents_of_a_file_are_checked_with_their_own_lines() {
    let broken = GOOD.replace("image: a", "imagee: a");
    let text = problems(&format!("{GOOD}---\n{broken}---\nkind: ConfigMap\napiVersion: v1\n---\n{broken}"));
    for line in [11, 20] {
        assert!(text.contains(&format!("f.yaml:{line}: spec.imagee: unknown field; did you mean image?")), "{text}");
    }
    let output = check(&format!("{GOOD}---\n{}", GOOD.replace("hello", "other")));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 Functions, all well\n");
}

#[test]
fn yaml_that_can_not_be_read_has_a_line() {
    let text = problems(&format!("{GOOD}  timeout: 1s: 2\n"));
    assert!(text.contains("f.yaml:6: mapping values are not allowed"), "{text}");
    let text = problems(&format!("{GOOD}---\n{GOOD}  timeout: 1s: 2\n"));
    assert!(text.contains("f.yaml:12: mapping values are not allowed"), "{text}");
}

#[test]
fn standard_input_is_checked() {
    let with_input = |text: &str| {
        let mut command = lambent_check();
        command.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("lambent");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        child.wait_with_output().expect("its end")
    };
    assert!(with_input(GOOD).status.success());
    let output = with_input(&format!("{GOOD}  concurency: 2\n"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("-:6: spec.concurency"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = lambent_check().arg("/no/such/file.yaml").output().expect("lambent");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file.yaml"), "{output:?}");
}

#[test]
fn a_file_without_a_function_is_an_error_that_says_what_one_has() {
    let output = check("kind: ConfigMap\napiVersion: v1\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("apiVersion: lambent.dev/v1alpha1"), "{output:?}");
}

#[test]
fn the_examples_are_well() {
    // Cargo runs tests in their package's folder; checkouts may share what is compiled.
    let folders = std::fs::read_dir("../examples").expect("examples").flatten();
    let files: Vec<_> =
        folders.map(|folder| folder.path().join("function.yaml")).filter(|file| file.is_file()).collect();
    assert!(files.len() >= 2);
    let output = lambent_check().args(files).output().expect("lambent");
    assert!(output.status.success(), "{output:?}");
}
