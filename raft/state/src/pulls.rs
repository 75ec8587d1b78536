//! The mirror of pull requests. Written from webhooks, repaired by a poll; a late report never overwrites a newer one.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use imbl::OrdSet;
use trireme_proto::state::{
    Context, Done, HeadContext, Mergeable, PullRequest, PutPullRequests, Rejected,
};

use crate::{
    State,
    apply::Entry,
    change::{Change, RecordKey},
    digest::Sum,
    limits::{
        CLOSED_PULL_MEMORY, CLOSED_PULL_MEMORY_MS, MAX_CONTEXTS, MAX_PULL_REQUESTS,
        MAX_PULLS_PER_COMMAND, PRUNE_PER_ENTRY,
    },
    reject::{Verdict, at_most, exhausted, invalid, name, optional_name, record_size},
    table::{Record, Table},
};

/// (org, repo, number)
type Key = (String, String, u64);

impl Record for PullRequest {
    const KIND: u8 = 6;
    type Key = Key;

    fn key(&self) -> Key {
        (self.org.clone(), self.repo.clone(), self.number)
    }
}

/// A pull request's name, written `org/repo#number`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PullName {
    org: String,
    repo: String,
    number: u64,
}

impl FromStr for PullName {
    type Err = Rejected;

    fn from_str(text: &str) -> Result<Self, Rejected> {
        let parts = text.rsplit_once('#').and_then(|(path, number)| {
            let (org, repo) = path.split_once('/')?;
            Some(Self {
                org: org.to_owned(),
                repo: repo.to_owned(),
                number: number.parse().ok()?,
            })
        });
        parts
            .filter(|pull| !pull.org.is_empty() && !pull.repo.is_empty())
            .ok_or_else(|| {
                invalid(format!(
                    "{text:?} is no pull request: write org/repo#number"
                ))
            })
    }
}

/// Who writes to the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// A webhook's payload does not carry reviews, mergeability while GitHub computes it, or our own readiness.
    Webhook,
    /// Tide and its poll know everything.
    Tide,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pulls {
    rows: Table<PullRequest>,
    /// Open ones by head: (org, repo, sha, number).
    by_head: OrdSet<(String, String, String, u64)>,
    by_sha: OrdSet<(String, Key)>,
    open: OrdSet<Key>,
    closed: OrdSet<(i64, Key)>,
}

impl Pulls {
    pub(crate) fn put(
        &mut self,
        digest: &mut Sum,
        pull: Arc<PullRequest>,
    ) -> Option<Arc<PullRequest>> {
        let former = self.rows.put(digest, pull.clone());
        if let Some(former) = &former {
            self.index(former, false);
        }
        self.index(&pull, true);
        former
    }

    fn remove(&mut self, digest: &mut Sum, key: &Key) {
        if let Some(former) = self.rows.remove(digest, key) {
            self.index(&former, false);
        }
    }

    fn index(&mut self, pull: &PullRequest, add: bool) {
        let key = pull.key();
        let sha = (pull.head_sha.clone(), key.clone());
        if add {
            self.by_sha.insert(sha);
        } else {
            self.by_sha.remove(&sha);
        }
        if pull.open {
            let head = (
                pull.org.clone(),
                pull.repo.clone(),
                pull.head_sha.clone(),
                pull.number,
            );
            if add {
                self.by_head.insert(head);
                self.open.insert(key);
            } else {
                self.by_head.remove(&head);
                self.open.remove(&key);
            }
        } else {
            let closed = (pull.closed_ms, key);
            if add {
                self.closed.insert(closed);
            } else {
                self.closed.remove(&closed);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<PullRequest>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }
}

pub(crate) fn put(state: &mut State, entry: &mut Entry, command: &PutPullRequests) -> Verdict {
    state.check_pulls(&command.pull_requests.iter().collect::<Vec<_>>())?;
    at_most("contexts", command.contexts.len(), MAX_PULLS_PER_COMMAND)?;
    for context in &command.contexts {
        check_head_context(context)?;
    }
    let mut changed = false;
    for pull in &command.pull_requests {
        changed |= state.put_pull(entry, pull, Writer::Tide);
    }
    for context in &command.contexts {
        changed |= state.put_head_context(entry, context);
    }
    Ok(Done {
        duplicate: !changed,
        ..Done::default()
    })
}

fn check_head_context(head: &HeadContext) -> Verdict<()> {
    name("org", &head.org)?;
    name("repo", &head.repo)?;
    name("sha", &head.sha)?;
    let Some(context) = &head.context else {
        return Err(invalid("a head's context is missing"));
    };
    name("context", &context.context)
}

/// The newer report of each context; beyond the bound new contexts are left out.
fn merge_context(contexts: &mut BTreeMap<String, Context>, context: &Context) {
    let room = contexts.len() < MAX_CONTEXTS;
    match contexts.get_mut(&context.context) {
        Some(former) if former.updated_ms > context.updated_ms => {}
        Some(former) => former.clone_from(context),
        None if room => {
            contexts.insert(context.context.clone(), context.clone());
        }
        None => {}
    }
}

impl State {
    pub(crate) fn check_pulls(&self, pulls: &[&PullRequest]) -> Verdict<()> {
        at_most("pull requests", pulls.len(), MAX_PULLS_PER_COMMAND)?;
        for pull in pulls {
            name("org", &pull.org)?;
            name("repo", &pull.repo)?;
            if pull.number == 0 {
                return Err(invalid("a pull request without a number"));
            }
            optional_name("author", &pull.author)?;
            optional_name("base_ref", &pull.base_ref)?;
            optional_name("head_ref", &pull.head_ref)?;
            optional_name("head_sha", &pull.head_sha)?;
            at_most("contexts", pull.contexts.len(), MAX_CONTEXTS)?;
            if let Some((key, _)) = pull
                .contexts
                .iter()
                .find(|(key, context)| **key != context.context)
            {
                return Err(invalid(format!(
                    "the context under {key:?} has another name"
                )));
            }
            record_size("the pull request", *pull)?;
        }
        if self.pulls.len().saturating_add(pulls.len()) > MAX_PULL_REQUESTS {
            return Err(exhausted("pull requests", MAX_PULL_REQUESTS));
        }
        Ok(())
    }

    /// Whether the mirror changed.
    pub(crate) fn put_pull(
        &mut self,
        entry: &mut Entry,
        asked: &PullRequest,
        writer: Writer,
    ) -> bool {
        let mut next = asked.clone();
        next.version = 0;
        let former = self.pulls.rows.get(&asked.key()).cloned();
        if let Some(former) = &former {
            if asked.updated_ms < former.updated_ms {
                return false;
            }
            if former.head_sha == asked.head_sha {
                next.contexts.clone_from(&former.contexts);
                for context in asked.contexts.values() {
                    merge_context(&mut next.contexts, context);
                }
            }
            if writer == Writer::Webhook {
                keep_what_webhooks_lack(&mut next, former);
            }
        }
        next.closed_ms = match &former {
            _ if next.open => 0,
            Some(former) if !former.open => former.closed_ms,
            _ => entry.stamp_ms,
        };
        self.put_changed_pull(entry, next, former.as_deref())
    }

    /// A context that came by itself. Whether any open pull request's mirror changed.
    fn put_head_context(&mut self, entry: &mut Entry, head: &HeadContext) -> bool {
        let Some(context) = &head.context else {
            return false;
        };
        let from = (head.org.clone(), head.repo.clone(), head.sha.clone(), 0);
        let keys: Vec<Key> = self
            .pulls
            .by_head
            .range(from..)
            .take_while(|(org, repo, sha, _)| {
                *org == head.org && *repo == head.repo && *sha == head.sha
            })
            .map(|(org, repo, _, number)| (org.clone(), repo.clone(), *number))
            .collect();
        let mut changed = false;
        for key in keys {
            if let Some(former) = self.pulls.rows.get(&key).cloned() {
                let mut next = (*former).clone();
                merge_context(&mut next.contexts, context);
                changed |= self.put_changed_pull(entry, next, Some(&former));
            }
        }
        changed
    }

    pub(crate) fn close_pull(&mut self, entry: &mut Entry, pull: &PullName) {
        let key = (pull.org.clone(), pull.repo.clone(), pull.number);
        if let Some(former) = self
            .pulls
            .rows
            .get(&key)
            .filter(|former| former.open)
            .cloned()
        {
            let next = PullRequest {
                open: false,
                closed_ms: entry.stamp_ms,
                ..(*former).clone()
            };
            self.put_changed_pull(entry, next, Some(&former));
        }
    }

    fn put_changed_pull(
        &mut self,
        entry: &mut Entry,
        mut next: PullRequest,
        former: Option<&PullRequest>,
    ) -> bool {
        if let Some(former) = former {
            next.version = former.version;
            if next == *former {
                return false;
            }
        }
        next.version = entry.index;
        let pull = Arc::new(next);
        self.pulls.put(&mut self.digest, pull.clone());
        entry.changed(Change::PullRequest(pull));
        true
    }

    /// Closed pull requests leave when their time is over, or when there are too many.
    pub(crate) fn forget_closed_pulls(&mut self, entry: &mut Entry) {
        let before = entry.stamp_ms.saturating_sub(CLOSED_PULL_MEMORY_MS);
        for _ in 0..PRUNE_PER_ENTRY {
            let crowded = self.pulls.closed.len() > CLOSED_PULL_MEMORY;
            match self.pulls.closed.get_min() {
                Some((closed_ms, key)) if *closed_ms < before || crowded => {
                    let key = key.clone();
                    self.pulls.remove(&mut self.digest, &key);
                    let (org, repo, number) = key;
                    entry.changed(Change::Removed(RecordKey::PullRequest {
                        org,
                        repo,
                        number,
                    }));
                }
                _ => break,
            }
        }
    }

    pub fn pull_request(&self, org: &str, repo: &str, number: u64) -> Option<&Arc<PullRequest>> {
        self.pulls
            .rows
            .get(&(org.to_owned(), repo.to_owned(), number))
    }

    /// A repository's pull requests, closed ones included, by number.
    pub fn pull_requests<'a>(
        &'a self,
        org: &'a str,
        repo: &'a str,
    ) -> impl Iterator<Item = &'a Arc<PullRequest>> {
        let from = (org.to_owned(), repo.to_owned(), 0);
        self.pulls
            .rows
            .range(from..)
            .take_while(move |pull| pull.org == org && pull.repo == repo)
    }

    /// All open pull requests, by (org, repo, number).
    pub fn open_pull_requests(&self) -> impl Iterator<Item = &Arc<PullRequest>> {
        self.pulls
            .open
            .iter()
            .filter_map(|key| self.pulls.rows.get(key))
    }

    /// All pull requests in the mirror, by (org, repo, number).
    pub fn all_pull_requests(&self) -> impl Iterator<Item = &Arc<PullRequest>> {
        self.pulls.rows.iter()
    }

    /// Pull requests whose head is this commit, in any repository, closed ones included.
    pub fn pulls_with_head<'a>(
        &'a self,
        sha: &'a str,
    ) -> impl Iterator<Item = &'a Arc<PullRequest>> {
        let from = (sha.to_owned(), (String::new(), String::new(), 0));
        self.pulls
            .by_sha
            .range(from..)
            .take_while(move |(head, _)| head == sha)
            .filter_map(|(_, key)| self.pulls.rows.get(key))
    }
}

fn keep_what_webhooks_lack(next: &mut PullRequest, former: &PullRequest) {
    if next.ready_since_ms == 0 {
        next.ready_since_ms = former.ready_since_ms;
    }
    if next.review_decision.is_empty() {
        next.review_decision.clone_from(&former.review_decision);
    }
    if next.mergeable() == Mergeable::Unknown
        && next.head_sha == former.head_sha
        && next.base_ref == former.base_ref
    {
        next.mergeable = former.mergeable;
    }
}
