//! What the controller counts.

use lambent_api::FunctionKey;
use lambent_gauges::Gauges;
use prometheus::{Error, Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use crate::{
    plan::Why,
    pull::{Outcome, Verdict},
    status::Counts,
};

const STATES: [&str; 6] = ["ready", "parked", "starting", "unready", "failing", "stopping"];
/// From a look that changes nothing to a batch of starts at a slow API server.
const SECONDS: [f64; 10] = [0.0005, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// How an order went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// Taken.
    Started,
    /// Refused by quota or admission.
    Refused,
    /// The fleet could not be asked.
    Failed,
}

/// All metrics of the controller.
#[derive(Clone)]
pub(crate) struct Metrics {
    instances: Gauges<6>,
    starts: IntCounterVec,
    stops: IntCounterVec,
    image_pulls: IntCounterVec,
    /// How long one look at a Function took.
    pub(crate) reconcile: Histogram,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(registry: &Registry) -> Result<Self, Error> {
        let starts = Opts::new("lambent_instance_starts_total", "Instances ordered, by result");
        let stops = Opts::new("lambent_instance_stops_total", "Instances stopped, by reason");
        let image_pulls = Opts::new("lambent_image_pulls_total", "Pods that pulled an image ahead, by result");
        let reconcile = HistogramOpts::new("lambent_reconcile_seconds", "How long one look at a Function took");
        let metrics = Self {
            instances: Gauges::by_state(
                "lambent_instances",
                "Instances of a Function by state",
                ["namespace", "function"],
                "state",
                STATES,
            )?,
            starts: IntCounterVec::new(starts, &["result"])?,
            stops: IntCounterVec::new(stops, &["reason"])?,
            image_pulls: IntCounterVec::new(image_pulls, &["result"])?,
            reconcile: Histogram::with_opts(reconcile.buckets(SECONDS.to_vec()))?,
        };
        registry.register(Box::new(metrics.instances.clone()))?;
        registry.register(Box::new(metrics.starts.clone()))?;
        registry.register(Box::new(metrics.stops.clone()))?;
        registry.register(Box::new(metrics.image_pulls.clone()))?;
        registry.register(Box::new(metrics.reconcile.clone()))?;
        Ok(metrics)
    }

    /// Takes them away again, so that whoever leads again later can register them.
    pub(crate) fn unregister(&self, registry: &Registry) {
        // What is not there any more needs no taking away.
        let _ = registry.unregister(Box::new(self.instances.clone()));
        let _ = registry.unregister(Box::new(self.starts.clone()));
        let _ = registry.unregister(Box::new(self.stops.clone()));
        let _ = registry.unregister(Box::new(self.image_pulls.clone()));
        let _ = registry.unregister(Box::new(self.reconcile.clone()));
    }

    /// An instance was ordered.
    pub(crate) fn ordered(&self, result: Ordered) {
        self.starts.with_label_values(&[format!("{result:?}")]).inc();
    }

    /// An instance was stopped.
    pub(crate) fn stopped(&self, why: Why) {
        self.stops.with_label_values(&[format!("{why:?}")]).inc();
    }

    /// A pod that pulled an image is over.
    pub(crate) fn image_pull(&self, verdict: &Verdict) {
        let result = match verdict {
            Verdict::Cancelled => "Cancelled",
            Verdict::Done(Outcome::Pulled) => "Pulled",
            Verdict::Done(Outcome::Failed(_)) => "Failed",
            Verdict::Done(Outcome::NotPlaced) => "NotPlaced",
        };
        self.image_pulls.with_label_values(&[result]).inc();
    }

    /// The instances of a Function.
    pub(crate) fn instances(&self, function: &FunctionKey, counts: Counts) {
        let Counts { ready, parked, starting, unready, failing, stopping } = counts;
        let counts = [ready, parked, starting, unready, failing, stopping].map(i64::from);
        self.instances.set([&function.namespace, &function.name], counts);
    }

    /// A Function is gone.
    pub(crate) fn forget(&self, function: &FunctionKey) {
        self.instances.remove([&function.namespace, &function.name]);
    }
}
