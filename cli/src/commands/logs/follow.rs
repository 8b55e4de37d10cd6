//! Following the logs of all instances, those that come later too, until Ctrl-C.
//!
//! ```text
//! watch of pods -> book: which log is to be followed -> one task each --lines--> printer
//! ```

use std::{collections::HashMap, pin::pin, time::Duration};

use anyhow::bail;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::LogParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Printer, has_written, lines::Lines, restarts};
use crate::client::{Place, Target, output, refusal};

/// Logs that are followed at once.
const MOST: usize = 100;
/// Lines that wait to be printed; who writes more waits.
const WAITING: usize = 1024;
/// Before a log that broke off is asked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// So often at most, before its end is believed.
const TRIES: u32 = 5;
/// For a log to begin.
const BEGIN: Duration = Duration::from_secs(30);

struct Line {
    instance: String,
    bytes: Vec<u8>,
}

/// Prints what the pods write, until it is interrupted or can't go on.
pub(super) async fn follow(
    target: &Target,
    pods: Api<Pod>,
    selector: &str,
    now: Vec<Pod>,
    params: &LogParams,
) -> anyhow::Result<()> {
    let (sender, mut lines) = mpsc::channel(WAITING);
    let mut printer = Printer::new(now.len());
    let mut followers = Followers { pods: pods.clone(), sender, tasks: JoinSet::new(), book: Book::default() };
    for pod in now {
        followers.seen(pod, params);
    }
    // What comes later is shown from its beginning.
    let later = LogParams { tail_lines: None, since_seconds: None, ..params.clone() };
    let watch = watcher::watcher(pods, watcher::Config::default().labels(selector)).default_backoff();
    let mut watch = pin!(watch);
    let mut told = String::new();
    loop {
        tokio::select! {
            Some(line) = lines.recv() => printer.print(&line.instance, &line.bytes)?,
            Some(ended) = followers.tasks.join_next() => if let Ok(uid) = ended {
                followers.ended(&uid, &later);
            },
            Some(event) = watch.next() => match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => followers.seen(pod, &later),
                Ok(Event::Delete(pod)) => followers.book.gone(&pod.uid().unwrap_or_default()),
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => {
                    let words = refusal::chain(&error);
                    if matches!(target.place, Place::Dev { .. }) {
                        print_rest(&mut lines, &mut printer)?;
                        bail!("`lambent dev` has ended, or is just ending: start it again ({words})");
                    }
                    if told != words {
                        output::note(&format!("the watch of instances broke off and begins anew: {words}"));
                        told = words;
                    }
                }
            },
        }
    }
}

fn print_rest(lines: &mut mpsc::Receiver<Line>, printer: &mut Printer) -> anyhow::Result<()> {
    while let Ok(line) = lines.try_recv() {
        printer.print(&line.instance, &line.bytes)?;
    }
    Ok(())
}

struct Followers {
    pods: Api<Pod>,
    sender: mpsc::Sender<Line>,
    /// Each returns the uid of its pod; all end with this set.
    tasks: JoinSet<String>,
    book: Book,
}

impl Followers {
    fn seen(&mut self, pod: Pod, params: &LogParams) {
        let uid = pod.uid().unwrap_or_default();
        self.book.seen(pod);
        self.go_on(&uid, params);
    }

    fn ended(&mut self, uid: &str, params: &LogParams) {
        self.book.ended(uid);
        self.go_on(uid, params);
    }

    fn go_on(&mut self, uid: &str, params: &LogParams) {
        match self.book.next(uid) {
            Next::Nothing => {}
            Next::TooMany => output::note(&format!(
                "there are more than {MOST} instances: the others' logs are not followed; `lambent logs` without --follow \
                 prints them"
            )),
            Next::Follow(instance) => {
                let (pods, sender, params) = (self.pods.clone(), self.sender.clone(), params.clone());
                let uid = uid.to_owned();
                self.tasks.spawn(async move {
                    follow_one(&pods, &instance, params, &sender).await;
                    uid
                });
            }
        }
    }
}

/// Which logs are followed.
#[derive(Default)]
struct Book {
    known: HashMap<String, Known>,
    told_too_many: bool,
}

struct Known {
    pod: Pod,
    /// After how many restarts the container was started whose log was followed last.
    followed: Option<i32>,
    active: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Follow(String),
    TooMany,
}

impl Book {
    fn seen(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        match self.known.get_mut(&uid) {
            Some(known) => known.pod = pod,
            None => drop(self.known.insert(uid, Known { pod, followed: None, active: false })),
        }
    }

    fn gone(&mut self, uid: &str) {
        self.known.remove(uid);
    }

    fn ended(&mut self, uid: &str) {
        if let Some(known) = self.known.get_mut(uid) {
            known.active = false;
        }
    }

    /// A log ends with its container: that of the next one in the pod is another.
    fn next(&mut self, uid: &str) -> Next {
        let active = self.known.values().filter(|known| known.active).count();
        let Some(known) = self.known.get_mut(uid) else { return Next::Nothing };
        let restarts = restarts(&known.pod);
        let is_new = known.followed.is_none_or(|followed| followed < restarts);
        if known.active || !is_new || !has_written(&known.pod) {
            return Next::Nothing;
        }
        if active >= MOST {
            return if std::mem::replace(&mut self.told_too_many, true) { Next::Nothing } else { Next::TooMany };
        }
        (known.active, known.followed) = (true, Some(restarts));
        Next::Follow(known.pod.name_any())
    }
}

/// Sends the lines of one log until it ends; asks for it again where it breaks off.
async fn follow_one(pods: &Api<Pod>, instance: &str, mut params: LogParams, sender: &mpsc::Sender<Line>) {
    params.follow = true;
    for _ in 0..TRIES {
        let error = match timeout(BEGIN, pods.log_stream(instance, &params)).await {
            Ok(Ok(stream)) => match send_lines(Lines::new(Box::pin(stream)), instance, sender).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
            // The pod is gone.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return,
            Ok(Err(error)) => refusal::chain(&error),
            Err(_) => "it does not begin".to_owned(),
        };
        let broke_off = Timestamp::now();
        sleep(PAUSE).await;
        output::note(&format!("the log of {instance} broke off, going on with it: {error}"));
        (params.since_seconds, params.tail_lines, params.since_time) = (None, None, Some(broke_off));
    }
}

async fn send_lines(mut lines: Lines<'_>, instance: &str, sender: &mpsc::Sender<Line>) -> std::io::Result<()> {
    while let Some(bytes) = lines.next().await? {
        // Nobody prints any more.
        if sender.send(Line { instance: instance.to_owned(), bytes }).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, restarts: i32) -> Pod {
        let container = json!({
            "name": "function", "image": "", "imageID": "", "ready": true, "restartCount": restarts, "state": {"running": {}},
        });
        serde_json::from_value(json!({
            "metadata": {"name": format!("pod-{uid}"), "uid": uid},
            "status": {"phase": "Running", "containerStatuses": [container]},
        }))
        .unwrap()
    }

    #[test]
    fn each_container_is_followed_once_and_the_next_one_after_its_end() {
        let mut book = Book::default();
        book.seen(pod("a", 0));
        assert_eq!(book.next("a"), Next::Follow("pod-a".to_owned()));
        assert_eq!(book.next("a"), Next::Nothing);
        book.seen(pod("a", 1));
        assert_eq!(book.next("a"), Next::Nothing, "its log goes on");
        book.ended("a");
        assert_eq!(book.next("a"), Next::Follow("pod-a".to_owned()));
        book.ended("a");
        assert_eq!(book.next("a"), Next::Nothing);
        book.gone("a");
        assert_eq!(book.next("a"), Next::Nothing);
    }

    #[test]
    fn what_is_followed_at_once_is_bounded_and_said_once() {
        let mut book = Book::default();
        for number in 0..MOST {
            let uid = number.to_string();
            book.seen(pod(&uid, 0));
            assert!(matches!(book.next(&uid), Next::Follow(_)));
        }
        book.seen(pod("more", 0));
        assert_eq!((book.next("more"), book.next("more")), (Next::TooMany, Next::Nothing));
        book.ended("0");
        assert!(matches!(book.next("more"), Next::Follow(_)));
    }
}
