//! Shows the instances as Pods in the store, for those who list them: an instance that is gone
//! stays for a while as an ended Pod, so that what it wrote last can be read. A process that runs is
//! not ready before it answers; that is found out here as a kubelet would.

use std::{collections::HashMap, net::SocketAddr, pin::pin, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use lambent_api::meta::{LABEL_FUNCTION, LABEL_REVISION};
use lambent_compact::give_back;
use lambent_fleet::{Event, Fleet, Instance, Phase, process::output::OutputFiles};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::store::{Key, Kind, Store};

/// Ended instances that are kept of each Function.
const ENDED_KEPT: usize = 5;
/// The phase of a Pod whose instance is gone.
const ENDED: &str = "Succeeded";
/// Annotation of a Pod: the unique id of its instance.
pub(crate) const INSTANCE: &str = "dev.lambent.dev/instance";
/// Between tries to connect: nobody waits for this, as the gateway finds out by itself.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Follows the fleet for as long as it goes on.
pub(crate) async fn follow<F: Fleet>(fleet: F, store: Store, output: OutputFiles) {
    let mut answering = Answering::default();
    let mut events = pin!(fleet.watch());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            Some(instance) = answering.next() => {
                show(&store, &instance, State::Ready);
                continue;
            }
        };
        match event {
            Some(Event::Applied(instance)) => show(&store, &instance, answering.look(&instance)),
            Some(Event::Gone(instance)) => {
                answering.forget(&instance);
                show(&store, &instance, State::Gone);
                for (key, uid) in surplus(&store, &instance) {
                    output.remove(&uid);
                    let _ = store.delete(&key, None);
                }
            }
            Some(Event::Restarted | Event::Complete) => {}
            None => return,
        }
    }
}

/// What is known beside the fleet's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Silent,
    Ready,
    Gone,
}

/// Which of the running instances answer.
#[derive(Default)]
struct Answering {
    /// By their unique ids.
    running: HashMap<String, Running>,
    tries: JoinSet<Started>,
}

/// A process: the unique id of its instance, and which one of its processes it is.
type Started = (String, u32);

struct Running {
    instance: Instance,
    /// None once it has answered.
    tries: Option<AbortHandle>,
}

impl Answering {
    /// What is known of an instance that has changed. One that has begun to run is tried from now on.
    fn look(&mut self, instance: &Instance) -> State {
        let (Phase::Running, Some(address)) = (&instance.phase, instance.address) else {
            self.forget(instance);
            return State::Silent;
        };
        let uid = &instance.id.uid;
        if self.running.get(uid).is_some_and(|running| running.instance.restarts != instance.restarts) {
            self.forget(instance);
        }
        let running = self.running.entry(uid.clone()).or_insert_with(|| Running {
            instance: instance.clone(),
            tries: Some(self.tries.spawn(until_it_answers((uid.clone(), instance.restarts), address))),
        });
        running.instance = instance.clone();
        if running.tries.is_none() { State::Ready } else { State::Silent }
    }

    fn forget(&mut self, instance: &Instance) {
        let running = self.running.remove(&instance.id.uid);
        give_back(&mut self.running);
        if let Some(tries) = running.and_then(|running| running.tries) {
            tries.abort();
        }
    }

    /// The next one that has answered. May be asked again after it was cancelled.
    async fn next(&mut self) -> Option<Instance> {
        loop {
            // Those that were given up have no word.
            let Ok((uid, restarts)) = self.tries.join_next().await? else { continue };
            let running = self.running.get_mut(&uid);
            if let Some(running) = running.filter(|running| running.instance.restarts == restarts) {
                running.tries = None;
                return Some(running.instance.clone());
            }
        }
    }
}

async fn until_it_answers(process: Started, address: SocketAddr) -> Started {
    while TcpStream::connect(address).await.is_err() {
        sleep(TRY_EVERY).await;
    }
    process
}

/// Of a Function's ended instances those that ended before the last few, and whose output that is. The store
/// knows them: nothing is kept beside it for thousands of Functions that sleep.
fn surplus(store: &Store, instance: &Instance) -> Vec<(Key, String)> {
    let Instance { namespace, function, .. } = instance;
    // `<function>-<digest>-<number>-<end of the unique id>`
    let is_its = |key: &Key| key.name.rsplitn(4, '-').nth(3) == Some(function);
    let pods = store.keys_from(Kind::Pod, namespace, &format!("{function}-")).into_iter().filter(is_its);
    let mut ended: Vec<(u64, Key, String)> = pods
        .filter_map(|key| {
            let pod = store.get(&key).ok().filter(|pod| pod["status"]["phase"] == ENDED)?;
            let meta = &pod["metadata"];
            let version = meta["resourceVersion"].as_str()?.parse().ok()?;
            Some((version, key, meta["annotations"][INSTANCE].as_str()?.to_owned()))
        })
        .collect();
    ended.sort_unstable();
    ended.truncate(ended.len().saturating_sub(ENDED_KEPT));
    ended.into_iter().map(|(_, key, uid)| (key, uid)).collect()
}

/// Names of instances are used again: a Pod is named by the unique id as well.
fn key(instance: &Instance) -> Key {
    let short = instance.id.uid.rsplit('-').next().unwrap_or_default();
    Key::new(Kind::Pod, &instance.namespace, format!("{}-{short}", instance.id.name))
}

fn show(store: &Store, instance: &Instance, state: State) {
    let key = key(instance);
    let pod = pod(instance, state, Timestamp::now());
    // What there is of it is replaced; it is ours alone.
    if store.replace(&key, &pod).is_err() {
        let _ = store.create(key, pod);
    }
}

fn pod(instance: &Instance, known: State, now: Timestamp) -> Value {
    let (phase, reason) = match &instance.phase {
        _ if known == State::Gone => (ENDED, None),
        Phase::Starting | Phase::Unready => ("Pending", None),
        Phase::Running => ("Running", None),
        Phase::Failing(reason) => ("Pending", Some(reason)),
        Phase::Ended(reason) => ("Failed", Some(reason)),
        Phase::Stopping => ("Running", None),
    };
    let state = match (phase, reason) {
        (_, Some(reason)) => json!({"waiting": {"reason": reason.reason, "message": reason.message}}),
        // On its way to answer its process runs already, and writes.
        ("Running" | "Pending", None) => json!({"running": {}}),
        _ => json!({}),
    };
    let stopping = known != State::Gone && instance.phase == Phase::Stopping;
    json!({
        "metadata": {
            "deletionTimestamp": stopping.then(|| now.to_string()),
            "labels": {LABEL_FUNCTION: instance.function, LABEL_REVISION: instance.revision},
            // Whose output this is; the Pod's own uid is the store's.
            "annotations": {INSTANCE: instance.id.uid},
        },
        "spec": {"containers": [{"name": "function"}]},
        "status": {
            "phase": phase,
            "reason": reason.map(|reason| &reason.reason),
            "message": reason.map(|reason| &reason.message),
            "podIP": instance.address.map(|address| address.ip()),
            "startTime": instance.created.to_string(),
            "containerStatuses": [{
                "name": "function", "image": "", "imageID": "", "ready": known == State::Ready && instance.phase == Phase::Running,
                "restartCount": instance.restarts, "state": state,
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use lambent_api::InstanceRef;
    use tokio::net::TcpListener;

    use super::*;

    fn instance(phase: Phase, address: Option<SocketAddr>) -> Instance {
        Instance {
            id: InstanceRef { name: "hello-0123456789-0".to_owned(), uid: "u-1".to_owned() },
            namespace: "shop".to_owned(),
            function: "hello".to_owned(),
            revision: "hello-0123456789".to_owned(),
            node: None,
            address,
            phase,
            placed: None,
            restarts: 0,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_process_is_ready_when_it_answers_and_not_any_more_when_it_is_started_again() {
        let address = {
            let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
            reserved.local_addr().unwrap()
        };
        let mut answering = Answering::default();
        let running = instance(Phase::Running, Some(address));
        assert_eq!(answering.look(&running), State::Silent);
        let listener = TcpListener::bind(address).await.unwrap();
        assert_eq!(answering.next().await.unwrap(), running);
        assert_eq!(answering.look(&running), State::Ready);
        drop(listener);
        let again = Instance { restarts: 1, ..running };
        assert_eq!(answering.look(&again), State::Silent);
        answering.forget(&again);
        assert_eq!(answering.next().await, None);
    }

    #[test]
    fn of_the_ended_instances_of_a_function_the_last_few_stay() {
        let store = Store::default();
        let of = |function: &str, number: usize| {
            let mut one = instance(Phase::Running, None);
            one.id = InstanceRef { name: format!("{function}-0123456789-{number}"), uid: format!("u-{number}") };
            one.function = function.to_owned();
            one
        };
        (0..ENDED_KEPT + 2).for_each(|number| show(&store, &of("hello", number), State::Gone));
        (0..9).for_each(|number| show(&store, &of("hello-too", number), State::Gone));
        show(&store, &of("hello", 99), State::Ready);
        // It was the last to end.
        show(&store, &of("hello", 0), State::Ready);
        show(&store, &of("hello", 0), State::Gone);
        let uids = |of: &Instance| surplus(&store, of).into_iter().map(|(_, uid)| uid).collect::<Vec<_>>();
        assert_eq!(uids(&of("hello", 0)), ["u-1", "u-2"]);
        assert_eq!(uids(&of("hello-too", 0)).len(), 9 - ENDED_KEPT);
    }

    #[test]
    fn only_an_instance_that_answers_and_is_to_go_on_is_shown_ready() {
        let shown = |phase: Phase, known| {
            let pod = pod(&instance(phase, None), known, Timestamp::UNIX_EPOCH);
            let ready = pod["status"]["containerStatuses"][0]["ready"].as_bool().unwrap();
            (ready, pod["metadata"]["deletionTimestamp"].is_string())
        };
        assert_eq!(shown(Phase::Running, State::Silent), (false, false));
        assert_eq!(shown(Phase::Running, State::Ready), (true, false));
        assert_eq!(shown(Phase::Stopping, State::Silent), (false, true));
        assert_eq!(shown(Phase::Stopping, State::Gone), (false, false));
    }
}
