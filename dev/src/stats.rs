//! The numbers of each Function, read from the series that the gateway counts for Prometheus.

use std::collections::BTreeMap;

use lambent_api::FunctionKey;
use prometheus::{
    Registry,
    proto::{Histogram, Metric},
};

/// The numbers of one Function.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stats {
    pub(crate) starting: i64,
    pub(crate) ready: i64,
    pub(crate) busy: i64,
    pub(crate) queued: i64,
    pub(crate) requests: u64,
    pub(crate) cold_starts: u64,
    /// Seconds; none before the first request.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// The numbers of all Functions.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Counts, as floats.
pub(crate) fn gather(registry: &Registry) -> BTreeMap<FunctionKey, Stats> {
    let mut all: BTreeMap<FunctionKey, Stats> = BTreeMap::new();
    for family in registry.gather() {
        for metric in family.get_metric() {
            let Some(key) = label(metric, "namespace").zip(label(metric, "function")) else { continue };
            let stats = all.entry(FunctionKey::new(key.0, key.1)).or_default();
            match family.name() {
                "lambent_requests_total" => stats.requests += metric.get_counter().get_value() as u64,
                "lambent_requests_in_flight" => stats.busy = metric.get_gauge().get_value() as i64,
                "lambent_requests_queued" => stats.queued = metric.get_gauge().get_value() as i64,
                "lambent_gateway_instances" => match label(metric, "state") {
                    Some("ready") => stats.ready = metric.get_gauge().get_value() as i64,
                    _ => stats.starting = metric.get_gauge().get_value() as i64,
                },
                "lambent_request_seconds" => {
                    let histogram = metric.get_histogram();
                    (stats.p50, stats.p99) = (quantile(histogram, 0.5), quantile(histogram, 0.99));
                }
                "lambent_cold_start_seconds" if label(metric, "stage") == Some("total") => {
                    stats.cold_starts = metric.get_histogram().get_sample_count();
                }
                _ => {}
            }
        }
    }
    all
}

fn label<'a>(metric: &'a Metric, name: &str) -> Option<&'a str> {
    metric.get_label().iter().find(|label| label.name() == name).map(|label| label.value())
}

/// As Prometheus' `histogram_quantile`: evenly spread within a bucket.
#[allow(clippy::cast_precision_loss)] // Of counts beyond 2^52.
fn quantile(histogram: &Histogram, quantile: f64) -> Option<f64> {
    let total = histogram.get_sample_count();
    let rank = quantile * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for bucket in histogram.get_bucket() {
        let (count, upper) = (bucket.cumulative_count() as f64, bucket.upper_bound());
        if count >= rank && count > below {
            let upper = if upper.is_finite() { upper } else { lower };
            return Some(lower + (upper - lower) * (rank - below) / (count - below));
        }
        (below, lower) = (count, upper);
    }
    (total > 0).then_some(lower)
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

    use super::*;

    #[test]
    fn numbers_are_those_of_the_series() {
        let registry = Registry::new();
        let labels = ["namespace", "function"];
        let requests =
            IntCounterVec::new(Opts::new("lambent_requests_total", "-"), &["namespace", "function", "code"]).unwrap();
        let options = HistogramOpts::new("lambent_request_seconds", "-").buckets(vec![0.1, 0.2, 0.4]);
        let seconds = HistogramVec::new(options, &labels).unwrap();
        registry.register(Box::new(requests.clone())).unwrap();
        registry.register(Box::new(seconds.clone())).unwrap();
        requests.with_label_values(&["shop", "a", "200"]).inc_by(3);
        requests.with_label_values(&["shop", "a", "503"]).inc();
        let of_a = seconds.with_label_values(&["shop", "a"]);
        (0..10).for_each(|_| of_a.observe(0.15));
        let stats = &gather(&registry)[&FunctionKey::new("shop", "a")];
        assert_eq!(stats.requests, 4);
        assert!((stats.p50.unwrap() - 0.15).abs() < 1e-9 && stats.p99.unwrap() < 0.2, "{stats:?}");
    }
}
