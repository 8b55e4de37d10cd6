//! What the autoscaler counts.

use std::collections::HashSet;

use lambent_api::RevisionKey;
use lambent_gauges::Gauges;
use prometheus::{IntCounterVec, Opts, Registry};

use crate::order::Write;

/// All series of the autoscaler.
#[derive(Clone, Debug)]
pub struct Metrics {
    decisions: IntCounterVec,
    wanted: Gauges<1>,
}

impl Metrics {
    /// Registers all series.
    ///
    /// # Errors
    /// If one of that name is there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let decisions = Opts::new("lambent_scaling_decisions_total", "Changes of a wanted count, by reason");
        let metrics = Self {
            decisions: IntCounterVec::new(decisions, &["reason"])?,
            wanted: Gauges::new(
                "lambent_wanted_instances",
                "Instances wanted, by Revision",
                ["namespace", "revision"],
            )?,
        };
        registry.register(Box::new(metrics.decisions.clone()))?;
        registry.register(Box::new(metrics.wanted.clone()))?;
        Ok(metrics)
    }

    /// A count was written.
    pub fn decided(&self, write: &Write) {
        self.decisions.with_label_values(&[write.reason.as_str()]).inc();
    }

    /// A count is known.
    pub fn wanted(&self, revision: &RevisionKey, wanted: u32) {
        self.wanted.set([&revision.namespace, &revision.name], [wanted.into()]);
    }

    /// A Revision is gone, and its series with it.
    pub fn gone(&self, revision: &RevisionKey) {
        self.wanted.remove([&revision.namespace, &revision.name]);
    }

    /// There are no Revisions but these.
    pub fn keep_only(&self, revisions: &HashSet<RevisionKey>) {
        self.wanted.keep_only(|[namespace, name]| revisions.contains(&RevisionKey::new(namespace, name)));
    }
}
