//! `lambent check` as a user has it.

#![allow(clippy::expect_used)] // Helpers of tests.

use std::process::{Command, Output};

fn check(text: &str) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("f.yaml");
    std::fs::write(&file, text).expect("a file");
    Command::new(env!("CARGO_BIN_EXE_lambent")).arg("check").arg(&file).output().expect("lambent")
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
    let output = check(&format!("{GOOD}  concurency: 2\n  timeout: 1h\n"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(text.contains("f.yaml:6: spec.concurency: unknown field; did you mean concurrency?"), "{text}");
    assert!(text.contains("f.yaml:7: spec.timeout: timeout must be more than 0s and at most 15m"), "{text}");
}

#[test]
fn a_file_without_a_function_is_an_error_that_says_what_one_has() {
    let output = check("kind: ConfigMap\napiVersion: v1\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("apiVersion: lambent.dev/v1alpha1"), "{output:?}");
}

#[test]
fn the_examples_are_well() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let folders = std::fs::read_dir(examples).expect("examples").flatten();
    let files: Vec<_> =
        folders.map(|folder| folder.path().join("function.yaml")).filter(|file| file.is_file()).collect();
    assert!(files.len() >= 2);
    let output = Command::new(env!("CARGO_BIN_EXE_lambent")).arg("check").args(files).output().expect("lambent");
    assert!(output.status.success(), "{output:?}");
}
