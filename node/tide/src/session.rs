//! One term of office of Tide: what it holds in memory, all of which a new holder finds again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use trireme_forge::{
    CommitStatus, Forge, ForgeError, RepoId,
    git::{GitError, Mirrors},
};
use trireme_in_repo::InRepo;
use trireme_office::{ConfigFeed, KeyedQueue, Office, OfficeError, RunningConfig, Work};
use trireme_state::State;

use crate::{
    blockers::Blocker, controller::Timing, hold::Refusals, merging::AllowedMethods, pool::PoolKey,
    pull::SearchOnly,
};

/// A repository's merge settings are asked again after this (TIDE-051).
const REPO_SETTINGS_AGE: Duration = Duration::from_secs(3600);
/// Heads whose changed files are remembered.
const MAX_CHANGED_FILES: usize = 5_000;

/// Names a pull request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PullKey {
    pub(crate) org: String,
    pub(crate) repo: String,
    pub(crate) number: u64,
}

impl PullKey {
    pub(crate) fn repo_id(&self) -> RepoId {
        RepoId::new(&self.org, &self.repo)
    }
}

/// A `tide` status that is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) sha: String,
    pub(crate) status: CommitStatus,
}

/// Blocking issues, and for which orgs they are not known.
#[derive(Debug, Default)]
pub(crate) struct BlockerBoard {
    pub(crate) blockers: Vec<Blocker>,
    pub(crate) unknown_orgs: BTreeSet<String>,
}

type ChangedFiles = BTreeMap<(PullKey, String), Arc<[String]>>;

#[derive(Default)]
pub(crate) struct Memory {
    search_only: Mutex<BTreeMap<PullKey, SearchOnly>>,
    /// None until the first look.
    blockers: Mutex<Option<Arc<BlockerBoard>>>,
    repos: Mutex<BTreeMap<RepoId, (Instant, AllowedMethods)>>,
    changed_files: Mutex<ChangedFiles>,
    refusals: Mutex<Refusals>,
    wanted: Mutex<BTreeMap<PullKey, Wanted>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is replaced or grown by whole entries, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    pub(crate) fn search_only(&self, key: &PullKey) -> SearchOnly {
        lock(&self.search_only)
            .get(key)
            .cloned()
            .unwrap_or_default()
    }

    /// Whether it is news.
    pub(crate) fn learn(&self, key: PullKey, found: SearchOnly) -> bool {
        lock(&self.search_only).insert(key, found.clone()) != Some(found)
    }

    /// Forgets pull requests that are no longer open.
    pub(crate) fn keep(&self, open: impl Fn(&PullKey) -> bool) {
        lock(&self.search_only).retain(|key, _| open(key));
        lock(&self.changed_files).retain(|(key, _), _| open(key));
        lock(&self.wanted).retain(|key, _| open(key));
    }

    pub(crate) fn blockers(&self) -> Option<Arc<BlockerBoard>> {
        lock(&self.blockers).clone()
    }

    pub(crate) fn set_blockers(&self, board: BlockerBoard) {
        *lock(&self.blockers) = Some(Arc::new(board));
    }

    pub(crate) fn refusals(&self) -> MutexGuard<'_, Refusals> {
        lock(&self.refusals)
    }

    /// Whether it differs from what was wanted before.
    pub(crate) fn want(&self, key: PullKey, wanted: Wanted) -> bool {
        lock(&self.wanted).insert(key, wanted.clone()) != Some(wanted)
    }

    pub(crate) fn wanted(&self, key: &PullKey) -> Option<Wanted> {
        lock(&self.wanted).get(key).cloned()
    }
}

/// Why something could not be done now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Office(#[from] OfficeError),
    #[error(transparent)]
    Forge(#[from] ForgeError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("{0}")]
    Other(String),
}

impl From<Trouble> for Work {
    fn from(trouble: Trouble) -> Self {
        let why = trouble.to_string();
        match trouble {
            Trouble::Office(OfficeError::Left { .. }) => Self::Done,
            Trouble::Office(office) if !office.is_conflict() => Self::Outage(why, None),
            Trouble::Forge(forge) if forge.is_outage() => Self::Outage(why, forge.retry_after()),
            Trouble::Git(git) if git.is_outage() => Self::Outage(why, None),
            _ => Self::Retry(why),
        }
    }
}

pub(crate) struct Session {
    pub(crate) office: Office,
    pub(crate) forge: Arc<dyn Forge>,
    pub(crate) mirrors: Mirrors,
    pub(crate) in_repo: InRepo,
    pub(crate) feed: ConfigFeed,
    pub(crate) timing: Timing,
    pub(crate) memory: Memory,
    pub(crate) pools: KeyedQueue<PoolKey>,
    pub(crate) statuses: KeyedQueue<PullKey>,
}

impl Session {
    /// The configuration that the state names, if this node has parsed it.
    pub(crate) fn running(&self, state: &State) -> Option<Arc<RunningConfig>> {
        let named = state.config()?.number;
        let parsed = self.feed.borrow().clone();
        parsed.filter(|parsed| parsed.version == named)
    }

    /// What the repository's settings allow, at most an hour old.
    pub(crate) async fn allowed_methods(&self, repo: &RepoId) -> Result<AllowedMethods, Trouble> {
        let known = lock(&self.memory.repos).get(repo).copied();
        if let Some((at, allowed)) = known
            && at.elapsed() < REPO_SETTINGS_AGE
        {
            return Ok(allowed);
        }
        let allowed = AllowedMethods::from(&self.forge.repository(repo).await?);
        lock(&self.memory.repos).insert(repo.clone(), (Instant::now(), allowed));
        Ok(allowed)
    }

    /// Paths that a pull request's head changes, asked once per head.
    pub(crate) async fn changed_files(
        &self,
        key: &PullKey,
        head_sha: &str,
    ) -> Result<Arc<[String]>, Trouble> {
        let at = (key.clone(), head_sha.to_owned());
        if let Some(files) = lock(&self.memory.changed_files).get(&at) {
            return Ok(Arc::clone(files));
        }
        let changes = self.forge.changed_files(&key.repo_id(), key.number).await?;
        let files: Arc<[String]> = changes.into_iter().map(|change| change.path).collect();
        let mut remembered = lock(&self.memory.changed_files);
        if remembered.len() >= MAX_CHANGED_FILES {
            remembered.pop_first();
        }
        remembered.insert(at, Arc::clone(&files));
        Ok(files)
    }
}
