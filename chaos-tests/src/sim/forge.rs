//! The forge: the sandbox's pure core behind calls that take simulated time, come late, and lose their answers. A call
//! goes its way whatever becomes of its caller.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use trireme_sandbox::forge::{
    AccountKind, Commit, Forge as Core, HeadFacts, MergeMethod, NewPull, OpenState, Permission,
    Refusal, RepoName, Signature,
};

use super::{chance::Chance, trace::Trace, world::true_ms};
use crate::Merged;

pub(crate) const ORG: &str = "org";
pub(crate) const REPO: &str = "repo";
pub(crate) const BRANCH: &str = "main";
const BOT: &str = "bot";
const AUTHOR: &str = "author";
/// A call without an answer is given up.
const CALL: Duration = Duration::from_secs(10);
const WAY_MS: (u64, u64) = (5, 400);
/// One call in so many is this late.
const LATE_ONE_IN: u64 = 12;
const LATE_MS: (u64, u64) = (1000, 9000);
/// One call in so many does not arrive, one answer in so many is lost.
const LOST_ONE_IN: u64 = 20;

/// Clones are the same forge.
#[derive(Clone)]
pub(crate) struct Forge(Arc<Mutex<Inner>>);

struct Inner {
    core: Core,
    chance: Chance,
    trace: Trace,
    began: Instant,
    merged: Vec<Merged>,
    calls: u64,
    commits: u64,
    told: BTreeSet<(String, i32)>,
}

/// Why a merge did not happen, or is not known to have happened.
#[derive(Debug)]
pub(crate) enum NotMerged {
    /// In the forge's words, which the trace shows.
    Refused(#[allow(dead_code, reason = "the trace shows it")] String),
    Unknown,
}

fn repo() -> RepoName {
    RepoName::new(ORG, REPO)
}

impl Inner {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(true_ms(self.began)).unwrap_or_default()
    }

    fn sha(&mut self) -> String {
        self.commits += 1;
        format!("{:040x}", self.commits)
    }

    /// The way of one message; None if it does not arrive.
    fn way(&self) -> Option<Duration> {
        if self.chance.one_in(LOST_ONE_IN) {
            return None;
        }
        let (least, most) = match self.chance.one_in(LATE_ONE_IN) {
            true => LATE_MS,
            false => WAY_MS,
        };
        Some(self.chance.millis(least, most))
    }

    fn open(&mut self) -> Result<(u64, String), Refusal> {
        let (now, head_sha) = (self.now(), self.sha());
        let number = self.core.reserve_number(&repo())?;
        let by = Signature {
            name: AUTHOR.to_owned(),
            email: String::new(),
            at: now,
        };
        let commit = Commit {
            sha: head_sha.clone(),
            tree: String::new(),
            parents: Vec::new(),
            author: by.clone(),
            committer: by,
            message: "Change something".to_owned(),
        };
        let pull = NewPull {
            number,
            title: format!("Change {number}"),
            body: None,
            draft: false,
            maintainer_can_modify: true,
            base_branch: BRANCH.to_owned(),
            base_sha: String::new(),
            head_repo: repo(),
            head_branch: format!("change-{number}"),
            head_sha: head_sha.clone(),
            head: HeadFacts {
                commits: vec![commit],
                ..HeadFacts::default()
            },
        };
        self.core.open_pull(now, AUTHOR, &repo(), pull)?;
        Ok((number, head_sha))
    }

    fn merge(&mut self, number: u64, head: &str) -> Result<String, NotMerged> {
        self.calls += 1;
        let refused = |refusal: Refusal| NotMerged::Refused(refusal.body().to_string());
        self.core
            .check_merge(BOT, &repo(), number, Some(head), MergeMethod::Merge)
            .map_err(refused)?;
        let (now, commit) = (self.now(), self.sha());
        self.core
            .merged(now, BOT, &repo(), number, &commit)
            .map_err(refused)?;
        self.merged.push(Merged {
            number,
            head_sha: head.to_owned(),
            commit: commit.clone(),
        });
        Ok(commit)
    }
}

impl Forge {
    /// With one repository, into which the bot may merge.
    pub(crate) fn new(chance: Chance, trace: Trace, began: Instant) -> Result<Self, Refusal> {
        let mut inner = Inner {
            core: Core::default(),
            chance,
            trace,
            began,
            merged: Vec::new(),
            calls: 0,
            commits: 0,
            told: BTreeSet::new(),
        };
        let now = inner.now();
        let core = &mut inner.core;
        core.ensure_account(now, ORG, AccountKind::Organization);
        for login in [BOT, AUTHOR] {
            core.ensure_account(now, login, AccountKind::User);
        }
        let made = core.create_repo(now, &repo(), BRANCH, None)?;
        made.collaborators.insert(BOT.to_owned(), Permission::Write);
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody opens a pull request: its number and head.
    pub(crate) fn open(&self) -> Result<(u64, String), Refusal> {
        self.held().open()
    }

    pub(crate) async fn merge(
        &self,
        node: u64,
        number: u64,
        head: &str,
    ) -> Result<String, NotMerged> {
        let head = head.to_owned();
        let call = move |inner: &mut Inner| {
            let done = inner.merge(number, &head);
            inner.trace.line(
                "forge",
                format_args!("is asked by {node} to merge {number} at {head}: {done:?}"),
            );
            done
        };
        self.call(call).await.unwrap_or(Err(NotMerged::Unknown))
    }

    /// The commit by which it was merged, if it was; the outer None is no answer.
    pub(crate) async fn merged_by(&self, number: u64) -> Option<Option<String>> {
        self.call(move |inner| {
            let (_, _, pull) = inner.core.pull(&repo(), number).ok()?;
            Some(pull.merged.as_ref()?.commit.clone())
        })
        .await
    }

    /// Is told the state of a job; None is no answer.
    pub(crate) async fn tell(&self, job: &str, state: i32) -> Option<()> {
        let told = (job.to_owned(), state);
        self.call(move |inner| {
            inner
                .trace
                .line("forge", format_args!("is told {} of {}", told.1, told.0));
            inner.told.insert(told);
        })
        .await
    }

    /// Every state of a job that it was told.
    pub(crate) fn all_told(&self) -> BTreeSet<(String, i32)> {
        self.held().told.clone()
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Inner) -> T + Send + 'static,
    ) -> Option<T> {
        let (there, back) = {
            let inner = self.held();
            (inner.way(), inner.way())
        };
        let (answer, answered) = oneshot::channel();
        let forge = self.clone();
        tokio::spawn(async move {
            // What does not arrive is not answered either; the caller waits for it in vain.
            let Some(there) = there else {
                sleep(CALL).await;
                return;
            };
            sleep(there).await;
            let done = call(&mut forge.held());
            match back {
                Some(back) => sleep(back).await,
                None => sleep(CALL).await,
            }
            if back.is_some() {
                // A caller that went away needs no answer.
                let _ = answer.send(done);
            }
        });
        timeout(CALL, answered).await.ok()?.ok()
    }

    /// Merges that took effect, and merge calls that arrived.
    pub(crate) fn all_merged(&self) -> (Vec<Merged>, u64) {
        let inner = self.held();
        (inner.merged.clone(), inner.calls)
    }

    /// Pull requests that nobody has merged yet.
    pub(crate) fn unmerged(&self) -> Vec<u64> {
        let inner = self.held();
        let repos = inner.core.repo(&repo()).ok();
        repos
            .into_iter()
            .flat_map(|repo| repo.issues.values())
            .filter(|issue| issue.state == OpenState::Open)
            .map(|issue| issue.number)
            .collect()
    }
}
