//! The terminal: log lines scroll, and the table of Functions stays below them. Where there is no
//! terminal only the lines are written.
//!
//! The table is taken away by going up as many lines as it has. What has scrolled out at the top can't be
//! reached any more, so it never has as many lines as the terminal, nor one that is wider.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use lambent_api::FunctionKey;
use parking_lot::Mutex;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::stats::Stats;

/// Lines of the table at most, however high the terminal is.
const MAX_LINES: usize = 32;
/// What the table leaves to log lines, where there is room for both.
const LOG_LINES: usize = 4;
/// Fewer lines of the table say nothing: the heads, a Function, and how many more there are.
const MIN_LINES: usize = 3;

/// Standard output. Clones are the same one.
#[derive(Clone)]
pub struct Screen(Arc<Mutex<State>>);

struct State {
    out: Box<dyn Write + Send>,
    is_terminal: bool,
    table: Vec<String>,
}

/// How large the terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) lines: usize,
}

impl Size {
    /// Lines that the table may have. One is the cursor's, below it.
    fn room(self) -> usize {
        let all = self.lines.saturating_sub(1);
        all.saturating_sub(LOG_LINES).max(MIN_LINES).min(all).min(MAX_LINES)
    }
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
    pub(crate) fn show(&self, rows: &[Row], size: Size) {
        let table = table(rows, size);
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

fn table(rows: &[Row], size: Size) -> Vec<String> {
    let room = size.room();
    // The heads are above, and where not all are shown a last line says so.
    let shown = if rows.len() < room { rows.len() } else { room.saturating_sub(2) };
    let mut lines = vec![HEADS.map(str::to_owned)];
    lines.extend(rows.iter().take(shown).map(cells));
    let widths: Vec<usize> =
        (0..HEADS.len()).map(|column| lines.iter().map(|line| line[column].width()).max().unwrap_or(0)).collect();
    let mut table: Vec<String> = lines.iter().map(|line| cut(&aligned(line, &widths), size.columns)).collect();
    if shown < rows.len() {
        table.push(cut(&format!("and {} more: lambent list -A", rows.len() - shown), size.columns));
    }
    table.truncate(room);
    table
}

fn cells(row: &Row) -> [String; 9] {
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
        // A program's own words may be in it, and whatever these do to a terminal.
        row.trouble.iter().flat_map(|words| words.chars()).map(|c| if c.is_control() { ' ' } else { c }).collect(),
    ]
}

fn aligned(line: &[String; 9], widths: &[usize]) -> String {
    let cells = line.iter().zip(widths);
    let text: String = cells.map(|(cell, width)| format!("{cell}{}  ", " ".repeat(width - cell.width()))).collect();
    text.trim_end().to_owned()
}

/// A line that wraps would be counted wrongly.
fn cut(line: &str, columns: usize) -> String {
    let mut width = 0;
    let fits = |c: &char| {
        width += c.width().unwrap_or(0);
        width < columns
    };
    line.chars().take_while(fits).collect()
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

    const LARGE: Size = Size { columns: 200, lines: 50 };

    fn row(name: &str, requests: u64) -> Row {
        let stats = Stats { ready: 2, requests, p50: Some(0.0042), p99: Some(1.5), ..Stats::default() };
        Row { key: FunctionKey::new("shop", name), url: "http://x".to_owned(), stats, trouble: None }
    }

    fn rows(count: usize, requests: u64) -> Vec<Row> {
        (0..count).map(|number| row(&format!("f-{number}"), requests)).collect()
    }

    /// A terminal's lines, those that have scrolled out at the top included.
    struct Terminal {
        height: usize,
        lines: Vec<String>,
    }

    impl Terminal {
        fn new(height: usize) -> Self {
            Self { height, lines: vec![String::new()] }
        }

        /// The cursor is always in the last line: what is below it is cleared whenever it goes up.
        fn take(&mut self, text: &str) {
            let mut rest = text;
            while let Some(c) = rest.chars().next() {
                rest = &rest[c.len_utf8()..];
                match c {
                    '\n' => self.lines.push(String::new()),
                    '\x1b' => {
                        let (up, after) = rest.strip_prefix('[').and_then(|rest| rest.split_once("F\x1b[J")).unwrap();
                        let reach = (self.lines.len() - 1).min(self.height - 1).min(up.parse().unwrap());
                        self.lines.truncate(self.lines.len() - reach);
                        *self.lines.last_mut().unwrap() = String::new();
                        rest = after;
                    }
                    c => self.lines.last_mut().unwrap().push(c),
                }
            }
        }

        fn count(&self, words: &str) -> usize {
            self.lines.iter().filter(|line| line.contains(words)).count()
        }
    }

    #[test]
    fn lines_are_written_above_the_table() {
        let written = Written::default();
        let mut screen = Screen::new(Box::new(written.clone()), true);
        screen.show(&[row("hello", 1)], LARGE);
        let table = std::mem::take(&mut *written.0.lock());
        assert!(
            table.contains("shop/hello  http://x  0/2/0                0       1         4.2ms  1.5s  0"),
            "{table}"
        );
        screen.write_all(b"line\n").unwrap();
        assert_eq!(std::mem::take(&mut *written.0.lock()), format!("\x1b[2F\x1b[Jline\n{table}"));
        screen.show(&[row("hello", 1)], LARGE);
        assert_eq!(*written.0.lock(), "");
    }

    #[test]
    fn with_more_functions_than_the_terminal_has_lines_nothing_is_there_twice() {
        for lines in 1..40 {
            let written = Written::default();
            let mut screen = Screen::new(Box::new(written.clone()), true);
            let mut terminal = Terminal::new(lines);
            for round in 0..20 {
                screen.show(&rows(100, round), Size { columns: 200, lines });
                screen.write_all(format!("line {round}.\n").as_bytes()).unwrap();
                terminal.take(&std::mem::take(&mut *written.0.lock()));
            }
            assert!(terminal.count("FUNCTION") <= 1, "{lines}: {:#?}", terminal.lines);
            for round in 0..20 {
                assert_eq!(terminal.count(&format!("line {round}.")), 1, "{lines}: {:#?}", terminal.lines);
            }
            let shown = terminal.count("shop/f-");
            assert!(lines < 4 || terminal.count(&format!("and {} more", 100 - shown)) == 1, "{:#?}", terminal.lines);
        }
    }

    #[test]
    fn all_functions_are_shown_where_there_is_room() {
        let size = |lines| Size { columns: 200, lines };
        assert_eq!(table(&rows(3, 1), size(24)).len(), 4);
        assert_eq!(table(&rows(3, 1), size(9)).len(), 4);
        let tight = table(&rows(3, 1), size(8));
        assert_eq!((tight.len(), tight[2].as_str()), (3, "and 2 more: lambent list -A"));
        assert_eq!(table(&rows(1000, 1), size(1000)).len(), MAX_LINES);
        assert_eq!(table(&rows(3, 1), size(1)), Vec::<String>::new());
    }

    #[test]
    fn without_a_terminal_there_are_only_lines() {
        let written = Written::default();
        let mut screen = Screen::new(Box::new(written.clone()), false);
        screen.show(&rows(1, 1), LARGE);
        screen.write_all(b"line\n").unwrap();
        assert_eq!(*written.0.lock(), "line\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_whatever_is_in_it() {
        let trouble = Some("StartFailed: 起動できません\n\x1b[31mred\tred".to_owned());
        let rows = [Row { trouble, ..row("hello", 1) }];
        for columns in [0, 1, 20, 80, 100] {
            let table = table(&rows, Size { columns, lines: 24 });
            assert!(table.iter().all(|line| line.width() < columns.max(1)), "{columns}: {table:#?}");
            assert!(table.iter().all(|line| !line.contains(char::is_control)), "{columns}: {table:#?}");
        }
    }
}
