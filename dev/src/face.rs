//! The store for other processes: the commands `lambent list`, `logs` and `describe`, which ask it
//! as they ask a cluster. Read-only, as the files are what a user changes; on a loopback port, for those who
//! have the token.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, StatusCode, header};
use http_body::Frame;
use http_body_util::{StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use lambent_api::FunctionKey;
use lambent_autoscaler::record::Record;
use lambent_fleet::process::output::{OutputFiles, Position};
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};

use crate::pods::INSTANCE;
use crate::store::{self, Answer, Key, Kind, Refusal, Store, pairs, whole};

/// How often a followed output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// As on a cluster, the way to the autoscaler's decisions leads through its Pod.
const DECISIONS: &str = "/api/v1/namespaces/lambent-system/pods/lambent-dev:9090/proxy/decisions/";
/// Time to send a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// What is shown.
#[derive(Clone)]
pub(crate) struct Face {
    pub(crate) store: Store,
    pub(crate) output: OutputFiles,
    pub(crate) record: Record,
    pub(crate) token: String,
}

impl Face {
    /// Answers until it is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let face = Arc::new(self);
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors: some will come free.
                sleep(LOOK_EVERY).await;
                continue;
            };
            let face = face.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = face.answer(&request.map(|_| Bytes::new()));
                    async { Ok::<_, Infallible>(answer) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
                // Whoever breaks off has what it wanted.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    fn answer(&self, request: &Request<Bytes>) -> Answer {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if shown.and_then(|value| value.strip_prefix("Bearer ")) != Some(&self.token) {
            return whole(StatusCode::UNAUTHORIZED, Bytes::from_static(b"{}"));
        }
        let path = request.uri().path();
        let result = if request.method() != Method::GET {
            Err(Refusal::MethodNotAllowed)
        } else if let Some(function) = path.strip_prefix(DECISIONS).and_then(|rest| rest.split_once('/')) {
            let decisions = self.record.decisions(&FunctionKey::new(function.0, function.1));
            decisions
                .map(|json| whole(StatusCode::OK, json.into()))
                .map_err(|error| Refusal::Invalid(error.to_string()))
        } else if let Some(pod) = path.strip_prefix("/api/v1/namespaces/").and_then(pod_of_log) {
            self.log(pod, request)
        } else {
            Ok(store::answer(&self.store, request))
        };
        result.unwrap_or_else(|refusal| whole(refusal.kind().0, refusal.status().to_string().into()))
    }

    fn log(&self, (namespace, name): (&str, &str), request: &Request<Bytes>) -> Result<Answer, Refusal> {
        let key = Key::new(Kind::Pod, namespace, name);
        let pod = self.store.get(&key)?;
        let uid = pod["metadata"]["annotations"][INSTANCE].as_str().unwrap_or_default().to_owned();
        let query = |name: &str| pairs(request.uri()).find(|(key, _)| key == name).map(|(_, value)| value);
        let timestamps = query("timestamps").is_some_and(|value| value == "true");
        let failed = |error: std::io::Error| Refusal::Invalid(error.to_string());
        let (text, position) = self.output.read(&uid, Position::default()).map_err(failed)?;
        if query("previous").is_some_and(|value| value == "true") {
            let words = "the output of all runs of an instance is one under `lambent dev`: leave --previous out";
            return Err(Refusal::BadRequest(words.to_owned()));
        }
        let since = query("sinceSeconds").and_then(|seconds| seconds.parse().ok());
        let from = since.and_then(|seconds| Timestamp::now().checked_sub(Duration::from_secs(seconds)).ok());
        let recent = from.map_or(&*text, |from| lines_since(&text, from));
        let first = last_lines(recent, query("tailLines").and_then(|count| count.parse().ok()));
        let first: Bytes = shown(first, timestamps).into();
        if query("follow").is_none_or(|value| value != "true") {
            return Ok(whole(StatusCode::OK, first));
        }
        let follow = Follow {
            store: self.store.clone(),
            key,
            output: self.output.clone(),
            uid,
            position,
            timestamps,
            last: false,
        };
        let later = stream::unfold(follow, |mut follow| async { follow.next().await.map(|text| (text, follow)) });
        let lines = futures::StreamExt::chain(stream::iter([first]), later);
        let frames = futures::StreamExt::map(lines, |text| Ok::<_, Infallible>(Frame::data(text)));
        Ok(Answer::new(UnsyncBoxBody::new(StreamBody::new(frames))))
    }
}

/// `<namespace>/pods/<name>/log`
fn pod_of_log(rest: &str) -> Option<(&str, &str)> {
    let (namespace, rest) = rest.split_once("/pods/")?;
    rest.strip_suffix("/log").map(|name| (namespace, name))
}

fn last_lines(text: &str, count: Option<usize>) -> &str {
    let Some(count) = count else { return text };
    let starts = text.rmatch_indices('\n').skip(1).map(|(at, _)| at + 1).chain([0]);
    count.checked_sub(1).map_or("", |skip| text.get(starts.into_iter().nth(skip).unwrap_or(0)..).unwrap_or(text))
}

/// The lines from this time on: they are in the order of their times.
fn lines_since(text: &str, from: Timestamp) -> &str {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let time = line.split(' ').next().and_then(|time| time.parse::<Timestamp>().ok());
        if time.is_some_and(|time| time >= from) {
            break;
        }
        start += line.len();
    }
    text.get(start..).unwrap_or_default()
}

/// `<time> <channel> F <text>` as it is to be seen.
fn shown(text: &str, timestamps: bool) -> String {
    let line = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let (time, text) = (parts.next().unwrap_or_default(), parts.nth(2).unwrap_or_default());
        if timestamps { format!("{time} {text}\n") } else { format!("{text}\n") }
    };
    text.lines().map(line).collect()
}

struct Follow {
    store: Store,
    key: Key,
    output: OutputFiles,
    uid: String,
    position: Position,
    timestamps: bool,
    last: bool,
}

impl Follow {
    /// What was written since the last time; nothing when the instance is gone.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.last {
            sleep(LOOK_EVERY).await;
            // Looked at before it is read, so that its last words are read after its end.
            let phase = self.store.get(&self.key).map(|pod| pod["status"]["phase"].clone()).unwrap_or(Value::Null);
            self.last = phase.is_null() || phase == "Succeeded";
            let (text, position) = self.output.read(&self.uid, self.position).ok()?;
            self.position = position;
            if !text.is_empty() {
                return Some(shown(&text, self.timestamps).into());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_those() {
        let text = "a\nb\nc\n";
        for (count, expected) in [(None, text), (Some(0), ""), (Some(1), "c\n"), (Some(2), "b\nc\n"), (Some(9), text)] {
            assert_eq!(last_lines(text, count), expected, "{count:?}");
        }
        let timed = "2026-01-01T00:00:00Z stdout F a\n2026-01-01T00:00:05Z stdout F b\n";
        for (from, lines) in [("2025-01-01T00:00:00Z", 2), ("2026-01-01T00:00:05Z", 1), ("2026-01-01T00:00:06Z", 0)] {
            assert_eq!(lines_since(timed, from.parse().unwrap()).lines().count(), lines, "{from}");
        }
        assert_eq!(shown("2026-01-01T00:00:00Z stdout F a b\n", false), "a b\n");
        assert_eq!(shown("2026-01-01T00:00:00Z stdout F a b\n", true), "2026-01-01T00:00:00Z a b\n");
    }
}
