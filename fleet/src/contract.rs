//! What every kind of fleet must do, as cases that a test runs against one. They wait for events,
//! never for time to pass, and panic with what they were waiting for. An instance that a case
//! leaves behind is the caller's to clean up; each case needs names that nothing else uses.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use lambent_api::InstanceRef;

use crate::{Event, Fleet, Instance, Order, Phase, Stop};

/// A container that has to be pulled first, on a busy machine, and a graceful stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// A watch that can be waited on.
pub struct Watch {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

impl Watch {
    /// Begins to watch.
    pub fn new(fleet: &impl Fleet) -> Self {
        Self { events: fleet.watch().boxed() }
    }

    /// The next event.
    ///
    /// # Panics
    /// If none comes.
    pub async fn next(&mut self, what: &str) -> Event {
        match tokio::time::timeout(PATIENCE, self.events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("the watch ended while waiting for {what}"),
            Err(_) => panic!("nothing came while waiting for {what}"),
        }
    }

    /// The next change of an instance to what is waited for.
    ///
    /// # Panics
    /// If it doesn't come.
    pub async fn until(&mut self, what: &str, is_it: impl Fn(&Instance) -> bool) -> Instance {
        let search = async {
            loop {
                if let Event::Applied(instance) = self.next(what).await
                    && is_it(&instance)
                {
                    return instance;
                }
            }
        };
        within_patience(what, search).await
    }

    /// Waits until an instance is gone.
    ///
    /// # Panics
    /// If it stays.
    pub async fn until_gone(&mut self, id: &InstanceRef) {
        let search = async { while !matches!(self.next("an end").await, Event::Gone(gone) if gone.id == *id) {} };
        within_patience("an instance to be gone", search).await;
    }

    /// Everything that is said from the next `Restarted` up to `Complete`.
    ///
    /// # Panics
    /// If either doesn't come.
    pub async fn all(&mut self) -> Vec<Instance> {
        while self.next("Restarted").await != Event::Restarted {}
        let mut all = Vec::new();
        loop {
            match self.next("Complete").await {
                Event::Applied(instance) => all.push(instance),
                Event::Complete => return all,
                other => panic!("{other:?} between Restarted and Complete"),
            }
        }
    }
}

async fn within_patience<T>(what: &str, search: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, search).await {
        Ok(found) => found,
        Err(_) => panic!("waited too long for {what}"),
    }
}

async fn start(fleet: &impl Fleet, order: &Order) {
    if let Err(error) = fleet.start(order).await {
        panic!("order of {} was not taken: {error}", order.name);
    }
}

async fn stop(fleet: &impl Fleet, instance: &Instance, how: Stop) {
    if let Err(error) = fleet.stop(&instance.namespace, &instance.id, how).await {
        panic!("{} was not stopped: {error}", instance.id.name);
    }
}

async fn started(fleet: &impl Fleet, watch: &mut Watch, order: &Order) -> Instance {
    start(fleet, order).await;
    watch.until("the instance to run", |i| i.id.name == order.name && i.phase == Phase::Running).await
}

fn named<'a>(all: &'a [Instance], order: &Order) -> Vec<&'a Instance> {
    all.iter().filter(|i| i.id.name == order.name).collect()
}

/// From the order to `Running`, with an address and the names it belongs to.
///
/// # Panics
/// If the fleet doesn't do so.
pub async fn an_ordered_instance_is_shown_until_it_runs(fleet: &impl Fleet, order: &Order) {
    let mut watch = Watch::new(fleet);
    start(fleet, order).await;
    let first = watch.until("the instance to appear", |i| i.id.name == order.name).await;
    let revision = &order.revision;
    assert_eq!(Some(&first.revision), revision.metadata.name.as_ref());
    assert_eq!(Some(&first.namespace), revision.metadata.namespace.as_ref());
    assert_eq!(first.function, revision.spec.function);
    let running = match first.phase {
        Phase::Running => first.clone(),
        _ => watch.until("the instance to run", |i| i.id == first.id && i.phase == Phase::Running).await,
    };
    assert!(running.connectable().is_some(), "it runs without an address: {running:?}");
    stop(fleet, &running, Stop::Idle).await;
    watch.until_gone(&running.id).await;
}

/// An order may be repeated, when it is unknown whether it was taken.
///
/// # Panics
/// If the fleet doesn't do so.
pub async fn a_repeated_order_makes_no_second_instance(fleet: &impl Fleet, order: &Order) {
    let mut watch = Watch::new(fleet);
    let first = started(fleet, &mut watch, order).await;
    start(fleet, order).await;
    let all = Watch::new(fleet).all().await;
    let ids: Vec<_> = named(&all, order).iter().map(|i| &i.id).collect();
    assert_eq!(ids, [&first.id]);
    stop(fleet, &first, Stop::Idle).await;
    watch.until_gone(&first.id).await;
}

/// A stop is seen as `Stopping` before the end, so that nothing new is sent there; and stopping
/// what is gone is no error.
///
/// # Panics
/// If the fleet doesn't do so.
pub async fn a_stopped_instance_is_shown_until_it_is_gone(fleet: &impl Fleet, order: &Order) {
    let mut watch = Watch::new(fleet);
    let running = started(fleet, &mut watch, order).await;
    stop(fleet, &running, Stop::Gracefully).await;
    let stopping = watch.until("Stopping", |i| i.id == running.id && i.phase == Phase::Stopping).await;
    assert_eq!(stopping.connectable(), None);
    assert!(!stopping.counts());
    // It turned out to be idle: what is left of the grace is cut short.
    stop(fleet, &running, Stop::Idle).await;
    watch.until_gone(&running.id).await;
    stop(fleet, &running, Stop::Idle).await;
}

/// Names are used again; whoever stops an instance means the one that it has seen.
///
/// # Panics
/// If the fleet doesn't do so.
pub async fn stopping_a_past_instance_spares_the_new_one_of_its_name(fleet: &impl Fleet, order: &Order) {
    let mut watch = Watch::new(fleet);
    let past = started(fleet, &mut watch, order).await;
    stop(fleet, &past, Stop::Idle).await;
    watch.until_gone(&past.id).await;
    let present = started(fleet, &mut watch, order).await;
    assert_ne!(present.id.uid, past.id.uid);
    stop(fleet, &past, Stop::Idle).await;
    let all = Watch::new(fleet).all().await;
    let found = named(&all, order);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].id, found[0].counts()), (&present.id, true));
    stop(fleet, &present, Stop::Idle).await;
    watch.until_gone(&present.id).await;
}

/// Who begins to watch late knows the same as who watched from the start.
///
/// # Panics
/// If the fleet doesn't do so.
pub async fn a_new_watch_says_everything_and_then_complete(fleet: &impl Fleet, one: &Order, other: &Order) {
    let mut watch = Watch::new(fleet);
    let first = started(fleet, &mut watch, one).await;
    let second = started(fleet, &mut watch, other).await;
    let all = Watch::new(fleet).all().await;
    assert_eq!(named(&all, one).len() + named(&all, other).len(), 2, "{all:?}");
    for instance in [first, second] {
        stop(fleet, &instance, Stop::Idle).await;
        watch.until_gone(&instance.id).await;
    }
}

/// What comes from outside is seen without an order of ours: drained nodes, evictions and `kubectl delete` as
/// `Stopping`, like a stop of our own; a process that is killed by being started again in place.
///
/// # Panics
/// If the fleet doesn't do so.
pub async fn an_instance_ended_by_someone_else_is_shown_so(
    fleet: &impl Fleet,
    order: &Order,
    outside: impl AsyncFnOnce(InstanceRef),
    shown: impl Fn(&Instance) -> bool,
) {
    let mut watch = Watch::new(fleet);
    let running = started(fleet, &mut watch, order).await;
    outside(running.id.clone()).await;
    watch.until("what came from outside", |i| i.id == running.id && shown(i)).await;
    stop(fleet, &running, Stop::Idle).await;
    watch.until_gone(&running.id).await;
}
