//! The most that was needed within the last while: what instances must stay for.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Samples within a part of the window of this size are one.
const PARTS: u32 = 32;

/// A sliding maximum. Keeps only samples that can still become the maximum: each is greater than
/// all that came after it.
#[derive(Clone, Debug, Default)]
pub struct Window {
    samples: VecDeque<(Instant, u32)>,
}

impl Window {
    /// Adds what is needed now.
    pub fn record(&mut self, needed: u32, now: Instant, length: Duration) {
        self.forget(now, length);
        while self.samples.back().is_some_and(|(_, value)| *value <= needed) {
            self.samples.pop_back();
        }
        // A slow decline must not fill the memory: what came just before stands for it.
        let recent = self.samples.back().is_some_and(|(at, _)| now.duration_since(*at) < length / PARTS / 4);
        if !recent || self.samples.len() < PARTS as usize {
            self.samples.push_back((now, needed));
        }
    }

    /// The most that was needed since `length` ago.
    pub fn max(&mut self, now: Instant, length: Duration) -> u32 {
        self.forget(now, length);
        self.samples.front().map_or(0, |(_, value)| *value)
    }

    fn forget(&mut self, now: Instant, length: Duration) {
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > length) {
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_peak_counts_until_it_is_out_of_the_window() {
        let (start, length) = (Instant::now(), Duration::from_secs(60));
        let at = |s| start + Duration::from_secs(s);
        let mut window = Window::default();
        window.record(5, at(0), length);
        window.record(2, at(10), length);
        assert_eq!(window.max(at(60), length), 5);
        assert_eq!(window.max(at(61), length), 2);
        assert_eq!(window.max(at(71), length), 0);
    }

    proptest! {
        #[test]
        fn it_is_never_less_than_the_true_maximum_of_the_last_while(values in prop::collection::vec((0..2000_u64, 0..50_u32), 1..200)) {
            let (start, length) = (Instant::now(), Duration::from_secs(10));
            let (mut window, mut now, mut seen) = (Window::default(), start, Vec::new());
            for (pause, value) in values {
                now += Duration::from_millis(pause);
                window.record(value, now, length);
                seen.push((now, value));
                // What was merged into a neighbour may be forgotten a hundredth of the window early.
                let sure = length - length / 100;
                let truth = seen.iter().filter(|(at, _)| now.duration_since(*at) <= sure).map(|(_, v)| *v).max();
                prop_assert!(window.max(now, length) >= truth.unwrap_or(0));
                prop_assert!(window.samples.len() <= 4096);
            }
        }
    }
}
