//! Changes that come otherwise than by saving a file.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::{Dev, Files, PYTHON, python};

/// A function whose program is in a directory of its own.
fn in_directory(watch: &str) -> Dev {
    let files = Files::new();
    fs::create_dir(files.path("src")).unwrap();
    fs::write(files.path("src/main.py"), PYTHON).unwrap();
    let manifest = python("hello", "").replace("exec python3 main.py", "exec python3 src/main.py");
    files.write("f.yaml", &manifest.replace("watch: main.py", &format!("watch: {watch}")));
    let dev = files.dev();
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    dev
}

fn word(word: &str) -> String {
    PYTHON.replace("\"one\"", &format!("\"{word}\""))
}

#[test]
fn a_watched_file_that_comes_back_is_seen() {
    let dev = in_directory("src/main.py");
    fs::remove_file(dev.files.path("src/main.py")).unwrap();
    dev.line("dev.lambent.dev/watch: ");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
    fs::write(dev.files.path("src/main.py"), word("two")).unwrap();
    dev.until("the new file to serve", || dev.get("/fn/shop/hello").1.starts_with("two "));
}

#[test]
fn a_watched_directory_that_another_takes_the_place_of_goes_on_being_watched() {
    let dev = in_directory("src");
    fs::create_dir(dev.files.path("next")).unwrap();
    fs::write(dev.files.path("next/main.py"), word("two")).unwrap();
    fs::rename(dev.files.path("src"), dev.files.path("before")).unwrap();
    fs::rename(dev.files.path("next"), dev.files.path("src")).unwrap();
    dev.until("the new directory to serve", || dev.get("/fn/shop/hello").1.starts_with("two "));
    fs::write(dev.files.path("src/main.py"), word("three")).unwrap();
    dev.until("its change to serve", || dev.get("/fn/shop/hello").1.starts_with("three "));
}

#[test]
fn the_directory_of_manifests_may_be_replaced() {
    let files = Files::new();
    let served = files.path("served");
    fs::create_dir(&served).unwrap();
    let manifest = |name: &str| python(name, "").replace("exec python3 main.py", "exec python3 ../main.py");
    let manifest = |name: &str| manifest(name).replace("watch: main.py", "watch: ../main.py");
    fs::write(served.join("f.yaml"), manifest("hello")).unwrap();
    let dev = Files { served: Some(served.clone()), ..files }.dev();
    dev.ok("/fn/shop/hello");
    fs::rename(&served, dev.files.path("before")).unwrap();
    dev.line("the files can't be read; what runs goes on");
    dev.ok("/fn/shop/hello");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("g.yaml"), manifest("other")).unwrap();
    dev.ok("/fn/shop/other");
    dev.until("the old one to go", || dev.get("/fn/shop/hello").0 == 404);
}

#[test]
fn a_program_that_is_replaced_while_it_runs_goes_on_with_its_own_parts() {
    let mut files = Files::new();
    let program = files.path("lambent");
    fs::copy(&files.program, &program).unwrap();
    files.program.clone_from(&program);
    let dev = files.dev();
    fs::remove_file(&program).unwrap();
    fs::write(&program, "another version").unwrap();
    dev.files.write("f.yaml", &python("hello", ""));
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
}

#[test]
fn an_engine_is_looked_for_when_the_first_image_comes() {
    let mut files = Files::new();
    let programs = tempfile::tempdir().unwrap();
    let podman = programs.path().join("podman");
    let script = "#!/bin/sh\n[ \"$1\" = run ] || exit 0\nfor word; do case $word in 127.0.0.1:*:*) word=${word#*:}; \
                  export PORT=${word%:*};; esac; done\nexec python3 MAIN\n";
    fs::write(&podman, script.replace("MAIN", &files.path("main.py").display().to_string())).unwrap();
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    files.variables.push(("PATH", format!("{}:{path}", programs.path().display()).into()));
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    let image = "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {name: other, namespace: shop}\n";
    dev.files.write("g.yaml", &format!("{image}spec: {{image: hello}}\n"));
    assert!(dev.ok("/fn/shop/other").starts_with("one "));
}

#[test]
fn without_an_engine_an_image_is_told_why_it_can_not_run() {
    let files = Files::new();
    let image = "apiVersion: lambent.dev/v1alpha1\nkind: Function\nmetadata: {name: other, namespace: shop}\n";
    files.write("g.yaml", &format!("{image}spec: {{image: hello}}\n"));
    let dev = files.dev_with(&["--engine", "process"]);
    dev.line(
        "shop/other can't run here: it has no annotation dev.lambent.dev/command, and --engine process runs no images",
    );
    let (status, body) = dev.get("/fn/shop/other");
    assert!(status == 503 && body.contains("leave out --engine process"), "{status} {body}");
}
