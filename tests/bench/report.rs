//! What a run leaves: a table on standard output, `bench.json`, and the generated sections of
//! docs/benchmarks.md. A run of some parts replaces only theirs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    row::{Row, Wanted},
    stats::Estimate,
};

const HEAD: [&str; 8] = ["metric", "unit", "Lambent", "floor", "peers", "ratio", "wanted", "met"];

/// The newest result of each part.
pub type Report = BTreeMap<String, Section>;

/// One part's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// Where and when.
    pub machine: Machine,
    /// Fewer and shorter slices than for a record.
    pub quick: bool,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// The rows as a Markdown table whose columns are also aligned for the eye.
pub fn table(rows: &[Row]) -> String {
    let cells: Vec<[String; HEAD.len()]> = rows.iter().map(cells).collect();
    let width = |at: usize| {
        let longest = cells.iter().map(|row| row[at].chars().count()).max();
        longest.unwrap_or(0).max(HEAD[at].len())
    };
    let widths: [usize; HEAD.len()] = std::array::from_fn(width);
    let line = |row: &[String; HEAD.len()]| {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!(" {cell:width$} "));
        format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
    };
    let rule = widths.map(|width| "-".repeat(width));
    [HEAD.map(str::to_owned), rule].iter().chain(&cells).map(line).collect()
}

fn cells(row: &Row) -> [String; HEAD.len()] {
    let other = |name: &str, value: &Estimate| format!("{name} {}", estimate(value));
    let peers: Vec<String> = row.peers.iter().map(|peer| other(&peer.name, &peer.value)).collect();
    [
        row.metric.clone(),
        row.unit.clone(),
        estimate(&row.ours),
        row.floor.as_ref().map_or_else(String::new, |floor| other(&floor.name, &floor.value)),
        peers.join(", "),
        row.ratio.as_ref().map_or_else(String::new, |r| format!("{} of {}", estimate(&r.value), r.to)),
        row.wanted.map_or_else(String::new, |wanted| match wanted {
            Wanted::AtMost(most) => format!("<= {}", number(most)),
            Wanted::AtLeast(least) => format!(">= {}", number(least)),
        }),
        row.is_met().map_or("", |met| if met { "yes" } else { "NO" }).to_owned(),
    ]
}

/// `12.3 (11.9 to 12.8)`.
fn estimate(estimate: &Estimate) -> String {
    let Estimate { value, low, high, samples: _ } = *estimate;
    let (value, low, high) = (number(value), number(low), number(high));
    if low == high { value } else { format!("{value} ({low} to {high})") }
}

/// Three digits that matter.
fn number(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).max(0) };
    let text = format!("{value:.*}", digits as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What an earlier run left; nothing if there was none.
pub fn read(path: &Path) -> Report {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Writes the JSON.
pub fn write_json(path: &Path, report: &Report) -> anyhow::Result<()> {
    fs::write(path, serde_json::to_vec_pretty(report)?).with_context(|| path.display().to_string())
}

/// Puts the sections of these parts into the document, between their marks.
pub fn write_document(path: &Path, sections: &Report) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = sections.iter().try_fold(text, |text, (part, section)| replace(&text, part, &in_words(section)))?;
    fs::write(path, text).with_context(|| path.display().to_string())
}

fn in_words(section: &Section) -> String {
    format!("{}\n\n{}", section.machine, table(&section.rows).trim_end())
}

fn replace(text: &str, part: &str, with: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- bench: {part} -->\n"), format!("\n<!-- end of {part} -->"));
    let from = text.find(&begin).with_context(|| format!("no line {:?}", begin.trim()))? + begin.len();
    let to = text[from - 1..].find(&end).with_context(|| format!("no line {:?}", end.trim()))? + from - 1;
    ensure!(to + 1 >= from, "the marks of {part} are in the wrong order");
    Ok(format!("{}{with}{}", &text[..from], &text[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_matter() {
        assert_eq!([0.0, 0.12345, 1.5, 12.3456, 48913.2].map(number), ["0", "0.123", "1.5", "12.3", "48913"]);
    }

    #[test]
    fn a_row_is_one_line_with_its_verdict() {
        let interval = Estimate { value: 0.4, low: 0.3, high: 0.5, samples: 9 };
        let row = Row::new("added p50", "µs", Estimate::exact(80.0))
            .floor("direct", Estimate::exact(40.0))
            .peer("Go", Estimate::exact(200.0))
            .ratio("Go", interval)
            .wanted(Wanted::AtMost(0.5));
        let table = table(&[row]);
        let line = table.lines().nth(2).unwrap();
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let expected = ["added p50", "µs", "80", "direct 40", "Go 200", "0.4 (0.3 to 0.5) of Go", "<= 0.5", "yes"];
        assert_eq!(cells, expected);
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|w| *w == widths[0]), "{table}");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = "a\n<!-- bench: x -->\nold\n<!-- end of x -->\nb\n<!-- bench: y -->\n<!-- end of y -->\n";
        let once = replace(text, "x", "new").unwrap();
        assert_eq!(once, text.replace("old", "new"));
        let empty = replace(text, "y", "new").unwrap();
        assert_eq!(empty, text.replace("y -->\n<!--", "y -->\nnew\n<!--"));
        assert!(replace(text, "z", "new").is_err());
    }
}
