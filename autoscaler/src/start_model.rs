//! How long instances take to start, learned from those that have.
//!
//! `seconds(m) = base + slope * (m - 1)` for `m` that start together: on a small cluster they share
//! its processors and come late together, on a large one `slope` is next to nothing.

use lambent_api::signal::Start;

/// Weight of the newest sample.
const WEIGHT: f64 = 0.3;
/// Until one has started: what a Pod takes until the API server tells its address.
const FIRST_BASE: f64 = 1.0;
/// Until several have started together: five a second, which is what two cores give.
const FIRST_SLOPE: f64 = 0.2;
/// An image pull or a full node is no property of the function: one start counts as so many times
/// what was expected at most. A lasting change is learned all the same, in a few starts.
const OUTLIER: f64 = 3.0;
/// Shorter starts than this are not told apart.
const SHORTEST: f64 = 0.01;

/// Start times of one Function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartModel {
    base: f64,
    slope: f64,
}

impl Default for StartModel {
    fn default() -> Self {
        Self { base: FIRST_BASE, slope: FIRST_SLOPE }
    }
}

impl StartModel {
    /// A model of known numbers.
    pub const fn new(base: f64, slope: f64) -> Self {
        Self { base, slope }
    }

    /// Learns from one start.
    pub fn observe(&mut self, start: Start) {
        if !start.seconds.is_finite() {
            return;
        }
        let expected = self.seconds(start.others.saturating_add(1)).max(SHORTEST);
        let seconds = start.seconds.clamp(SHORTEST, expected * OUTLIER);
        if start.others == 0 {
            self.base += (seconds - self.base) * WEIGHT;
        } else {
            let slope = ((seconds - self.base) / f64::from(start.others)).max(0.0);
            self.slope += (slope - self.slope) * WEIGHT;
        }
    }

    /// Seconds until `together` instances answer that are started at once.
    pub fn seconds(&self, together: u32) -> f64 {
        self.base + self.slope * f64::from(together.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_comes_from_single_starts_and_slope_from_crowds() {
        let mut model = StartModel::default();
        (0..50).for_each(|_| model.observe(Start { seconds: 0.3, others: 0 }));
        (0..50).for_each(|_| model.observe(Start { seconds: 4.1, others: 19 }));
        assert!((model.seconds(1) - 0.3).abs() < 0.01);
        assert!((model.seconds(20) - 4.1).abs() < 0.1);
    }

    #[test]
    fn one_image_pull_does_not_spoil_it() {
        let mut model = StartModel::new(0.3, 0.1);
        model.observe(Start { seconds: 10_000.0, others: 0 });
        assert!(model.seconds(1) < 0.5);
        model.observe(Start { seconds: f64::NAN, others: 0 });
        assert!(model.seconds(1) < 0.5);
    }

    #[test]
    fn a_lasting_change_is_learned_in_a_few_starts() {
        let mut model = StartModel::new(0.3, 0.1);
        (0..12).for_each(|_| model.observe(Start { seconds: 5.0, others: 0 }));
        assert!((4.0..5.01).contains(&model.seconds(1)), "{model:?}");
    }
}
