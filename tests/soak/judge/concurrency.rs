//! An instance never has more requests than the Function's `concurrency`: by its own count.

use crate::{
    plan::Fault,
    record::{Call, Happening, Outcome, Seconds},
};

/// The clocks of two processes of one machine, in milliseconds of `slow`'s answer, and a busy moment.
const ROUNDING: Seconds = 1.0;

/// What a call found too many at its instance, if it did. `declared` is the Function's `concurrency`
/// before any change, `timeout` its time limit.
///
/// Two things are allowed to exceed it: requests that a killed gateway had lost, for `timeout`; and
/// those that were running when `concurrency` was lowered.
pub fn exceeded(call: &Call, declared: u32, timeout: Seconds, happenings: &[Happening]) -> Option<String> {
    let Outcome::Good(Some(run)) = &call.outcome else { return None };
    let allowed = allowed(&call.function, run.from, declared, timeout, happenings);
    let lost = |h: &Happening| {
        let killed = matches!(h.fault, Fault::Kill { component: "gateway", .. });
        killed && run.from >= h.from - ROUNDING && run.from <= h.to.unwrap_or(run.from) + timeout + ROUNDING
    };
    if run.running <= allowed || happenings.iter().any(lost) {
        return None;
    }
    let (host, running, from) = (&run.host, run.running, run.from);
    Some(format!("{host} had {running} requests at {from:.2}, concurrency is {allowed}"))
}

/// The largest `concurrency` that may have been in force in the `timeout` before a time.
fn allowed(function: &str, at: Seconds, declared: u32, timeout: Seconds, happenings: &[Happening]) -> u32 {
    let (mut now, mut most) = (declared, 0);
    for h in happenings.iter().filter(|h| h.function.as_deref() == Some(function)) {
        let Fault::Concurrency { to, .. } = h.fault else { continue };
        if h.from - ROUNDING > at {
            break;
        }
        // The former value counts on while requests of that time run.
        if h.to.is_none_or(|over| over + timeout + ROUNDING >= at) {
            most = most.max(now);
        }
        now = to;
    }
    most.max(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::tests_support::{gateway_killed, happening, running};

    fn is_exceeded(at: Seconds, count: u32, happenings: &[Happening]) -> bool {
        exceeded(&running(at, count), 4, 5.0, happenings).is_some()
    }

    #[test]
    fn one_too_many_is_told_with_its_instance() {
        assert!(!is_exceeded(10.0, 4, &[]));
        assert!(exceeded(&running(10.0, 5), 4, 5.0, &[]).unwrap().starts_with("a had 5"));
    }

    #[test]
    fn requests_that_a_killed_gateway_lost_count_for_the_timeout_only() {
        let kill = [gateway_killed(10.0)];
        assert!(!is_exceeded(14.0, 5, &kill));
        assert!(is_exceeded(17.0, 5, &kill));
        assert!(is_exceeded(8.0, 5, &kill));
        assert!(is_exceeded(14.0, 5, &[happening(10.0, Fault::RestartGateways)]));
    }

    #[test]
    fn a_changed_concurrency_counts_from_its_change_and_the_former_one_until_its_requests_end() {
        let to = |at, to| happening(at, Fault::Concurrency { function: "steady", to });
        let changes = [to(10.0, 6), to(20.0, 3)];
        assert!(is_exceeded(8.0, 6, &changes));
        assert!(!is_exceeded(12.0, 6, &changes));
        assert!(!is_exceeded(24.0, 6, &changes));
        assert!(is_exceeded(27.0, 4, &changes));
        assert!(!is_exceeded(27.0, 3, &changes));
    }
}
