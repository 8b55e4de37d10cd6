//! What a run tells in the end: a table for people, JSON for the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use serde::Serialize;

use crate::{
    book::Book,
    judge::{Violation, recovery::Recovery},
    record::{Happening, Seconds},
};

/// A whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// From which it can be had again.
    pub seed: u64,
    /// How long there was load, in seconds.
    pub seconds: Seconds,
    /// Whether it was ended early.
    pub interrupted: bool,
    /// By Function.
    pub functions: Vec<FunctionRow>,
    /// By kind of fault.
    pub faults: Vec<FaultRow>,
    /// By pod.
    pub platform: Vec<PodRow>,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// How many there were.
    pub violation_count: usize,
    /// All faults.
    pub happenings: Vec<Happening>,
}

/// One Function's calls.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionRow {
    name: String,
    calls: u64,
    excused: u64,
    left: u64,
    violations: u64,
    p50_ms: u64,
    p99_ms: u64,
    longest_ms: u64,
}

/// One kind of fault.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultRow {
    kind: String,
    count: usize,
    failed_calls: u64,
    normal_after_median: Option<Seconds>,
    normal_after_most: Option<Seconds>,
    limit: Seconds,
    too_late: usize,
}

/// One pod of the platform.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRow {
    name: String,
    restarts: i32,
    killed: usize,
    first_mib: f64,
    most_mib: f64,
    most_mib_at: Seconds,
    last_mib: f64,
}

impl Report {
    /// Of what is known.
    pub fn new(seed: u64, seconds: Seconds, interrupted: bool, book: Book, happenings: Vec<Happening>) -> Self {
        Self {
            seed,
            seconds,
            interrupted,
            functions: functions(&book),
            faults: faults(&book, &happenings),
            platform: platform(&book, &happenings),
            violation_count: book.violation_count,
            violations: book.violations,
            happenings,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let Self { seed, seconds, violation_count, .. } = self;
        let _ = writeln!(
            text,
            "\n{:<28} {:>8} {:>8} {:>6} {:>10} {:>8} {:>8} {:>8}",
            "function", "calls", "excused", "left", "violations", "p50 ms", "p99 ms", "most ms"
        );
        for row in &self.functions {
            let FunctionRow { name, calls, excused, left, violations, p50_ms, p99_ms, longest_ms } = row;
            let _ = writeln!(
                text,
                "{name:<28} {calls:>8} {excused:>8} {left:>6} {violations:>10} {p50_ms:>8} {p99_ms:>8} {longest_ms:>8}"
            );
        }
        let _ = writeln!(
            text,
            "\n{:<28} {:>8} {:>8} {:>22} {:>8} {:>8}",
            "fault", "count", "failed", "normal after s (most)", "limit s", "too late"
        );
        for row in &self.faults {
            let FaultRow { kind, count, failed_calls, limit, too_late, .. } = row;
            let after = row.normal_after_median.zip(row.normal_after_most);
            let after = after.map_or_else(|| "-".to_owned(), |(median, most)| format!("{median:.1} ({most:.1})"));
            let _ = writeln!(text, "{kind:<28} {count:>8} {failed_calls:>8} {after:>22} {limit:>8} {too_late:>8}");
        }
        let _ = writeln!(text, "\n{:<44} {:>8} {:>8} {:>26}", "pod", "restarts", "killed", "MiB first, most, last");
        for row in &self.platform {
            let PodRow { name, restarts, killed, first_mib, most_mib, last_mib, .. } = row;
            let memory = format!("{first_mib:.1}, {most_mib:.1}, {last_mib:.1}");
            let _ = writeln!(text, "{name:<44} {restarts:>8} {killed:>8} {memory:>26}");
        }
        let again = format!("make soak MINUTES={:.0} SEED={seed}", (seconds / 60.0).ceil());
        let _ = writeln!(text, "\n{violation_count} violations in {seconds:.0} s; seed {seed}; again: {again}");
        text
    }
}

fn functions(book: &Book) -> Vec<FunctionRow> {
    let row = |(name, counts): (&String, &crate::book::Counts)| FunctionRow {
        name: name.clone(),
        calls: counts.calls,
        excused: counts.excused,
        left: counts.left,
        violations: counts.violations,
        p50_ms: counts.latency.value_at_quantile(0.5),
        p99_ms: counts.latency.value_at_quantile(0.99),
        longest_ms: counts.latency.max(),
    };
    book.counts.iter().map(row).collect()
}

fn faults(book: &Book, happenings: &[Happening]) -> Vec<FaultRow> {
    let mut kinds: BTreeMap<String, Vec<&Happening>> = BTreeMap::new();
    for h in happenings {
        kinds.entry(h.fault.kind()).or_default().push(h);
    }
    let row = |(kind, of): (String, Vec<&Happening>)| {
        let recoveries = || of.iter().filter_map(|h| book.recoveries.get(&h.number));
        let mut after: Vec<Seconds> =
            recoveries().filter_map(|r| if let Recovery::After(s) = r { Some(*s) } else { None }).collect();
        after.sort_by(f64::total_cmp);
        FaultRow {
            kind,
            count: of.len(),
            failed_calls: of.iter().filter_map(|h| book.excused.get(&h.number)).sum(),
            normal_after_median: after.get(after.len() / 2).copied(),
            normal_after_most: after.last().copied(),
            limit: of.iter().map(|h| h.fault.recovers_within()).fold(0.0, f64::max),
            too_late: recoveries().filter(|r| matches!(r, Recovery::TooLate(_))).count(),
        }
    };
    kinds.into_iter().map(row).collect()
}

fn platform(book: &Book, happenings: &[Happening]) -> Vec<PodRow> {
    let uids: BTreeSet<&str> = book.platform.iter().map(|pod| pod.uid.as_str()).collect();
    let row = |uid: &&str| {
        let of = || book.platform.iter().filter(|pod| pod.uid == **uid);
        let (first, last) = (of().next()?, of().next_back()?);
        let most = of().max_by(|a, b| a.memory.total_cmp(&b.memory))?;
        Some(PodRow {
            name: last.name.clone(),
            restarts: last.restarts,
            killed: happenings.iter().flat_map(|h| &h.killed).filter(|killed| *killed == *uid).count(),
            first_mib: first.memory,
            most_mib: most.memory,
            most_mib_at: most.at,
            last_mib: last.memory,
        })
    };
    uids.iter().filter_map(row).collect()
}
