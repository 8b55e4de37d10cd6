//! Lines between gateways, and from gateways to the autoscaler: another version may have written them.

use lambent_api::signal;
use lambent_fuzz::spell;
use lambent_gateway::peers::{message, session};
use proptest::prelude::any;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, sync::mpsc, time::Instant};

use crate::check;

const WORDS: &[&str] = &[
    "{\"type\":\"hello\",\"name\":\"a\",\"boot\":1}",
    "{\"type\":\"claim\",\"seq\":1,\"members\":[\"a\"]}",
    "{\"type\":\"acquire\",\"id\":1,\"namespace\":\"a\",\"function\":\"b\",\"waited\":0.5,\"again\":false}",
    "{\"type\":\"granted\",\"id\":1,\"name\":\"a\",\"uid\":\"b\",\"revision\":\"c\",\"address\":\"127.0.0.1:1\",\"seen\":",
    ",\"addressed\":",
    ",\"answered\":",
    "{\"type\":\"refused\",\"id\":1,\"refusal\":",
    "{\"type\":\"sing\"}",
    "{\"type\":\"alive\"}",
    "{\"type\":\"load\",\"namespace\":\"a\",\"function\":\"b\",\"revision\":\"c\",\"serving\":true,\"inFlight\":1,\"queued\":",
    ",\"peakInFlight\":1,\"ready\":1,\"starting\":0",
    ",\"serviceSeconds\":",
    ",\"starts\":[{\"seconds\":",
    ",\"others\":1}]",
    "{\"type\":\"drained\",\"namespace\":\"a\",\"name\":\"b\",\"uid\":\"c\"}",
    "{\"type\":\"synced\"}",
    "\"QueueFull\"",
    "{\"depth\":3}",
    "\"type\":",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "0",
    "1",
    "-1",
    "0.5",
    "1e308",
    "-1e308",
    "1e-400",
    "18446744073709551616",
    "\n",
    "\r",
    " ",
    "\\ud800",
];

/// Whoever reads it understands what is written again in the same way.
fn reads_back<T: Serialize + DeserializeOwned>(message: &T) -> Value {
    let written = serde_json::to_string(message).expect("what was read can be written");
    assert!(!written.contains('\n'), "{written}");
    let again: T = serde_json::from_str(&written).expect("what was written can be read");
    let written: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), written);
    written
}

#[test]
fn a_line_of_another_gateway_is_understood_or_refused() {
    check(any::<Vec<u8>>(), |bytes| {
        let line = spell(&bytes, WORDS);
        match serde_json::from_slice::<message::Message>(&line) {
            // What a newer version says can't be said again.
            Ok(message::Message::Unknown) | Err(_) => {}
            Ok(message) => {
                if let message::Message::Granted(granted) = &message {
                    let now = runtime().block_on(async { Instant::now() });
                    let started = granted.started(now);
                    assert!(started.seen <= now && started.answered.is_none_or(|at| at <= now), "{started:?}");
                }
                reads_back(&message);
            }
        }
    });
}

#[test]
fn a_line_for_the_autoscaler_is_understood_or_refused() {
    check(any::<Vec<u8>>(), |bytes| {
        if let Ok(message) = serde_json::from_slice::<signal::Message>(&spell(&bytes, WORDS)) {
            reads_back(&message);
        }
    });
}

#[test]
fn a_session_ends_with_its_connection_whatever_came() {
    check(any::<Vec<Vec<u8>>>(), |chunks| {
        runtime().block_on(async {
            let (mut theirs, ours) = tokio::io::duplex(1 << 20);
            let (_sender, mut outgoing) = mpsc::unbounded_channel();
            for chunk in &chunks {
                theirs.write_all(&spell(chunk, WORDS)).await.unwrap();
            }
            theirs.shutdown().await.unwrap();
            let mut taken = 0;
            let lines = chunks.concat().len() * WORDS.len();
            // Time is paused: a session that hung would run into its own silence.
            let _ = session::run(ours, &mut outgoing, |_| taken += 1).await;
            assert!(taken <= lines);
        });
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}
