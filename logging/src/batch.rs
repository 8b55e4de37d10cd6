//! Lines gathered for a moment and written together: a write for each would cost a request more than
//! all else that is done about its log line, and would let it wait for whoever reads the log.

use std::{io::Write, time::Duration};

use parking_lot::{Condvar, Mutex};
use tracing::warn;

/// So many bytes are written at once, without waiting for more.
const ENOUGH: usize = 64 * 1024;
/// A line waits for so long at most.
const MOMENT: Duration = Duration::from_millis(20);
/// So many bytes wait at most, while the reader of the log is slow; then lines are lost.
const ROOM: usize = 1024 * 1024;
/// Memory of a batch that is kept for the next one.
const KEPT: usize = 4 * ENOUGH;

/// Lines that are not written yet.
#[derive(Debug, Default)]
pub struct Batch {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines for which there was no room since this was last said.
    lost: u64,
}

impl Batch {
    /// None yet.
    pub const fn new() -> Self {
        Self { waiting: Mutex::new(Waiting { lines: Vec::new(), lost: 0 }), arrived: Condvar::new() }
    }

    /// Adds a line, if there is room for it. Never waits for the writer.
    pub fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock();
        let before = waiting.lines.len();
        if before + line.len() > ROOM {
            waiting.lost += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        let after = waiting.lines.len();
        drop(waiting);
        if before == 0 || (before < ENOUGH && after >= ENOUGH) {
            self.arrived.notify_one();
        }
    }

    /// Writes batches to standard output, for as long as the process lives.
    pub fn write_forever(&self) {
        let mut batch = Vec::new();
        loop {
            let mut waiting = self.waiting.lock();
            self.arrived.wait_while(&mut waiting, |waiting| waiting.lines.is_empty());
            self.arrived.wait_while_for(&mut waiting, |waiting| waiting.lines.len() < ENOUGH, MOMENT);
            drop(waiting);
            self.write_with(&mut batch);
        }
    }

    /// Writes what waits now, and how much was lost.
    pub fn write(&self) {
        self.write_with(&mut Vec::new());
    }

    fn write_with(&self, batch: &mut Vec<u8>) {
        let lost = self.write_to(&mut std::io::stdout().lock(), batch);
        if lost > 0 {
            warn!(lines = lost, "log lines were lost: they came faster than they were read");
            self.write_to(&mut std::io::stdout().lock(), batch);
        }
    }

    /// How many lines were lost. Whoever has `out` writes, so batches keep their order. What waits and `batch`
    /// are exchanged, so that both keep their memory.
    fn write_to(&self, out: &mut impl Write, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        batch.shrink_to(KEPT);
        let mut waiting = self.waiting.lock();
        std::mem::swap(&mut waiting.lines, batch);
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        // Nobody is left to be told of a failure: this is the log.
        let _ = out.write_all(batch).and_then(|()| out.flush());
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let batch = Batch::new();
        batch.push(b"one\n");
        batch.push(b"two\n");
        let mut out = Vec::new();
        assert_eq!(batch.write_to(&mut out, &mut Vec::new()), 0);
        assert_eq!(out, b"one\ntwo\n");
        assert_eq!(batch.write_to(&mut out, &mut Vec::new()), 0);
        assert_eq!(out.len(), 8, "written once");
    }

    #[test]
    fn lines_without_room_are_lost_whole_and_counted() {
        let batch = Batch::new();
        let line = [b'x'; 1000];
        (0..ROOM / line.len() + 5).for_each(|_| batch.push(&line));
        let mut out = Vec::new();
        assert_eq!(batch.write_to(&mut out, &mut Vec::new()), 5);
        assert_eq!(out.len() % line.len(), 0);
        batch.push(&line);
        assert_eq!(batch.write_to(&mut out, &mut Vec::new()), 0, "said once, and there is room again");
    }
}
