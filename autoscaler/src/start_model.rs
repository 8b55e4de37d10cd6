//! How long instances take to start, learned from those that have.
//!
//! `seconds(m) = base + slope * (m - 1)` for `m` that start together: on a small cluster they share
//! its processors and come late together, on a large one `slope` is next to nothing. The line is
//! drawn through the last starts by least squares; old ones fade.

use lambent_api::signal::Start;

/// Weight of the newest start against all before it: about the last five events count.
const WEIGHT: f64 = 0.2;
/// Until one has started: what a Pod takes until the API server tells its address.
const FIRST_BASE: f64 = 1.0;
/// Until several have started together: five a second, which is what two cores give.
const FIRST_SLOPE: f64 = 0.2;
/// How strongly the slope is held where it is, in squared starts: where crowds of one size are all
/// that was seen, nothing else says how much of their time is slope.
const HOLD: f64 = 0.2;
/// An image pull or a full node is no property of the function: one start counts as so many times
/// what was expected at most. A lasting change is learned all the same, in a dozen.
const OUTLIER: f64 = 3.0;
/// Shorter starts than this are not told apart.
const SHORTEST: f64 = 0.01;

/// Start times of one Function, or of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartModel {
    base: f64,
    slope: f64,
    first_slope: f64,
    sums: Sums,
}

/// Weighted sums over the starts: of 1, others, others squared, seconds, and others times seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    weight: f64,
    others: f64,
    squares: f64,
    seconds: f64,
    products: f64,
}

impl Sums {
    fn add(&mut self, weight: f64, others: f64, seconds: f64) {
        self.weight += weight;
        self.others += weight * others;
        self.squares += weight * others * others;
        self.seconds += weight * seconds;
        self.products += weight * others * seconds;
    }

    fn fade(&mut self, by: f64) {
        let Self { weight, others, squares, seconds, products } = self;
        [weight, others, squares, seconds, products].into_iter().for_each(|sum| *sum *= by);
    }
}

impl Default for StartModel {
    fn default() -> Self {
        Self::new(FIRST_BASE, FIRST_SLOPE)
    }
}

impl StartModel {
    /// A model that begins with these numbers.
    pub fn new(base: f64, slope: f64) -> Self {
        let mut sums = Sums::default();
        sums.add(1.0, 0.0, base);
        Self { base, slope, first_slope: slope, sums }
    }

    /// Learns from one start. A crowd counts as one event, however many are in it.
    pub fn observe(&mut self, start: Start) {
        if !start.seconds.is_finite() {
            return;
        }
        let others = f64::from(start.others);
        let expected = self.seconds(start.others.saturating_add(1)).max(SHORTEST);
        let seconds = start.seconds.clamp(SHORTEST, expected * OUTLIER);
        let share = 1.0 / (1.0 + others);
        self.sums.fade(1.0 - WEIGHT * share);
        self.sums.add(WEIGHT * share, others, seconds);
        self.draw();
    }

    /// The line through all starts; its slope is held a little where it began.
    fn draw(&mut self) {
        let Sums { weight, others, squares, seconds, products } = self.sums;
        let spread = squares - others * others / weight;
        let together = products - others * seconds / weight;
        self.slope = ((together + HOLD * self.first_slope) / (spread + HOLD)).max(0.0);
        self.base = ((seconds - self.slope * others) / weight).max(SHORTEST);
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
    fn a_lasting_change_is_learned_in_a_dozen_starts() {
        let mut model = StartModel::new(0.3, 0.1);
        (0..12).for_each(|_| model.observe(Start { seconds: 5.0, others: 0 }));
        assert!((4.0..5.01).contains(&model.seconds(1)), "{model:?}");
    }
}
