//! Where the time of a cold start went: milestones as the gateway sees them, and from them the stages that
//! one request waited through.

use tokio::time::Instant;

/// Stages of a cold start, each from the end of the one before:
///
/// | stage      | ends when                                              |
/// | ---------- | ------------------------------------------------------ |
/// | `decide`   | a first instance is asked for                          |
/// | `write`    | the API server has taken that                          |
/// | `order`    | the instance is there, as the watch shows              |
/// | `schedule` | its node is known                                      |
/// | `address`  | its address is known                                   |
/// | `answer`   | its process accepts a connection                       |
/// | `forward`  | the request was handed over                            |
///
/// One whose end was not seen is part of the next: only the first instance is asked for by the gateway.
pub const STAGES: [&str; 7] = ["decide", "write", "order", "schedule", "address", "answer", "forward"];

/// Milestones of an instance's start.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// When this gateway asked for it, if it did.
    pub asked: Option<Asked>,
    /// When the gateway first saw it.
    pub seen: Instant,
    /// When its node was known.
    pub placed: Option<Instant>,
    /// When its address was known.
    pub addressed: Option<Instant>,
    /// When it first answered.
    pub answered: Option<Instant>,
    /// When it was last asked to go on after it was frozen, and when it did.
    pub thawed: Option<(Instant, Instant)>,
}

/// A first instance was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When.
    pub at: Instant,
    /// When the API server had taken it; its watch may be faster than its answer.
    pub taken: Option<Instant>,
}

/// Seconds of each of [`STAGES`]; none where its end was not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stages([Option<f64>; STAGES.len()]);

impl Started {
    /// An instance that is seen now.
    pub fn seen(asked: Option<Asked>, now: Instant) -> Self {
        Self { asked, seen: now, placed: None, addressed: None, answered: None, thawed: None }
    }

    /// The stages that a request waited through, which came at `arrived` and was sent at `sent`.
    pub fn stages(&self, arrived: Instant, sent: Instant) -> Stages {
        let taken = self.asked.and_then(|asked| asked.taken).map(|taken| taken.min(self.seen));
        let asked = self.asked.map(|asked| asked.at);
        let ends = [asked, taken, Some(self.seen), self.placed, self.addressed, self.answered, Some(sent)];
        let mut before = arrived;
        Stages(ends.map(|end| {
            let end = end?;
            let seconds = end.saturating_duration_since(before).as_secs_f64();
            before = before.max(end);
            Some(seconds)
        }))
    }
}

impl Stages {
    /// Those that were seen, with their seconds.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        STAGES.into_iter().zip(self.0).filter_map(|(stage, seconds)| Some((stage, seconds?)))
    }

    /// All of them together.
    pub fn total(&self) -> f64 {
        self.0.iter().flatten().sum()
    }

    /// All of them but the last: what was not waiting for the instance is not its start.
    pub fn until_answered(&self) -> f64 {
        self.0[..STAGES.len() - 1].iter().flatten().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn written(stages: Stages) -> String {
        stages.iter().map(|(stage, seconds)| format!(", cold-{stage};dur={:.2}", seconds * 1e3)).collect()
    }

    #[test]
    fn each_stage_goes_from_the_end_of_the_one_before() {
        let zero = Instant::now();
        let at = |time: u64| zero + millis(time);
        let started = Started {
            asked: Some(Asked { at: at(1), taken: Some(at(6)) }),
            seen: at(16),
            placed: Some(at(26)),
            addressed: Some(at(150)),
            answered: Some(at(300)),
            thawed: None,
        };
        let stages = started.stages(zero, at(301));
        let expected = ", cold-decide;dur=1.00, cold-write;dur=5.00, cold-order;dur=10.00, cold-schedule;dur=10.00, \
                        cold-address;dur=124.00, cold-answer;dur=150.00, cold-forward;dur=1.00";
        assert_eq!(written(stages), expected);
        assert!((stages.total() - 0.301).abs() < 1e-9 && (stages.until_answered() - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_stage_whose_end_was_not_seen_is_part_of_the_next() {
        let zero = Instant::now();
        let mut started = Started::seen(None, zero + millis(20));
        started.answered = Some(zero + millis(300));
        let expected = ", cold-order;dur=20.00, cold-answer;dur=280.00, cold-forward;dur=1.00";
        assert_eq!(written(started.stages(zero, zero + millis(301))), expected);
    }

    #[test]
    fn a_watch_that_is_faster_than_the_answer_ends_the_write() {
        let zero = Instant::now();
        let asked = Some(Asked { at: zero + millis(1), taken: Some(zero + millis(30)) });
        let started = Started { answered: Some(zero + millis(40)), ..Started::seen(asked, zero + millis(10)) };
        let expected = ", cold-decide;dur=1.00, cold-write;dur=9.00, cold-order;dur=0.00, cold-answer;dur=30.00, \
                        cold-forward;dur=0.00";
        assert_eq!(written(started.stages(zero, zero + millis(40))), expected);
    }

    proptest! {
        #[test]
        fn whenever_things_happen_the_stages_are_the_whole_time(
            times in proptest::array::uniform6(proptest::option::of(0_u64..1000)),
            seen in 0_u64..1000,
            arrived in 0_u64..1000,
        ) {
            let zero = Instant::now();
            let at = |time: Option<u64>| time.map(|time| zero + millis(time));
            let [asked, taken, placed, addressed, answered, sent] = times.map(at);
            let arrived = zero + millis(arrived);
            let started = Started {
                asked: asked.map(|at| Asked { at, taken }),
                seen: zero + millis(seen),
                placed,
                addressed,
                answered,
                thawed: None,
            };
            let known = [asked, Some(started.seen), placed, addressed, answered].into_iter().flatten().max();
            let sent = sent.max(known).max(Some(arrived)).unwrap();
            let stages = started.stages(arrived, sent);
            prop_assert!(stages.iter().all(|(_, seconds)| seconds >= 0.0));
            prop_assert!((stages.total() - sent.duration_since(arrived).as_secs_f64()).abs() < 1e-6);
        }
    }
}
