//! What the gateway counts. Series of a Function are made once and go with it.

use std::sync::Arc;

use http::StatusCode;
use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// From a millisecond to the longest timeout.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 900.0];
/// Stages of a cold start, each from the end of the one before.
pub const STAGES: [&str; 4] = ["order", "address", "answer", "total"];

/// All series of the gateway.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGaugeVec,
    queued: IntGaugeVec,
    instances: IntGaugeVec,
    cold_starts: HistogramVec,
}

/// The series of one Function.
#[derive(Debug)]
pub struct FunctionMetrics {
    all: Arc<Metrics>,
    labels: [String; 2],
    by_code: Mutex<Vec<(StatusCode, IntCounter)>>,
    seconds: Histogram,
    /// Requests at instances.
    pub in_flight: IntGauge,
    /// Requests waiting.
    pub queued: IntGauge,
    /// Instances that answer.
    pub ready: IntGauge,
    /// Instances that do not answer yet.
    pub starting: IntGauge,
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
            instances: IntGaugeVec::new(Opts::new("lambent_gateway_instances", "Instances known"), &with("state"))?,
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
        let labels = [namespace, function];
        FunctionMetrics {
            labels: labels.map(str::to_owned),
            by_code: Mutex::default(),
            seconds: self.seconds.with_label_values(&labels),
            in_flight: self.in_flight.with_label_values(&labels),
            queued: self.queued.with_label_values(&labels),
            ready: self.instances.with_label_values(&[namespace, function, "ready"]),
            starting: self.instances.with_label_values(&[namespace, function, "starting"]),
            all: self.clone(),
        }
    }
}

impl FunctionMetrics {
    /// A request has ended.
    pub fn ended(&self, status: StatusCode, seconds: f64) {
        self.seconds.observe(seconds);
        let mut by_code = self.by_code.lock();
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

    /// A request waited for an instance to start; seconds of each of [`STAGES`].
    pub fn cold_start(&self, stages: [f64; STAGES.len()]) {
        let [namespace, function] = &self.labels;
        for (stage, seconds) in STAGES.iter().zip(stages) {
            self.all.cold_starts.with_label_values(&[namespace.as_str(), function, stage]).observe(seconds);
        }
    }
}

impl Drop for FunctionMetrics {
    fn drop(&mut self) {
        let [namespace, function] = &self.labels;
        let labels = [namespace.as_str(), function.as_str()];
        let of = |more| [labels[0], labels[1], more];
        for (code, _) in self.by_code.get_mut() {
            let _ = self.all.requests.remove_label_values(&[labels[0], labels[1], code.as_str()]);
        }
        for stage in STAGES {
            let _ = self.all.cold_starts.remove_label_values(&of(stage));
        }
        for state in ["ready", "starting"] {
            let _ = self.all.instances.remove_label_values(&of(state));
        }
        let _ = self.all.seconds.remove_label_values(&labels);
        let _ = self.all.in_flight.remove_label_values(&labels);
        let _ = self.all.queued.remove_label_values(&labels);
    }
}
