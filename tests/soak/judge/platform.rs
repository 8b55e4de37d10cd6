//! The platform's own pods: they restart only when killed or without their Lease, and their memory
//! stays bounded.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    plan::Fault,
    record::{Happening, PlatformPod, Seconds},
};

/// Of each pod, in MiB; what 100 requests a second on a few Functions need is a fraction of it. One
/// that had more from earlier work may keep that.
const MOST_MEMORY: f64 = 64.0;
/// Growth of a process between its first minute and the end, in MiB.
const MOST_GROWTH: f64 = 16.0;
/// Caches are filled by then.
const WARMED_UP: Seconds = 60.0;

/// These lead by a Lease, and end when they can't renew it.
const LEADERS: [&str; 2] = ["controller", "autoscaler"];

/// Restarts that no kill explains, nor an API server that was away: each time of that may cost a
/// leader its Lease once.
pub fn restarts(samples: &[PlatformPod], happenings: &[Happening]) -> Vec<String> {
    let mut kills: BTreeMap<&str, i32> = BTreeMap::new();
    for uid in happenings.iter().flat_map(|h| &h.killed) {
        *kills.entry(uid).or_default() += 1;
    }
    let unexplained = |pod: &&str| {
        let (first, last) = (of(samples, pod).next()?, of(samples, pod).next_back()?);
        // One that was made in the run has no restart to begin with.
        let there_before = first.at <= samples.first()?.at + 1.0;
        let restarts = last.restarts - if there_before { first.restarts } else { 0 };
        let killed = kills.get(*pod).copied().unwrap_or(0);
        let leases = if LEADERS.contains(&last.component.as_str()) { api_server_stops(happenings) } else { 0 };
        (restarts > killed + leases)
            .then(|| format!("{} {}: {restarts} restarts, killed {killed} times", last.component, last.name))
    };
    uids(samples).iter().filter_map(unexplained).collect()
}

fn api_server_stops(happenings: &[Happening]) -> i32 {
    let stops = happenings.iter().filter(|h| matches!(h.fault, Fault::StopApiServer { .. }));
    i32::try_from(stops.count()).unwrap_or(i32::MAX)
}

/// Pods whose memory is too large or grows.
pub fn memory(samples: &[PlatformPod]) -> Vec<String> {
    let too_much = |pod: &&str| {
        let most = of(samples, pod).map(|s| s.memory).fold(0.0, f64::max);
        let last = of(samples, pod).next_back()?;
        let first = of(samples, pod).next()?;
        let limit = MOST_MEMORY.max(first.memory + MOST_GROWTH);
        // A restarted container begins anew: growth is within one life of it.
        let mut this_life = of(samples, pod).filter(|s| s.restarts == last.restarts);
        let early = this_life.find(|s| s.at >= first.at + WARMED_UP).map_or(last.memory, |s| s.memory);
        let (name, grown) = (&last.name, last.memory - early);
        if most > limit {
            Some(format!("{name} has taken {most:.0} MiB, more than {limit:.0}"))
        } else if grown > MOST_GROWTH {
            Some(format!("{name} has grown by {grown:.0} MiB, more than {MOST_GROWTH}"))
        } else {
            None
        }
    };
    uids(samples).iter().filter_map(too_much).collect()
}

fn uids(samples: &[PlatformPod]) -> BTreeSet<&str> {
    samples.iter().map(|sample| sample.uid.as_str()).collect()
}

fn of<'a>(samples: &'a [PlatformPod], uid: &'a str) -> impl DoubleEndedIterator<Item = &'a PlatformPod> {
    samples.iter().filter(move |sample| sample.uid == uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::tests_support::gateway_killed;

    fn sample(at: Seconds, uid: &str, restarts: i32, memory: f64) -> PlatformPod {
        PlatformPod { at, component: "gateway".into(), name: uid.into(), uid: uid.into(), restarts, memory }
    }

    #[test]
    fn only_kills_explain_restarts() {
        let samples = [sample(0.0, "a", 3, 1.0), sample(0.0, "b", 0, 1.0), sample(90.0, "a", 4, 1.0)];
        assert_eq!(restarts(&samples, &[]).len(), 1);
        let kill = Happening { killed: vec!["a".into()], ..gateway_killed(10.0) };
        assert_eq!(restarts(&samples, &[kill]), [""; 0]);
    }

    #[test]
    fn a_leader_may_lose_its_lease_while_the_api_server_is_away() {
        let of = |component: &str| {
            [0.0, 90.0].map(|at| PlatformPod {
                component: component.into(),
                ..sample(at, "a", if at > 0.0 { 1 } else { 0 }, 1.0)
            })
        };
        let away = Happening { fault: Fault::StopApiServer { seconds: 13 }, ..gateway_killed(10.0) };
        assert_eq!(restarts(&of("controller"), std::slice::from_ref(&away)), [""; 0]);
        assert_eq!(restarts(&of("controller"), &[]).len(), 1);
        assert_eq!(restarts(&of("gateway"), &[away]).len(), 1, "it has none");
    }

    #[test]
    fn a_pod_that_came_later_has_no_restarts_to_begin_with() {
        let samples = [sample(0.0, "a", 0, 1.0), sample(50.0, "b", 1, 1.0)];
        assert_eq!(restarts(&samples, &[]).len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_does_not_grow() {
        assert_eq!(memory(&[sample(0.0, "a", 0, 10.0), sample(90.0, "a", 0, 20.0)]), [""; 0]);
        assert_eq!(
            memory(&[sample(0.0, "a", 0, 20.0), sample(30.0, "a", 0, 90.0), sample(90.0, "a", 0, 20.0)]).len(),
            1
        );
        assert_eq!(memory(&[sample(0.0, "a", 0, 90.0), sample(90.0, "a", 0, 20.0)]), [""; 0]);
        let growing = [sample(0.0, "a", 0, 10.0), sample(61.0, "a", 0, 12.0), sample(900.0, "a", 0, 40.0)];
        assert_eq!(memory(&growing).len(), 1);
    }
}
