//! What is known of a run so far: takes calls and samples in, judges them while the run goes on.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use hdrhistogram::Histogram;

use crate::{
    judge::{
        Violation, around, concurrency,
        failures::{self, Verdict},
        instances, platform,
        recovery::{self, Recovery},
    },
    progress,
    record::{Call, Happening, Outcome, PlatformPod, Sample, Seconds},
    world::World,
};

/// A call is judged when all faults of its time are known.
const SETTLES: Seconds = 3.0;
/// Calls and samples are kept for so long: longer than any rule looks back.
const KEPT: Seconds = 240.0;
/// More are counted, but neither printed nor kept.
const MOST_VIOLATIONS: usize = 200;
/// Longest call that is told from others, in milliseconds.
const LONGEST: u64 = 120_000;

/// Counts of one Function's calls.
#[derive(Debug)]
pub struct Counts {
    /// All that have ended.
    pub calls: u64,
    /// Those that failed where a fault allows it.
    pub excused: u64,
    /// Callers who left.
    pub left: u64,
    /// Violations.
    pub violations: u64,
    /// Milliseconds of good calls, from when they were due.
    pub latency: Histogram<u64>,
}

/// See the module.
pub struct Book {
    world: Arc<World>,
    unjudged: VecDeque<Call>,
    judged: VecDeque<Call>,
    samples: VecDeque<Sample>,
    /// Of the whole run.
    pub platform: Vec<PlatformPod>,
    /// By Function.
    pub counts: BTreeMap<String, Counts>,
    /// By the fault's number.
    pub recoveries: BTreeMap<usize, Recovery>,
    /// Calls that a fault has failed, by its number.
    pub excused: BTreeMap<usize, u64>,
    instances_judged: BTreeSet<usize>,
    /// The first ones.
    pub violations: Vec<Violation>,
    /// All of them.
    pub violation_count: usize,
}

impl Book {
    /// Nothing is known.
    pub fn new(world: Arc<World>) -> Self {
        Self {
            world,
            unjudged: VecDeque::new(),
            judged: VecDeque::new(),
            samples: VecDeque::new(),
            platform: Vec::new(),
            counts: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            excused: BTreeMap::new(),
            instances_judged: BTreeSet::new(),
            violations: Vec::new(),
            violation_count: 0,
        }
    }

    /// A call has ended.
    pub fn take(&mut self, call: Call) {
        self.unjudged.push_back(call);
    }

    /// Instances were counted.
    pub fn take_samples(&mut self, samples: Vec<Sample>) {
        self.samples.extend(samples);
    }

    /// Judges what can be judged now. All calls that were due before `known` have been taken.
    pub fn judge(&mut self, now: Seconds, known: Seconds) {
        let happenings = self.world.happenings();
        while let Some(call) = self.unjudged.pop_front_if(|call| call.ended <= now - SETTLES) {
            self.judge_call(&call, &happenings);
            self.judged.push_back(call);
        }
        let known = self.unjudged.iter().map(|call| call.due).fold(known, f64::min);
        self.judge_faults(now, known.min(now - SETTLES), &happenings);
        self.forget(now - KEPT);
    }

    /// Judges everything that is left.
    pub fn finish(&mut self, now: Seconds) {
        self.judge(now + SETTLES + recovery::STAYS + KEPT / 2.0, Seconds::INFINITY);
        let happenings = self.world.happenings();
        for h in &happenings {
            if let Some(failed) = &h.failed {
                self.violation(h.from, "a fault's end", None, format!("#{} {}: {failed}", h.number, h.fault), &[]);
            }
        }
        for seen in platform::restarts(&self.platform, &happenings) {
            self.violation(now, "platform restarts", None, seen, &[]);
        }
        for seen in platform::memory(&self.platform) {
            self.violation(now, "platform memory", None, seen, &[]);
        }
    }

    /// Something that must not be.
    pub fn violation(
        &mut self,
        at: Seconds,
        rule: &'static str,
        request_id: Option<&str>,
        seen: String,
        happenings: &[Happening],
    ) {
        self.violation_count += 1;
        if self.violations.len() >= MOST_VIOLATIONS {
            return;
        }
        let faults = around(at, happenings);
        progress::say(&format!("VIOLATION of {rule} at {at:.2}: {seen}{}", suffix(request_id)));
        faults.iter().for_each(|fault| progress::say(&format!("    around it: {fault}")));
        self.violations.push(Violation { at, rule, request_id: request_id.map(str::to_owned), seen, faults });
    }

    fn judge_call(&mut self, call: &Call, happenings: &[Happening]) {
        let world = self.world.clone();
        let profile = world.profile(&call.function);
        let verdict = failures::verdict(call, profile.is_some_and(|p| p.sleeps), happenings);
        let exceeded = profile.and_then(|p| concurrency::exceeded(call, p.concurrency, p.timeout, happenings));
        let counts = self.counts.entry(call.function.clone()).or_insert_with(Counts::new);
        counts.calls += 1;
        match &call.outcome {
            Outcome::Good(_) => counts.latency.saturating_record((call.took() * 1000.0) as u64),
            Outcome::Left => counts.left += 1,
            _ => {}
        }
        match verdict {
            Verdict::Fine => {}
            Verdict::Excused(number) => {
                counts.excused += 1;
                *self.excused.entry(number).or_default() += 1;
            }
            Verdict::Violation(seen) => {
                counts.violations += 1;
                self.violation(call.due, "failures", Some(&call.id), seen, happenings);
            }
        }
        if let Some(seen) = exceeded {
            self.violation(call.due, "concurrency", Some(&call.id), seen, happenings);
        }
    }

    fn judge_faults(&mut self, now: Seconds, known: Seconds, happenings: &[Happening]) {
        let world = self.world.clone();
        let is_settled = |h: &Happening, recoveries: &BTreeMap<usize, Recovery>| recoveries.contains_key(&h.number);
        let open: Vec<&Happening> = happenings.iter().filter(|h| !is_settled(h, &self.recoveries)).collect();
        let instances_open = |h: &&Happening| {
            let judged = self.instances_judged.contains(&h.number);
            !judged && h.to.is_some_and(|to| now > to + instances::AFTER + SETTLES)
        };
        let instances_open: Vec<&Happening> = happenings.iter().filter(instances_open).collect();
        if open.is_empty() && instances_open.is_empty() {
            return;
        }
        let judged = std::mem::take(&mut self.judged);
        let mut calls: Vec<&Call> = judged.iter().collect();
        calls.sort_by(|a, b| a.due.total_cmp(&b.due));
        for h in open {
            let patience = |function: &str| world.patience(function);
            match recovery::after(h, &calls, known, patience, happenings) {
                Recovery::Pending => continue,
                Recovery::TooLate(took) => {
                    let limit = h.fault.recovers_within();
                    let seen = format!(
                        "#{} {}: service is not normal {took:.1} s after it, limit {limit} s",
                        h.number, h.fault
                    );
                    self.violation(h.to.unwrap_or(now), "recovery", None, seen, happenings);
                    self.recoveries.insert(h.number, Recovery::TooLate(took));
                }
                after @ Recovery::After(_) => drop(self.recoveries.insert(h.number, after)),
            }
        }
        for h in instances_open {
            let concurrency = |function: &str| world.profile(function).map_or(1, |p| p.concurrency);
            let samples = self.samples.make_contiguous();
            for seen in instances::taken_down(h, samples, &calls, concurrency, happenings) {
                self.violation(h.from, "instances", None, seen, happenings);
            }
            self.instances_judged.insert(h.number);
        }
        self.judged = judged;
    }

    fn forget(&mut self, before: Seconds) {
        while self.judged.pop_front_if(|call| call.ended < before).is_some() {}
        while self.samples.pop_front_if(|sample| sample.at < before).is_some() {}
    }
}

impl Counts {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, 2).unwrap_or_else(|_| unreachable!("valid bounds"));
        Self { calls: 0, excused: 0, left: 0, violations: 0, latency }
    }
}

fn suffix(request_id: Option<&str>) -> String {
    request_id.map(|id| format!(" [request {id}]")).unwrap_or_default()
}
