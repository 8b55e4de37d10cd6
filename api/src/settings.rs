//! Settings of the request path, validated: what the gateway and the autoscaler work with.

use std::{num::NonZeroU32, time::Duration};

use thiserror::Error;

use crate::{FunctionSpec, template::resolve_percent};

/// The part of a Function that takes effect at once, without a new Revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Requests that one instance serves at once.
    pub concurrency: NonZeroU32,
    /// From the hand-over to the last byte of the answer.
    pub timeout: Duration,
    /// Instead of `timeout` for streams.
    pub stream_timeout: Duration,
    /// Until a starting instance must answer.
    pub start_timeout: Duration,
    /// Longest request body in bytes.
    pub max_body: u64,
    /// How many requests may wait.
    pub queue_depth: usize,
    /// How long a request may wait.
    pub queue_timeout: Duration,
    /// Warm instances.
    pub min: u32,
    /// Instances kept frozen beside those that the load needs.
    pub parked: u32,
    /// Never more instances than this.
    pub max: u32,
    /// How long the load must have been lower before instances go.
    pub idle: Duration,
    /// Extra instances while two Revisions run.
    pub max_surge: u32,
    /// How long a new Revision may take.
    pub deadline: Duration,
    /// Old Revisions to keep.
    pub revision_history: usize,
    /// Whether images are pulled ahead.
    pub image_pull_ahead: bool,
}

/// Why a spec can't be served. The schema refuses all of these at apply; they are checked again
/// because an object may be older than the schema.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidSettings {
    /// A number out of its range.
    #[error("{field} is {value}, but must be at least {least}")]
    TooSmall {
        /// The field's path in the spec.
        field: &'static str,
        /// What it says.
        value: i32,
        /// The smallest allowed.
        least: i32,
    },
    /// `min` over `max`.
    #[error("scale.min is {min}, more than scale.max, which is {max}")]
    MinOverMax {
        /// scale.min
        min: u32,
        /// scale.max
        max: u32,
    },
    /// `parked` over `max`.
    #[error("scale.parked is {parked}, more than scale.max, which is {max}")]
    ParkedOverMax {
        /// scale.parked
        parked: u32,
        /// scale.max
        max: u32,
    },
    /// The kubelet would end a frozen process.
    #[error("scale.parked and probes exclude each other: the kubelet would probe a frozen process and end it")]
    ParkedWithProbe,
    /// A time of zero that would fail every request.
    #[error("{0} must be more than 0s")]
    ZeroDuration(&'static str),
    /// A maxSurge that is neither a number nor a percentage.
    #[error("rollout.maxSurge must be a number or a percentage such as 25%")]
    MaxSurge,
}

impl TryFrom<&FunctionSpec> for Settings {
    type Error = InvalidSettings;

    fn try_from(spec: &FunctionSpec) -> Result<Self, InvalidSettings> {
        let min = at_least("scale.min", spec.scale.min, 0)?;
        let max = at_least("scale.max", spec.scale.max, 1)?;
        if min > max {
            return Err(InvalidSettings::MinOverMax { min, max });
        }
        let parked = parked(spec, max)?;
        at_least("port", spec.template.port, 1)?;
        let concurrency = at_least("concurrency", spec.concurrency, 1)?;
        Ok(Self {
            concurrency: NonZeroU32::new(concurrency).unwrap_or(NonZeroU32::MIN),
            timeout: positive("timeout", spec.timeout)?,
            stream_timeout: positive("streamTimeout", spec.stream_timeout)?,
            start_timeout: positive("startTimeout", spec.start_timeout)?,
            max_body: spec.max_body.get(),
            queue_depth: at_least("queue.depth", spec.queue.depth, 0)? as usize,
            queue_timeout: positive("queue.timeout", spec.queue.timeout)?,
            min,
            parked,
            max,
            idle: positive("scale.idle", spec.scale.idle)?,
            max_surge: resolve_percent(&spec.rollout.max_surge, max).ok_or(InvalidSettings::MaxSurge)?.max(1),
            deadline: positive("rollout.deadline", spec.rollout.deadline)?,
            revision_history: at_least("revisionHistory", spec.revision_history, 0)? as usize,
            image_pull_ahead: spec.image_pull_ahead,
        })
    }
}

impl Settings {
    /// Instances that are kept in existence whatever the load, running or frozen.
    pub fn kept(&self) -> u32 {
        self.min.saturating_add(self.parked).min(self.max)
    }
}

fn parked(spec: &FunctionSpec, max: u32) -> Result<u32, InvalidSettings> {
    let parked = at_least("scale.parked", spec.scale.parked, 0)?;
    if parked > max {
        return Err(InvalidSettings::ParkedOverMax { parked, max });
    }
    let probed = spec.template.readiness_probe.is_some() || spec.template.liveness_probe.is_some();
    if parked > 0 && probed { Err(InvalidSettings::ParkedWithProbe) } else { Ok(parked) }
}

fn at_least(field: &'static str, value: i32, least: i32) -> Result<u32, InvalidSettings> {
    u32::try_from(value).ok().filter(|_| value >= least).ok_or(InvalidSettings::TooSmall { field, value, least })
}

fn positive(field: &'static str, duration: crate::Duration) -> Result<Duration, InvalidSettings> {
    Some(duration.get()).filter(|d| !d.is_zero()).ok_or(InvalidSettings::ZeroDuration(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(yaml: &str) -> Result<Settings, InvalidSettings> {
        Settings::try_from(&serde_yaml::from_str::<FunctionSpec>(yaml).unwrap())
    }

    #[test]
    fn an_image_alone_is_enough() {
        let settings = settings("image: a").unwrap();
        assert_eq!((settings.min, settings.max, settings.concurrency.get()), (0, 100, 1));
        assert_eq!(settings.max_body, 6 << 20);
        assert_eq!(settings.max_surge, 25);
    }

    #[test]
    fn what_is_kept_is_bounded_by_the_maximum() {
        let kept = |yaml| settings(yaml).unwrap().kept();
        assert_eq!(kept("{image: a, scale: {min: 1, parked: 2}}"), 3);
        assert_eq!(kept("{image: a, scale: {min: 2, parked: 2, max: 3}}"), 3);
        assert_eq!(kept("{image: a, livenessProbe: {tcpSocket: {port: 1}}}"), 0);
    }

    #[test]
    fn what_can_not_be_served_is_refused_with_the_field() {
        for (yaml, words) in [
            ("{image: a, scale: {min: 3, max: 2}}", "scale.min is 3"),
            ("{image: a, scale: {parked: 3, max: 2}}", "scale.parked is 3"),
            ("{image: a, scale: {parked: 1}, livenessProbe: {tcpSocket: {port: 1}}}", "exclude each other"),
            ("{image: a, concurrency: 0}", "concurrency is 0"),
            ("{image: a, port: 0}", "port is 0"),
            ("{image: a, timeout: 0s}", "timeout must be more"),
            ("{image: a, rollout: {maxSurge: lots}}", "maxSurge"),
        ] {
            let error = settings(yaml).unwrap_err().to_string();
            assert!(error.contains(words), "{yaml}: {error}");
        }
    }
}
