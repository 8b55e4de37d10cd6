//! What the parts share: rounds in random order, and columns of samples.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use crate::stats::Estimate;

/// `0..count` in random order: what comes after what is another one in each round.
pub fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    fastrand::shuffle(&mut order);
    order
}

/// Up to a second, so that nothing keeps step with the kubelet's.
pub async fn random_pause() {
    sleep(Duration::from_millis(fastrand::u64(..1000))).await;
}

/// Samples by name; those of one round have the same place in each column.
#[derive(Debug, Default)]
pub struct Columns(BTreeMap<String, Vec<f64>>);

impl Columns {
    /// One more sample.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.0.entry(name.into()).or_default().push(value);
    }

    /// All samples of a name.
    pub fn of(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Their median.
    pub fn median(&self, name: &str) -> anyhow::Result<Estimate> {
        Estimate::median(self.of(name)).map_err(|error| error.context(name.to_owned()))
    }
}
