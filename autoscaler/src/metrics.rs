//! What the autoscaler counts.

use lambent_api::RevisionKey;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::order::Write;

/// All series of the autoscaler.
#[derive(Clone, Debug)]
pub struct Metrics {
    decisions: IntCounterVec,
    wanted: IntGaugeVec,
}

impl Metrics {
    /// Registers all series.
    ///
    /// # Errors
    /// If one of that name is there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let decisions = Opts::new("lambent_scaling_decisions_total", "Changes of a wanted count, by reason");
        let wanted = Opts::new("lambent_wanted_instances", "Instances wanted, by Revision");
        let metrics = Self {
            decisions: IntCounterVec::new(decisions, &["reason"])?,
            wanted: IntGaugeVec::new(wanted, &["namespace", "revision"])?,
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
        self.wanted.with_label_values(&[&*revision.namespace, &*revision.name]).set(wanted.into());
    }

    /// A Revision is gone, and its series with it.
    pub fn gone(&self, revision: &RevisionKey) {
        let _ = self.wanted.remove_label_values(&[&*revision.namespace, &*revision.name]);
    }
}
