//! Which pull requests were looked at lately because of a comment (PLG-NEEDSREBASE-004). Forgotten with the process: then
//! one is looked at once more.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use trireme_forge::RepoId;

/// Pull requests that are remembered; all are forgotten when there are more.
const MAX_CHECKED: usize = 20_000;

#[derive(Debug, Default)]
pub(crate) struct Checked(Mutex<BTreeMap<(RepoId, u64), Timestamp>>);

impl Checked {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(RepoId, u64), Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was looked at less than `valid` ago.
    pub(super) fn is_fresh(
        &self,
        repo: &RepoId,
        number: u64,
        now: Timestamp,
        valid: Duration,
    ) -> bool {
        let at = self.all().get(&(repo.clone(), number)).copied();
        let valid = SignedDuration::try_from(valid).unwrap_or(SignedDuration::MAX);
        at.is_some_and(|at| now.duration_since(at) < valid)
    }

    /// Remembers it, if that is wanted.
    pub(super) fn note(&self, repo: &RepoId, number: u64, now: Timestamp, valid: Duration) {
        if valid.is_zero() {
            return;
        }
        let mut all = self.all();
        if all.len() >= MAX_CHECKED {
            all.clear();
        }
        all.insert((repo.clone(), number), now);
    }

    /// All of them were looked at.
    pub(crate) fn flush(&self) {
        self.all().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PLG-NEEDSREBASE-004
    #[test]
    fn plg_needsrebase_004_comments_shortly_after_each_other_look_once() {
        let (checked, repo) = (Checked::default(), RepoId::new("o", "r"));
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let valid = Duration::from_secs(60);
        checked.note(&repo, 1, at(0), Duration::ZERO);
        assert!(!checked.is_fresh(&repo, 1, at(1), valid));
        checked.note(&repo, 1, at(0), valid);
        assert!(checked.is_fresh(&repo, 1, at(59), valid));
        assert!(!checked.is_fresh(&repo, 1, at(60), valid));
        assert!(!checked.is_fresh(&repo, 2, at(1), valid));
        checked.flush();
        assert!(!checked.is_fresh(&repo, 1, at(1), valid));
    }
}
