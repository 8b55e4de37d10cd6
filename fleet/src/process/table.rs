//! Which instances there are, and who watches them. Knows no process and no clock.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use lambent_api::InstanceRef;
use lambent_compact::give_back;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::{Event, Instance, Order, Phase, Stop};

/// Events that a watcher may be behind before it is told everything again.
const BEHIND: usize = 8192;

/// How an instance is to end, once it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As its owner asked.
    Stop(Stop),
    /// With the whole fleet: SIGKILL after this.
    Within(Duration),
}

impl End {
    /// A later order only ever shortens what is left.
    fn replaces(self, before: Option<End>) -> bool {
        match (before, self) {
            (None, _) | (Some(End::Stop(_)), End::Within(_)) => true,
            (Some(End::Stop(Stop::Gracefully)), End::Stop(how)) => how != Stop::Gracefully,
            _ => false,
        }
    }
}

/// How an instance's task hears that it is to end.
pub(super) type EndReceiver = watch::Receiver<Option<End>>;

#[derive(Default)]
pub(super) struct Table {
    /// By their unique ids.
    instances: HashMap<String, Entry>,
    /// The ids, by namespace and name.
    names: HashMap<(String, String), String>,
    watchers: Vec<mpsc::Sender<Event>>,
    closed: bool,
}

struct Entry {
    instance: Instance,
    end: watch::Sender<Option<End>>,
}

impl Table {
    /// The new instance, or none if the name exists.
    pub(super) fn add(&mut self, order: &Order) -> Option<(Instance, EndReceiver)> {
        let namespace = order.revision.metadata.namespace.clone().unwrap_or_default();
        let key = (namespace.clone(), order.name.clone());
        if self.names.contains_key(&key) {
            return None;
        }
        let instance = Instance {
            id: InstanceRef { name: order.name.clone(), uid: Uuid::now_v7().to_string() },
            namespace,
            function: order.revision.spec.function.clone(),
            revision: order.revision.metadata.name.clone().unwrap_or_default(),
            node: None,
            address: None,
            phase: Phase::Starting,
            placed: None,
            restarts: 0,
            created: Timestamp::now(),
        };
        let (end, receiver) = watch::channel(None);
        self.names.insert(key, instance.id.uid.clone());
        self.instances.insert(instance.id.uid.clone(), Entry { instance: instance.clone(), end });
        self.tell(&Event::Applied(instance.clone()));
        Some((instance, receiver))
    }

    /// Nothing changes any more once an instance is stopping.
    pub(super) fn change(&mut self, id: &InstanceRef, change: impl FnOnce(&mut Instance)) {
        let Some(entry) = self.find(id).filter(|entry| entry.instance.phase != Phase::Stopping) else { return };
        change(&mut entry.instance);
        let event = Event::Applied(entry.instance.clone());
        self.tell(&event);
    }

    /// One that is gone, or whose name is another's by now, needs no stop.
    pub(super) fn stop(&mut self, id: &InstanceRef, how: Stop) {
        self.end(id, End::Stop(how));
    }

    fn end(&mut self, id: &InstanceRef, end: End) {
        self.change(id, |instance| instance.phase = Phase::Stopping);
        if let Some(entry) = self.find(id) {
            entry.end.send_if_modified(|before| {
                let replaces = end.replaces(*before);
                if replaces {
                    *before = Some(end);
                }
                replaces
            });
        }
    }

    /// Stops all, and takes no more.
    pub(super) fn close(&mut self, grace: Duration) {
        self.closed = true;
        let all: Vec<InstanceRef> = self.instances.values().map(|entry| entry.instance.id.clone()).collect();
        for id in all {
            self.end(&id, End::Within(grace));
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Its process has ended and will not come back.
    pub(super) fn remove(&mut self, id: &InstanceRef) {
        if let Some(Entry { instance, .. }) = self.instances.remove(&id.uid) {
            self.names.remove(&(instance.namespace.clone(), instance.id.name.clone()));
            give_back(&mut self.instances);
            give_back(&mut self.names);
            self.tell(&Event::Gone(instance));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.instances.len()
    }

    /// All that there is, and then every change; the channel closes when its receiver is too slow.
    pub(super) fn subscribe(&mut self) -> (Vec<Event>, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(BEHIND);
        self.watchers.push(sender);
        let all = self.instances.values().map(|entry| Event::Applied(entry.instance.clone()));
        ([Event::Restarted].into_iter().chain(all).chain([Event::Complete]).collect(), receiver)
    }

    fn find(&mut self, id: &InstanceRef) -> Option<&mut Entry> {
        self.instances.get_mut(&id.uid)
    }

    fn tell(&mut self, event: &Event) {
        self.watchers.retain(|watcher| watcher.try_send(event.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_only_ever_made_shorter() {
        let (gracefully, idle) = (End::Stop(Stop::Gracefully), End::Stop(Stop::Idle));
        let all = End::Within(Duration::from_secs(1));
        assert!(gracefully.replaces(None) && idle.replaces(Some(gracefully)) && all.replaces(Some(idle)));
        assert!(!gracefully.replaces(Some(idle)) && !idle.replaces(Some(all)) && !all.replaces(Some(all)));
    }

    #[test]
    fn a_watcher_that_is_too_slow_is_told_everything_again() {
        let mut table = Table::default();
        let (_, mut receiver) = table.subscribe();
        let instance = table.add(&super::super::launch::tests::order("r-0", "{image: a}")).unwrap().0;
        for _ in 0..=BEHIND {
            table.change(&instance.id, |i| i.restarts += 1);
        }
        assert!(table.watchers.is_empty());
        assert!(receiver.try_recv().is_ok());
        assert_eq!(table.subscribe().0.len(), 3);
    }
}
