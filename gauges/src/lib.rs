//! Gauges of many things, kept as numbers in one table. A gauge of the `prometheus` crate takes about
//! a kilobyte, as each carries its own description; here the text is made while it is read.
#![warn(missing_docs)]

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use prometheus::{
    Error,
    core::{Collector, Desc},
    proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// Whose a row of the table is: the values of the two labels that all its gauges share.
type Owner = [Box<str>; 2];

/// Gauges of one name: `N` for each owner. Clones are the same table.
#[derive(Clone, Debug)]
pub struct Gauges<const N: usize> {
    desc: Desc,
    labels: [&'static str; 2],
    states: Option<(&'static str, [&'static str; N])>,
    table: Arc<Mutex<BTreeMap<Owner, [i64; N]>>>,
}

impl Gauges<1> {
    /// One gauge for each owner.
    ///
    /// # Errors
    /// If the name or a label is none.
    pub fn new(name: &str, help: &str, labels: [&'static str; 2]) -> Result<Self, Error> {
        Self::described(name, help, labels, None)
    }
}

impl<const N: usize> Gauges<N> {
    /// A gauge for each owner and each of these states; `label` names the states.
    ///
    /// # Errors
    /// If the name or a label is none.
    pub fn by_state(
        name: &str,
        help: &str,
        labels: [&'static str; 2],
        label: &'static str,
        states: [&'static str; N],
    ) -> Result<Self, Error> {
        Self::described(name, help, labels, Some((label, states)))
    }

    fn described(
        name: &str,
        help: &str,
        labels: [&'static str; 2],
        states: Option<(&'static str, [&'static str; N])>,
    ) -> Result<Self, Error> {
        let names = labels.into_iter().chain(states.map(|(label, _)| label)).map(str::to_owned).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), names, HashMap::new())?;
        Ok(Self { desc, labels, states, table: Arc::default() })
    }

    /// Sets the gauges of an owner.
    pub fn set(&self, owner: [&str; 2], values: [i64; N]) {
        self.table.lock().insert(owner.map(Into::into), values);
    }

    /// Takes the gauges of an owner away, if there are any.
    pub fn remove(&self, owner: [&str; 2]) {
        self.table.lock().remove(&owner.map(Into::into));
    }

    /// Takes the gauges of all other owners away.
    pub fn keep_only(&self, keep: impl Fn([&str; 2]) -> bool) {
        self.table.lock().retain(|[first, second], _| keep([first, second]));
    }

    fn metric(&self, owner: &Owner, state: Option<&str>, value: i64) -> Metric {
        let state = self.states.zip(state).map(|((label, _), state)| (label, state));
        let owner = self.labels.into_iter().zip(owner.iter().map(AsRef::as_ref));
        let mut labels: Vec<LabelPair> = owner.chain(state).map(|(name, value)| pair(name, value)).collect();
        labels.sort_unstable();
        let mut gauge = Gauge::default();
        #[allow(clippy::cast_precision_loss)] // Counts.
        gauge.set_value(value as f64);
        let mut metric = Metric::from_gauge(gauge);
        metric.set_label(labels);
        metric
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

impl<const N: usize> Collector for Gauges<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let table = self.table.lock();
        let each = table.iter().flat_map(|(owner, values)| {
            let state = |at: usize| self.states.map(|(_, states)| states[at]);
            values.iter().enumerate().map(move |(at, value)| self.metric(owner, state(at), *value))
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(each.collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    fn text(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn they_are_read_as_any_other_gauge() {
        let registry = Registry::new();
        let wanted = Gauges::new("wanted", "Wanted ones", ["namespace", "revision"]).unwrap();
        let instances =
            Gauges::by_state("seen", "Seen ones", ["namespace", "function"], "state", ["up", "down"]).unwrap();
        registry.register(Box::new(wanted.clone())).unwrap();
        registry.register(Box::new(instances.clone())).unwrap();
        wanted.set(["shop", "b"], [3]);
        wanted.set(["shop", "a"], [1]);
        wanted.set(["shop", "b"], [2]);
        instances.set(["shop", "f"], [0, 7]);
        let expected = "# HELP seen Seen ones\n# TYPE seen gauge\n\
            seen{function=\"f\",namespace=\"shop\",state=\"down\"} 7\n\
            seen{function=\"f\",namespace=\"shop\",state=\"up\"} 0\n\
            # HELP wanted Wanted ones\n# TYPE wanted gauge\n\
            wanted{namespace=\"shop\",revision=\"a\"} 1\nwanted{namespace=\"shop\",revision=\"b\"} 2\n";
        assert_eq!(text(&registry), expected);
    }

    #[test]
    fn what_is_taken_away_is_not_read_any_more_and_another_of_its_name_can_come() {
        let registry = Registry::new();
        let new = || Gauges::new("wanted", "Wanted ones", ["namespace", "revision"]).unwrap();
        let gauges = new();
        registry.register(Box::new(gauges.clone())).unwrap();
        gauges.set(["shop", "a"], [1]);
        gauges.remove(["shop", "a"]);
        assert_eq!(text(&registry), "");
        gauges.set(["shop", "b"], [1]);
        gauges.set(["shop", "c"], [1]);
        gauges.keep_only(|[_, revision]| revision == "c");
        assert!(text(&registry).contains("revision=\"c\"") && !text(&registry).contains("revision=\"b\""));
        assert!(registry.register(Box::new(new())).is_err());
        registry.unregister(Box::new(gauges)).unwrap();
        registry.register(Box::new(new())).unwrap();
    }
}
