//! Calls that go on while the test does something else. When they have begun is told by the
//! gateway's own counts.

use anyhow::ensure;
use tokio::task::JoinHandle;

use crate::{Answer, Deployed, Request, await_condition, system::System};

/// A call that has not been answered yet.
pub struct InFlight(JoinHandle<Answer>);

impl InFlight {
    /// Its answer.
    ///
    /// # Panics
    /// If there is none.
    pub async fn answer(self) -> Answer {
        self.0.await.expect("an answer to the call")
    }

    /// The caller goes away: its connection is closed.
    pub async fn leave(self) {
        self.0.abort();
        // The connection is closed when the task has ended.
        let _ = self.0.await;
    }
}

/// Where the gateway counts a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It waits.
    Queued,
    /// An instance has it.
    InFlight,
}

impl Deployed {
    /// How many requests the gateway counts there.
    ///
    /// # Errors
    /// If its metrics can't be read.
    pub async fn requests(&self, place: Place) -> anyhow::Result<usize> {
        let name = match place {
            Place::Queued => "lambent_requests_queued",
            Place::InFlight => "lambent_requests_in_flight",
        };
        let labels = [("namespace", self.namespace()), ("function", &*self.name)];
        let count = System::new(self.cluster()).metric("gateway", name, &labels).await?;
        Ok(count.unwrap_or(0.0) as usize)
    }

    /// Waits until the gateway counts so many requests there.
    ///
    /// # Panics
    /// If that doesn't come true.
    pub async fn await_requests(&self, place: Place, count: usize) {
        await_condition(format!("{count} requests {place:?}"), async || {
            let now = self.requests(place).await?;
            ensure!(now == count, "{now}");
            Ok(())
        })
        .await;
    }

    /// Calls it and returns when an instance has the request. No other call may be in flight then.
    pub async fn start(&self, rest: &str) -> InFlight {
        let call = self.call_in_background(rest);
        self.await_requests(Place::InFlight, 1).await;
        call
    }

    /// Calls it and returns when so many requests wait.
    pub async fn enqueue(&self, rest: &str, queued: usize) -> InFlight {
        let call = self.call_in_background(rest);
        self.await_requests(Place::Queued, queued).await;
        call
    }

    /// Calls it without waiting for anything.
    pub fn call_in_background(&self, rest: &str) -> InFlight {
        let (gateway, path) = (self.cluster().gateway.clone(), self.path(rest));
        InFlight(tokio::spawn(async move { gateway.send(Request::get(&path)).await }))
    }
}
