//! `lambent`'s commands for users against a cluster. What they do under `lambent dev` too is tested
//! there; here is what takes a cluster: rights, forwarded ports, the kubelet's logs.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use anyhow::ensure;
use lambent_tests::{
    Context, await_condition,
    command::{Done, lambent, lambent_command},
    with_temp_ns,
};
use serde_json::{Value, json};

async fn run(cx: &Context, arguments: &[&str]) -> Done {
    lambent(cx, &[arguments, &["-n", &cx.namespace]].concat()).await
}

#[tokio::test]
async fn list_shows_functions_as_tables_and_objects() {
    with_temp_ns(async |cx: Context| {
        let empty = run(&cx, &["list"]).await;
        assert!(empty.ok && empty.stderr.contains("has no Function"), "{empty:?}");
        cx.deploy("hello", json!({"image": cx.image("hello")})).await;
        let table = run(&cx, &["list"]).await.expect();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "READY", "REASON", "INSTANCES", "URL", "AGE"]);
        assert_eq!((lines[1][0], lines[1][1]), ("hello", "True"), "{table}");
        let list: Value = serde_json::from_str(&run(&cx, &["list", "-o", "json"]).await.expect()).expect("JSON");
        assert_eq!(list["items"][0]["metadata"]["name"], "hello");
        let all = lambent(&cx, &["list", "-A"]).await.expect();
        assert!(all.lines().any(|line| line.starts_with(&cx.namespace) && line.contains(" hello ")), "{all}");
    })
    .await;
}

/// The URL in the status is one for inside of the cluster, unless whoever installed it gave another:
/// so this goes through a forwarded port.
#[tokio::test]
async fn invoke_reaches_a_function_from_outside() {
    with_temp_ns(async |cx: Context| {
        cx.deploy("slow", json!({"image": cx.image("slow")})).await;
        let done = run(&cx, &["invoke", "slow", "-d", "{}", "--path", "/headers/a%2Fb?q=1", "-H", "X-One: 1"]).await;
        assert!(done.ok && done.stderr.contains("HTTP/1.1 200 OK"), "{done:?}");
        let request: Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert_eq!(request["method"], "POST", "{request}");
        assert_eq!(request["headers"]["x-one"], json!(["1"]), "{request}");
        let gateway = format!("http://{}", cx.gateway.authority);
        let direct = run(&cx, &["invoke", "slow", "--gateway", &gateway, "--path", "/?ms=1"]).await;
        assert!(direct.expect().contains("hostname"));
    })
    .await;
}

#[tokio::test]
async fn invoke_ends_with_22_where_the_answer_is_a_refusal() {
    with_temp_ns(async |cx: Context| {
        cx.deploy("slow", json!({"image": cx.image("slow")})).await;
        let died = run(&cx, &["invoke", "slow", "--path", "/exit?code=3"]).await;
        assert!(died.code == Some(22) && died.stderr.contains("InstanceFailed: "), "{died:?}");
        let missing = run(&cx, &["invoke", "nobody"]).await;
        let words = format!("no Function nobody is there in namespace {}; there are slow", cx.namespace);
        assert!(missing.code == Some(1) && missing.stderr.contains(&words), "{missing:?}");
    })
    .await;
}

#[tokio::test]
async fn invoke_prints_an_answer_as_it_comes() {
    with_temp_ns(async |cx: Context| {
        cx.deploy("stream", json!({"image": cx.image("stream")})).await;
        let follow = Follow::start(&cx, &["invoke", "stream", "--path", "/?count=100&interval=1000"]);
        // It would take 100 s to its end.
        await_condition("two lines", async || follow.has_lines(2)).await;
    })
    .await;
}

#[tokio::test]
async fn describe_shows_what_the_autoscaler_decided_and_why() {
    with_temp_ns(async |cx: Context| {
        let slow = cx.deploy("slow", json!({"image": cx.image("slow"), "scale": {"idle": "1s", "max": 3}})).await;
        slow.call_at_once(6, "?ms=500").await;
        await_condition("a decision in the description", async || {
            let done = run(&cx, &["describe", "slow"]).await;
            ensure!(done.ok, "{done:?}");
            let text = done.stdout;
            let words = ["Name:         slow", "\nConditions:", "\nRevisions:", "IdleWindow", "0 queued"];
            ensure!(words.iter().all(|words| text.contains(words)), "{text}");
            ensure!(!text.contains("not shown"), "{text}");
            Ok(())
        })
        .await;
        let json: Value =
            serde_json::from_str(&run(&cx, &["describe", "slow", "-o", "json"]).await.expect()).expect("JSON");
        let reasons: Vec<&str> =
            json["decisions"].as_array().expect("decisions").iter().filter_map(|d| d["reason"].as_str()).collect();
        assert!(reasons.contains(&"Backlog") && reasons.contains(&"IdleWindow"), "{reasons:?}");
        assert_eq!(json["revisions"][0]["spec"]["function"], "slow");
        assert!(json["events"].as_array().is_some_and(|events| !events.is_empty()), "{json}");
    })
    .await;
}

#[tokio::test]
async fn logs_are_printed_and_followed_over_new_instances() {
    with_temp_ns(async |cx: Context| {
        let hello = cx.deploy("hello", json!({"image": cx.image("hello"), "scale": {"min": 1}})).await;
        hello.await_instances(1).await;
        await_condition("the first line", async || {
            let done = run(&cx, &["logs", "hello"]).await;
            ensure!(done.ok && done.stdout == "hello: listening on port 8080\n", "{done:?}");
            Ok(())
        })
        .await;
        let follow = Follow::start(&cx, &["logs", "-f", "hello"]);
        await_condition("the first line", async || follow.has_lines(1)).await;
        hello.change(json!({"scale": {"min": 2}})).await;
        await_condition("the line of the second instance", async || follow.has_lines(2)).await;
        let lines = follow.lines();
        assert_eq!(lines[0], "hello: listening on port 8080");
        assert!(lines[1].starts_with("hello-") && lines[1].ends_with(" | hello: listening on port 8080"), "{lines:?}");
        let both = run(&cx, &["logs", "hello", "--tail", "1"]).await.expect();
        assert_eq!(both.lines().filter(|line| line.contains(" | hello: listening")).count(), 2, "{both}");
    })
    .await;
}

/// A command that goes on; it ends with this value.
struct Follow {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Follow {
    fn start(cx: &Context, arguments: &[&str]) -> Self {
        let mut command = lambent_command(cx, &[arguments, &["-n", &cx.namespace]].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("lambent");
        let (pipe, lines) = (child.stdout.take().expect("a pipe"), Arc::<Mutex<Vec<String>>>::default());
        let kept = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                kept.lock().expect("no panic").push(line);
            }
        });
        Self { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }

    fn has_lines(&self, count: usize) -> anyhow::Result<()> {
        let lines = self.lines();
        ensure!(lines.len() >= count, "{lines:?}");
        Ok(())
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
