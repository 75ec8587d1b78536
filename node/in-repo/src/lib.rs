//! In-repo configuration: the jobs that stand in `.prow.yaml` or `.prow/` of the repository that they test (CFG-075 …
//! CFG-088).
//!
//! Here stands what several controllers need and neither `config` (no network) nor `forge` (no policy) may hold: merging
//! heads into a base in a mirror's objects, reading the files of the result, and the one cache of a process in which
//! what was read waits for the next question about the same commits. What stands in it is immutable, so that nothing is
//! ever invalidated. Here never stand: which commits to ask about, and what to do about files that are broken.

mod cache;
mod metrics;
mod read;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use trireme_config::gerrit::split_repo;
use trireme_config::in_repo::{InRepoJobs, ProwYaml};
use trireme_config::{Config, Diagnostic};
use trireme_forge::git::{GitError, Mirrors};
use trireme_forge::{MergeMethod, RepoId};

use cache::{Cache, Key};

pub use metrics::InRepoMetrics;
pub use read::{MAX_BYTES, MAX_ENTRIES, MAX_FILES};

/// The status context that tells about a repository's own jobs on a head. Tide passes it over: it looks for itself, at
/// the newest base.
pub const CONTEXT: &str = "in-repo-config";

/// Repositories' states that are read at once by [`InRepo::warm`]; each takes a child process of git at a time.
const WARM_AT_ONCE: usize = 4;

/// How much is kept (CFG-083, CFG-086).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// States of repositories.
    pub entries: usize,
    /// Bytes of the files that they were read from, or of what is told about them, and at least 1 KiB for each; parsed they
    /// take several times as much.
    pub bytes: u64,
    /// Since the last use.
    pub age: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 64 << 20,
            age: Duration::from_secs(6 * 3600),
        }
    }
}

/// A state of a repository: the heads merged into the base, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commits<'a> {
    pub base: &'a str,
    pub heads: &'a [&'a str],
}

/// A repository's own jobs at one state, and what else is to be known about them.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// To come after those of the configuration (CFG-081).
    pub jobs: Arc<InRepoJobs>,
    /// Whether the heads change the files (CFG-087).
    pub changed: bool,
    /// Of the files; nothing that keeps jobs from running.
    pub warnings: Arc<[Diagnostic]>,
}

/// Why a repository's own jobs are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InRepoError {
    /// A head cannot be merged into the base and the heads before it.
    #[error("failed to merge {head:?}: conflicts in {}", paths.join(", "))]
    Conflict { head: String, paths: Vec<String> },

    /// The files, or the jobs in them, are of no use. Never empty; the place of each is told.
    #[error("{}", found.first().map(ToString::to_string).unwrap_or_default())]
    Broken {
        found: Arc<[Diagnostic]>,
        /// Whether the heads change the files; if not, the base is to blame or the configuration.
        changed: bool,
    },

    /// Says nothing about the files. [`GitError::is_outage`] tells whether time helps.
    #[error(transparent)]
    Git(#[from] GitError),

    /// CFG-081
    #[error("didn't get two results when splitting repo identifier {0:?}")]
    Identifier(String),
}

/// What was read of one state, before defaulting.
#[derive(Debug)]
struct Content {
    files: ProwYaml,
    warnings: Arc<[Diagnostic]>,
    changed: bool,
    bytes: u64,
    /// What the configuration that last asked made of it.
    defaulted: Mutex<Option<(Weak<Config>, Defaulted)>>,
}

/// What the commits alone decide: content, or a conflict or broken files, which are the same each time.
type Known = Result<Arc<Content>, InRepoError>;

/// The least that one counts for, in bytes: keys and bookkeeping.
const MIN_WEIGHT: u64 = 1024;

fn weight(known: &Known) -> u64 {
    let bytes = match known {
        Ok(content) => content.bytes,
        Err(InRepoError::Conflict { paths, .. }) => {
            paths.iter().map(|path| path.len() as u64).sum()
        }
        Err(InRepoError::Broken { found, .. }) => found
            .iter()
            .map(|found| found.to_string().len() as u64)
            .sum(),
        Err(InRepoError::Git(_) | InRepoError::Identifier(_)) => 0,
    };
    bytes.max(MIN_WEIGHT)
}

type Defaulted = Result<Arc<InRepoJobs>, Arc<[Diagnostic]>>;

impl Content {
    fn known_under(&self, config: &Arc<Config>) -> Option<Defaulted> {
        let known = self
            .defaulted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (of, defaulted) = known.as_ref()?;
        std::ptr::eq(of.as_ptr(), Arc::as_ptr(config)).then(|| defaulted.clone())
    }

    /// A change of the configuration applies to what is cached (CFG-083).
    fn under(&self, config: &Arc<Config>, identifier: &str) -> Defaulted {
        if let Some(defaulted) = self.known_under(config) {
            return defaulted;
        }
        let defaulted = match config.in_repo_jobs(self.files.clone(), identifier) {
            Ok(jobs) => Ok(Arc::new(jobs)),
            Err(found) => Err(found.into()),
        };
        let mut known = self
            .defaulted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some((Arc::downgrade(config), defaulted.clone()));
        defaulted
    }
}

/// What reads and remembers. One for the whole process; cheap to clone.
#[derive(Debug, Clone)]
pub struct InRepo {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mirrors: Mirrors,
    cache: Cache<Known, InRepoError>,
    metrics: InRepoMetrics,
}

impl InRepo {
    #[must_use]
    pub fn new(mirrors: Mirrors, limits: CacheLimits, metrics: InRepoMetrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                mirrors,
                cache: Cache::new(limits, weight, metrics.clone()),
                metrics,
            }),
        }
    }

    /// The own jobs of `identifier` (`org/repo`) at a state, defaulted by `config` and checked together with its jobs.
    /// Where in-repo configuration is off there are none, and git is not asked (CFG-075).
    ///
    /// # Errors
    /// See [`InRepoError`].
    pub async fn jobs(
        &self,
        config: &Arc<Config>,
        identifier: &str,
        at: Commits<'_>,
    ) -> Result<Own, InRepoError> {
        if !config.prow.in_repo_config_enabled(identifier) {
            return Ok(Own::default());
        }
        let began = Instant::now();
        let key = key(config, identifier, at)?;
        let content = self.content(key.clone()).await;
        self.inner.metrics.took(&key.repo, began.elapsed());
        let content = content?;
        let defaulted = match content.known_under(config) {
            Some(defaulted) => defaulted,
            None => {
                let (config, identifier) = (Arc::clone(config), identifier.to_owned());
                let content = Arc::clone(&content);
                let work = move || content.under(&config, &identifier);
                let defaulted = tokio::task::spawn_blocking(work).await;
                defaulted.map_err(|error| GitError::Failed {
                    repo: key.repo,
                    action: "defaulting jobs".to_owned(),
                    reason: error.to_string(),
                })?
            }
        };
        match defaulted {
            Ok(jobs) => Ok(Own {
                jobs,
                changed: content.changed,
                warnings: Arc::clone(&content.warnings),
            }),
            Err(found) => Err(InRepoError::Broken {
                found,
                changed: content.changed,
            }),
        }
    }

    /// Own jobs at the newest state with these heads that is remembered, on whatever base.
    #[must_use]
    pub fn remembered(
        &self,
        config: &Arc<Config>,
        identifier: &str,
        heads: &[&str],
    ) -> Option<Arc<InRepoJobs>> {
        let base = "";
        let key = key(config, identifier, Commits { base, heads }).ok()?;
        let wanted = |known: &Key| known.repo == key.repo && known.heads == key.heads;
        let content = |known: &Known| known.as_ref().ok().cloned();
        let content = self.inner.cache.peek(wanted, content)?;
        content.under(config, identifier).ok()
    }

    /// Reads, for each of `heads` alone, what [`InRepo::jobs`] will be asked about soon: one fetch for all of them, and
    /// several merges at a time.
    ///
    /// # Errors
    /// An outage; anything else is told when that head is asked about.
    pub async fn warm(
        &self,
        config: &Arc<Config>,
        identifier: &str,
        base: &str,
        heads: &[&str],
    ) -> Result<(), GitError> {
        if !config.prow.in_repo_config_enabled(identifier) {
            return Ok(());
        }
        let keys = heads.iter().map(|head| {
            let heads = &[*head][..];
            key(config, identifier, Commits { base, heads })
        });
        let missing: Vec<Key> = keys
            .flatten()
            .filter(|key| !self.inner.cache.holds(key))
            .collect();
        let Some(first) = missing.first() else {
            return Ok(());
        };
        let mut wanted = vec![base];
        wanted.extend(
            missing
                .iter()
                .flat_map(|key| key.heads.iter())
                .map(String::as_str),
        );
        match self.inner.mirrors.ensure(&first.repo, &wanted).await {
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => tracing::debug!(repo = %first.repo, %error, "fetched one by one"),
            Ok(()) => {}
        }
        let mut reading = futures::stream::iter(missing.into_iter().map(|key| self.content(key)))
            .buffer_unordered(WARM_AT_ONCE);
        while reading.next().await.is_some() {}
        Ok(())
    }

    async fn content(&self, key: Key) -> Result<Arc<Content>, InRepoError> {
        let inner = &self.inner;
        let read = || {
            let (mirrors, metrics, key) =
                (inner.mirrors.clone(), inner.metrics.clone(), key.clone());
            async move {
                match read::content(&mirrors, &key, &metrics).await {
                    Ok(content) => Ok(Ok(Arc::new(content))),
                    Err(why @ (InRepoError::Conflict { .. } | InRepoError::Broken { .. })) => {
                        Ok(Err(why))
                    }
                    Err(why) => Err(why),
                }
            }
            .boxed()
        };
        inner.cache.get(&key, read).await?
    }
}

fn key(config: &Config, identifier: &str, at: Commits<'_>) -> Result<Key, InRepoError> {
    let split = split_repo(identifier).filter(|(org, repo)| !org.is_empty() && !repo.is_empty());
    let Some((org, repo)) = split else {
        return Err(InRepoError::Identifier(identifier.to_owned()));
    };
    use trireme_config::tide::MergeMethod as Word;
    // The repository's, whatever the branch (CFG-077).
    let method = match config.prow.tide.merge_method(&org, &repo, "") {
        Word::Merge => MergeMethod::Merge,
        Word::Squash => MergeMethod::Squash,
        Word::Rebase => MergeMethod::Rebase,
    };
    // CFG-082: a head that resolved to nothing is none.
    let heads = at.heads.iter().filter(|head| !head.is_empty());
    Ok(Key {
        repo: RepoId::new(&org, &repo),
        base: at.base.to_owned(),
        heads: heads.map(|head| (*head).to_owned()).collect(),
        method,
    })
}
