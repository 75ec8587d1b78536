//! How owners come out of a mirror, or out of memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::load::{Denied, MARKDOWN, OwnersOptions};
use super::{OwnersMetrics, OwnersProblem, RepoOwners, file};
use crate::git::{DirIndex, Found, GitError, MAX_DIRS, Mirrors, Wanted};
use crate::types::RepoId;

/// How many sets of owners are remembered; those that were not used for the longest time go first. A set is what all
/// OWNERS files of a tree say together, shared by all trees with the same ones.
pub const MAX_REMEMBERED: usize = 200;

/// How many branches' problems are kept; those that were looked at longest ago go first.
pub const MAX_BRANCHES: usize = 1000;

/// What is read of one tree.
const MAX_ALL_BYTES: u64 = 64 << 20;

/// Loads owners out of mirrors. They are remembered by what the OWNERS files of a tree are, so that a push that touches
/// none of them costs no parsing (OWN-017, OWN-018). Cheap to clone; clones share what they remember.
#[derive(Debug, Clone)]
pub struct OwnersLoader {
    mirrors: Mirrors,
    metrics: OwnersMetrics,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    dirs: Arc<DirIndex>,
    remembered: Mutex<Remembered>,
    problems: Mutex<Problems>,
    /// One tree is parsed at a time: several plugins ask for the same one at once, and the others find it remembered.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Remembered {
    owners: HashMap<Arc<Key>, (u64, RepoOwners)>,
    clock: u64,
}

/// What makes owners what they are, in whatever repository.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    files: Arc<[Found]>,
    options: OwnersOptions,
}

#[derive(Debug, Default)]
struct Problems {
    branches: BTreeMap<(RepoId, String), (u64, BranchProblems)>,
    clock: u64,
}

/// What is wrong with the owners of a branch, as it was last loaded (OWN-021).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchProblems {
    pub repo: RepoId,
    pub branch: String,
    pub commit: String,
    /// At least one.
    pub problems: Vec<OwnersProblem>,
}

impl OwnersLoader {
    #[must_use]
    pub fn new(mirrors: Mirrors) -> Self {
        Self {
            mirrors,
            metrics: OwnersMetrics::default(),
            shared: Arc::default(),
        }
    }

    /// Tells what it does from now on.
    #[must_use]
    pub fn telling(self, metrics: OwnersMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// The owners at the tip of a branch, which is `commit`; what is wrong with them is kept for [`Self::problems`].
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn load_branch(
        &self,
        repo: &RepoId,
        branch: &str,
        commit: &str,
        options: &OwnersOptions,
    ) -> Result<RepoOwners, GitError> {
        let owners = self.load(repo, commit, options).await?;
        self.note(BranchProblems {
            repo: repo.clone(),
            branch: branch.to_owned(),
            commit: commit.to_owned(),
            problems: owners.problems().to_vec(),
        });
        Ok(owners)
    }

    /// The owners at any commit, which is fetched if need be, or in a tree that is in the mirror already, as that of a
    /// trial merge (OWN-001). Not filtered by collaborators: that list changes without the tree, see
    /// [`RepoOwners::with_collaborators`].
    ///
    /// # Errors
    /// The tree cannot be had, or is too large. Files that cannot be read are [`RepoOwners::problems`] instead.
    pub async fn load(
        &self,
        repo: &RepoId,
        commit: &str,
        options: &OwnersOptions,
    ) -> Result<RepoOwners, GitError> {
        self.mirrors.ensure(repo, &[commit]).await?;
        let key = Arc::new(Key {
            files: self.find(repo, commit, options).await?,
            options: options.clone(),
        });
        if let Some(owners) = self.recall(&key) {
            self.metrics.remembered();
            return Ok(owners);
        }
        let _turn = self.shared.reading.lock().await;
        if let Some(owners) = self.recall(&key) {
            self.metrics.remembered();
            return Ok(owners);
        }
        let limits = [file::MAX_BYTES as u64, MAX_ALL_BYTES];
        let files = Arc::clone(&key.files);
        let contents = self.mirrors.read_found(repo, commit, files, limits).await?;
        let parsing = Arc::clone(&key);
        // Thousands of files take longer than an async thread may be held up.
        let parsed = tokio::task::spawn_blocking(move || {
            let files = parsing.files.iter().zip(&contents);
            let files = files.map(|(file, bytes)| (file.path.as_str(), bytes.as_deref()));
            RepoOwners::build(files, &parsing.options)
        });
        let owners = parsed.await.map_err(|error| GitError::Failed {
            repo: repo.clone(),
            action: "reading OWNERS".to_owned(),
            reason: error.to_string(),
        })?;
        self.metrics.read();
        self.remember(key, owners.clone());
        Ok(owners)
    }

    /// Branches with problems, by repository and name (OWN-021).
    #[must_use]
    pub fn problems(&self) -> Vec<BranchProblems> {
        let kept = lock(&self.shared.problems);
        let branches = kept.branches.values();
        branches.map(|(_, branch)| branch.clone()).collect()
    }

    /// Sets of owners that are remembered, and how many may be.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        let remembered = lock(&self.shared.remembered);
        (remembered.owners.len(), MAX_REMEMBERED)
    }

    /// Directories of which is remembered what OWNERS files are in them, and how many may be.
    #[must_use]
    pub fn directories(&self) -> (usize, usize) {
        (self.shared.dirs.len(), MAX_DIRS)
    }

    /// All files of the tree that have a say.
    async fn find(
        &self,
        repo: &RepoId,
        commit: &str,
        options: &OwnersOptions,
    ) -> Result<Arc<[Found]>, GitError> {
        let wanted = Wanted {
            name: options.owners.clone(),
            root_name: options.aliases.clone(),
            suffix: options.md_yaml.then_some(MARKDOWN),
        };
        let (denied, _) = Denied::new(&options.dir_denylist);
        let dirs = Arc::clone(&self.shared.dirs);
        let skip = move |dir: &str| denied.is_match(dir);
        let found = self.mirrors.find_files(repo, commit, wanted, dirs, skip);
        Ok(found.await?.into())
    }

    fn recall(&self, key: &Key) -> Option<RepoOwners> {
        let mut remembered = lock(&self.shared.remembered);
        remembered.clock += 1;
        let clock = remembered.clock;
        let (used, owners) = remembered.owners.get_mut(key)?;
        *used = clock;
        Some(owners.clone())
    }

    fn remember(&self, key: Arc<Key>, owners: RepoOwners) {
        let mut remembered = lock(&self.shared.remembered);
        remembered.clock += 1;
        let clock = remembered.clock;
        remembered.owners.insert(key, (clock, owners));
        if remembered.owners.len() > MAX_REMEMBERED {
            let oldest = remembered
                .owners
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(key, _)| Arc::clone(key));
            if let Some(key) = oldest {
                remembered.owners.remove(&key);
            }
        }
    }

    fn note(&self, branch: BranchProblems) {
        let mut kept = lock(&self.shared.problems);
        kept.clock += 1;
        let clock = kept.clock;
        let key = (branch.repo.clone(), branch.branch.clone());
        self.metrics
            .problems(&branch.repo, &branch.branch, branch.problems.len());
        if branch.problems.is_empty() {
            kept.branches.remove(&key);
            return;
        }
        kept.branches.insert(key, (clock, branch));
        if kept.branches.len() > MAX_BRANCHES {
            let oldest = kept.branches.iter().min_by_key(|(_, (noted, _))| *noted);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                kept.branches.remove(&key);
                self.metrics.problems(&key.0, &key.1, 0);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
