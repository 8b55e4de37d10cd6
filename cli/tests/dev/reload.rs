//! Files that change while somebody calls, and processes that stop to answer.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::support::{Dev, Files, PYTHON, get, python};

/// What callers got, without pause, while something else was done.
fn called_meanwhile(dev: &Dev, path: &str, work: impl FnOnce()) -> Vec<(u16, String)> {
    let done = AtomicBool::new(false);
    let caller = || {
        let mut answers = Vec::new();
        while !done.load(Ordering::Relaxed) {
            answers.push(get(dev.listen, path));
        }
        answers
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(caller)).collect();
        // Also when it fails, or this would never end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let answers = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        answers
    })
}

#[test]
fn no_call_fails_while_files_and_manifests_change() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", "  concurrency: 2\n"));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    let serves = |word: &str| dev.until(word, || dev.get("/fn/shop/hello").1.starts_with(word));
    let answers = called_meanwhile(&dev, "/fn/shop/hello?ms=5", || {
        for word in ["two", "three", "four"] {
            dev.files.write("main.py", &PYTHON.replace("\"one\"", &format!("\"{word}\"")));
            serves(word);
        }
        // One that can't start, and one that can't be read.
        dev.files.write("main.py", "raise Exception('no such thing')\n");
        dev.line("StartFailed");
        dev.files.write("f.yaml", "a: b: c\n");
        dev.line("f.yaml:1: mapping values are not allowed");
        dev.files.write("main.py", &PYTHON.replace("\"one\"", "os.environ[\"WORD\"]"));
        dev.files.write("f.yaml", &python("hello", "  env: [{name: WORD, value: five}]\n"));
        serves("five");
    });
    let failed: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}\n{}", failed.len(), answers.len(), dev.output());
    for word in ["one", "two", "three", "four", "five"] {
        assert!(answers.iter().any(|(_, body)| body.starts_with(word)), "{word} was never called");
    }
}

#[test]
fn a_process_that_hangs_is_replaced_and_the_next_call_is_served() {
    let files = Files::new();
    // The signal may come to another thread first, and this one go on for a moment.
    let hanging = PYTHON.replace(
        "        if \"die\"",
        "        if \"hang\" in query: os.kill(os.getpid(), signal.SIGSTOP); time.sleep(1000)\n        if \"die\"",
    );
    files.write("main.py", &hanging);
    files.write("f.yaml", &python("hello", "  timeout: 300ms\n  scale: {max: 1}\n  queue: {timeout: 60s}\n"));
    let dev = files.dev();
    let pid = |body: &str| body.split(' ').nth(1).map(str::to_owned);
    let before = pid(&dev.ok("/fn/shop/hello"));
    let (status, body) = dev.get("/fn/shop/hello?hang=1");
    assert_eq!((status, body.contains("FunctionTimeout")), (504, true), "{body}");
    assert_ne!(pid(&dev.ok("/fn/shop/hello")), before);
    let stopped = format!("/proc/{}", before.unwrap());
    dev.until("the one that hangs to go", || !fs::exists(&stopped).unwrap());
}

#[test]
fn a_function_runs_in_the_directory_that_its_annotation_names() {
    let files = Files::new();
    fs::create_dir(files.path("inner")).unwrap();
    fs::write(files.path("inner/word.txt"), "inner").unwrap();
    files.write("word.txt", "outer");
    files.write("main.py", &PYTHON.replace("\"one\"", "open(\"word.txt\").read()"));
    let manifest = python("hello", "").replace("python3 main.py", "python3 ../main.py");
    let with = |workdir: &str| {
        let annotation = format!("    dev.lambent.dev/workdir: {workdir}\n    dev.lambent.dev/watch");
        manifest.replace("    dev.lambent.dev/watch", &annotation)
    };
    files.write("f.yaml", &with("inner"));
    let dev = files.dev();
    assert!(dev.ok("/fn/shop/hello").starts_with("inner "));
    dev.files.write("f.yaml", &with("nowhere"));
    let line = dev.line("f.yaml:4: dev.lambent.dev/workdir: ");
    assert!(line.contains("nowhere: No such file"), "{line}");
    assert!(dev.ok("/fn/shop/hello").starts_with("inner "));
}

#[test]
fn yaml_that_can_not_be_read_is_told_with_the_line_of_its_error() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    dev.files.write("f.yaml", &python("hello", "  concurrency: 2: 3\n"));
    dev.line("f.yaml:11: mapping values are not allowed");
    // In a later document, whose lines are counted from the start of the file.
    let later = format!("{}---\n{}", python("hello", ""), python("other", "  env: {]\n"));
    dev.files.write("f.yaml", &later);
    dev.line("f.yaml:22: ");
    assert!(dev.ok("/fn/shop/hello").starts_with("one "));
}

#[test]
fn what_only_a_cluster_enforces_is_said_once_and_by_name() {
    let files = Files::new();
    let spec = "  resources: {limits: {memory: 64Mi}}\n  securityContext: {runAsUser: 0, runAsNonRoot: false}\n  \
                volumeMounts: [{name: v, mountPath: /v}]\n  pod: {volumes: [{name: v, emptyDir: {}}]}\n";
    files.write("f.yaml", &format!("{}---\n{}", python("hello", spec), python("other", "  resources: {}\n")));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    // Another Revision says nothing of it again.
    dev.files.write("main.py", &PYTHON.replace("\"one\"", "\"two\""));
    dev.until("the new file to serve", || dev.get("/fn/shop/hello").1.starts_with("two "));
    let output = dev.output();
    for (field, functions) in [
        ("resources", "shop/hello, shop/other"),
        ("securityContext", "shop/hello"),
        ("volumeMounts", "shop/hello"),
        ("pod.volumes", "shop/hello"),
    ] {
        let said = format!(" {field} is for a cluster and has no effect here: ");
        assert_eq!(output.matches(&said).count(), 1, "{field}: {output}");
        assert!(output.contains(&format!("{said}{functions}\n")), "{field}: {output}");
    }
    // A Function that comes later is named too.
    dev.files.write("later.yaml", &python("later", "  livenessProbe: {httpGet: {path: /, port: 8080}}\n"));
    dev.line("livenessProbe is for a cluster and has no effect here: shop/later");
}

#[test]
fn where_the_first_place_for_its_files_can_not_be_written_the_next_one_is_taken() {
    let mut files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    // Not a matter of rights, which root has everywhere.
    files.write("file", "");
    let home = files.path("home");
    files.variables.push(("XDG_RUNTIME_DIR", files.path("file/below")));
    files.variables.push(("HOME", home.clone()));
    files.without_state_dir = true;
    let variables = files.variables.clone();
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_lambent"));
    list.args(["list", "--dev", "-o", "name"]).env_remove("XDG_STATE_HOME").env_remove("LAMBENT_DEV_STATE_DIR");
    let output = list.envs(variables).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "function.lambent.dev/hello\n", "{output:?}");
    assert!(home.join(".local/state/lambent/dev").is_dir());
}

#[test]
fn where_none_of_the_places_can_be_written_the_error_names_them_all() {
    let mut files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    files.write("file", "");
    files.variables.push(("XDG_RUNTIME_DIR", files.path("file/runtime")));
    files.variables.push(("HOME", files.path("file/home")));
    files.without_state_dir = true;
    let output = files.command().args(["--listen", "127.0.0.1:0"]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    for part in ["file/runtime/lambent/dev", "file/home/.local/state/lambent/dev", "--state-dir"] {
        assert!(words.contains(part), "{part:?} is not in {words}");
    }
}
