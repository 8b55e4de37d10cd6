//! The parts of the scoreboard. Each is one function from a [`Plan`] to rows.

mod burst;
mod cold;
mod crowd;
mod footprint;
mod hop;
mod memory;
mod overload;
mod raw;
mod rollout;
mod shape;
mod stream;
mod warm;

use std::{path::PathBuf, time::Duration};

use futures::future::LocalBoxFuture;
use lambent_tests::{Context, context::in_namespace};

use crate::row::Row;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Fewer and shorter slices: for trying out, not for the record.
    pub quick: bool,
    /// How long an overload lasts.
    pub overload: Duration,
    /// For files of a run.
    pub folder: PathBuf,
}

impl Plan {
    /// One number for the record, another one for trying out.
    pub fn rounds(&self, record: usize, quick: usize) -> usize {
        if self.quick { quick } else { record }
    }
}

/// Result of a part.
pub type Rows = anyhow::Result<Vec<Row>>;

/// One part.
pub struct Part {
    /// What to say to `--only`.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Minutes that it takes, about.
    pub minutes: u32,
    /// Measures.
    pub run: fn(Plan) -> LocalBoxFuture<'static, Rows>,
}

/// All parts, in the order in which they run.
pub const PARTS: [Part; 9] = [
    Part {
        name: "warm",
        about: "a request through the gateway on loopback, against direct, nginx and Go's ReverseProxy",
        minutes: 4,
        run: |plan| Box::pin(warm::run(plan)),
    },
    Part {
        name: "stream",
        about: "64 MB down and up through the gateway on loopback, with its peak of memory",
        minutes: 2,
        run: |plan| Box::pin(stream::run(plan)),
    },
    Part {
        name: "memory",
        about: "the gateway's memory with 1,000 Functions",
        minutes: 1,
        run: |plan| Box::pin(memory::run(plan)),
    },
    Part {
        name: "hop",
        about: "a request through the installed gateway, against the same pod called directly",
        minutes: 2,
        run: |plan| Box::pin(hop::run(plan)),
    },
    Part {
        name: "cold",
        about: "a cold start, against a raw pod and a pod behind a Service",
        minutes: 6,
        run: |plan| Box::pin(cold::run(plan)),
    },
    Part {
        name: "crowd",
        about: "20 requests at once on one sleeping Function, and 20 sleeping Functions at once, against raw pods",
        minutes: 6,
        run: |plan| Box::pin(crowd::run(plan)),
    },
    Part {
        name: "burst",
        about: "100 requests at once from zero, against the best fixed number of pods",
        minutes: 15,
        run: |plan| Box::pin(burst::run(plan)),
    },
    Part {
        name: "overload",
        about: "five times more than capacity: goodput, refusals, a neighbour, memory, and the time after",
        minutes: 3,
        run: |plan| Box::pin(overload::run(plan)),
    },
    Part {
        name: "change",
        about: "failed requests in rollouts and scale-downs at 200 requests/s; idle memory and API writes",
        minutes: 6,
        run: |plan| {
            Box::pin(async {
                let mut rows = rollout::run(plan.clone()).await?;
                rows.extend(footprint::run(plan).await?);
                Ok(rows)
            })
        },
    },
];

/// A namespace of a part's own on the cluster.
async fn on_cluster<F: Future<Output = Rows>>(part: &str, work: impl FnOnce(Context) -> F) -> Rows {
    in_namespace(&format!("bench-{part}"), HANGS, work).await
}

/// No part takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(3600);
