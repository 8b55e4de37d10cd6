//! What happens to Functions, for whoever looks: the controller's Events as lines, and the table.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use lambent_api::{ConditionType, Conditions, Function, FunctionKey};
use lambent_fleet::{
    Instance,
    process::output::{Channel, Output, OutputFiles},
};
use prometheus::Registry;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::{
    manifest::PLACE,
    screen::{Row, Screen, Size},
    stats,
    store::{Key, Kind, Store},
};

/// How often the table is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// Says what Events say; of a warning also where the manifest is.
pub(crate) async fn tell_events(client: Client, store: Store) {
    let events = watcher(Api::<Event>::all(client), watcher::Config::default()).default_backoff().applied_objects();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue };
        let about = event.regarding.unwrap_or_default();
        let key = FunctionKey::new(about.namespace.unwrap_or_default(), about.name.unwrap_or_default());
        let note = event.note.unwrap_or_default();
        if event.type_.as_deref() != Some("Warning") {
            info!("{key}: {note}");
            continue;
        }
        let reason = event.reason.unwrap_or_default();
        match place(&store, &key) {
            Some(place) => warn!("{place}: {key}: {reason}: {note}"),
            None => warn!("{key}: {reason}: {note}"),
        }
    }
}

fn place(store: &Store, function: &FunctionKey) -> Option<String> {
    let FunctionKey { namespace, name } = function.clone();
    let function = store.get(&Key::new(Kind::Function, namespace, name)).ok()?;
    Some(function["metadata"]["annotations"][PLACE].as_str()?.to_owned())
}

/// Draws the table.
pub(crate) async fn draw(screen: Screen, store: Store, registry: Registry) {
    let mut tick = interval(DRAW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        screen.show(&rows(&store, &registry), size());
    }
}

fn rows(store: &Store, registry: &Registry) -> Vec<Row> {
    let mut stats = stats::gather(registry);
    let functions = store.keys(Kind::Function).into_iter().filter_map(|key| store.get(&key).ok());
    let row = |function: Function| {
        let key = function.key();
        let status = function.status.unwrap_or_default();
        let stalled = status.conditions.find(ConditionType::Stalled).filter(|condition| condition.status == "True");
        Row {
            stats: stats.remove(&key).unwrap_or_default(),
            url: status.url.unwrap_or_default(),
            trouble: stalled.map(|condition| format!("{}: {}", condition.reason, condition.message)),
            key,
        }
    };
    functions.filter_map(|function| serde_json::from_value(function).ok()).map(row).collect()
}

/// Asked for each time: a window is made larger and smaller. What a terminal does not say is as of old.
fn size() -> Size {
    let told = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let or = |told: Option<u16>, default| told.map(usize::from).filter(|told| *told > 0).unwrap_or(default);
    Size { columns: or(told.map(|size| size.ws_col), 80), lines: or(told.map(|size| size.ws_row), 24) }
}

/// Keeps what instances write, and shows it.
pub(crate) struct Shown(pub(crate) OutputFiles);

impl Output for Shown {
    fn lines(&self, from: &Instance, channel: Channel, lines: &[String]) {
        if let Err(error) = self.0.append(&from.id.uid, channel, lines, jiff::Timestamp::now()) {
            warn!(%error, "what an instance wrote can't be kept");
        }
        // The last word of its name tells instances of one Function apart.
        let number = from.id.name.rsplit('-').next().unwrap_or_default();
        for line in lines {
            info!(target: "output", "{}-{number} | {line}", from.function);
        }
    }
}
