//! What commands print: tables for people, JSON for programs.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use serde::Serialize;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table or a sentence.
    #[default]
    Text,
    /// One JSON document, or one object per line where it is a stream.
    Json,
}

/// `-o` of commands that print a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Notation {
    /// As Prow's and Kubernetes' tools write and read it.
    #[default]
    Yaml,
    /// One JSON document.
    Json,
}

/// One document.
///
/// # Errors
/// When it does not serialise or standard output fails.
pub fn print_document(value: &impl Serialize, notation: Notation) -> anyhow::Result<()> {
    match notation {
        Notation::Json => print_json(value),
        Notation::Yaml => Ok(print(&trireme_config::yaml::to_string(value)?)?),
    }
}

/// Columns as wide as their widest cell, two spaces between, no trailing space.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes to standard output; a closed pipe ends quietly.
///
/// # Errors
/// When standard output fails otherwise.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result,
    }
}

/// One JSON document.
///
/// # Errors
/// When it does not serialise or standard output fails.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))?;
    Ok(())
}

/// Between two looks of a person at how far it is.
const PROGRESS: Duration = Duration::from_millis(250);

/// How far it is, for a person who looks at standard error; programs see nothing of it.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    last: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    #[must_use]
    pub fn new() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
            last: Instant::now(),
        }
    }

    /// Now and then, in the place of what was told before.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.shown && self.last.elapsed() >= PROGRESS {
            self.last = Instant::now();
            Self::write(&format!("\r\u{1b}[K{} ", what()));
        }
    }

    /// Leaves nothing behind.
    pub fn end(&self) {
        if self.shown {
            Self::write("\r\u{1b}[K");
        }
    }

    fn write(text: &str) {
        let mut out = io::stderr().lock();
        // Nobody depends on it.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// How long ago, in the largest unit that fits.
#[must_use]
pub fn age(now_ms: i64, then_ms: i64) -> String {
    if then_ms <= 0 {
        return "-".to_owned();
    }
    let seconds = (now_ms - then_ms).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["1".to_owned(), "a long one".to_owned(), String::new()],
            vec!["22".to_owned(), "b".to_owned(), "x".to_owned()],
        ];
        insta::assert_snapshot!(table(&["ID", "NAME", "X"], &rows), @r"
        ID  NAME        X
        1   a long one
        22  b           x
        ");
    }

    #[test]
    fn ages_are_short() {
        let ages = [0, 119_000, 120_000, 7_200_000, 172_800_000].map(|ms| age(ms + 1, 1));
        assert_eq!(ages, ["0s", "119s", "2m", "2h", "2d"]);
        assert_eq!(age(5, 0), "-");
    }
}
