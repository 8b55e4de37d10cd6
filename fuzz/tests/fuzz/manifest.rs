//! Functions as the API server may hand them out: older than the schema, or none of its.

use lambent_api::{Function, FunctionSpec, Revision, Settings};
use lambent_fuzz::{spell, spell_text};
use proptest::{
    collection::vec,
    prelude::{Strategy, any},
};
use serde_json::{Value, json};

use crate::check;

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\"apiVersion\":\"lambent.dev/v1alpha1\",",
    "\"kind\":\"Function\",",
    "\"metadata\":{\"name\":\"a\"},",
    "\"spec\":{\"image\":\"a\"}",
    "\"spec\":",
    "\"image\":",
    "\"a\"",
    "\"scale\":",
    "\"min\":",
    "\"timeout\":",
    "\"status\":",
    "null",
    "0",
    "-1",
    "1e400",
    "{}",
    "[]",
    "true",
    "\\u0000",
    "\"conditions\":",
];
const TIMES: &[&str] = &["0", "1", "999", "ms", "s", "m", "h", "-", "18446744073709551615"];
const SHARES: &[&str] = &["0", "1", "25", "%", "4294967295", "-", "lots"];

#[test]
fn any_text_is_read_or_refused() {
    check(any::<Vec<u8>>(), |bytes| {
        let json = spell(&bytes, JSON);
        let _ = serde_json::from_slice::<Function>(&json);
        let _ = serde_json::from_slice::<Revision>(&json);
    });
}

#[derive(Clone, Debug)]
struct Numbers {
    concurrency: i32,
    port: i32,
    min: i32,
    max: i32,
    depth: i32,
    history: i32,
    surge: Result<i32, Vec<u8>>,
    times: [Vec<u8>; 4],
    size: u64,
    small: bool,
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let time = || vec(any::<u8>(), 0..5);
    let times = [time(), time(), time(), time()];
    let input = (any::<[i32; 6]>(), any::<Result<i32, Vec<u8>>>(), times, any::<u64>(), any::<bool>());
    input.prop_map(|(numbers, surge, times, size, small)| {
        let [concurrency, port, min, max, depth, history] = numbers;
        Numbers { concurrency, port, min, max, depth, history, surge, times, size, small }
    })
}

impl Numbers {
    /// Most numbers of 32 bits are out of range: half of the cases have small ones.
    fn spec(&self) -> Value {
        let near = |n: i32| if self.small { n % 8 } else { n };
        let time = |n: usize| spell_text(&self.times[n], TIMES);
        let surge = match &self.surge {
            Ok(number) => json!(near(*number)),
            Err(bytes) => json!(spell_text(bytes, SHARES)),
        };
        json!({
            "image": "a", "concurrency": near(self.concurrency), "port": near(self.port), "maxBody": self.size.to_string(),
            "scale": {"min": near(self.min), "max": near(self.max), "idle": time(0)},
            "queue": {"depth": near(self.depth), "timeout": time(1)},
            "timeout": time(2), "startTimeout": time(3),
            "rollout": {"maxSurge": surge}, "revisionHistory": near(self.history),
        })
    }
}

#[test]
fn settings_are_servable_or_refused_with_a_field() {
    check(numbers(), |numbers| {
        let Ok(spec) = serde_json::from_value::<FunctionSpec>(numbers.spec()) else { return };
        match Settings::try_from(&spec) {
            Ok(settings) => {
                assert!(settings.min <= settings.max && settings.max >= 1 && settings.max_surge >= 1, "{settings:?}");
                let times = [settings.timeout, settings.stream_timeout, settings.start_timeout, settings.queue_timeout];
                assert!(times.iter().all(|time| !time.is_zero()) && !settings.idle.is_zero(), "{settings:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let again: FunctionSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        assert_eq!(again.template.digest("").unwrap(), spec.template.digest("").unwrap());
    });
}
