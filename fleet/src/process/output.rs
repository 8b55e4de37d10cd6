//! What instances write: handed on line by line, and kept in one bounded file for each instance, in
//! the format in which a kubelet keeps it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::Instance;

/// A longer line is cut into several.
pub(super) const MAX_LINE: usize = 16 * 1024;
/// A file of this size becomes the former one, and the former former one goes.
const MAX_FILE: u64 = 1 << 20;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Takes what instances write.
pub trait Output: Send + Sync + 'static {
    /// Some lines, each without its end. Quick, and never fails: output is not worth an instance.
    fn lines(&self, from: &Instance, channel: Channel, lines: &[String]);
}

/// Files of output in one directory.
#[derive(Clone, Debug)]
pub struct OutputFiles {
    directory: PathBuf,
}

impl OutputFiles {
    /// Files in this directory, which exists.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Adds lines to the file of an instance, by its unique id.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn append(&self, uid: &str, channel: Channel, lines: &[String], now: Timestamp) -> io::Result<()> {
        let path = self.path(uid);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        if file.metadata()?.len() > MAX_FILE {
            fs::rename(&path, former(&path))?;
            file = OpenOptions::new().create(true).append(true).open(&path)?;
        }
        let text: String = lines.iter().map(|line| format!("{now} {} F {line}\n", channel.as_str())).collect();
        file.write_all(text.as_bytes())
    }

    /// What there is, from `position` (in bytes since the first line ever) on, and the position after it. None of
    /// the lines before the former file is there any more.
    ///
    /// # Errors
    /// If it can't be read; a file that is not there is empty.
    pub fn read(&self, uid: &str, position: Position) -> io::Result<(String, Position)> {
        let path = self.path(uid);
        let Some(mut file) = open(&path)? else { return Ok((String::new(), position)) };
        let identity = identity(&file)?;
        let mut text = String::new();
        if position.file != identity {
            // What was written to the former one since the last look, or all of it at the first.
            if let Some(mut before) = open(&former(&path))? {
                if position.file == self::identity(&before)? {
                    before.seek(SeekFrom::Start(position.offset))?;
                }
                read_lossily(&mut before, &mut text)?;
            }
        } else {
            file.seek(SeekFrom::Start(position.offset))?;
        }
        let start = file.stream_position()?;
        let read = read_lossily(&mut file, &mut text)?;
        Ok((text, Position { file: identity, offset: start + read }))
    }

    /// Forgets the output of an instance.
    pub fn remove(&self, uid: &str) {
        let path = self.path(uid);
        // Not there is as good.
        let _ = fs::remove_file(former(&path));
        let _ = fs::remove_file(path);
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.directory.join(format!("{uid}.log"))
    }
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    file: u64,
    offset: u64,
}

fn former(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stays when the file is renamed.
fn identity(file: &File) -> io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::ino(&file.metadata()?))
}

fn read_lossily(file: &mut File, into: &mut String) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    into.push_str(&String::from_utf8_lossy(&bytes));
    Ok(bytes.len() as u64)
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that end within these bytes or that are too long already.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        let mut start = 0;
        loop {
            let rest = &self.rest[start..];
            let (length, skip) = match rest.iter().take(MAX_LINE + 1).position(|byte| *byte == b'\n') {
                Some(end) => (end, 1),
                None if rest.len() > MAX_LINE => (MAX_LINE, 0),
                None => break,
            };
            lines.push(text(&rest[..length]));
            start += length + skip;
        }
        self.rest.drain(..start);
        lines
    }

    /// What came after the last end of a line.
    pub(super) fn finish(self) -> Option<String> {
        (!self.rest.is_empty()).then(|| text(&self.rest))
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines_however_they_come() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\r\nb"), ["a"]);
        assert_eq!(lines.push(b"c\n\nd"), ["bc", ""]);
        assert_eq!(lines.push(&vec![b'x'; 2 * MAX_LINE]).len(), 2);
        assert_eq!(lines.finish().map(|rest| rest.len()), Some(1));
    }

    #[test]
    fn a_reader_sees_every_line_once_also_when_files_change() {
        let directory = tempfile::tempdir().unwrap();
        let files = OutputFiles::new(directory.path());
        let line = vec!["x".repeat(10_000)];
        let (mut position, mut seen) = (Position::default(), 0);
        for written in 1..=300 {
            files.append("u", Channel::Stdout, &line, Timestamp::UNIX_EPOCH).unwrap();
            if written % 7 == 0 {
                let (text, next) = files.read("u", position).unwrap();
                (position, seen) = (next, seen + text.lines().count());
                assert_eq!(seen, written);
            }
        }
        let all: u64 = fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(all < 2 * MAX_FILE + 20_000, "{all}");
        files.remove("u");
        assert_eq!(files.read("u", Position::default()).unwrap().0, "");
    }
}
