use serde_json::{Value, json};

use super::*;
use crate::client::decisions::Load;

const NOW: &str = "2026-01-01T01:00:00Z";

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn description() -> Description {
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "Serving", "message": "an instance has answered",
        "lastTransitionTime": "2026-01-01T00:59:00Z",
    });
    let meta = |name: &str| json!({"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:58:00Z"});
    Description {
        function: object(json!({
            "metadata": meta("hello"),
            "spec": {"image": "registry.example/hello:1", "args": ["--fast"]},
            "status": {"conditions": [ready], "url": "http://a/fn/shop/hello", "revision": "hello-1", "instances": 1, "ready": 1},
        })),
        revisions: Ok(vec![object(json!({
            "metadata": meta("hello-1"),
            "spec": {"function": "hello", "instances": 1, "template": {"image": "registry.example/hello@sha256:1"}},
            "status": {
                "conditions": [ready], "instances": 1, "ready": 1,
                "images": {"nodes": 4, "pulled": 3, "failed": 1, "message": "no space left"},
            },
        }))]),
        instances: Ok(vec![object(json!({
            "metadata": {"name": "hello-1-0", "labels": {LABEL_REVISION: "hello-1"}},
            "status": {
                "phase": "Running", "startTime": "2026-01-01T00:59:30Z",
                "containerStatuses": [{"name": "function", "image": "", "imageID": "", "ready": true, "restartCount": 2}],
            },
        }))]),
        events: Ok(vec![object(json!({
            "metadata": {}, "eventTime": "2026-01-01T00:59:00.000000Z", "type": "Normal", "reason": "RevisionReady",
            "note": "hello-1 serves", "series": {"count": 3, "lastObservedTime": "2026-01-01T00:59:00.000000Z"},
        }))]),
        decisions: Ok(vec![Decision {
            at: "2026-01-01T00:59:50Z".parse().unwrap(),
            revision: "hello-1".to_owned(),
            from: 1,
            to: 3,
            reason: "Backlog".to_owned(),
            load: Load { queued: 4, in_flight: 1, ready: 1 },
        }]),
    }
}

#[test]
fn a_description_shows_all_that_is_known() {
    let expected = "\
Name:         hello
Namespace:    shop
URL:          http://a/fn/shop/hello
Ready:        True (Serving): an instance has answered
Age:          2m
Image:        registry.example/hello:1
Command:      --fast
Instances:    1 that answer, of 1
Scale:        0 to 100, down after 1m of less load
Concurrency:  1 per instance
Queue:        1000 at most, for 30s at most
Timeouts:     request 30s, stream 1h, start 1m
Body:         6Mi at most

Conditions:
  TYPE    STATUS   SINCE   REASON    MESSAGE
  Ready   True     60s     Serving   an instance has answered

Revisions:
  NAME      SERVES   REASON    WANTED   INSTANCES   PULLED          AGE   IMAGE
  hello-1   yes      Serving   1        1/1         3/4, 1 failed   2m    registry.example/hello@sha256:1

Instances:
  NAME        REVISION   STATE   RESTARTS   AGE
  hello-1-0   hello-1    Ready   2          30s

Events:
  AGE        TYPE     REASON          MESSAGE
  60s (x3)   Normal   RevisionReady   hello-1 serves

Decisions of the autoscaler, the last one first:
  AGE   REVISION   INSTANCES   REASON    LOAD
  10s   hello-1    1 to 3      Backlog   4 queued, 1 in flight, 1 ready
";
    let shown = text(&description(), NOW.parse().unwrap());
    assert_eq!(shown, expected, "{shown}");
}

#[test]
fn what_can_not_be_read_is_said_in_its_place() {
    let mut description = description();
    description.instances = Ok(Vec::new());
    description.decisions = Err("you may not ask the autoscaler".to_owned());
    let shown = text(&description, NOW.parse().unwrap());
    assert!(shown.contains("\nInstances: none\n"), "{shown}");
    assert!(shown.ends_with("the last one first: not shown: you may not ask the autoscaler\n"), "{shown}");
}

#[test]
fn the_state_of_an_instance_follows_the_table() {
    let waiting = json!([{"name": "function", "image": "", "imageID": "", "ready": false, "restartCount": 1,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
    let running = json!([{"name": "function", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"running": {}}}]);
    for (pod, expected) in [
        (json!({"metadata": {"deletionTimestamp": NOW}, "status": {"phase": "Running"}}), "Stopping"),
        (json!({"metadata": {}, "status": {"phase": "Succeeded"}}), "Ended"),
        (json!({"metadata": {}, "status": {"phase": "Failed", "reason": "Evicted"}}), "Evicted"),
        (json!({"metadata": {}, "status": {"phase": "Running", "containerStatuses": waiting}}), "CrashLoopBackOff"),
        (json!({"metadata": {}, "status": {"phase": "Running", "containerStatuses": running}}), "Starting"),
        (json!({"metadata": {}}), "Starting"),
    ] {
        assert_eq!(state(&object(pod.clone())), expected, "{pod}");
    }
}
