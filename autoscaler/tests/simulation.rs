//! What is decided for a burst, carried out on a simulated cluster, against the best of all fixed
//! numbers of instances tried there. The simulation gives each request to the slot that is free
//! first and knows nothing of the formulas that decided.

use std::{cmp::Reverse, collections::BinaryHeap};

use lambent_api::signal::Start;
use lambent_autoscaler::{
    decide::{Situation, wanted},
    start_model::StartModel,
};

/// How a cluster starts instances.
#[derive(Clone, Copy, Debug)]
enum Cluster {
    /// They share the processors and all come late together.
    Together { base: f64, slope: f64 },
    /// One after the other.
    InTurn { base: f64, slope: f64 },
}

impl Cluster {
    fn ready(self, instance: u32, of: u32) -> f64 {
        match self {
            Self::Together { base, slope } => base + slope * f64::from(of - 1),
            Self::InTurn { base, slope } => base + slope * f64::from(instance),
        }
    }

    /// What has been learned on it: single starts, and crowds of several sizes.
    fn learned(self) -> StartModel {
        let mut model = StartModel::default();
        for round in 0..40 {
            let of = 1 + round % 8 * 3;
            (0..of).for_each(|i| model.observe(Start { seconds: self.ready(i, of), others: of - 1 }));
        }
        model
    }
}

/// When the last of the requests is served by so many instances.
fn last_answer(cluster: Cluster, instances: u32, concurrency: u32, requests: u32, seconds: f64) -> f64 {
    let micros = |seconds: f64| (seconds * 1e6) as u64;
    let slots = (0..instances * concurrency).map(|slot| Reverse(micros(cluster.ready(slot / concurrency, instances))));
    let mut free: BinaryHeap<_> = slots.collect();
    let mut last = 0;
    for _ in 0..requests {
        let Some(Reverse(at)) = free.pop() else { return f64::INFINITY };
        last = last.max(at + micros(seconds));
        free.push(Reverse(at + micros(seconds)));
    }
    last as f64 / 1e6
}

fn decided(cluster: Cluster, concurrency: u32, requests: u32, seconds: f64, max: u32) -> u32 {
    wanted(&Situation {
        queued: requests,
        in_flight: 0,
        arriving: 0.0,
        ready: 0,
        starting: 0,
        starting_for: 0.0,
        concurrency,
        service_seconds: Some(seconds),
        start: cluster.learned(),
        max,
    })
}

/// The longest of the decided over the best, over all sizes of bursts.
fn worst(cluster: Cluster) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for requests in [1, 2, 7, 20, 100, 400] {
        for seconds in [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0] {
            for (concurrency, max) in [(1, 20), (1, 100), (10, 20)] {
                let time = |n| last_answer(cluster, n, concurrency, requests, seconds);
                let best = (1..=max).map(time).fold(f64::INFINITY, f64::min);
                let n = decided(cluster, concurrency, requests, seconds, max);
                let ratio = time(n) / best;
                if ratio > worst.0 {
                    worst = (ratio, format!("{requests} of {seconds} s at {concurrency}: {n}, {cluster:?}"));
                }
            }
        }
    }
    worst
}

#[test]
fn where_instances_share_processors_a_burst_is_over_within_1_2_of_the_best_number() {
    for (base, slope) in [(0.35, 0.2), (0.1, 0.02), (1.0, 0.2), (3.0, 0.0), (1.0, 1.0)] {
        let (ratio, what) = worst(Cluster::Together { base, slope });
        assert!(ratio <= 1.2, "{ratio}: {what}");
    }
}

#[test]
fn where_instances_come_in_turn_a_burst_is_over_within_1_5_of_the_best_number() {
    for (base, slope) in [(0.35, 0.2), (0.1, 0.02), (1.0, 0.2), (1.0, 1.0)] {
        let (ratio, what) = worst(Cluster::InTurn { base, slope });
        assert!(ratio <= 1.5, "{ratio}: {what}");
    }
}
