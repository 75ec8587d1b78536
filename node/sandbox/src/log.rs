//! The event log: what was called, what happened, what was delivered, in one order, to assert on.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;

use crate::forge::RepoName;

/// Entries kept; the oldest go first. Counts are never forgotten.
pub const MAX_ENTRIES: usize = 100_000;

/// One line of the log.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Counts from 1 without gaps.
    pub seq: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub what: Logged,
}

/// What a line says.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Logged {
    /// Somebody called the API or git and was answered.
    Call {
        method: String,
        path: String,
        actor: Option<String>,
        /// 0 when the connection was cut instead of an answer.
        status: u16,
    },
    /// The forge changed.
    Happened {
        repo: RepoName,
        event: String,
        action: Option<String>,
        number: Option<u64>,
        actor: String,
    },
    /// A merge took effect.
    Merged {
        repo: RepoName,
        number: u64,
        head_sha: String,
        commit: String,
        by: String,
    },
    /// A webhook was sent, or could not be.
    Delivered {
        hook: u64,
        guid: String,
        event: String,
        action: Option<String>,
        url: String,
        status_code: u16,
        redelivery: bool,
    },
    /// A fault was applied.
    Fault { effect: String, on: String },
}

/// The log and what is counted from it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    last_seq: u64,
    merges: BTreeMap<String, u64>,
    calls: BTreeMap<(String, String), u64>,
}

impl Log {
    pub(crate) fn add(&mut self, at: Timestamp, what: Logged) {
        match &what {
            Logged::Merged { head_sha, .. } => {
                *self.merges.entry(head_sha.clone()).or_default() += 1;
            }
            Logged::Call { method, path, .. } => {
                // Counted by shape, so that the counts are bounded by the surface and not by its use.
                let key = (method.clone(), shape(path));
                *self.calls.entry(key).or_default() += 1;
            }
            _ => {}
        }
        self.last_seq += 1;
        if self.entries.len() >= MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            seq: self.last_seq,
            at,
            what,
        });
    }

    pub(crate) fn after(&self, seq: u64) -> Vec<Entry> {
        let forgotten = self.last_seq - self.entries.len() as u64;
        let skip = usize::try_from(seq.saturating_sub(forgotten)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).cloned().collect()
    }

    pub(crate) fn merges(&self) -> &BTreeMap<String, u64> {
        &self.merges
    }

    pub(crate) fn calls(&self) -> &BTreeMap<(String, String), u64> {
        &self.calls
    }
}

/// `/repos/o/r/pulls/7/merge` → `/repos/{}/{}/pulls/{}/merge`: what varies in a path is left out.
pub(crate) fn shape(path: &str) -> String {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let mut shaped = String::new();
    for (at, segment) in segments.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|i| segments.get(i)).copied();
        let before2 = at.checked_sub(2).and_then(|i| segments.get(i)).copied();
        let named = match before {
            Some("repos" | "orgs" | "users" | "members" | "collaborators" | "labels" | "teams") => {
                true
            }
            Some("statuses" | "commits" | "heads" | "branches" | "hooks" | "deliveries") => true,
            _ => before2 == Some("repos") && at == 2,
        };
        let varies = named
            || segment.bytes().all(|b| b.is_ascii_digit())
            || (segment.len() == 40 && segment.bytes().all(|b| b.is_ascii_hexdigit()));
        shaped.push('/');
        shaped.push_str(if varies { "{}" } else { segment });
        if before == Some("contents") || *segment == "contents" {
            if segments.len() > at + 1 {
                shaped.push_str("/{}");
            }
            break;
        }
    }
    shaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paths_shape_leaves_out_what_varies() {
        let shapes: Vec<String> = [
            "/repos/o/r/pulls/7/merge",
            "/repos/o/r/issues/7/labels/kind%2Fbug",
            "/repos/o/r/statuses/0123456789012345678901234567890123456789",
            "/orgs/o/members/u",
            "/repos/o/r/contents/a/b",
            "/graphql",
        ]
        .into_iter()
        .map(shape)
        .collect();
        assert_eq!(
            shapes,
            [
                "/repos/{}/{}/pulls/{}/merge",
                "/repos/{}/{}/issues/{}/labels/{}",
                "/repos/{}/{}/statuses/{}",
                "/orgs/{}/members/{}",
                "/repos/{}/{}/contents/{}",
                "/graphql",
            ]
        );
    }
}
