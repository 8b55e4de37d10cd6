//! What the agent counts.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// From a pod that is there already to one whose sandbox takes long.
const SECONDS: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 5.0, 60.0];

/// All series of the agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Questions to the container runtime.
    pub polls: IntCounter,
    /// Those that it did not answer.
    pub errors: IntCounter,
    /// Connections to gateways.
    pub links: IntGauge,
    /// Functions that are frozen.
    pub parked: IntGauge,
    /// Functions that could not be frozen.
    pub park_failures: IntCounter,
    /// Bytes of frozen functions that were pushed out.
    pub pushed_out: IntCounter,
    told: IntCounter,
    seconds: Histogram,
}

impl Metrics {
    /// Registers all series.
    ///
    /// # Errors
    /// If one of that name is there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds =
            HistogramOpts::new("lambent_node_address_seconds", "From being asked for an address to telling it");
        let metrics = Self {
            polls: IntCounter::new("lambent_node_polls_total", "Looks at the container runtime")?,
            errors: IntCounter::new("lambent_node_runtime_errors_total", "Looks that the container runtime failed")?,
            links: IntGauge::new("lambent_node_links", "Connections to gateways")?,
            parked: IntGauge::new("lambent_node_parked", "Functions that are frozen")?,
            park_failures: IntCounter::new("lambent_node_park_failures_total", "Functions that could not be frozen")?,
            pushed_out: IntCounter::new(
                "lambent_node_pushed_out_bytes_total",
                "Memory of frozen functions that was pushed out",
            )?,
            told: IntCounter::new("lambent_node_addresses_told_total", "Addresses told to gateways")?,
            seconds: Histogram::with_opts(seconds.buckets(SECONDS.to_vec()))?,
        };
        registry.register(Box::new(metrics.polls.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.links.clone()))?;
        registry.register(Box::new(metrics.parked.clone()))?;
        registry.register(Box::new(metrics.park_failures.clone()))?;
        registry.register(Box::new(metrics.pushed_out.clone()))?;
        registry.register(Box::new(metrics.told.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }

    /// A gateway was told an address that it has waited for.
    pub fn told(&self, waited: Duration) {
        self.told.inc();
        self.seconds.observe(waited.as_secs_f64());
    }
}
