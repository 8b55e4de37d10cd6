//! Shows the instances as Pods in the store, for those who list them: an instance that is gone
//! stays for a while as an ended Pod, so that what it wrote last can be read.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
};

use futures::StreamExt;
use lambent_api::meta::{LABEL_FUNCTION, LABEL_REVISION};
use lambent_fleet::{Event, Fleet, Instance, Phase, process::output::OutputFiles};
use serde_json::{Value, json};

use crate::store::{Key, Kind, Store};

/// Ended instances that are kept of each Function.
const ENDED_KEPT: usize = 5;

/// Follows the fleet for as long as it goes on.
pub(crate) async fn follow<F: Fleet>(fleet: F, store: Store, output: OutputFiles) {
    let mut ended: HashMap<(String, String), VecDeque<(Key, String)>> = HashMap::new();
    let mut events = pin!(fleet.watch());
    while let Some(event) = events.next().await {
        match event {
            Event::Applied(instance) => show(&store, &instance, false),
            Event::Gone(instance) => {
                show(&store, &instance, true);
                let past = ended.entry((instance.namespace.clone(), instance.function.clone())).or_default();
                past.push_back((key(&instance), instance.id.uid.clone()));
                if past.len() > ENDED_KEPT
                    && let Some((key, uid)) = past.pop_front()
                {
                    output.remove(&uid);
                    let _ = store.delete(&key, None);
                }
            }
            Event::Restarted | Event::Complete => {}
        }
    }
}

/// Names of instances are used again: a Pod is named by the unique id as well.
fn key(instance: &Instance) -> Key {
    let short = instance.id.uid.rsplit('-').next().unwrap_or_default();
    Key::new(Kind::Pod, &instance.namespace, format!("{}-{short}", instance.id.name))
}

fn show(store: &Store, instance: &Instance, gone: bool) {
    let key = key(instance);
    let pod = pod(instance, gone);
    // What there is of it is replaced; it is ours alone.
    if store.replace(&key, &pod).is_err() {
        let _ = store.create(key, pod);
    }
}

fn pod(instance: &Instance, gone: bool) -> Value {
    let (phase, reason) = match &instance.phase {
        _ if gone => ("Succeeded", None),
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
    json!({
        "metadata": {
            "labels": {LABEL_FUNCTION: instance.function, LABEL_REVISION: instance.revision},
            // Whose output this is; the Pod's own uid is the store's.
            "annotations": {"dev.lambent.dev/instance": instance.id.uid},
        },
        "spec": {"containers": [{"name": "function"}]},
        "status": {
            "phase": phase,
            "reason": reason.map(|reason| &reason.reason),
            "message": reason.map(|reason| &reason.message),
            "podIP": instance.address.map(|address| address.ip()),
            "startTime": instance.created.to_string(),
            "containerStatuses": [{
                "name": "function", "image": "", "imageID": "", "ready": phase == "Running",
                "restartCount": instance.restarts, "state": state,
            }],
        },
    })
}
