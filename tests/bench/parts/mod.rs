//! The parts of the scoreboard. Each is one function from a [`Plan`] to rows.

mod burst;
mod cold;
mod crowd;
mod dev;
mod footprint;
mod hop;
mod memory;
mod overload;
mod raw;
mod rollout;
mod shape;
pub mod stream;
mod warm;

use std::{path::PathBuf, time::Duration};

use futures::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use lambent_tests::{
    Cluster, Context,
    context::{LABEL_TEST, in_namespace},
    wait::await_condition_for,
};

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
    /// Whether it needs a cluster, or runs on loopback alone.
    pub on_cluster: bool,
    /// Minutes that it takes, about.
    pub minutes: u32,
    /// Measures.
    pub run: fn(Plan) -> LocalBoxFuture<'static, Rows>,
}

/// All parts, in the order in which they run.
pub const PARTS: [Part; 11] = [
    Part {
        name: "warm",
        about: "a request through the gateway on loopback, against direct, nginx and Go's ReverseProxy",
        on_cluster: false,
        minutes: 4,
        run: |plan| Box::pin(warm::run(plan)),
    },
    Part {
        name: "stream",
        about: "64 MB down and up through the gateway on loopback, with its peak of memory",
        on_cluster: false,
        minutes: 1,
        run: |plan| Box::pin(stream::run(plan)),
    },
    Part {
        name: "memory",
        about: "the gateway's memory with 1,000 Functions",
        on_cluster: false,
        minutes: 1,
        run: |plan| Box::pin(memory::run(plan)),
    },
    Part {
        name: "dev",
        about: "lambent dev: cold starts, 100 Functions at once, memory with 1,000",
        on_cluster: false,
        minutes: 8,
        run: |plan| Box::pin(dev::run(plan)),
    },
    Part {
        name: "dev-hop",
        about: "a request through lambent dev, against direct, the gateway by itself, nginx and Go's ReverseProxy",
        on_cluster: false,
        minutes: 5,
        run: |plan| Box::pin(dev::hop(plan)),
    },
    Part {
        name: "hop",
        about: "a request through the installed gateway, against the same pod called directly",
        on_cluster: true,
        minutes: 2,
        run: |plan| Box::pin(hop::run(plan)),
    },
    Part {
        name: "cold",
        about: "a cold start, against a raw pod and a pod behind a Service",
        on_cluster: true,
        minutes: 6,
        run: |plan| Box::pin(cold::run(plan)),
    },
    Part {
        name: "crowd",
        about: "20 requests at once on one sleeping Function, and 20 sleeping Functions at once, against raw pods",
        on_cluster: true,
        minutes: 6,
        run: |plan| Box::pin(crowd::run(plan)),
    },
    Part {
        name: "burst",
        about: "100 requests at once from zero, against the best fixed number of pods",
        on_cluster: true,
        minutes: 15,
        run: |plan| Box::pin(burst::run(plan)),
    },
    Part {
        name: "overload",
        about: "five times more than capacity: goodput, refusals, a neighbour, memory, and the time after",
        on_cluster: true,
        minutes: 3,
        run: |plan| Box::pin(overload::run(plan)),
    },
    Part {
        name: "change",
        about: "failed requests in rollouts and scale-downs at 200 requests/s; idle memory and API writes",
        on_cluster: true,
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
    remove_leftovers().await?;
    in_namespace(&format!("bench-{part}"), HANGS, work).await
}

/// Namespaces of a run that was killed: what is left in them would go on taking the machine's time.
async fn remove_leftovers() -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(Cluster::from_env().await.client);
    let ours = ListParams::default().labels(LABEL_TEST);
    for name in namespaces.list_metadata(&ours).await?.items.into_iter().filter_map(|n| n.metadata.name) {
        if name.starts_with("bench-") {
            namespaces.delete(&name, &DeleteParams::background()).await?;
        }
    }
    await_condition_for(Duration::from_secs(180), "former namespaces to be gone", async || {
        let left = namespaces.list_metadata(&ours).await?.items;
        let left = left.iter().filter(|n| n.metadata.name.as_ref().is_some_and(|name| name.starts_with("bench-")));
        let count = left.count();
        anyhow::ensure!(count == 0, "{count}");
        Ok(())
    })
    .await;
    Ok(())
}

/// No part takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(3600);
