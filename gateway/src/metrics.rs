//! What the gateway counts. Series of a Function are made when there is something to count, so that one
//! that sleeps costs no memory, and go with it.

use std::sync::{Arc, OnceLock};

use http::StatusCode;
use lambent_api::Name;
use lambent_gauges::Gauges;
use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::cold_start::{STAGES, Stages};

/// From a millisecond to the longest timeout.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 900.0];
/// Beside the stages of a cold start: all of them together.
const TOTAL: &str = "total";

/// All series of the gateway.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGaugeVec,
    queued: IntGaugeVec,
    instances: Gauges<3>,
    cold_starts: HistogramVec,
}

/// The series of one Function.
#[derive(Debug)]
pub struct FunctionMetrics {
    all: Arc<Metrics>,
    labels: [Name; 2],
    /// A Function that was never called has none.
    calls: OnceLock<Box<CallMetrics>>,
    /// Ready, starting and parked ones as they were told last.
    instances: Mutex<[u32; 3]>,
}

/// Series of its calls; each is there once there is something to count.
#[derive(Debug, Default)]
struct CallMetrics {
    by_code: Mutex<Vec<(StatusCode, IntCounter)>>,
    seconds: OnceLock<Histogram>,
    in_flight: OnceLock<IntGauge>,
    queued: OnceLock<IntGauge>,
}

impl Metrics {
    /// Registers all series.
    ///
    /// # Errors
    /// If one of that name is there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = ["namespace", "function"];
        let with = |more: &'static str| [labels[0], labels[1], more];
        let histogram = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let metrics = Self {
            requests: IntCounterVec::new(Opts::new("lambent_requests_total", "Requests answered"), &with("code"))?,
            seconds: HistogramVec::new(histogram("lambent_request_seconds", "From arrival to the last byte"), &labels)?,
            in_flight: IntGaugeVec::new(Opts::new("lambent_requests_in_flight", "Requests at instances"), &labels)?,
            queued: IntGaugeVec::new(Opts::new("lambent_requests_queued", "Requests waiting"), &labels)?,
            instances: Gauges::by_state(
                "lambent_gateway_instances",
                "Instances known",
                labels,
                "state",
                ["ready", "starting", "parked"],
            )?,
            cold_starts: HistogramVec::new(
                histogram("lambent_cold_start_seconds", "What requests waited for an instance to start, by stage"),
                &with("stage"),
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.queued.clone()))?;
        registry.register(Box::new(metrics.instances.clone()))?;
        registry.register(Box::new(metrics.cold_starts.clone()))?;
        Ok(metrics)
    }

    /// The series of one Function.
    pub fn of(self: &Arc<Self>, namespace: &str, function: &str) -> FunctionMetrics {
        FunctionMetrics {
            all: self.clone(),
            labels: [namespace, function].map(Name::from),
            calls: OnceLock::new(),
            instances: Mutex::default(),
        }
    }
}

impl FunctionMetrics {
    fn labels(&self) -> [&str; 2] {
        let [namespace, function] = &self.labels;
        [namespace, function]
    }

    fn calls(&self) -> &CallMetrics {
        self.calls.get_or_init(Box::default)
    }

    /// Requests at instances.
    pub fn in_flight(&self) -> &IntGauge {
        self.calls().in_flight.get_or_init(|| self.all.in_flight.with_label_values(&self.labels()))
    }

    /// Requests waiting.
    pub fn queued(&self) -> &IntGauge {
        self.calls().queued.get_or_init(|| self.all.queued.with_label_values(&self.labels()))
    }

    /// How many instances answer, how many do not answer yet, and how many are frozen.
    pub fn instances(&self, counts: [u32; 3]) {
        // It is told each second, and has rarely changed.
        if std::mem::replace(&mut *self.instances.lock(), counts) != counts {
            self.all.instances.set(self.labels(), counts.map(i64::from));
        }
    }

    /// A request has ended.
    pub fn ended(&self, status: StatusCode, seconds: f64) {
        let calls = self.calls();
        calls.seconds.get_or_init(|| self.all.seconds.with_label_values(&self.labels())).observe(seconds);
        let mut by_code = calls.by_code.lock();
        let counter = match by_code.iter().position(|(code, _)| *code == status) {
            Some(at) => &by_code[at].1,
            None => {
                let [namespace, function] = &self.labels;
                let counter = self.all.requests.with_label_values(&[namespace, function, status.as_str()]);
                by_code.push((status, counter));
                &by_code[by_code.len() - 1].1
            }
        };
        counter.inc();
    }

    /// A request waited for an instance to start.
    pub fn cold_start(&self, stages: &Stages) {
        let [namespace, function] = &self.labels;
        for (stage, seconds) in stages.iter().chain([(TOTAL, stages.total())]) {
            self.all.cold_starts.with_label_values(&[namespace.as_str(), function, stage]).observe(seconds);
        }
    }
}

impl Drop for FunctionMetrics {
    fn drop(&mut self) {
        let [namespace, function] = &self.labels;
        let labels = [namespace.as_str(), function.as_str()];
        let of = |more| [labels[0], labels[1], more];
        self.all.instances.remove(labels);
        let Some(calls) = self.calls.get_mut() else { return };
        for (code, _) in calls.by_code.get_mut() {
            let _ = self.all.requests.remove_label_values(&[labels[0], labels[1], code.as_str()]);
        }
        for stage in STAGES.into_iter().chain([TOTAL]) {
            let _ = self.all.cold_starts.remove_label_values(&of(stage));
        }
        let _ = self.all.seconds.remove_label_values(&labels);
        let _ = self.all.in_flight.remove_label_values(&labels);
        let _ = self.all.queued.remove_label_values(&labels);
    }
}
