//! What happened, line by line: simulated time, who, what. Two runs of a seed must give the same lines.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// Lines that are kept for whoever asks why a run hangs.
const TAIL_LINES: usize = 30;

/// The last lines of a trace, as far as it got. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| f.write_str(line))
    }
}

#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Lines>>);

struct Lines {
    started: Instant,
    sum: Sha256,
    count: u64,
    tail: Tail,
    file: Option<BufWriter<File>>,
    /// Why the file is not whole.
    broken: Option<io::Error>,
}

impl Trace {
    /// Begins now; kept in a file, too, if one is named.
    pub(crate) fn begin(file: Option<&Path>, tail: Tail) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Lines {
            started: Instant::now(),
            sum: Sha256::new(),
            count: 0,
            tail,
            file: file.map(File::create).transpose()?.map(BufWriter::new),
            broken: None,
        }))))
    }

    fn held(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the beginning.
    pub(crate) fn now_ns(&self) -> u64 {
        let passed = self.held().started.elapsed().as_nanos();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    pub(crate) fn line(&self, who: impl fmt::Display, what: impl fmt::Display) {
        let mut lines = self.held();
        let passed = lines.started.elapsed();
        let line = format!(
            "{}.{:06} {who} {what}\n",
            passed.as_secs(),
            passed.subsec_micros()
        );
        lines.sum.update(line.as_bytes());
        lines.count += 1;
        if let Some(file) = &mut lines.file
            && let Err(error) = file.write_all(line.as_bytes())
        {
            lines.broken.get_or_insert(error);
        }
        lines.tail.push(line);
    }

    /// How many lines there are, and their hash.
    pub(crate) fn end(&self) -> io::Result<(u64, String)> {
        let mut lines = self.held();
        if let Some(error) = lines.broken.take() {
            return Err(error);
        }
        if let Some(file) = &mut lines.file {
            file.flush()?;
        }
        Ok((lines.count, hex::encode(lines.sum.clone().finalize())))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}
