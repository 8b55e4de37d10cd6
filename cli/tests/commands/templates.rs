//! `new`: each template is checked, passes its own test, and answers under `lambent dev`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    Ran, lambent, run_with_input,
    support::{Files, wait_for},
};

fn new(arguments: &[&str], directory: &Path) -> Ran {
    lambent().arg("new").args(arguments).current_dir(directory).output().unwrap().into()
}

/// A new function in a directory of functions.
fn made(template: &str) -> (Files, PathBuf) {
    let files = Files::new();
    let said = new(&["hello", "--template", template], files.functions.path()).ok();
    assert!(said.contains("lambent dev hello") && said.contains("lambent invoke hello"), "{said}");
    let directory = files.path("hello");
    let checked: Ran = lambent().arg("check").arg(directory.join("function.yaml")).output().unwrap().into();
    assert_eq!(checked.ok(), "1 Function, well\n");
    (files, directory)
}

fn passed(output: Output) {
    let ran = Ran::from(output);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
}

fn answers(files: Files) {
    let dev = files.dev();
    let called = wait_for(|| {
        Some(run_with_input(&dev, &["invoke", "hello", "-d", "-", "--path", "/a?b"], "four"))
            .filter(|ran| ran.code == Some(0))
    });
    let ran = called.unwrap_or_else(|| panic!("it does not answer:\n{}", dev.output()));
    assert_eq!(ran.ok(), "POST /a?b: Hello from hello, 4 bytes\n");
    dev.line("hello: listening on port");
}

#[test]
fn python() {
    let (files, directory) = made("python");
    passed(Command::new("python3").args(["-m", "unittest"]).current_dir(directory).output().unwrap());
    answers(files);
}

#[test]
fn node() {
    // Where there is none its files are checked with the others by the unit tests.
    if Command::new("node").arg("--version").output().is_err() {
        // Not by a macro, whose words the test's runner keeps to itself where the test passes.
        let words = "\nskipped: no node: the template was made and checked, and not run\n";
        std::io::stderr().write_all(words.as_bytes()).unwrap();
        drop(made("node"));
        return;
    }
    let (files, directory) = made("node");
    passed(Command::new("node").arg("--test").current_dir(directory).output().unwrap());
    answers(files);
}

#[test]
fn rust() {
    let (mut files, directory) = made("rust");
    // The versions that this workspace has: no registry is asked, and what is built is kept for the next run.
    // Cargo runs tests in their package's folder.
    std::fs::copy("../Cargo.lock", directory.join("Cargo.lock")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("template");
    let variables = [("CARGO_TARGET_DIR", target), ("CARGO_NET_OFFLINE", PathBuf::from("true"))];
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(&directory).envs(variables.iter().map(|(name, value)| (name, value)));
        command.output().unwrap()
    };
    passed(cargo(&["test", "--quiet"]));
    // As `lambent dev` does it; here it may take its time.
    passed(cargo(&["build", "--quiet"]));
    files.variables.extend(variables);
    answers(files);
}

#[test]
fn nothing_is_written_over_and_bad_names_are_refused_with_the_rule() {
    let directory = tempfile::tempdir().unwrap();
    new(&["hello", "-t", "python", "--dir", "."], directory.path()).ok();
    std::fs::write(directory.path().join("main.py"), "mine").unwrap();
    let words = new(&["hello", "-t", "python", "--dir", "."], directory.path()).failed(1);
    assert!(words.contains("already there: ") && words.contains("main.py, ") && words.contains("--dir"), "{words}");
    assert_eq!(std::fs::read_to_string(directory.path().join("main.py")).unwrap(), "mine");
    let words = new(&["Hello_World", "-t", "rust"], directory.path()).failed(1);
    assert!(words.contains("lower case letters, digits and '-'"), "{words}");
    assert!(!directory.path().join("Hello_World").exists());
    let words = new(&["hello", "-t", "cobol"], directory.path()).failed(2);
    assert!(words.contains("rust") && words.contains("python") && words.contains("node"), "{words}");
}
