//! The rate at which requests keep coming, which a single burst is not.

use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Counts by the second; only what came in each of the last two whole seconds keeps coming.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    total: u64,
    since: Option<Instant>,
    at_start: u64,
    before: f64,
    last: f64,
}

impl Arrivals {
    /// Takes the number that have arrived in all.
    pub fn observe(&mut self, total: u64, now: Instant) {
        // At first it isn't known when they came; and another gateway counts from zero.
        let Some(since) = self.since.filter(|_| total >= self.total) else {
            *self = Self { total, since: Some(now), at_start: total, ..Self::default() };
            return;
        };
        self.total = total;
        let length = now.duration_since(since);
        if length >= SECOND {
            self.before = self.last;
            self.last = (total - self.at_start) as f64 / length.as_secs_f64();
            (self.since, self.at_start) = (Some(now), total);
        }
    }

    /// Requests a second.
    pub fn sustained(&self) -> f64 {
        self.before.min(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_no_rate_and_a_stream_is() {
        let start = Instant::now();
        let mut arrivals = Arrivals::default();
        arrivals.observe(0, start);
        for (second, total) in [(1, 100), (2, 100), (3, 100)] {
            arrivals.observe(total, start + SECOND * second);
            assert!(arrivals.sustained() < 1.0);
        }
        for second in 4..7_u32 {
            arrivals.observe(100 + 50 * u64::from(second - 3), start + SECOND * second);
        }
        assert!((arrivals.sustained() - 50.0).abs() < 1.0);
    }
}
