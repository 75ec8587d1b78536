//! Differences that were looked at lately: a list of three thousand files is asked for in thirty pages, and commits do not
//! change between them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::read::ChangedFile;

/// Differences that are kept, the newest; the largest has three thousand files.
const MAX_DIFFS: usize = 16;

/// Which repository, and which two commits.
type Key = (PathBuf, String, String);
type Files = Arc<Vec<ChangedFile>>;

#[derive(Debug, Default)]
pub(super) struct Diffs(Mutex<VecDeque<(Key, Files)>>);

impl Diffs {
    pub(super) fn get(&self, key: &Key) -> Option<Files> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(known, _)| known == key);
        found.map(|(_, files)| files.clone())
    }

    pub(super) fn put(&self, key: Key, files: Files) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((key, files));
        if kept.len() > MAX_DIFFS {
            kept.pop_front();
        }
    }
}
