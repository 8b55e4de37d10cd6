//! Lines of a log that is streamed, as bytes: a function may write what is no text.

use std::{io, pin::Pin};

use futures::{AsyncBufRead, AsyncBufReadExt};

/// A longer line is cut into several.
const MAX_LINE: usize = 64 << 10;

/// A log as lines.
pub(super) struct Lines<'a> {
    from: Pin<Box<dyn AsyncBufRead + Send + 'a>>,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(from: Pin<Box<dyn AsyncBufRead + Send + 'a>>) -> Self {
        Self { from, line: Vec::new() }
    }

    /// The next one, without its end; none at the log's end. Nothing is lost when it is dropped in between.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let there = self.from.fill_buf().await?;
            if there.is_empty() {
                return Ok(Some(std::mem::take(&mut self.line)).filter(|line| !line.is_empty()));
            }
            let room = MAX_LINE.saturating_sub(self.line.len());
            let part = there.get(..room).unwrap_or(there);
            let end = part.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(part.len());
            self.line.extend_from_slice(&part[..taken]);
            self.from.as_mut().consume(taken + usize::from(end.is_some()));
            if end.is_some() || self.line.len() >= MAX_LINE {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::io::{BufReader, Cursor};

    use super::*;

    async fn lines(bytes: &[u8], buffer: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(Box::pin(BufReader::with_capacity(buffer, Cursor::new(bytes.to_vec()))));
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_are_whole_however_they_come() {
        for buffer in [1, 3, 100] {
            let expected: [&[u8]; 4] = [b"one", b"", b"t\xffo", b"end"];
            assert_eq!(lines(b"one\n\nt\xffo\nend", buffer).await, expected, "{buffer}");
        }
        assert!(lines(b"", 10).await.is_empty());
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_bounded() {
        let cut = lines(&vec![b'x'; MAX_LINE * 2 + 5], 1000).await;
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, 5]);
    }
}
