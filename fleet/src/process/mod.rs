//! Instances as processes of this machine, for development. An order becomes a [`launch::Launch`]
//! (a pure function of the order and a free port), which a small supervisor process starts and
//! ends ([`supervise`]): it outlives neither this process nor leaves anything behind. One task looks
//! after each instance ([`life`]) and restarts its process in place with back-off, as the kubelet
//! does. Resources, users, volumes and probes are a cluster's to enforce and not done here.
//!
//! ```text
//! start -> launch -> supervisor -> process        kill -9 of us -> supervisor kills all of its own
//!            |           `-- output lines --> Output
//!          ports
//! ```

mod control;
mod crash;
pub mod engine;
pub mod launch;
mod life;
pub mod output;
mod ports;
mod session;
pub mod supervise;
mod supervised;
mod supervisors;
mod table;
pub mod task;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use lambent_api::{InstanceRef, Reason};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::{Event, Fleet, FleetError, Order, StartError, Stop};
use engine::Engines;
use output::Output;
use ports::Ports;
use supervisors::Supervisors;
use table::Table;
use task::{Task, TaskError};

/// How instances are run.
#[derive(Clone)]
pub struct Config {
    /// The program that has [`supervise::main`] behind the argument [`supervise::ARGUMENT`]: ours.
    pub supervisor: PathBuf,
    /// Runs those that are not plain processes.
    pub engine: Arc<Engines>,
    /// Takes what they write.
    pub output: Arc<dyn Output>,
}

/// The fleet of this machine. Clones are the same fleet; all of its processes end with the last
/// one, and with this process.
#[derive(Clone)]
pub struct ProcessFleet(Arc<Shared>);

struct Shared {
    config: Config,
    supervisors: Arc<Supervisors>,
    ports: Ports,
    table: Mutex<Table>,
    /// How many instances there are.
    count: watch::Sender<usize>,
}

impl ProcessFleet {
    /// A fleet without instances.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Shared {
            supervisors: Arc::new(Supervisors::new(config.supervisor.clone())),
            config,
            ports: Ports::default(),
            table: Mutex::default(),
            count: watch::Sender::new(0),
        }))
    }

    /// Runs a task to its end, under a supervisor as instances are: when this is dropped, or this process
    /// ends in whatever way, all of the task is killed. `held` is dropped when nothing of it is left.
    ///
    /// # Errors
    /// If it does not end well, or not within `limit`.
    pub async fn run_task(
        &self,
        task: Task,
        limit: Duration,
        output: impl Fn(output::Channel, &[String]) + Send + Sync + 'static,
        held: impl Send + 'static,
    ) -> Result<(), TaskError> {
        task::run(&self.0.supervisors, task, limit, Arc::new(output), held).await
    }

    /// Stops all instances and takes no order any more. Returns when the last one has ended: each
    /// gets SIGTERM now and SIGKILL after `grace`.
    pub async fn end(&self, grace: Duration) {
        self.0.table.lock().close(grace);
        self.0.supervisors.close();
        // The sender is ours, so this ends only with the condition.
        let _ = self.0.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Fleet for ProcessFleet {
    async fn start(&self, order: &Order) -> Result<(), StartError> {
        let shared = &self.0;
        let mut table = shared.table.lock();
        if table.is_closed() {
            return Err(StartError::Refused(Reason::new("Stopping", "lambent dev is stopping")));
        }
        if let Some((instance, stop)) = table.add(order) {
            shared.count.send_replace(table.len());
            drop(table);
            tokio::spawn(life::live(shared.clone(), order.clone(), instance, stop));
        }
        Ok(())
    }

    async fn stop(&self, _: &str, instance: &InstanceRef, how: Stop) -> Result<(), FleetError> {
        self.0.table.lock().stop(instance, how);
        Ok(())
    }

    fn watch(&self) -> impl Stream<Item = Event> + Send + 'static {
        let shared = self.0.clone();
        // A watcher that was too slow is told everything again.
        stream::unfold(shared, async |shared| {
            let (first, receiver) = shared.table.lock().subscribe();
            Some((stream::iter(first).chain(stream::unfold(receiver, next)), shared))
        })
        .flatten()
    }
}

async fn next(mut receiver: mpsc::Receiver<Event>) -> Option<(Event, mpsc::Receiver<Event>)> {
    receiver.recv().await.map(|event| (event, receiver))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::{Instance, Phase, contract::Watch};

    struct Nobody;

    impl Output for Nobody {
        fn lines(&self, _: &Instance, _: output::Channel, _: &[String]) {}
    }

    #[tokio::test]
    async fn where_no_port_is_free_an_instance_says_so_until_it_is_stopped() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        let supervisor = PathBuf::from("/no/such/program");
        let fleet = ProcessFleet(Arc::new(Shared {
            supervisors: Arc::new(Supervisors::new(supervisor.clone())),
            config: Config { supervisor, engine: Arc::new(Engines::Off), output: Arc::new(Nobody) },
            ports: Ports::from(taken..taken + 1),
            table: Mutex::default(),
            count: watch::Sender::new(0),
        }));
        let mut watch = Watch::new(&fleet);
        let order =
            launch::tests::order("r-0", "{image: 'process.lambent.dev/hello@sha256:0', command: [sleep, '1000']}");
        fleet.start(&order).await.unwrap();
        let failing = watch.until("it to fail", |i| matches!(i.phase, Phase::Failing(_))).await;
        assert_eq!(failing.phase, Phase::Failing(Reason::new("NoPort", "no port is free")));
        assert_eq!(failing.connectable(), None);
        fleet.stop("shop", &failing.id, Stop::Idle).await.unwrap();
        watch.until_gone(&failing.id).await;
        drop(listener);
    }
}
