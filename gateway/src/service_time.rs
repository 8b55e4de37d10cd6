//! How long a request occupies a slot, as a moving average.

use std::time::Duration;

/// Weight of the newest sample once there are enough: about the last 20 count.
const WEIGHT: f64 = 0.05;

/// The mean of the first samples, then an exponentially weighted one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceTime {
    seconds: f64,
    samples: u32,
}

impl ServiceTime {
    /// Adds one request's time.
    pub fn observe(&mut self, held: Duration) {
        self.samples = self.samples.saturating_add(1);
        let weight = (1.0 / f64::from(self.samples)).max(WEIGHT);
        self.seconds += (held.as_secs_f64() - self.seconds) * weight;
    }

    /// Seconds; none before the first request.
    pub fn seconds(&self) -> Option<f64> {
        (self.samples > 0).then_some(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_samples_are_averaged_and_later_ones_forget() {
        let mut time = ServiceTime::default();
        assert_eq!(time.seconds(), None);
        time.observe(Duration::from_secs(1));
        time.observe(Duration::from_secs(3));
        assert_eq!(time.seconds(), Some(2.0));
        (0..200).for_each(|_| time.observe(Duration::from_secs(10)));
        assert!(time.seconds().unwrap() > 9.9);
    }
}
