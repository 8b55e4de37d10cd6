//! Which failures of calls are allowed:
//!
//! | what the caller sees | allowed by | when |
//! | --- | --- | --- |
//! | the connection breaks | kill of a gateway | the call was under way at the kill |
//! | a connection is refused, a later one not | kill of a gateway | until the network has learned it |
//! | 502 InstanceFailed, or a cut answer | forced deletion or crash of an instance of the Function | the call was under way while it died |
//! | 503 StartFailed | a new Function with a bad image | until it was corrected, and a while |
//! | 404 FunctionNotFound | a new Function | until all gateways know of it |
//! | 429 QueueFull, 504 QueueTimeout | API server away | the Function had no instance to go to |
//!
//! Everything else is a violation.

use crate::{
    plan::Fault,
    record::{Call, Happening, Outcome, Seconds},
};

/// What to make of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is as it must be.
    Fine,
    /// It failed, and the fault of this number allows it.
    Excused(usize),
    /// It failed.
    Violation(String),
}

/// A socket of a killed process is closed in milliseconds; a busy machine takes longer.
const SOCKETS_CLOSE: Seconds = 1.0;
/// Kubelet, EndpointSlice and kube-proxy in turn.
const NETWORK_LEARNS: Seconds = 8.0;
/// The kubelet kills what was deleted by force after 2 s and more.
const DIES_WITHIN: Seconds = 10.0;
/// A corrected image is pulled and started.
const STARTS_WITHIN: Seconds = 30.0;
/// Watches tell each gateway.
const GATEWAYS_LEARN: Seconds = 2.0;
/// After the API server is back.
const CATCHES_UP: Seconds = 15.0;
/// An instance lost so short before the API server went could not be replaced any more.
const LOST_BEFORE: Seconds = 30.0;

/// Decides about one call. `sleeps`: its Function has no instance most of the time.
pub fn verdict(call: &Call, sleeps: bool, happenings: &[Happening]) -> Verdict {
    let connected = refusals(call, happenings);
    if let Verdict::Violation(_) = connected {
        return connected;
    }
    let excuse = match &call.outcome {
        Outcome::Good(_) | Outcome::Left => return connected,
        Outcome::Wrong(_) | Outcome::Unanswered => None,
        Outcome::Broken(_) => happenings.iter().find(|h| is_gateway_kill(call, h) || is_instance_death(call, h)),
        Outcome::Refused { status: 502, reason, .. } if reason == "InstanceFailed" => {
            happenings.iter().find(|h| is_instance_death(call, h))
        }
        Outcome::Refused { status: 503, reason, .. } if reason == "StartFailed" => {
            happenings.iter().find(|h| is_new(call, h) && call.due <= over(h) + STARTS_WITHIN)
        }
        Outcome::Refused { status: 404, reason, .. } if reason == "FunctionNotFound" => {
            happenings.iter().find(|h| is_new(call, h) && call.due <= h.from + GATEWAYS_LEARN)
        }
        Outcome::Refused { status: 429 | 504, reason, .. } if reason == "QueueFull" || reason == "QueueTimeout" => {
            happenings.iter().find(|h| could_not_start(call, sleeps, h, happenings))
        }
        Outcome::Refused { .. } => None,
    };
    excuse.map_or_else(|| Verdict::Violation(words(call)), |h| Verdict::Excused(h.number))
}

/// Connections that were refused before one was not.
fn refusals(call: &Call, happenings: &[Happening]) -> Verdict {
    let mut excused = Verdict::Fine;
    for at in &call.refused {
        let killed = |h: &&Happening| kills_gateway(h) && *at >= h.from && *at <= over(h) + NETWORK_LEARNS;
        match happenings.iter().find(killed) {
            Some(h) => excused = Verdict::Excused(h.number),
            None => return Verdict::Violation(format!("a connection was refused at {at:.2}")),
        }
    }
    excused
}

fn is_gateway_kill(call: &Call, h: &Happening) -> bool {
    kills_gateway(h) && call.overlaps(h.from, over(h) + SOCKETS_CLOSE)
}

fn kills_gateway(h: &Happening) -> bool {
    matches!(h.fault, Fault::Kill { component: "gateway", .. })
}

fn is_instance_death(call: &Call, h: &Happening) -> bool {
    let of_it = h.function.as_deref() == Some(call.function.as_str());
    let death = matches!(h.fault, Fault::ForceDeletePod { .. } | Fault::Crash { .. });
    death && of_it && call.overlaps(h.from, over(h) + DIES_WITHIN)
}

fn is_new(call: &Call, h: &Happening) -> bool {
    let new = matches!(h.fault, Fault::NewWithBadImage { .. }) && call.due >= h.from;
    new && h.function.as_deref() == Some(call.function.as_str())
}

fn could_not_start(call: &Call, sleeps: bool, h: &Happening, all: &[Happening]) -> bool {
    let away = matches!(h.fault, Fault::StopApiServer { .. }) && call.overlaps(h.from, over(h) + CATCHES_UP);
    let lost_one = || {
        let of_it = |other: &Happening| other.function.as_deref() == Some(call.function.as_str());
        all.iter().any(|other| of_it(other) && other.from <= over(h) && over(other) >= h.from - LOST_BEFORE)
    };
    away && (sleeps || lost_one())
}

/// Its end, or for ever while it goes on.
fn over(h: &Happening) -> Seconds {
    h.to.unwrap_or(Seconds::INFINITY)
}

fn words(call: &Call) -> String {
    let Call { function, due, sent, ended, .. } = call;
    let times = format!("due {due:.2}, sent {sent:.2}, ended {ended:.2}");
    match &call.outcome {
        Outcome::Good(_) | Outcome::Left => String::new(),
        Outcome::Wrong(what) => format!("{function}: a wrong answer: {what} ({times})"),
        Outcome::Unanswered => format!("{function}: no answer ({times})"),
        Outcome::Broken(error) => format!("{function}: the connection broke: {error} ({times})"),
        Outcome::Refused { status, reason, words } => format!("{function}: {status} {reason}: {words} ({times})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests_support::{call, gateway_killed, happening},
        plan::BadImage,
    };

    fn broken(due: Seconds) -> Call {
        call(due, Outcome::Broken("reset".into()))
    }

    fn refused(due: Seconds, status: u16, reason: &str) -> Call {
        call(due, Outcome::Refused { status, reason: reason.into(), words: String::new() })
    }

    fn is_violation(call: &Call, happenings: &[Happening]) -> bool {
        matches!(verdict(call, false, happenings), Verdict::Violation(_))
    }

    #[test]
    fn a_broken_connection_is_allowed_only_to_calls_that_a_killed_gateway_had() {
        let kill = [gateway_killed(10.0)];
        assert_eq!(verdict(&broken(9.95), false, &kill), Verdict::Excused(1));
        assert!(is_violation(&broken(5.0), &kill));
        assert!(is_violation(&broken(12.0), &kill));
        assert!(is_violation(&broken(9.95), &[happening(10.0, Fault::RestartGateways)]));
        assert!(is_violation(&broken(9.95), &[happening(10.0, Fault::Kill { component: "autoscaler", pick: 0 })]));
    }

    #[test]
    fn a_killed_gateway_allows_no_refusal() {
        for (status, reason) in [(502, "InstanceFailed"), (503, "StartFailed"), (504, "QueueTimeout")] {
            assert!(is_violation(&refused(9.95, status, reason), &[gateway_killed(10.0)]), "{reason}");
        }
    }

    #[test]
    fn an_instance_that_dies_fails_its_own_functions_calls_only() {
        let dead = [happening(10.0, Fault::ForceDeletePod { function: "steady", pick: 0 })];
        assert_eq!(verdict(&refused(12.0, 502, "InstanceFailed"), false, &dead), Verdict::Excused(1));
        assert_eq!(verdict(&broken(12.0), false, &dead), Verdict::Excused(1));
        assert!(is_violation(&refused(40.0, 502, "InstanceFailed"), &dead));
        let other = Call { function: "fast".into(), ..refused(12.0, 502, "InstanceFailed") };
        assert!(is_violation(&other, &dead));
        let graceful = [happening(10.0, Fault::DeletePod { function: "steady", pick: 0 })];
        assert!(is_violation(&refused(12.0, 502, "InstanceFailed"), &graceful));
    }

    #[test]
    fn a_bad_image_is_felt_only_by_a_new_function() {
        let how = BadImage::Missing;
        let rollout = [happening(10.0, Fault::RollOutBad { function: "steady", how, seconds: 5 })];
        assert!(is_violation(&refused(11.0, 503, "StartFailed"), &rollout));
        let mut new = happening(10.0, Fault::NewWithBadImage { how, seconds: 5 });
        new.function = Some("steady".into());
        let new = [new];
        assert_eq!(verdict(&refused(11.0, 503, "StartFailed"), false, &new), Verdict::Excused(1));
        assert_eq!(verdict(&refused(11.0, 404, "FunctionNotFound"), false, &new), Verdict::Excused(1));
        assert!(is_violation(&refused(14.0, 404, "FunctionNotFound"), &new));
        assert!(is_violation(&refused(9.0, 503, "StartFailed"), &new));
    }

    #[test]
    fn without_an_api_server_only_who_had_no_instance_may_wait_in_vain() {
        let mut away = happening(10.0, Fault::StopApiServer { seconds: 20 });
        away.to = Some(30.0);
        let late = refused(20.0, 504, "QueueTimeout");
        assert!(is_violation(&late, &[away.clone()]));
        assert_eq!(verdict(&late, true, &[away.clone()]), Verdict::Excused(1));
        let lost = happening(5.0, Fault::DeletePod { function: "steady", pick: 0 });
        assert_eq!(verdict(&late, false, &[away, lost]), Verdict::Excused(1));
    }

    #[test]
    fn a_refused_connection_is_allowed_until_the_network_has_learned_of_a_kill() {
        let good = |at| Call { refused: vec![at], ..call(10.0, Outcome::Good(None)) };
        assert_eq!(verdict(&good(12.0), false, &[gateway_killed(10.0)]), Verdict::Excused(1));
        assert!(is_violation(&good(12.0), &[]));
        assert!(is_violation(&good(30.0), &[gateway_killed(10.0)]));
    }

    #[test]
    fn nothing_excuses_a_wrong_answer() {
        assert!(is_violation(&call(10.0, Outcome::Wrong("x".into())), &[gateway_killed(10.0)]));
        assert_eq!(verdict(&call(10.0, Outcome::Left), false, &[]), Verdict::Fine);
    }
}
