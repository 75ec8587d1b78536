//! The last lines of this process's log, for debug bundles.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept.
const LINES: usize = 2000;
/// Bytes of one line; the rest is cut.
const LINE_BYTES: usize = 1000;

static OF_PROCESS: OnceLock<RecentLog> = OnceLock::new();

/// A ring of lines. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecentLog(Arc<Mutex<VecDeque<String>>>);

impl RecentLog {
    /// The one that this process's log goes to.
    pub(crate) fn of_process() -> Self {
        OF_PROCESS.get_or_init(Self::default).clone()
    }

    /// Oldest first.
    pub(crate) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in lines.iter() {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn push(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back(line[..line.floor_char_boundary(LINE_BYTES)].to_owned());
        }
    }
}

/// One event, written in pieces.
#[derive(Debug)]
pub(crate) struct Event {
    log: RecentLog,
    bytes: Vec<u8>,
}

impl io::Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An event may have many lines, of which each is cut later; one without end is cut here.
        let room = (LINES * LINE_BYTES).saturating_sub(self.bytes.len());
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.log.push(&self.bytes);
    }
}

impl<'a> MakeWriter<'a> for RecentLog {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event {
            log: self.clone(),
            bytes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_long_ones_cut() {
        let log = RecentLog::default();
        for number in 0..LINES + 5 {
            writeln!(log.make_writer(), "line {number}").unwrap();
        }
        writeln!(log.make_writer(), "{}", "ä".repeat(LINE_BYTES)).unwrap();
        let text = log.text();
        assert_eq!(text.lines().count(), LINES);
        assert_eq!(text.lines().next(), Some("line 6"));
        assert_eq!(text.lines().last().map(str::len), Some(LINE_BYTES));
    }
}
