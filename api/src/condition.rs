//! Conditions and their reasons: one spelling for the API, the logs and the metrics.

use serde::{Deserialize, Serialize};
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The types of condition that the controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// Function: the current spec is served. Revision: an instance has answered once.
    Ready,
    /// Function: the controller is still working towards the current spec (kstatus).
    Reconciling,
    /// Function: the current spec can't be served unless something changes (kstatus).
    Stalled,
    /// Function: the image's tag was resolved to a digest.
    ImageResolved,
    /// Revision: False, with the pod's own reason, while no instance can start.
    Startable,
    /// Function: instances that the load does not need are frozen, or why they can't be.
    Parked,
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A reason with its words, as in a condition, an Event and an answer to a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// CamelCase, for programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Reason {
    /// A reason from its two parts.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// Reading and writing a list of conditions.
pub trait Conditions {
    /// The condition of this type.
    fn find(&self, type_: ConditionType) -> Option<&Condition>;

    /// Whether the condition is there and True.
    fn is_true(&self, type_: ConditionType) -> bool {
        self.find(type_).is_some_and(|c| c.status == "True")
    }

    /// Whether the condition is there and False.
    fn is_false(&self, type_: ConditionType) -> bool {
        self.find(type_).is_some_and(|c| c.status == "False")
    }

    /// Sets a condition; its transition time changes only with its status.
    fn put(&mut self, type_: ConditionType, status: bool, reason: &Reason, generation: Option<i64>, now: Timestamp);

    /// Takes a condition away.
    fn take_away(&mut self, type_: ConditionType);
}

impl Conditions for Vec<Condition> {
    fn find(&self, type_: ConditionType) -> Option<&Condition> {
        let name = type_.to_string();
        self.iter().find(|c| c.type_ == name)
    }

    fn put(&mut self, type_: ConditionType, status: bool, reason: &Reason, generation: Option<i64>, now: Timestamp) {
        let status = if status { "True" } else { "False" };
        let since = self.find(type_).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
        let condition = Condition {
            type_: type_.to_string(),
            status: status.to_owned(),
            reason: reason.reason.clone(),
            message: reason.message.clone(),
            observed_generation: generation,
            last_transition_time: since.unwrap_or(Time(now)),
        };
        match self.iter_mut().find(|c| c.type_ == condition.type_) {
            Some(old) => *old = condition,
            None => self.push(condition),
        }
    }

    fn take_away(&mut self, type_: ConditionType) {
        let name = type_.to_string();
        self.retain(|c| c.type_ != name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_changes_only_with_the_status() {
        let mut conditions = Vec::new();
        let at = |s| Timestamp::from_second(s).unwrap();
        conditions.put(ConditionType::Ready, false, &Reason::new("Starting", ""), Some(1), at(1));
        conditions.put(ConditionType::Ready, false, &Reason::new("StillStarting", ""), Some(1), at(2));
        assert_eq!(conditions[0].last_transition_time.0, at(1));
        assert_eq!(conditions[0].reason, "StillStarting");
        conditions.put(ConditionType::Ready, true, &Reason::new("Serving", ""), Some(2), at(3));
        assert_eq!(conditions[0].last_transition_time.0, at(3));
        assert_eq!(conditions.len(), 1);
        assert!(conditions.is_true(ConditionType::Ready));
        conditions.take_away(ConditionType::Ready);
        assert!(conditions.find(ConditionType::Ready).is_none());
    }
}
