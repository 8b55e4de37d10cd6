//! Medians and quantiles with 95 % intervals. Slices of one run are compared round by round, so
//! that what disturbs the machine for a while disturbs both sides.

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// Chance of a value to lie outside of its interval, at each end.
const TAIL: f64 = 0.025;
/// Resamples of a bootstrap: its ends are good to about 1 % of its width.
const RESAMPLES: usize = 4000;
/// The same samples give the same interval.
const SEED: u64 = 1;

/// A value as it was measured, with the interval that its true value lies in with 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The middle one, or the quantile that was asked for.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many samples it is made of.
    pub samples: usize,
}

impl Estimate {
    /// The median and its interval from order statistics, which supposes nothing about the
    /// distribution. With fewer than 6 samples the interval is from the smallest to the largest.
    pub fn median(samples: &[f64]) -> anyhow::Result<Self> {
        Self::quantile(samples, 0.5)
    }

    /// A quantile and its interval from order statistics.
    pub fn quantile(samples: &[f64], p: f64) -> anyhow::Result<Self> {
        ensure!(!samples.is_empty(), "nothing was measured");
        ensure!(samples.iter().all(|v| v.is_finite()), "not a number among {samples:?}");
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = ranks(sorted.len(), p);
        Ok(Self { value: interpolate(&sorted, p), low: sorted[low], high: sorted[high], samples: sorted.len() })
    }

    /// A value that was counted or measured once.
    pub fn exact(value: f64) -> Self {
        Self { value, low: value, high: value, samples: 1 }
    }
}

/// The median of `above / below`, round by round.
pub fn paired(above: &[f64], below: &[f64]) -> anyhow::Result<Estimate> {
    ensure!(above.len() == below.len(), "{} rounds against {}", above.len(), below.len());
    let ratios: Vec<f64> = above.iter().zip(below).map(|(a, b)| a / b).collect();
    Estimate::median(&ratios)
}

/// The ratio of two quantiles of samples that are not pairs, its interval by bootstrap.
pub fn unpaired(above: &[f64], below: &[f64], p: f64) -> anyhow::Result<Estimate> {
    let value = Estimate::quantile(above, p)?.value / Estimate::quantile(below, p)?.value;
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut resampled = |of: &[f64]| {
        let mut drawn: Vec<f64> = of.iter().map(|_| of[random.usize(..of.len())]).collect();
        drawn.sort_by(f64::total_cmp);
        interpolate(&drawn, p)
    };
    let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| resampled(above) / resampled(below)).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |p: f64| interpolate(&ratios, p);
    Some(Estimate { value, low: at(TAIL), high: at(1.0 - TAIL), samples: above.len().min(below.len()) })
        .filter(|e| e.value.is_finite() && e.high.is_finite())
        .context("a ratio to zero")
}

/// Samples of two sides, subtracted round by round.
pub fn differences(of: &[f64], minus: &[f64]) -> Vec<f64> {
    of.iter().zip(minus).map(|(a, b)| a - b).collect()
}

/// A quantile of sorted samples.
fn interpolate(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// Which of `n` sorted samples are the ends of the quantile's interval: the number of samples
/// below the true quantile is binomial.
fn ranks(n: usize, p: f64) -> (usize, usize) {
    let mut cumulated = 0.0;
    let (mut low, mut high) = (0, n - 1);
    for k in 0..n {
        cumulated += binomial(n, k, p);
        if cumulated <= TAIL {
            low = k;
        }
        if cumulated >= 1.0 - TAIL {
            high = k;
            break;
        }
    }
    (low, high)
}

fn binomial(n: usize, k: usize, p: f64) -> f64 {
    let choose: f64 = (0..k).map(|i| ((n - i) as f64 / (i + 1) as f64).ln()).sum();
    (choose + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to(n: usize) -> Vec<f64> {
        (1..=n).map(|v| v as f64).collect()
    }

    #[test]
    fn the_interval_of_a_median_has_the_ranks_of_the_textbook() {
        // Conover, Practical Nonparametric Statistics: 95 % for n = 10 is from the 2nd to the 9th, for n = 20 from the 6th to the 15th.
        let ten = Estimate::median(&up_to(10)).unwrap();
        assert_eq!((ten.value, ten.low, ten.high), (5.5, 2.0, 9.0));
        let twenty = Estimate::median(&up_to(20)).unwrap();
        assert_eq!((twenty.low, twenty.high), (6.0, 15.0));
    }

    #[test]
    fn few_samples_give_their_whole_range() {
        let four = Estimate::median(&up_to(4)).unwrap();
        assert_eq!((four.low, four.high), (1.0, 4.0));
        let p95 = Estimate::quantile(&up_to(20), 0.95).unwrap();
        assert_eq!(p95.high, 20.0);
        assert!(p95.value > 19.0 && p95.low < 19.0, "{p95:?}");
    }

    #[test]
    fn what_disturbs_both_sides_of_a_round_leaves_the_ratio_alone() {
        let (below, above) = ([10.0, 20.0, 40.0, 10.0, 80.0, 10.0], [20.0, 40.0, 80.0, 20.0, 160.0, 20.0]);
        let ratio = paired(&above, &below).unwrap();
        assert_eq!((ratio.value, ratio.low, ratio.high), (2.0, 2.0, 2.0));
        let unpaired = unpaired(&above, &below, 0.5).unwrap();
        assert!(unpaired.low < 2.0 && unpaired.high > 2.0, "{unpaired:?}");
    }

    #[test]
    fn nothing_measured_is_an_error() {
        assert!(Estimate::median(&[]).is_err());
        assert!(paired(&[1.0], &[]).is_err());
        assert!(paired(&[1.0], &[0.0]).is_err());
    }
}
