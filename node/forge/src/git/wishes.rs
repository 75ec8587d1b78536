//! Who waits for which commits of one mirror: the next fetch takes along what all of them want.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::GitError;

/// Commits that one fetch asks for; more go with the next.
const MAX_COMMITS: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Wishes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// What nobody has asked the server for yet, by wish.
    waiting: BTreeMap<u64, Vec<String>>,
    /// How the fetch ended that took a wish along, if the server could not be asked.
    failed: BTreeMap<u64, GitError>,
}

/// The wish of one caller; withdrawn when it goes away.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    wishes: &'a Wishes,
    number: u64,
}

/// What one fetch asks for, on behalf of several.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    wishes: &'a Wishes,
    pub(super) commits: Vec<String>,
    others: Vec<u64>,
}

impl Wishes {
    pub(super) fn add(&self, commits: Vec<String>) -> Wish<'_> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, commits);
        Wish {
            wishes: self,
            number,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Wish<'a> {
    /// Why the server could not be asked by whoever took this wish along.
    pub(super) fn failure(&self) -> Option<GitError> {
        self.wishes.lock().failed.get(&self.number).cloned()
    }

    /// What this wish still lacks, and what others wait for.
    pub(super) fn take_along(&self, missing: &[String]) -> Shared<'a> {
        let mut state = self.wishes.lock();
        state.waiting.remove(&self.number);
        let mut commits = missing.to_vec();
        let mut others = Vec::new();
        state.waiting.retain(|&number, wanted| {
            if commits.len() + wanted.len() > MAX_COMMITS {
                return true;
            }
            for commit in wanted.drain(..) {
                if !commits.contains(&commit) {
                    commits.push(commit);
                }
            }
            others.push(number);
            false
        });
        Shared {
            wishes: self.wishes,
            commits,
            others,
        }
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        let mut state = self.wishes.lock();
        state.waiting.remove(&self.number);
        state.failed.remove(&self.number);
    }
}

impl Shared<'_> {
    /// Those who were taken along need not ask the same server the same thing at once again.
    pub(super) fn failed(self, error: &GitError) {
        let mut state = self.wishes.lock();
        for number in self.others {
            state.failed.insert(number, error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RepoId;

    fn commits(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// GHC-067
    #[test]
    fn one_question_is_asked_for_all_who_wait() {
        let wishes = Wishes::default();
        let (first, second) = (
            wishes.add(commits(&["a"])),
            wishes.add(commits(&["a", "b"])),
        );
        let gone = wishes.add(commits(&["c"]));
        drop(gone);
        let shared = first.take_along(&commits(&["a"]));
        assert_eq!(shared.commits, ["a", "b"]);
        let late = wishes.add(commits(&["d"]));
        let down = GitError::Unavailable {
            repo: RepoId::new("o", "r"),
            reason: "down".into(),
        };
        shared.failed(&down);
        assert_eq!(second.failure(), Some(down));
        assert_eq!((first.failure(), late.failure()), (None, None));
        assert_eq!(late.take_along(&commits(&["d"])).commits, ["d"]);
        drop((first, second, late));
        let state = wishes.lock();
        assert!(state.waiting.is_empty() && state.failed.is_empty());
    }

    #[test]
    fn a_question_has_an_end() {
        let wishes = Wishes::default();
        let many = |from: usize| (from..from + 60).map(|n| n.to_string()).collect::<Vec<_>>();
        let (first, second) = (wishes.add(many(0)), wishes.add(many(60)));
        assert_eq!(first.take_along(&many(0)).commits.len(), 60);
        assert_eq!(second.take_along(&many(60)).commits.len(), 60);
    }
}
