//! Sizes as users write them: `512Ki`, `6Mi`, `1G`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A number of bytes, written with Kubernetes' suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Why a text is no size.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a size in bytes: write a whole number, alone or with k, M, G, Ki, Mi or Gi, such as 6Mi")]
pub struct InvalidByteSize(String);

const UNITS: [(&str, u64); 6] =
    [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];

impl ByteSize {
    /// So many times 2^20 bytes.
    pub const fn mebibytes(n: u64) -> Self {
        Self(n << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let (number, factor) =
            UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1));
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let size = number.parse::<u64>().ok().filter(|_| is_number).and_then(|n| n.checked_mul(factor));
        size.map(Self).ok_or_else(|| InvalidByteSize(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]{1,12}(k|M|G|Ki|Mi|Gi)?$", "maxLength": 14})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn suffixes_are_those_of_kubernetes() {
        assert_eq!("6Mi".parse(), Ok(ByteSize::mebibytes(6)));
        assert_eq!("2k".parse(), Ok(ByteSize(2_000)));
        assert_eq!("17".parse(), Ok(ByteSize(17)));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "Mi", "-1", "+1", "1.5Mi", "6MB", "18446744073709551615Gi"] {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains("6Mi"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in any::<u64>()) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }
}
