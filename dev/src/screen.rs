//! The terminal: log lines scroll, and the table of Functions stays below them. Where there is no
//! terminal only the lines are written.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use lambent_api::FunctionKey;
use parking_lot::Mutex;

use crate::stats::Stats;

/// Rows that are shown; the rest is only counted.
const MAX_ROWS: usize = 30;

/// Standard output. Clones are the same one.
#[derive(Clone)]
pub struct Screen(Arc<Mutex<State>>);

struct State {
    out: Box<dyn Write + Send>,
    is_terminal: bool,
    table: Vec<String>,
}

/// A Function with its numbers.
pub(crate) struct Row {
    pub(crate) key: FunctionKey,
    pub(crate) url: String,
    pub(crate) stats: Stats,
    /// What is wrong with it.
    pub(crate) trouble: Option<String>,
}

impl Default for Screen {
    fn default() -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self::new(Box::new(out), is_terminal)
    }
}

impl Screen {
    fn new(out: Box<dyn Write + Send>, is_terminal: bool) -> Self {
        Self(Arc::new(Mutex::new(State { out, is_terminal, table: Vec::new() })))
    }

    /// Whether a table can be shown.
    pub fn is_terminal(&self) -> bool {
        self.0.lock().is_terminal
    }

    /// Shows these rows from now on.
    pub(crate) fn show(&self, rows: &[Row], width: usize) {
        let table = table(rows, width);
        let mut state = self.0.lock();
        if state.is_terminal && table != state.table {
            let erase = state.erase();
            let drawn: String = table.iter().map(|line| format!("{line}\n")).collect();
            state.table = table;
            state.write(&format!("{erase}{drawn}"));
        }
    }

    /// Leaves the last table where it is; what is written from now on comes below.
    pub(crate) fn release(&self) {
        let mut state = self.0.lock();
        state.table.clear();
        state.is_terminal = false;
    }
}

impl State {
    /// Moves to the first line of the table and clears all below.
    fn erase(&self) -> String {
        if self.table.is_empty() { String::new() } else { format!("\x1b[{}F\x1b[J", self.table.len()) }
    }

    /// A terminal that is gone is no reason to stop.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

/// Whole lines, as logging writes them.
impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        let erase = state.erase();
        let table: String = state.table.iter().map(|line| format!("{line}\n")).collect();
        let text = format!("{erase}{}{table}", String::from_utf8_lossy(bytes));
        state.write(&text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const HEADS: [&str; 9] = ["FUNCTION", "URL", "STARTING/READY/BUSY", "QUEUED", "REQUESTS", "P50", "P99", "COLD", ""];

fn table(rows: &[Row], width: usize) -> Vec<String> {
    let cells = |row: &Row| {
        let Stats { starting, ready, busy, queued, requests, cold_starts, p50, p99 } = &row.stats;
        [
            row.key.to_string(),
            row.url.clone(),
            format!("{starting}/{ready}/{busy}"),
            queued.to_string(),
            requests.to_string(),
            duration(*p50),
            duration(*p99),
            cold_starts.to_string(),
            row.trouble.clone().unwrap_or_default(),
        ]
    };
    let mut lines = vec![HEADS.map(str::to_owned)];
    lines.extend(rows.iter().take(MAX_ROWS).map(cells));
    let widths: Vec<usize> = (0..HEADS.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let format = |line: &[String; 9]| {
        let text: String = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        // A line that wraps would be counted wrongly.
        text.trim_end().chars().take(width.saturating_sub(1)).collect()
    };
    let mut table: Vec<String> = lines.iter().map(format).collect();
    if rows.len() > MAX_ROWS {
        table.push(format!("and {} more", rows.len() - MAX_ROWS));
    }
    table
}

/// Two or three digits and a unit.
fn duration(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.01 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0}ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<String>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn rows(requests: u64) -> [Row; 1] {
        let stats = Stats { ready: 2, requests, p50: Some(0.0042), p99: Some(1.5), ..Stats::default() };
        [Row { key: FunctionKey::new("shop", "hello"), url: "http://x".to_owned(), stats, trouble: None }]
    }

    #[test]
    fn lines_are_written_above_the_table() {
        let written = Written::default();
        let mut screen = Screen::new(Box::new(written.clone()), true);
        screen.show(&rows(1), 200);
        let table = std::mem::take(&mut *written.0.lock());
        assert!(
            table.contains("shop/hello  http://x  0/2/0                0       1         4.2ms  1.5s  0"),
            "{table}"
        );
        screen.write_all(b"line\n").unwrap();
        assert_eq!(std::mem::take(&mut *written.0.lock()), format!("\x1b[2F\x1b[Jline\n{table}"));
        screen.show(&rows(1), 200);
        assert_eq!(*written.0.lock(), "");
    }

    #[test]
    fn without_a_terminal_there_are_only_lines() {
        let written = Written::default();
        let mut screen = Screen::new(Box::new(written.clone()), false);
        screen.show(&rows(1), 80);
        screen.write_all(b"line\n").unwrap();
        assert_eq!(*written.0.lock(), "line\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        assert!(table(&rows(1), 20).iter().all(|line| line.chars().count() < 20));
    }
}
