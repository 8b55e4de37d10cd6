//! What the gateway counts of agents and what they tell.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// What became of an address that an agent has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The instance is connected to there.
    Believed,
    /// The instance answered there before the API showed the address.
    Answered,
    /// The API showed the same address.
    Confirmed,
    /// The API showed another address.
    Contradicted,
    /// It came when the API had shown the address, or when it was of no use any more.
    Late,
    /// It can't be the pod's.
    Refused,
    /// Whether it can be the pod's could not be found out.
    Unchecked,
    /// Nobody had asked for it.
    Unasked,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Believed => "believed",
            Self::Answered => "answered",
            Self::Confirmed => "confirmed",
            Self::Contradicted => "contradicted",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::Unchecked => "unchecked",
            Self::Unasked => "unasked",
        }
    }
}

/// The series about agents.
#[derive(Clone, Debug)]
pub struct NodeMetrics {
    /// Connections of agents.
    pub agents: IntGauge,
    addresses: IntCounterVec,
}

impl NodeMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If one of that name is there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let agents = IntGauge::new("lambent_gateway_node_agents", "Connections of node agents")?;
        let addresses = IntCounterVec::new(
            Opts::new("lambent_gateway_early_addresses_total", "What became of addresses that node agents told"),
            &["outcome"],
        )?;
        registry.register(Box::new(agents.clone()))?;
        registry.register(Box::new(addresses.clone()))?;
        Ok(Self { agents, addresses })
    }

    /// Counts one.
    pub fn count(&self, outcome: Outcome) {
        self.addresses.with_label_values(&[outcome.label()]).inc();
    }

    #[cfg(test)]
    pub(super) fn counted(&self, outcome: Outcome) -> u64 {
        self.addresses.with_label_values(&[outcome.label()]).get()
    }
}
