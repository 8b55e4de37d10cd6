//! Durations and sizes as users write them.

use lambent_api::{ByteSize, Duration};
use lambent_fuzz::spell_text;
use proptest::prelude::any;

use crate::check;

const WORDS: &[&str] = &[
    "0",
    "1",
    "9",
    "60",
    "18446744073709551615",
    "ms",
    "s",
    "m",
    "h",
    ".",
    "-",
    "+",
    " ",
    "Ki",
    "Mi",
    "Gi",
    "k",
    "M",
    "G",
    "٣",
];

#[test]
fn a_duration_is_numbers_with_units_and_reads_back_as_written() {
    check(any::<Vec<u8>>(), |bytes| {
        let text = spell_text(&bytes, WORDS);
        let Ok(duration) = text.parse::<Duration>() else { return };
        assert!(text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(['s', 'm', 'h']), "{text:?}");
        assert!(text.bytes().all(|b| b.is_ascii_digit() || b"smh".contains(&b)), "{text:?}");
        assert_eq!(duration.to_string().parse(), Ok(duration), "{text:?}");
        assert!(u128::try_from(duration.seconds_rounded_up()).unwrap() >= u128::from(duration.get().as_secs()));
    });
}

#[test]
fn a_size_is_a_number_with_a_unit_and_reads_back_as_written() {
    check(any::<Vec<u8>>(), |bytes| {
        let text = spell_text(&bytes, WORDS);
        let Ok(size) = text.parse::<ByteSize>() else { return };
        let number = text.trim_end_matches(['K', 'M', 'G', 'i', 'k']);
        assert!(!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()), "{text:?}");
        assert_eq!(size.to_string().parse(), Ok(size), "{text:?}");
    });
}
