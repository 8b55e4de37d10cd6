//! `Server-Timing`: where the time until an answer's head went, in milliseconds. A cold start's stages are in
//! [`cold_start`](crate::cold_start).

use http::HeaderValue;

use crate::cold_start::Stages;

/// What an answer waited for, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Spent<'a> {
    /// From the request's arrival until it was sent.
    pub waited: f64,
    /// Of that, by stages, the start of its instance.
    pub cold: Option<&'a Stages>,
    /// Of that, the thawing of a parked instance.
    pub thaw: Option<f64>,
    /// From sending until the head of the answer.
    pub function: f64,
}

impl Spent<'_> {
    /// As a header: `queue;dur=0.05, cold;dur=0.00, function;dur=3.21`.
    pub fn header(&self) -> HeaderValue {
        let started = self.cold.map_or(0.0, Stages::until_answered);
        let mut text = String::with_capacity("queue;dur=1234.00, cold;dur=1234.00, function;dur=1234.00".len());
        put(&mut text, "queue;dur=", self.waited - started - self.thaw.unwrap_or(0.0));
        put(&mut text, ", cold;dur=", started);
        put(&mut text, ", function;dur=", self.function);
        for (stage, seconds) in self.cold.into_iter().flat_map(Stages::iter) {
            text.push_str(", cold-");
            text.push_str(stage);
            put(&mut text, ";dur=", seconds);
        }
        if let Some(seconds) = self.thaw {
            put(&mut text, ", thaw;dur=", seconds);
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("queue"))
    }
}

/// Milliseconds with two digits, none below zero. Each answer has some, and what formats any number takes longer
/// than all else here.
fn put(text: &mut String, before: &str, seconds: f64) {
    text.push_str(before);
    let hundredths = (seconds * 1e5).round() as u64;
    text.push_str(itoa::Buffer::new().format(hundredths / 100));
    text.push('.');
    for digit in [hundredths / 10 % 10, hundredths % 10] {
        text.push(char::from(b'0' + digit as u8));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(seconds: f64) -> String {
        let mut text = String::new();
        put(&mut text, "", seconds);
        text
    }

    #[test]
    fn times_of_a_warm_request_are_its_queue_and_its_function() {
        let spent = Spent { waited: 0.000_051, cold: None, thaw: None, function: 1.234_567 };
        assert_eq!(spent.header(), "queue;dur=0.05, cold;dur=0.00, function;dur=1234.57");
        let thawed = Spent { waited: 0.004, thaw: Some(0.003), ..spent };
        assert_eq!(thawed.header(), "queue;dur=1.00, cold;dur=0.00, function;dur=1234.57, thaw;dur=3.00");
    }

    #[test]
    fn no_time_is_below_zero() {
        assert_eq!((written(-0.001), written(f64::NAN)), ("0.00".to_owned(), "0.00".to_owned()));
    }

    proptest! {
        #[test]
        fn milliseconds_are_those_of_the_formatter(micros in 0u64..10_000_000_000) {
            // Five in the last place is rounded one way or the other.
            prop_assume!(micros % 10 != 5);
            let seconds = micros as f64 / 1e6;
            prop_assert_eq!(written(seconds), format!("{:.2}", seconds * 1e3));
        }
    }
}
