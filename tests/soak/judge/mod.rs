//! What must hold, as functions from what was recorded to what doesn't hold.
//!
//! | | function |
//! | --- | --- |
//! | a call fails only where a fault allows it | [`failures::verdict`] |
//! | an instance never has more requests than `concurrency` | [`concurrency::exceeded`] |
//! | after a fault service is normal again in time | [`recovery::after`] |
//! | nothing needed is taken down while the API server is away | [`instances::taken_down`] |
//! | the platform's pods neither restart nor grow by themselves | [`platform::restarts`], [`platform::memory`] |

pub mod concurrency;
pub mod failures;
pub mod instances;
pub mod platform;
pub mod recovery;

use serde::Serialize;

use crate::record::{Happening, Seconds};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// When.
    pub at: Seconds,
    /// Which rule.
    pub rule: &'static str,
    /// The call's id, if it is about one.
    pub request_id: Option<String>,
    /// What was seen.
    pub seen: String,
    /// The faults around it.
    pub faults: Vec<String>,
}

/// The faults that were going on at a time or had been shortly before: where to look for a cause.
pub fn around(at: Seconds, happenings: &[Happening]) -> Vec<String> {
    const SHORTLY: Seconds = 15.0;
    let near = |h: &&Happening| h.from <= at && h.to.is_none_or(|to| at <= to + SHORTLY);
    let words = |h: &Happening| {
        let to = h.to.map_or("now".into(), |to| format!("{to:.2}"));
        format!("#{} {} ({}) {:.2}..{to}", h.number, h.fault, h.what, h.from)
    };
    happenings.iter().filter(near).map(words).collect()
}

#[cfg(test)]
pub mod tests_support {
    use super::*;
    use crate::{
        plan::Fault,
        record::{Call, Outcome, Run},
    };

    /// A call of `steady` that took 100 ms.
    pub fn call(due: Seconds, outcome: Outcome) -> Call {
        let (id, function) = ("id".into(), "steady".into());
        Call { id, function, due, sent: due, ended: due + 0.1, refused: Vec::new(), outcome }
    }

    /// A call that found so many running.
    pub fn running(due: Seconds, running: u32) -> Call {
        call(due, Outcome::Good(Some(Run { host: "a".into(), from: due, running })))
    }

    /// A fault as it happened, over at once.
    pub fn happening(from: Seconds, fault: Fault) -> Happening {
        let function = fault.function().map(str::to_owned);
        let (what, killed) = (String::new(), Vec::new());
        Happening { number: 1, fault, function, what, from, to: Some(from), failed: None, killed }
    }

    /// The kill of a gateway.
    pub fn gateway_killed(at: Seconds) -> Happening {
        happening(at, Fault::Kill { component: "gateway", pick: 0 })
    }
}
