//! Durations as users write them: `250ms`, `30s`, `1m30s`, `1h`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A span of time, written as numbers with the units `ms`, `s`, `m`, `h`, largest first or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(std::time::Duration);

/// Why a text is no duration.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a duration: write numbers with units, such as 250ms, 30s, 1m30s or 1h")]
pub struct InvalidDuration(String);

impl Duration {
    /// So many whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// The same span as the standard library's type.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whole seconds, rounded up: what Kubernetes takes.
    pub fn seconds_rounded_up(self) -> i64 {
        i64::try_from(self.0.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX)
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let invalid = || InvalidDuration(text.to_owned());
        let mut total: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let millis = match &rest[..unit] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(invalid()),
            };
            total = number.checked_mul(millis).and_then(|n| total.checked_add(n)).ok_or_else(invalid)?;
            rest = &rest[unit..];
        }
        if text.is_empty() { Err(invalid()) } else { Ok(Self(std::time::Duration::from_millis(total))) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        let parts = [
            (millis / 3_600_000, "h"),
            (millis / 60_000 % 60, "m"),
            (millis / 1_000 % 60, "s"),
            (millis % 1_000, "ms"),
        ];
        parts.into_iter().filter(|(n, _)| *n > 0).try_for_each(|(n, unit)| write!(f, "{n}{unit}"))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$", "maxLength": 20})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_add_up() {
        assert_eq!("1h2m3s4ms".parse(), Ok(Duration(std::time::Duration::from_millis(3_723_004))));
        assert_eq!("90s".parse::<Duration>().unwrap().to_string(), "1m30s");
        assert_eq!("0s".parse::<Duration>().unwrap().to_string(), "0s");
    }

    #[test]
    fn nonsense_is_refused_with_examples() {
        for text in ["", "30", "s", "1d", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h", " 1s"] {
            let error = text.parse::<Duration>().unwrap_err().to_string();
            assert!(error.contains("1m30s"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..1 << 40) {
            let duration = Duration(std::time::Duration::from_millis(millis));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = text.parse::<Duration>();
        }
    }
}
