//! `list`, `describe`, and whom commands ask.

use std::{fs, process::Stdio};

use crate::{
    Ran, command, lambent, run,
    support::{Dev, Files, PYTHON, manifest, python, wait_for},
};

#[test]
fn functions_are_listed_with_what_matters() {
    let files = Files::new();
    files.write("f.yaml", &format!("{}---\n{}", python("hello", ""), python("other", "  scale: {max: 3}\n")));
    let dev = files.dev();
    dev.until("both to be Ready", || run(&dev, &["list"]).ok().matches("True").count() == 2);
    let table = run(&dev, &["list"]).ok();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAMESPACE", "NAME", "READY", "REASON", "INSTANCES", "URL", "AGE"]);
    let url = format!("http://{}/fn/shop/hello", dev.listen);
    assert_eq!((lines[1][0], lines[1][1], lines[1][2], lines[1][5]), ("shop", "hello", "True", &*url), "{table}");
    let of_one = run(&dev, &["list", "-n", "shop", "-o", "wide"]).ok();
    assert!(of_one.starts_with("NAME ") && of_one.contains("0-3"), "{of_one}");
    assert_eq!(run(&dev, &["list", "-o", "name"]).ok(), "function.lambent.dev/hello\nfunction.lambent.dev/other\n");
    let json: serde_json::Value = serde_json::from_str(&run(&dev, &["list", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["items"][1]["metadata"]["name"], "other");
    let yaml: serde_json::Value = serde_yaml::from_str(&run(&dev, &["list", "-o", "yaml"]).ok()).unwrap();
    assert_eq!(json["items"][0]["spec"], yaml["items"][0]["spec"]);
    let empty = run(&dev, &["list", "-n", "nowhere"]);
    assert!(empty.err.contains("namespace nowhere") && empty.err.contains("lambent new"), "{empty:?}");
    assert_eq!(empty.ok(), "");
}

#[test]
fn a_description_has_revisions_instances_events_and_decisions_with_reasons() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", "  scale: {idle: 1s}\n"));
    let dev = files.dev();
    dev.ok("/fn/shop/hello");
    dev.until("its processes to go", || dev.processes().is_empty());
    // The decision, the instance's end and the status come one after the other.
    let words = [
        "Name:         hello\n",
        "down after 1s",
        "\n  Ready ",
        "1 to 0",
        "IdleWindow",
        "Ended",
        "0 queued, 0 in flight",
    ];
    let is_whole = |text: &String| words.iter().all(|words| text.contains(words));
    let shown = wait_for(|| Some(run(&dev, &["describe", "hello"]).ok()).filter(is_whole));
    let text = shown.unwrap_or_else(|| panic!("not all of {words:?} in {}", run(&dev, &["describe", "hello"]).ok()));
    assert!(!text.contains("not shown"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&run(&dev, &["describe", "hello", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["decisions"][0]["reason"], "IdleWindow");
    assert_eq!(json["revisions"][0]["spec"]["function"], "hello");
    assert!(!json["instances"].as_array().unwrap().is_empty());
    assert!(!json["events"].as_array().unwrap().is_empty(), "{json}");
    let yaml: serde_json::Value = serde_yaml::from_str(&run(&dev, &["describe", "hello", "-o", "yaml"]).ok()).unwrap();
    assert_eq!(yaml, json);
}

/// The states of its instances, in the description.
fn states(dev: &Dev) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(&run(dev, &["describe", "hello", "-o", "json"]).ok()).unwrap();
    let names = json["instances"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap());
    let text = run(dev, &["describe", "hello"]).ok();
    let line = |name: &str| text.lines().find(|line| line.contains(name)).map(str::to_owned).unwrap_or_default();
    names.filter_map(|name| line(name).split_whitespace().nth(2).map(str::to_owned)).collect()
}

#[test]
fn an_instance_is_ready_when_it_answers_and_not_while_it_stops() {
    let files = Files::new();
    files.write("main.py", &PYTHON.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"));
    files.write(
        "f.yaml",
        &manifest("hello", "echo up; while [ ! -e go ]; do sleep 0.05; done; exec python3 main.py", ""),
    );
    let dev = files.dev();
    dev.line("| up");
    // Its process runs, and does not listen.
    dev.until("it to be shown", || states(&dev) == ["Starting"]);
    dev.files.write("go", "");
    dev.until("it to answer", || states(&dev) == ["Ready"]);
    // Another Revision: the old instance is told to stop, and takes its time.
    dev.files.write("f.yaml", &python("hello", ""));
    dev.until("the old one to stop", || {
        let states = states(&dev);
        states.iter().any(|state| state == "Stopping") && states.iter().any(|state| state == "Ready")
    });
}

#[test]
fn why_a_function_is_not_ready_stands_in_the_list_and_the_description() {
    let files = Files::new();
    files.write("f.yaml", &manifest("broken", "echo no such thing; exit 3", ""));
    let dev = files.dev();
    dev.until("the reason", || run(&dev, &["list"]).ok().contains("False"));
    let described = wait_for(|| Some(run(&dev, &["describe", "broken"]).ok()).filter(|text| text.contains("Warning")));
    assert!(described.unwrap().contains("no such thing"));
}

#[test]
fn a_function_that_is_not_there_is_answered_with_those_that_are() {
    let files = Files::new();
    files.write("f.yaml", &format!("{}---\n{}", python("hello", ""), python("other", "")));
    let dev = files.dev();
    for arguments in [&["describe", "nobody"][..], &["invoke", "nobody"], &["logs", "nobody"]] {
        let words = run(&dev, arguments).failed(1);
        assert!(words.contains("no Function nobody is there; there are shop/hello, shop/other"), "{words}");
    }
    let words = run(&dev, &["describe", "shop/nobody"]).failed(1);
    assert!(words.contains("in namespace shop; there are hello, other"), "{words}");
}

#[test]
fn with_nothing_to_ask_the_error_says_how_to_have_something() {
    let state = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| -> Ran {
        lambent().args(arguments).arg("--state-dir").arg(state.path()).output().unwrap().into()
    };
    let words = run(&["list"]).failed(1);
    assert!(words.contains("lambent dev DIRECTORY") && words.contains("KUBECONFIG"), "{words}");
    let words = run(&["list", "--dev"]).failed(1);
    assert!(words.contains("no `lambent dev` runs: start one"), "{words}");
    let words = run(&["list", "--context", "prod"]).failed(1);
    assert!(words.contains("--kubeconfig"), "{words}");
    let words = run(&["list", "--kubeconfig", "/no/such/file"]).failed(1);
    assert!(words.contains("/no/such/file"), "{words}");
}

/// A kubeconfig for the API server of a `lambent dev`, which is as good as a cluster's.
fn kubeconfig(files: &Files) -> String {
    let directory = fs::read_dir(files.state.path()).unwrap().next().unwrap().unwrap().path();
    let endpoint: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(directory.join("endpoint.json")).unwrap()).unwrap();
    let (server, token) = (endpoint["server"].as_str().unwrap(), endpoint["token"].as_str().unwrap());
    let path = files.functions.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\nclusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: u, user: {{token: {token}}}}}]\n\
         contexts: [{{name: here, context: {{cluster: c, user: u, namespace: shop}}}}]\n"
    );
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_running_dev_is_asked_by_itself_which_is_said_and_a_named_cluster_goes_before_it() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    let kubeconfig = kubeconfig(&dev.files);
    let run = |arguments: &[&str]| -> Ran {
        let mut command = lambent();
        command.args(arguments).arg("--state-dir").arg(dev.files.state.path()).env("KUBECONFIG", &kubeconfig);
        command.output().unwrap().into()
    };
    let by_itself = run(&["list"]);
    assert!(
        by_itself.err.contains("asking the running `lambent dev`") && by_itself.err.contains("--context"),
        "{by_itself:?}"
    );
    assert!(by_itself.ok().starts_with("NAMESPACE"));
    // The context's namespace is the default of a cluster.
    let cluster = run(&["list", "--context", "here"]);
    assert_eq!(cluster.err, "");
    assert!(cluster.ok().starts_with("NAME "));
    dev.ok("/fn/shop/hello");
    let called = run(&["invoke", "hello", "--context", "here"]);
    assert!(called.out.starts_with("one "), "{called:?}");
    let all = run(&["list", "--kubeconfig", &kubeconfig, "--all-namespaces"]).ok();
    assert!(all.starts_with("NAMESPACE"), "{all}");
    let missing = run(&["describe", "nobody", "--context", "here"]).failed(1);
    assert!(missing.contains("in namespace shop; there are hello"), "{missing}");
    let wrong = run(&["list", "--context", "there"]).failed(1);
    assert!(wrong.contains("no context there") && wrong.contains("there are here"), "{wrong}");
}

#[test]
fn an_api_server_that_is_gone_is_named_with_a_way_out() {
    let files = Files::new();
    let dev = files.dev();
    let kubeconfig = kubeconfig(&dev.files);
    let text = fs::read_to_string(&kubeconfig).unwrap();
    drop(dev);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let ran: Ran = lambent().args(["list", "--kubeconfig"]).arg(file.path()).output().unwrap().into();
    let words = ran.failed(1);
    assert!(words.contains("the cluster here can't be reached") && words.contains("--context"), "{words}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let files = Files::new();
    files.write("f.yaml", &python("hello", ""));
    let dev = files.dev();
    let commands = [command(&dev, &["list"]), command(&dev, &["describe", "hello"])];
    let more = [&["crds"][..], &["completions", "bash"]].map(|arguments| {
        let mut command = lambent();
        command.args(arguments);
        command
    });
    for mut command in commands.into_iter().chain(more) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran: Ran =
            command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap().into();
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn completions_know_the_commands_and_their_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran: Ran = lambent().args(["completions", shell]).output().unwrap().into();
        let script = ran.ok();
        assert!(script.contains("invoke") && script.contains("all-namespaces"), "{shell}: {script}");
    }
}

#[test]
fn bash_takes_the_completions_and_completes_with_them() {
    let ran: Ran = lambent().args(["completions", "bash"]).output().unwrap().into();
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("lambent.bash");
    fs::write(&script, ran.ok()).unwrap();
    let bash = |arguments: &[&str]| -> Ran {
        let mut bash = std::process::Command::new("bash");
        bash.args(["--norc", "--noprofile"]).args(arguments).arg(&script).output().unwrap().into()
    };
    let checked = bash(&["-n"]);
    assert_eq!((checked.err.as_str(), checked.code), ("", Some(0)));
    // What bash does when somebody writes `lambent inv` and presses the tabulator.
    let press = "source \"$0\"; complete -p lambent; COMP_WORDS=(lambent inv); COMP_CWORD=1; \
                 $(complete -p lambent | sed 's/.*-F \\([^ ]*\\).*/\\1/') lambent inv lambent; echo \"${COMPREPLY[*]}\"";
    let pressed = bash(&["-c", press]).ok();
    let lines: Vec<&str> = pressed.lines().collect();
    assert!(lines[0].starts_with("complete ") && lines[0].ends_with(" lambent"), "{pressed}");
    assert_eq!(lines[1], "invoke", "{pressed}");
}
