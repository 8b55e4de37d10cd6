//! The time of a log line. Lines of one second share most of it.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;

/// As jiff writes a whole second, which ends in this.
const UTC: char = 'Z';

thread_local! {
    /// The second written last, and its text up to the fraction.
    static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Writes `now` as RFC 3339 has it, in UTC and microseconds.
pub(crate) fn write(line: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            *second = since.as_secs();
            let whole = Timestamp::from_second(i64::try_from(*second).unwrap_or_default()).unwrap_or_default();
            *text = whole.to_string().trim_end_matches(UTC).to_owned();
        }
        line.extend_from_slice(text.as_bytes());
    });
    let mut micros = since.subsec_micros();
    let mut fraction = *b".000000Z";
    for digit in fraction[1..7].iter_mut().rev() {
        *digit += (micros % 10) as u8;
        micros /= 10;
    }
    line.extend_from_slice(&fraction);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_that_of_jiff_to_the_microsecond() {
        for (second, nanos) in [(0, 0), (1_795_000_000, 1_999), (1_795_000_000, 999_999_999), (1_795_000_001, 120_000)]
        {
            let mut line = Vec::new();
            write(&mut line, UNIX_EPOCH + Duration::new(second, nanos));
            let micros = i128::from(nanos / 1_000 * 1_000) + i128::from(second) * 1_000_000_000;
            let text = String::from_utf8(line).unwrap();
            assert_eq!(text.parse::<Timestamp>().unwrap().as_nanosecond(), micros, "{text}");
            assert_eq!(text.len(), "2026-11-22T03:20:01.494421Z".len(), "{text}");
        }
    }

    #[test]
    fn a_clock_before_its_epoch_is_at_it() {
        let mut line = Vec::new();
        write(&mut line, UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(line, b"1970-01-01T00:00:00.000000Z");
    }
}
