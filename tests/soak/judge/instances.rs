//! Nothing that the load needs is taken down while the API server is away, nor right after it is
//! back, for lack of news.

use std::collections::BTreeSet;

use crate::{
    plan::Fault,
    record::{Call, Happening, Sample, Seconds},
};

/// What had been decided meanwhile is done by then.
pub const AFTER: Seconds = 8.0;
/// So little over a whole number of instances is not one more.
const HAIR: f64 = 0.1;
/// The load before, which goes on.
const BEFORE: Seconds = 10.0;

/// The Functions that had too few instances in or right after an absence of the API server.
/// `concurrency` tells how many requests an instance of a Function serves at once.
pub fn taken_down(
    h: &Happening,
    samples: &[Sample],
    calls: &[&Call],
    concurrency: impl Fn(&str) -> u32,
    all: &[Happening],
) -> Vec<String> {
    let (Fault::StopApiServer { .. }, Some(over)) = (&h.fault, h.to) else { return Vec::new() };
    let until = over + AFTER;
    let functions: BTreeSet<&str> = samples.iter().map(|sample| sample.function.as_str()).collect();
    let changed = |function: &str| {
        let touches = |other: &Happening| {
            other.function.as_deref() == Some(function)
                && other.from <= until
                && other.to.is_none_or(|to| to >= h.from - BEFORE)
        };
        all.iter().any(touches)
    };
    let too_few = |function: &&str| {
        let of_it = || samples.iter().filter(|sample| sample.function == **function);
        let before = of_it().rfind(|sample| sample.at < h.from)?.instances;
        let least = of_it().filter(|sample| sample.at >= h.from && sample.at <= until).map(|s| s.instances).min()?;
        let needed = before.min(needed(calls, function, h.from, concurrency(function)));
        (least < needed).then(|| format!("{function} had {before} instances before, then {least}; needs {needed}"))
    };
    functions.iter().filter(|function| !changed(function)).filter_map(too_few).collect()
}

/// Instances that the requests of the time before kept busy, on average.
fn needed(calls: &[&Call], function: &str, at: Seconds, concurrency: u32) -> usize {
    let since = at - BEFORE;
    let busy = |call: &&&Call| (call.ended.min(at) - call.sent.max(since)).max(0.0);
    let total: Seconds = calls.iter().filter(|call| call.function == function).map(|call| busy(&call)).sum();
    (total / BEFORE / Seconds::from(concurrency) - HAIR).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests_support::{call, happening},
        record::Outcome,
    };

    fn away() -> Happening {
        Happening { to: Some(40.0), ..happening(20.0, Fault::StopApiServer { seconds: 20 }) }
    }

    fn samples(counts: &[(Seconds, usize)]) -> Vec<Sample> {
        counts.iter().map(|(at, n)| Sample { at: *at, function: "steady".into(), instances: *n }).collect()
    }

    /// 20 requests of 0.1 s each second keep 2 busy.
    fn judged(counts: &[(Seconds, usize)], concurrency: u32, all: &[Happening]) -> Vec<String> {
        let calls: Vec<Call> = (0..400).map(|n| call(f64::from(n) / 20.0, Outcome::Good(None))).collect();
        taken_down(&away(), &samples(counts), &calls.iter().collect::<Vec<_>>(), |_| concurrency, all)
    }

    #[test]
    fn fewer_instances_than_the_load_needs_are_told() {
        assert_eq!(judged(&[(19.0, 2), (41.0, 1)], 1, &[]).len(), 1);
        assert_eq!(judged(&[(19.0, 3), (41.0, 2)], 1, &[]), [""; 0]);
        assert_eq!(judged(&[(19.0, 2), (41.0, 1)], 2, &[]), [""; 0]);
        assert_eq!(judged(&[(19.0, 2), (41.0, 2), (60.0, 0)], 1, &[]), [""; 0]);
    }

    #[test]
    fn a_function_that_was_changed_meanwhile_is_another_matter() {
        let change = happening(15.0, Fault::DeletePod { function: "steady", pick: 0 });
        assert_eq!(judged(&[(19.0, 2), (41.0, 1)], 1, &[change]), [""; 0]);
    }
}
