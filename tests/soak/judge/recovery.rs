//! How long after a fault service is normal again: all calls answered, none slower than it may be.

use crate::record::{Call, Happening, Outcome, Seconds};

/// What came of a fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Recovery {
    /// Not known yet.
    Pending,
    /// So many seconds after it was over.
    After(Seconds),
    /// Not within the time that is allowed.
    TooLate(Seconds),
}

/// So long it must stay normal.
pub const STAYS: Seconds = 3.0;

/// When service was normal again after a fault. `calls` are in the order of their due times, and
/// whole up to those that were due at `known`; `patience` tells what a Function's call may take.
///
/// A fault of one Function is judged by the calls of that Function, one of the platform by all.
/// Calls that another fault touches are that one's affair.
pub fn after(
    h: &Happening,
    calls: &[&Call],
    known: Seconds,
    patience: impl Fn(&str) -> Seconds,
    all: &[Happening],
) -> Recovery {
    let Some(over) = h.to else { return Recovery::Pending };
    let limit = h.fault.recovers_within();
    let mut normal_since = over;
    let counts = |call: &&&Call| call.due >= over && concerns(h, call) && !touched_by_another(h, call, all);
    for call in calls.iter().filter(counts) {
        if call.due > normal_since + STAYS {
            break;
        }
        if !is_normal(call, patience(&call.function)) {
            normal_since = call.due;
        }
    }
    let took = normal_since - over;
    if took > limit {
        Recovery::TooLate(took)
    } else if known < normal_since + STAYS {
        Recovery::Pending
    } else {
        Recovery::After(took)
    }
}

fn is_normal(call: &Call, patience: Seconds) -> bool {
    match call.outcome {
        Outcome::Left => true,
        Outcome::Good(_) => call.took() <= patience,
        _ => false,
    }
}

fn concerns(h: &Happening, call: &Call) -> bool {
    h.function.as_ref().is_none_or(|function| *function == call.function)
}

fn touched_by_another(h: &Happening, call: &Call, all: &[Happening]) -> bool {
    let touches = |other: &Happening| {
        let until = other.to.unwrap_or(Seconds::INFINITY) + other.fault.recovers_within();
        concerns(other, call) && call.due <= until && call.ended >= other.from
    };
    all.iter().any(|other| other.number != h.number && touches(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests_support::{call, gateway_killed, happening},
        plan::Fault,
    };

    const TENTHS: std::ops::Range<u32> = 0..300;

    /// A call each tenth of a second; those in the range fail.
    fn calls(bad: std::ops::Range<f64>) -> Vec<Call> {
        let outcome = |due| if bad.contains(&due) { Outcome::Unanswered } else { Outcome::Good(None) };
        TENTHS.map(|n| f64::from(n) / 10.0).map(|due| call(due, outcome(due))).collect()
    }

    fn judged(h: &Happening, calls: &[Call], known: Seconds, all: &[Happening]) -> Recovery {
        after(h, &calls.iter().collect::<Vec<_>>(), known, |_| 1.0, all)
    }

    #[test]
    fn normal_service_begins_after_the_last_bad_call() {
        let kill = gateway_killed(10.0);
        let Recovery::After(took) = judged(&kill, &calls(10.0..12.05), 29.0, &[]) else { panic!() };
        assert!((took - 2.0).abs() < 1e-6, "{took}");
        assert_eq!(judged(&kill, &calls(0.0..0.0), 29.0, &[]), Recovery::After(0.0));
    }

    #[test]
    fn what_takes_longer_than_allowed_is_told_and_what_is_not_known_yet_waits() {
        let kill = gateway_killed(10.0);
        assert!(matches!(judged(&kill, &calls(10.0..25.0), 29.0, &[]), Recovery::TooLate(took) if took > 10.0));
        assert_eq!(judged(&kill, &calls(10.0..12.0)[..130], 12.9, &[]), Recovery::Pending);
    }

    #[test]
    fn a_slow_answer_is_not_normal() {
        let mut calls = calls(0.0..0.0);
        calls[110].ended = calls[110].due + 1.5;
        let Recovery::After(took) = judged(&gateway_killed(10.0), &calls, 29.0, &[]) else { panic!() };
        assert!((took - 1.0).abs() < 1e-6, "{took}");
    }

    #[test]
    fn calls_of_other_functions_and_those_that_another_fault_touches_do_not_count() {
        let scale = |number, function, at| Happening { number, ..happening(at, Fault::Scale { function, min: 2 }) };
        assert_eq!(judged(&scale(1, "fast", 10.0), &calls(10.0..12.0), 29.0, &[]), Recovery::After(0.0));
        let all = [gateway_killed(10.0), scale(2, "steady", 9.0)];
        assert_eq!(judged(&all[0], &calls(10.0..12.0), 29.0, &all), Recovery::After(0.0));
    }
}
