//! The schedule: which fault comes when. Drawn from a seed, so that a run can be had again.

use std::fmt;

use clap::ValueEnum;
use fastrand::Rng;
use serde::Serialize;

use crate::record::Seconds;

/// One fault. `pick` chooses among the pods that are there when it comes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Fault {
    /// kill -9 of the process of one pod of a part.
    Kill { component: &'static str, pick: usize },
    /// `kubectl rollout restart` of the gateways.
    RestartGateways,
    /// The API server answers nobody.
    StopApiServer { seconds: u64 },
    /// `kubectl delete pod`.
    DeletePod { function: &'static str, pick: usize },
    /// `kubectl delete pod --grace-period=0 --force`.
    ForceDeletePod { function: &'static str, pick: usize },
    /// kill -9 of a function's process; its container starts again in place.
    Crash { function: &'static str, pick: usize },
    /// A change of what runs.
    RollOut { function: &'static str },
    /// A change to what can't run, taken back after a while.
    RollOutBad { function: &'static str, how: BadImage, seconds: u64 },
    /// A Function whose first image is bad, until it is corrected.
    NewWithBadImage { how: BadImage, seconds: u64 },
    /// Another `scale.min`.
    Scale { function: &'static str, min: u32 },
    /// Another `concurrency`, which takes effect at once.
    Concurrency { function: &'static str, to: u32 },
}

/// Why an image can't run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BadImage {
    /// The registry doesn't have it.
    Missing,
    /// Its command isn't in it.
    NoCommand,
}

/// Which faults come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kinds {
    /// All of them.
    All,
    /// Only those that touch nothing but the run's own namespace.
    Functions,
    /// None: the load alone.
    None,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its place over all.
    pub number: usize,
    /// Not before this.
    pub at: Seconds,
    /// What.
    pub fault: Fault,
}

impl Planned {
    /// The Function that it is about: one of the run's, or the one that it makes.
    pub fn function(&self) -> Option<String> {
        match self.fault {
            Fault::NewWithBadImage { .. } => Some(format!("newcomer-{}", self.number)),
            _ => self.fault.function().map(str::to_owned),
        }
    }
}

/// Two sequences of faults that run side by side: of the platform, and of Functions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    /// One after the other.
    pub platform: Vec<Planned>,
    /// One after the other.
    pub functions: Vec<Planned>,
}

/// Before the first fault.
pub const CALM: Seconds = 6.0;
/// Between two faults of the platform, and of Functions: at least and at most.
const PLATFORM_PAUSE: (u64, u64) = (12, 25);
const FUNCTION_PAUSE: (u64, u64) = (3, 9);

/// The schedule of a seed.
pub fn schedule(seed: u64, length: Seconds, kinds: Kinds) -> Schedule {
    let mut rng = Rng::with_seed(seed);
    let mut drawn = Schedule::default();
    if kinds == Kinds::None {
        return drawn;
    }
    // Drawn apart: a run with the faults of Functions alone has the same ones.
    let mut rng_of_platform = rng.fork();
    if kinds == Kinds::All {
        drawn.platform = draw(&mut rng_of_platform, length, PLATFORM_PAUSE, platform_fault);
    }
    drawn.functions = draw(&mut rng, length, FUNCTION_PAUSE, function_fault);
    number(&mut drawn);
    drawn
}

fn draw(rng: &mut Rng, length: Seconds, pause: (u64, u64), next: impl Fn(&mut Rng) -> Fault) -> Vec<Planned> {
    let mut all: Vec<Planned> = Vec::new();
    let mut at = CALM;
    while at < length {
        let fault = next(rng);
        let longer = fault.seconds();
        all.push(Planned { number: 0, at, fault });
        at += longer + rng.u64(pause.0..=pause.1) as Seconds;
    }
    all
}

fn number(schedule: &mut Schedule) {
    let mut all: Vec<&mut Planned> = schedule.platform.iter_mut().chain(&mut schedule.functions).collect();
    all.sort_by(|a, b| a.at.total_cmp(&b.at));
    all.into_iter().enumerate().for_each(|(number, planned)| planned.number = number + 1);
}

fn platform_fault(rng: &mut Rng) -> Fault {
    let pick = rng.usize(..100);
    match rng.u32(..10) {
        0..4 => Fault::Kill { component: "gateway", pick },
        4 => Fault::Kill { component: "controller", pick },
        5..7 => Fault::Kill { component: "autoscaler", pick },
        7 => Fault::RestartGateways,
        _ => Fault::StopApiServer { seconds: rng.u64(5..=30) },
    }
}

fn function_fault(rng: &mut Rng) -> Fault {
    let pick = rng.usize(..100);
    let mut any = |of: &[&'static str]| of[rng.usize(..of.len())];
    let function = any(&["fast", "single", "steady", "stream", "long"]);
    let crashing = any(&["single", "steady", "fast"]);
    let scaled = any(&["steady", "fast"]);
    let how = if rng.bool() { BadImage::Missing } else { BadImage::NoCommand };
    match rng.u32(..20) {
        0..4 => Fault::DeletePod { function, pick },
        4..7 => Fault::ForceDeletePod { function, pick },
        7..9 => Fault::Crash { function: crashing, pick },
        9..13 => Fault::RollOut { function: "rolled" },
        13 => Fault::RollOut { function },
        14 => Fault::RollOutBad { function: "rolled", how, seconds: rng.u64(3..=10) },
        15 => Fault::NewWithBadImage { how, seconds: rng.u64(4..=8) },
        16..18 => Fault::Scale { function: scaled, min: rng.u32(1..=4) },
        _ => Fault::Concurrency { function: "steady", to: if rng.bool() { 3 } else { 6 } },
    }
}

impl Fault {
    /// How long it lasts by itself.
    pub fn seconds(&self) -> Seconds {
        match self {
            Self::StopApiServer { seconds }
            | Self::RollOutBad { seconds, .. }
            | Self::NewWithBadImage { seconds, .. } => *seconds as Seconds,
            _ => 0.0,
        }
    }

    /// The Function that it is about.
    pub fn function(&self) -> Option<&'static str> {
        match self {
            Self::DeletePod { function, .. }
            | Self::ForceDeletePod { function, .. }
            | Self::Crash { function, .. }
            | Self::RollOut { function }
            | Self::RollOutBad { function, .. }
            | Self::Scale { function, .. }
            | Self::Concurrency { function, .. } => Some(function),
            Self::Kill { .. } | Self::RestartGateways | Self::StopApiServer { .. } | Self::NewWithBadImage { .. } => {
                None
            }
        }
    }

    /// Within so many seconds after it was over, service is as it was before.
    pub fn recovers_within(&self) -> Seconds {
        match self {
            Self::Kill { component: "gateway", .. } | Self::ForceDeletePod { .. } | Self::Crash { .. } => 10.0,
            Self::StopApiServer { .. } => 10.0,
            Self::NewWithBadImage { .. } => 30.0,
            _ => 5.0,
        }
    }

    /// Its name in the summary.
    pub fn kind(&self) -> String {
        match self {
            Self::Kill { component, .. } => format!("kill -9 {component}"),
            Self::RestartGateways => "rolling restart of gateways".into(),
            Self::StopApiServer { .. } => "API server away".into(),
            Self::DeletePod { .. } => "delete pod".into(),
            Self::ForceDeletePod { .. } => "delete pod --force".into(),
            Self::Crash { .. } => "kill -9 of a function".into(),
            Self::RollOut { .. } => "rollout".into(),
            Self::RollOutBad { .. } => "bad image rolled out".into(),
            Self::NewWithBadImage { .. } => "new with a bad image".into(),
            Self::Scale { .. } => "scale.min".into(),
            Self::Concurrency { .. } => "concurrency".into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind())?;
        match self {
            Self::StopApiServer { seconds } => write!(f, " for {seconds} s"),
            Self::RollOutBad { function, how, seconds } => write!(f, " on {function} ({how:?}) for {seconds} s"),
            Self::NewWithBadImage { how, seconds } => write!(f, " ({how:?}) for {seconds} s"),
            Self::Scale { function, min } => write!(f, " {min} for {function}"),
            Self::Concurrency { function, to } => write!(f, " {to} for {function}"),
            _ => self.function().map_or(Ok(()), |function| write!(f, " of {function}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_again() {
        assert_eq!(schedule(7, 600.0, Kinds::All), schedule(7, 600.0, Kinds::All));
        assert_ne!(schedule(7, 600.0, Kinds::All), schedule(8, 600.0, Kinds::All));
    }

    #[test]
    fn the_functions_faults_are_the_same_without_the_platforms() {
        let faults = |kinds| schedule(7, 600.0, kinds).functions.into_iter().map(|p| p.fault).collect::<Vec<_>>();
        assert_eq!(faults(Kinds::All), faults(Kinds::Functions));
        assert!(schedule(7, 600.0, Kinds::Functions).platform.is_empty());
        assert_eq!(schedule(7, 600.0, Kinds::None), Schedule::default());
    }

    #[test]
    fn every_kind_of_fault_comes_in_an_hour_and_the_api_server_stays_away_for_30_s_at_most() {
        let Schedule { platform, functions } = schedule(1, 3600.0, Kinds::All);
        let kinds: std::collections::BTreeSet<_> =
            platform.iter().chain(&functions).map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), 13, "{kinds:?}");
        assert!(platform.iter().all(|planned| planned.fault.seconds() <= 30.0));
    }

    #[test]
    fn faults_are_numbered_in_the_order_of_their_times() {
        let Schedule { platform, functions } = schedule(3, 300.0, Kinds::All);
        let mut all: Vec<_> = platform.iter().chain(&functions).collect();
        all.sort_by_key(|planned| planned.number);
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(all.iter().all(|planned| planned.at >= CALM && planned.at < 300.0));
    }
}
