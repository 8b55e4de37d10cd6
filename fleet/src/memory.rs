//! Instances that exist only in memory, for tests of those who use a fleet. They do as their
//! script says, under tokio's clock; who wants something to answer at their address brings it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use lambent_api::{InstanceRef, Reason};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::{Event, Fleet, FleetError, Instance, Order, Phase, StartError, Stop};

/// What becomes of the instances ordered from now on.
#[derive(Clone, Debug)]
pub enum Script {
    /// They run after this time.
    Starts(Duration),
    /// They have an address but never run.
    Hangs,
    /// They fail, and the fleet keeps trying.
    Fails(Reason),
    /// They end at once and don't come back.
    Ends(Reason),
    /// They are not taken.
    Refuses(Reason),
}

type AddressOf = dyn Fn(&Order) -> SocketAddr + Send + Sync;

/// A fleet in memory. Clones are the same fleet.
#[derive(Clone)]
pub struct MemoryFleet {
    state: Arc<Mutex<State>>,
    address_of: Arc<AddressOf>,
}

struct State {
    script: Script,
    instances: BTreeMap<(String, String), Entry>,
    // Not bounded, unlike what runs in production: a test ends sooner than memory does.
    watchers: Vec<UnboundedSender<Event>>,
    ordered: u64,
}

struct Entry {
    instance: Instance,
    timeout: Duration,
}

impl MemoryFleet {
    /// A fleet whose instances have the address that `address_of` says.
    pub fn new(address_of: impl Fn(&Order) -> SocketAddr + Send + Sync + 'static) -> Self {
        let state = State {
            script: Script::Starts(Duration::ZERO),
            instances: BTreeMap::new(),
            watchers: Vec::new(),
            ordered: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), address_of: Arc::new(address_of) }
    }

    /// Changes what becomes of the instances ordered from now on.
    pub fn script(&self, script: Script) {
        self.state.lock().script = script;
    }

    /// All that there is, in the order of names.
    pub fn instances(&self) -> Vec<Instance> {
        self.state.lock().instances.values().map(|entry| entry.instance.clone()).collect()
    }

    /// How many instances were ever started; repeated orders don't count.
    pub fn ordered(&self) -> u64 {
        self.state.lock().ordered
    }

    /// What someone other than its owner may do to an instance.
    pub fn set_phase(&self, instance: &InstanceRef, phase: Phase) {
        self.state.lock().change(instance, |i| i.phase = phase);
    }

    /// Tells all who watch everything again, as after a loss of the connection.
    pub fn interrupt(&self) {
        let mut state = self.state.lock();
        for event in state.everything() {
            state.tell(&event);
        }
    }

    fn begin(&self, instance: InstanceRef, script: Script, address: SocketAddr) {
        let fleet = self.clone();
        tokio::spawn(async move {
            let (phase, address) = match script {
                Script::Starts(after) => {
                    tokio::time::sleep(after).await;
                    (Phase::Running, Some(address))
                }
                Script::Hangs => (Phase::Starting, Some(address)),
                Script::Fails(reason) => (Phase::Failing(reason), None),
                Script::Ends(reason) => (Phase::Ended(reason), None),
                Script::Refuses(_) => return,
            };
            fleet.state.lock().change(&instance, |i| (i.phase, i.address) = (phase, address));
        });
    }

    fn end(&self, instance: InstanceRef, after: Duration) {
        let fleet = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            fleet.state.lock().remove(&instance);
        });
    }
}

impl Fleet for MemoryFleet {
    async fn start(&self, order: &Order) -> Result<(), StartError> {
        let address = (self.address_of)(order);
        let mut state = self.state.lock();
        let script = state.script.clone();
        if let Script::Refuses(reason) = script {
            return Err(StartError::Refused(reason));
        }
        if let Some(id) = state.add(order) {
            drop(state);
            self.begin(id, script, address);
        }
        Ok(())
    }

    async fn stop(&self, _: &str, instance: &InstanceRef, how: Stop) -> Result<(), FleetError> {
        let mut state = self.state.lock();
        let Some(timeout) = state.entry(instance).map(|entry| entry.timeout) else { return Ok(()) };
        state.change(instance, |i| i.phase = Phase::Stopping);
        drop(state);
        self.end(instance.clone(), if how == Stop::Gracefully { timeout } else { Duration::ZERO });
        Ok(())
    }

    fn watch(&self) -> impl Stream<Item = Event> + Send + 'static {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        let first = state.everything();
        state.watchers.push(sender);
        stream::iter(first).chain(stream::unfold(receiver, next))
    }
}

async fn next(mut receiver: UnboundedReceiver<Event>) -> Option<(Event, UnboundedReceiver<Event>)> {
    receiver.recv().await.map(|event| (event, receiver))
}

impl State {
    /// The new instance, or none if the name exists.
    fn add(&mut self, order: &Order) -> Option<InstanceRef> {
        let namespace = order.revision.metadata.namespace.clone().unwrap_or_default();
        let key = (namespace, order.name.clone());
        if self.instances.contains_key(&key) {
            return None;
        }
        self.ordered += 1;
        let id = InstanceRef { name: order.name.clone(), uid: format!("uid-{}", self.ordered) };
        let instance = Instance {
            id: id.clone(),
            namespace: key.0.clone(),
            function: order.revision.spec.function.clone(),
            revision: order.revision.metadata.name.clone().unwrap_or_default(),
            node: None,
            address: None,
            phase: Phase::Starting,
            placed: None,
            restarts: 0,
            created: Timestamp::now(),
        };
        self.tell(&Event::Applied(instance.clone()));
        self.instances.insert(key, Entry { instance, timeout: order.settings.timeout });
        Some(id)
    }

    fn entry(&mut self, id: &InstanceRef) -> Option<&mut Entry> {
        self.instances.values_mut().find(|entry| entry.instance.id == *id)
    }

    /// Nothing changes any more once an instance is stopping.
    fn change(&mut self, id: &InstanceRef, change: impl FnOnce(&mut Instance)) {
        let Some(entry) = self.entry(id).filter(|entry| entry.instance.phase != Phase::Stopping) else { return };
        change(&mut entry.instance);
        let event = Event::Applied(entry.instance.clone());
        self.tell(&event);
    }

    fn remove(&mut self, id: &InstanceRef) {
        let Some(instance) = self.entry(id).map(|entry| entry.instance.clone()) else { return };
        self.instances.remove(&(instance.namespace.clone(), id.name.clone()));
        self.tell(&Event::Gone(instance));
    }

    fn everything(&self) -> Vec<Event> {
        let all = self.instances.values().map(|entry| Event::Applied(entry.instance.clone()));
        [Event::Restarted].into_iter().chain(all).chain([Event::Complete]).collect()
    }

    fn tell(&mut self, event: &Event) {
        self.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    fn fleet() -> MemoryFleet {
        MemoryFleet::new(|_| "127.0.0.1:9".parse().unwrap())
    }

    fn order(name: &str) -> Order {
        let revision =
            "{apiVersion: lambent.dev/v1alpha1, kind: Revision, metadata: {namespace: shop, name: r, uid: u},
            spec: {function: hello, template: {image: a}}}";
        let spec: lambent_api::FunctionSpec = serde_yaml::from_str("image: a").unwrap();
        Order {
            name: name.to_owned(),
            revision: Arc::new(serde_yaml::from_str(revision).unwrap()),
            settings: Arc::new((&spec).try_into().unwrap()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_ordered_instance_is_shown_until_it_runs() {
        contract::an_ordered_instance_is_shown_until_it_runs(&fleet(), &order("r-0")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_order_makes_no_second_instance() {
        contract::a_repeated_order_makes_no_second_instance(&fleet(), &order("r-0")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_instance_is_shown_until_it_is_gone() {
        contract::a_stopped_instance_is_shown_until_it_is_gone(&fleet(), &order("r-0")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_a_past_instance_spares_the_new_one_of_its_name() {
        contract::stopping_a_past_instance_spares_the_new_one_of_its_name(&fleet(), &order("r-0")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_watch_says_everything_and_then_complete() {
        contract::a_new_watch_says_everything_and_then_complete(&fleet(), &order("r-0"), &order("r-1")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_stopped_by_someone_else_is_shown_stopping() {
        let fleet = fleet();
        let outside = async |id: InstanceRef| fleet.set_phase(&id, Phase::Stopping);
        let stopping = |instance: &Instance| instance.phase == Phase::Stopping;
        contract::an_instance_ended_by_someone_else_is_shown_so(&fleet, &order("r-0"), outside, stopping).await;
    }

    #[tokio::test(start_paused = true)]
    async fn scripts_are_followed() {
        let fleet = fleet();
        let reason = Reason::new("ErrImagePull", "no such image");
        fleet.script(Script::Refuses(reason.clone()));
        assert!(matches!(fleet.start(&order("r-0")).await, Err(StartError::Refused(why)) if why == reason));
        fleet.script(Script::Fails(reason.clone()));
        let mut watch = contract::Watch::new(&fleet);
        fleet.start(&order("r-0")).await.unwrap();
        let failing = watch.until("r-0 to fail", |i| i.phase == Phase::Failing(reason.clone())).await;
        assert_eq!(failing.address, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_watch_says_everything_again() {
        let fleet = fleet();
        let mut watch = contract::Watch::new(&fleet);
        fleet.start(&order("r-0")).await.unwrap();
        watch.until("r-0 to run", |i| i.phase == Phase::Running).await;
        fleet.interrupt();
        assert_eq!(watch.all().await.len(), 1);
    }
}
