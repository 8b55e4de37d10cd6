//! Tables and ages, as kubectl shows them.

use jiff::Timestamp;

/// Between columns.
const GAP: usize = 3;

/// Lines of columns as wide as their widest cell, each line after `indent` spaces.
pub fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]], indent: usize) -> String {
    let rows: Vec<[String; N]> = [heads.map(str::to_owned)]
        .into_iter()
        .chain(rows.iter().map(|row| row.each_ref().map(|cell| one_line(cell))))
        .collect();
    let widths: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + GAP).collect();
    let line = |row: &[String; N]| {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{:indent$}{}\n", "", cells.trim_end())
    };
    rows.iter().map(line).collect()
}

/// What goes into one cell: without line ends and without what would steer a terminal.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(char::is_control).filter(|part| !part.is_empty()).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

/// How long ago: `5s`, `3m10s`, `2h`, `4d`.
pub fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    let Some(then) = then else { return "-".to_owned() };
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let both = |large: i64, unit: char, small: i64, lesser: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{lesser}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => both(minutes, 'm', seconds % 60, 's'),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => both(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => both(days, 'd', hours % 24, 'h'),
        () => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_end_of_spaces() {
        let rows =
            [["a".to_owned(), String::new(), "x".to_owned()], ["long".to_owned(), "1".to_owned(), "é\n2".to_owned()]];
        let text = "  NAME   N   TEXT\n  a      -   x\n  long   1   é 2\n";
        assert_eq!(table(["NAME", "N", "TEXT"], &rows, 2), text);
        assert_eq!(table(["NAME", "EMPTY"], &[], 0), "NAME   EMPTY\n");
    }

    #[test]
    fn what_steers_a_terminal_is_left_out() {
        assert_eq!(one_line("\x1b[31mred\r\nlines\t"), "[31mred lines");
    }

    #[test]
    fn ages_have_one_or_two_units() {
        let now = Timestamp::from_second(100_000_000).unwrap();
        let ago = |seconds: i64| age(Timestamp::from_second(100_000_000 - seconds).ok(), now);
        let rows = [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (3600, "60m"),
            (4 * 3600 + 60, "4h1m"),
            (9 * 3600, "9h"),
            (50 * 3600, "2d2h"),
            (30 * 86400, "30d"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(ago(seconds), expected, "{seconds}");
        }
        assert_eq!(age(None, now), "-");
    }
}
