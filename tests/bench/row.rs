//! One row of the scoreboard: what was measured of Lambent, of the raw floor beneath it and of its
//! peers, how they compare, and what was wanted.

use serde::{Deserialize, Serialize};

use crate::stats::Estimate;

/// One metric.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub metric: String,
    /// Of all its values but the ratio.
    pub unit: String,
    /// Lambent.
    pub ours: Estimate,
    /// What the machine or the cluster gives without any platform.
    pub floor: Option<Other>,
    /// Others that do the same.
    pub peers: Vec<Other>,
    /// Ours to another's.
    pub ratio: Option<Ratio>,
    /// What was wanted of the ratio, or of our value where there is none.
    pub wanted: Option<Wanted>,
}

/// What another one needed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Other {
    /// Which.
    pub name: String,
    /// Its value.
    pub value: Estimate,
}

/// Ours divided by another's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// Whose.
    pub to: String,
    /// The median of the rounds' ratios.
    pub value: Estimate,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wanted {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

impl Row {
    /// A row of ours alone.
    pub fn new(metric: impl Into<String>, unit: &str, ours: Estimate) -> Self {
        let unit = unit.to_owned();
        Self { metric: metric.into(), unit, ours, floor: None, peers: Vec::new(), ratio: None, wanted: None }
    }

    /// With the floor.
    #[must_use]
    pub fn floor(self, name: &str, value: Estimate) -> Self {
        Self { floor: Some(Other { name: name.to_owned(), value }), ..self }
    }

    /// With one more peer.
    #[must_use]
    pub fn peer(mut self, name: &str, value: Estimate) -> Self {
        self.peers.push(Other { name: name.to_owned(), value });
        self
    }

    /// With the ratio to another's.
    #[must_use]
    pub fn ratio(self, to: &str, value: Estimate) -> Self {
        Self { ratio: Some(Ratio { to: to.to_owned(), value }), ..self }
    }

    /// With a bound for the ratio, or for the value where there is no ratio.
    #[must_use]
    pub fn wanted(self, wanted: Wanted) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    /// Whether it is as wanted; none if nothing was wanted.
    pub fn is_met(&self) -> Option<bool> {
        let value = self.ratio.as_ref().map_or(self.ours.value, |ratio| ratio.value.value);
        self.wanted.map(|wanted| match wanted {
            Wanted::AtMost(most) => value <= most,
            Wanted::AtLeast(least) => value >= least,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_for_the_ratio_where_there_is_one() {
        let row = Row::new("a", "ms", Estimate::exact(10.0)).wanted(Wanted::AtMost(1.2));
        assert_eq!(row.is_met(), Some(false));
        assert_eq!(row.ratio("raw", Estimate::exact(1.1)).is_met(), Some(true));
        assert_eq!(Row::new("a", "ms", Estimate::exact(1.0)).is_met(), None);
    }
}
