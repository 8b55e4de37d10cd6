//! Threads that each serve callers of their own, from the first byte of a connection to its last. What a request
//! needs on its way (timers, sockets, memory, places in a run queue) is then that thread's own: the threads of
//! one shared runtime would take turns at it, and move half finished requests from one processor to the other.

use std::{
    cell::Cell,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Which thread's runtime a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home(u32);

thread_local! {
    /// Any thread that is no worker has the process's own runtime.
    static HERE: Cell<Home> = const { Cell::new(Home(0)) };
}

impl Home {
    /// Where the caller runs.
    pub fn here() -> Self {
        HERE.get()
    }
}

/// The threads.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    tasks: TaskTracker,
}

impl Workers {
    /// Starts one for each processor that the process may use. They end when the guard is dropped, with all that
    /// they are busy with.
    ///
    /// # Errors
    /// If the system allows no more threads or files.
    pub fn start() -> io::Result<(Self, DropGuard)> {
        Self::start_some(thread::available_parallelism().map_or(1, usize::from))
    }

    fn start_some(count: usize) -> io::Result<(Self, DropGuard)> {
        let end = CancellationToken::new();
        let workers = (0..count).map(|_| Worker::start(end.clone())).collect::<io::Result<_>>();
        let guard = end.drop_guard();
        Ok((Self(workers?), guard))
    }

    /// Runs a task at the worker that has the fewest.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(worker) = self.0.iter().min_by_key(|worker| worker.tasks.len()) {
            worker.tasks.spawn_on(task, &worker.runtime);
        }
    }
}

impl Worker {
    fn start(end: CancellationToken) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let home = Home(NEXT.fetch_add(1, Ordering::Relaxed));
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new().name("callers".to_owned()).spawn(move || {
            HERE.set(home);
            runtime.block_on(end.cancelled());
        })?;
        Ok(Self { runtime: handle, tasks: TaskTracker::new() })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn tasks_go_to_the_worker_that_has_the_fewest_and_end_with_it() {
        let (workers, guard) = Workers::start_some(2).unwrap();
        let (said, mut homes) = mpsc::unbounded_channel();
        for _ in 0..4 {
            let said = said.clone();
            workers.spawn(async move {
                said.send(Home::here()).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(homes.recv().await.unwrap());
        }
        assert_eq!(seen.iter().filter(|home| **home == seen[0]).count(), 2, "{seen:?}");
        assert!(!seen.contains(&Home::here()));
        drop((guard, said));
        assert_eq!(homes.recv().await, None, "what ran there was dropped");
    }
}
