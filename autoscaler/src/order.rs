//! What the autoscaler wants done, and why.

use lambent_api::{FunctionKey, InstanceRef, RevisionKey, signal::Retired};
use serde::Serialize;

/// Why a count is changed. The variants are the words in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// Requests wait.
    Backlog,
    /// `scale.min` is more than there is.
    WarmMinimum,
    /// The load has been lower for `scale.idle`.
    IdleWindow,
    /// `scale.max` is less than there is.
    MaximumLowered,
    /// Another Revision serves.
    Superseded,
}

impl Reason {
    /// The variant's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backlog => "Backlog",
            Self::WarmMinimum => "WarmMinimum",
            Self::IdleWindow => "IdleWindow",
            Self::MaximumLowered => "MaximumLowered",
            Self::Superseded => "Superseded",
        }
    }
}

/// A change of a Revision's wanted count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Of which Function.
    pub function: FunctionKey,
    /// Which Revision.
    pub revision: RevisionKey,
    /// Only if it still says this.
    pub from: u32,
    /// What it is to say.
    pub to: u32,
    /// On the way down: the instances to stop.
    pub stopping: Option<Vec<InstanceRef>>,
    /// Why.
    pub reason: Reason,
    /// The load then.
    pub seen: Seen,
}

/// The load that was decided upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Requests waiting.
    pub queued: u32,
    /// Requests at instances.
    pub in_flight: u32,
    /// Instances that answer.
    pub ready: u32,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Change a count.
    Write(Write),
    /// Ask the gateways to use only `keep` instances; the answer comes back as `Input::Retired`.
    Retire {
        /// Which Revision.
        revision: RevisionKey,
        /// How many stay in use.
        keep: u32,
    },
}

/// What may be stopped when several gateways were asked: what all of those name that know any
/// instance. One that knows none has nothing to say.
pub fn agreed(answers: Vec<Retired>) -> Retired {
    let mut knowing = answers.into_iter().filter(|answer| answer.left > 0 || !answer.instances.is_empty());
    let Some(mut agreed) = knowing.next() else { return Retired::default() };
    for answer in knowing {
        let known = |r: &Retired| r.left.saturating_add(u32::try_from(r.instances.len()).unwrap_or(u32::MAX));
        let all = known(&agreed).max(known(&answer));
        agreed.instances.retain(|instance| answer.instances.contains(instance));
        agreed.left = all.saturating_sub(u32::try_from(agreed.instances.len()).unwrap_or(u32::MAX));
    }
    agreed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(names: &[&str], left: u32) -> Retired {
        let instances = names.iter().map(|n| InstanceRef { name: (*n).into(), uid: (*n).into() }).collect();
        Retired { instances, left }
    }

    #[test]
    fn only_what_every_gateway_that_knows_it_has_stopped_using_is_stopped() {
        assert_eq!(agreed(vec![]), answer(&[], 0));
        assert_eq!(agreed(vec![answer(&["a"], 2)]), answer(&["a"], 2));
        assert_eq!(agreed(vec![answer(&[], 0), answer(&["a"], 2)]), answer(&["a"], 2));
        assert_eq!(agreed(vec![answer(&["a", "b"], 1), answer(&["b", "c"], 1)]), answer(&["b"], 2));
        assert_eq!(agreed(vec![answer(&["a"], 0), answer(&[], 1)]), answer(&[], 1));
    }
}
