//! How many instances a queue needs: those that make it empty soonest, and no more.
//!
//! Every waiting request is a job of `s` seconds, every unit of concurrency a machine. Machines of
//! ready instances are free now, or after half a job where they are busy; those of starting ones when
//! these answer; those of `m` more ones after `start.seconds(m)`. A queue of `q` jobs is empty at the
//! least `T` with `sum over machines of floor((T - free) / s) >= q`. More instances help a long
//! queue, but `m` of them start later than one does, so there is a best `m`; the least that is
//! within 5 % of it is taken.

use crate::start_model::StartModel;

/// How long a request is taken to run before one has.
pub const FIRST_SERVICE_SECONDS: f64 = 0.5;
/// More instances for a gain of less than this are not worth their memory.
const TOLERANCE: f64 = 1.05;
/// Shorter jobs than this are as good as free.
const SHORTEST: f64 = 1e-4;

/// What is known when something waits.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Requests waiting.
    pub queued: u32,
    /// Requests at instances.
    pub in_flight: u32,
    /// Requests a second that have kept coming; 0 for a single burst.
    pub arriving: f64,
    /// Instances that answer.
    pub ready: u32,
    /// Instances ordered that do not answer yet.
    pub starting: u32,
    /// How long ago those were ordered, in seconds.
    pub starting_for: f64,
    /// Requests that an instance serves at once.
    pub concurrency: u32,
    /// How long a request runs; none before the first.
    pub service_seconds: Option<f64>,
    /// How long starts take.
    pub start: StartModel,
    /// Never more instances than this.
    pub max: u32,
}

/// So many machines, free after so many seconds.
type Group = (f64, f64);

/// The number of instances that there should be. Never fewer than there are, up to `max`.
///
/// | waiting | of | at once | start | max | from | wanted | empty after |
/// | --- | --- | --- | --- | --- | --- | --- | --- |
/// | 1 | 0.5 s | 1 | 0.35 s + 0.2 s | 100 | 0 | 1 | 0.85 s |
/// | 100 | 10 ms | 1 | 0.35 s + 0.2 s | 20 | 0 | 2 | 1.05 s |
/// | 100 | 1 s | 1 | 0.35 s + 0.2 s | 20 | 0 | 17 | 9.55 s |
/// | 1 | 10 ms | 1 | 0.35 s + 0.2 s | 20 | 1 busy | 1 | 15 ms |
/// | 1 | 10 s | 1 | 0.35 s + 0.2 s | 20 | 1 busy | 2 | 10.35 s |
pub fn wanted(s: &Situation) -> u32 {
    let now = s.ready + s.starting;
    let most = s.max.max(now);
    let useful = now.saturating_add(s.queued.div_ceil(s.concurrency.max(1))).clamp(now, most);
    let times: Vec<f64> = (now..=useful).map(|n| empty_after(s, n - now)).collect();
    let best = times.iter().copied().fold(f64::INFINITY, f64::min);
    let more = times.iter().position(|t| *t <= best * TOLERANCE).unwrap_or(0);
    let for_queue = now + u32::try_from(more).unwrap_or(0);
    for_queue.max(steady(s)).min(most)
}

/// What keeps up with what keeps coming: Little's law.
fn steady(s: &Situation) -> u32 {
    let busy = s.arriving * service(s) / f64::from(s.concurrency.max(1));
    // Saturates; a rate is never that high.
    busy.ceil() as u32
}

fn service(s: &Situation) -> f64 {
    s.service_seconds.unwrap_or(FIRST_SERVICE_SECONDS).max(SHORTEST)
}

/// When the queue is empty with `more` instances started now.
pub fn empty_after(s: &Situation, more: u32) -> f64 {
    let job = service(s);
    let at_once = f64::from(s.concurrency.max(1));
    let ready = f64::from(s.ready) * at_once;
    let busy = f64::from(s.in_flight).min(ready);
    let starting = (s.start.seconds(s.starting) - s.starting_for).max(0.0);
    // Those that start already share the machine with the new ones.
    let new = s.start.seconds(s.starting + more);
    let groups: [Group; 4] = [
        (ready - busy, 0.0),
        (busy, job / 2.0),
        (f64::from(s.starting) * at_once, if more > 0 { starting.max(new - s.starting_for) } else { starting }),
        (f64::from(more) * at_once, new),
    ];
    least_time(&groups, job, f64::from(s.queued))
}

/// The least time by which the machines have done so many jobs.
fn least_time(groups: &[Group; 4], job: f64, jobs: f64) -> f64 {
    let machines: f64 = groups.iter().map(|g| g.0).sum();
    if machines < 1.0 {
        return f64::INFINITY;
    }
    let done = |time: f64| -> f64 {
        let of = |(machines, free): &Group| machines * ((time - free) / job + 1e-9).floor().max(0.0);
        groups.iter().map(of).sum()
    };
    let last_free = groups.iter().filter(|g| g.0 > 0.0).map(|g| g.1).fold(0.0, f64::max);
    let (mut low, mut high) = (0.0, last_free + job * ((jobs / machines).ceil() + 1.0));
    // Halving 40 times: to a billionth of the whole.
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if done(middle) >= jobs { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiting(queued: u32, seconds: f64, max: u32) -> Situation {
        Situation {
            queued,
            in_flight: 0,
            arriving: 0.0,
            ready: 0,
            starting: 0,
            starting_for: 0.0,
            concurrency: 1,
            service_seconds: Some(seconds),
            start: StartModel::new(0.35, 0.2),
            max,
        }
    }

    #[test]
    fn the_table_is_true() {
        assert_eq!(wanted(&waiting(1, 0.5, 100)), 1);
        assert_eq!(wanted(&waiting(100, 0.01, 20)), 2);
        assert_eq!(wanted(&waiting(100, 1.0, 20)), 17);
        let busy = |seconds| Situation { ready: 1, in_flight: 1, ..waiting(1, seconds, 20) };
        assert_eq!(wanted(&busy(0.01)), 1);
        assert_eq!(wanted(&busy(10.0)), 2);
        let after = |s: &Situation| empty_after(s, wanted(s) - s.ready);
        assert!((after(&waiting(100, 0.01, 20)) - 1.05).abs() < 0.01);
        assert!((after(&waiting(100, 1.0, 20)) - 9.55).abs() < 0.01);
    }

    #[test]
    fn what_is_starting_already_is_not_started_again() {
        let s = Situation { starting: 20, starting_for: 1.0, ..waiting(100, 1.0, 100) };
        let again = wanted(&s);
        let first = wanted(&waiting(100, 1.0, 100));
        assert!(again <= first.max(20), "{again} {first}");
        assert_eq!(wanted(&Situation { starting: 1, ..waiting(1, 0.1, 100) }), 1);
    }

    #[test]
    fn what_keeps_coming_is_kept_up_with() {
        let s = Situation { arriving: 200.0, ready: 1, in_flight: 1, ..waiting(1, 0.05, 100) };
        assert_eq!(wanted(&s), 10);
    }

    #[test]
    fn concurrency_is_counted() {
        let s = Situation { concurrency: 100, ..waiting(100, 1.0, 20) };
        assert_eq!(wanted(&s), 1);
    }

    fn any_situation() -> impl Strategy<Value = Situation> {
        let load = (0..500_u32, 0..50_u32, 0.0..100.0);
        let instances = (0..30_u32, 0..30_u32, 0.0..3.0, 1..50_u32);
        let times = (prop::option::of(0.0001..20.0), 0.01..5.0, 0.0..0.5, 1..200_u32);
        (load, instances, times).prop_map(|(load, instances, times)| Situation {
            queued: load.0,
            in_flight: load.1,
            arriving: load.2,
            ready: instances.0,
            starting: instances.1,
            starting_for: instances.2,
            concurrency: instances.3,
            service_seconds: times.0,
            start: StartModel::new(times.1, times.2),
            max: times.3,
        })
    }

    proptest! {
        #[test]
        fn never_fewer_than_there_are_and_never_more_than_allowed(s in any_situation()) {
            let now = s.ready + s.starting;
            prop_assert!(wanted(&s) >= now);
            prop_assert!(wanted(&s) <= s.max.max(now));
        }

        #[test]
        fn the_queue_is_empty_within_a_twentieth_of_the_best_fixed_number(s in any_situation()) {
            let now = s.ready + s.starting;
            let best = (now..=s.max.max(now)).map(|n| empty_after(&s, n - now)).fold(f64::INFINITY, f64::min);
            let ours = empty_after(&s, wanted(&Situation { arriving: 0.0, ..s }) - now);
            prop_assert!(ours <= best * TOLERANCE + 1e-6 || ours.is_infinite(), "{ours} {best}");
        }

        #[test]
        fn a_longer_queue_is_not_expected_to_be_empty_sooner(s in any_situation(), more in 1..500_u32) {
            let best = |s: &Situation| {
                let now = s.ready + s.starting;
                (0..=s.max.max(now) - now).map(|more| empty_after(s, more)).fold(f64::INFINITY, f64::min)
            };
            let longer = Situation { queued: s.queued + more, ..s };
            prop_assert!(best(&longer) >= best(&s) - 1e-6);
        }

        #[test]
        fn whatever_waits_gets_an_instance(s in any_situation()) {
            prop_assert!(s.queued == 0 || wanted(&s) >= 1);
        }
    }
}
