//! The cache directory: which mirrors there are, getting commits into them, and keeping within bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use url::Url;

use super::command::{Died, Git, Output};
use super::wishes::Wishes;
use super::{GitCredentials, GitError};
use crate::types::RepoId;

/// `merge-tree --merge-base` came with it.
const NEEDED: (u32, u32) = (2, 40);
const NEEDED_TEXT: &str = "2.40";

/// Anything else git does here.
pub(super) const LOCAL_TIMEOUT: Duration = Duration::from_secs(120);

/// Small packs are put together after so many fetches: reading slows down with their number.
const REPACK_AFTER: u64 = 50;

/// Commits that somebody asked for are kept from being asked for again by a ref each; the oldest go when there are
/// more. Their objects stay until the mirror goes.
const MAX_PINS: usize = 2000;

/// How the directory of a mirror that is being removed ends.
const DOOMED: &str = ".doomed";

/// How much the cache may hold. What is in use is never removed, so that it may be exceeded for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorLimits {
    pub mirrors: usize,
    pub bytes: u64,
}

impl Default for MirrorLimits {
    fn default() -> Self {
        Self {
            mirrors: 500,
            bytes: 20 << 30,
        }
    }
}

#[derive(Clone)]
pub struct MirrorsOptions {
    /// Created if missing. One process at a time: a second one finds it locked.
    pub dir: PathBuf,
    /// Below it, repositories are at `<org>/<repo>`: `https://github.com`, `http://127.0.0.1:8080`.
    pub remote: Url,
    pub credentials: Option<Arc<dyn GitCredentials>>,
    pub limits: MirrorLimits,
}

impl fmt::Debug for MirrorsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirrorsOptions")
            .field("dir", &self.dir)
            .field("remote", &self.remote)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The mirrors of one forge. Cheap to clone.
#[derive(Clone)]
pub struct Mirrors {
    pub(super) inner: Arc<Inner>,
}

impl fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.options.fmt(f)
    }
}

pub(super) struct Inner {
    pub(super) options: MirrorsOptions,
    pub(super) git: Git,
    mirrors: Mutex<BTreeMap<RepoId, Arc<Mirror>>>,
    uses: AtomicU64,
    _lock: std::fs::File,
}

pub(super) struct Mirror {
    pub(super) path: PathBuf,
    /// Held for reading while the mirror is used, for writing while it is removed.
    in_use: Arc<RwLock<()>>,
    /// One fetch at a time; holds how many there were.
    fetching: tokio::sync::Mutex<u64>,
    wishes: Wishes,
    repository: OnceLock<gix::ThreadSafeRepository>,
    used: AtomicU64,
    bytes: AtomicU64,
}

/// A mirror that stays where it is as long as this lives.
pub(super) struct InUse {
    pub(super) mirror: Arc<Mirror>,
    _guard: OwnedRwLockReadGuard<()>,
}

impl Mirrors {
    /// git's processes that run, and how many may.
    #[must_use]
    pub fn children(&self) -> (usize, usize) {
        self.inner.git.children()
    }

    /// Takes possession of the directory and learns what is in it.
    ///
    /// # Errors
    /// git is missing or too old; the directory cannot be used, or another process uses it.
    pub async fn open(options: MirrorsOptions) -> Result<Self, GitError> {
        let git = Git::new();
        let bad = |reason: String| GitError::Cache {
            path: options.dir.clone(),
            reason,
        };
        std::fs::create_dir_all(&options.dir).map_err(|error| bad(error.to_string()))?;
        check_version(&git, &options.dir).await?;
        let lock = std::fs::File::create(options.dir.join("LOCK"))
            .map_err(|error| bad(error.to_string()))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => bad("another process uses it".to_owned()),
            std::fs::TryLockError::Error(error) => bad(error.to_string()),
        })?;
        let dir = options.dir.clone();
        let found = tokio::task::spawn_blocking(move || existing(&dir))
            .await
            .map_err(|error| bad(error.to_string()))?
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                git,
                mirrors: Mutex::new(found),
                uses: AtomicU64::new(1),
                _lock: lock,
            }),
        })
    }

    /// Makes sure that these commits (full object ids) and their history are in the mirror. Asks the server only for
    /// those that are not (GHC-061); whoever asks at the same time shares one question, and its failure (GHC-067).
    ///
    /// # Errors
    /// `NotFound` if the repository or one of the commits does not exist there.
    pub async fn ensure(&self, repo: &RepoId, commits: &[&str]) -> Result<(), GitError> {
        for commit in commits {
            check_id(repo, commit)?;
        }
        let in_use = self.inner.in_use(repo).await?;
        let wanted: Vec<String> = commits.iter().map(|&id| id.to_owned()).collect();
        let missing = in_use.missing(repo, wanted).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let wish = in_use.mirror.wishes.add(missing.clone());
        let mut fetches = in_use.mirror.fetching.lock().await;
        if let Some(error) = wish.failure() {
            return Err(error);
        }
        let missing = in_use.missing(repo, missing).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let shared = wish.take_along(&missing);
        match self
            .inner
            .fetch(repo, &in_use.mirror, &shared.commits)
            .await
        {
            Ok(()) => {}
            Err(error) if error.is_outage() => {
                shared.failed(&error);
                return Err(error);
            }
            Err(error) if shared.commits.len() == missing.len() => return Err(error),
            // It may be another's wish that is wrong.
            Err(_) => self.inner.fetch(repo, &in_use.mirror, &missing).await?,
        }
        let missing = in_use.missing(repo, missing).await?;
        if let Some(what) = missing.first() {
            return Err(GitError::NotFound {
                repo: repo.clone(),
                what: format!("commit {what}"),
            });
        }
        *fetches += 1;
        if fetches.is_multiple_of(REPACK_AFTER) {
            self.inner.tidy(repo, &in_use.mirror).await?;
        }
        drop(fetches);
        in_use.mirror.measure().await;
        drop(wish);
        drop(in_use);
        self.inner.evict(repo).await;
        Ok(())
    }

    /// Callers who wait for a fetch that nobody has begun.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let mirrors = self.inner.lock();
        mirrors.values().map(|mirror| mirror.wishes.waiting()).sum()
    }

    /// Removes a repository's mirror, if there is one and nobody uses it; it comes back with the next
    /// [`Mirrors::ensure`].
    pub async fn forget(&self, repo: &RepoId) {
        self.inner.remove(repo).await;
    }

    /// What the cache holds: repository and bytes, in no order worth relying on.
    #[must_use]
    pub fn sizes(&self) -> Vec<(RepoId, u64)> {
        let mirrors = self.inner.lock();
        mirrors
            .iter()
            .map(|(repo, mirror)| (repo.clone(), mirror.bytes.load(Ordering::Relaxed)))
            .collect()
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RepoId, Arc<Mirror>>> {
        self.mirrors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mirror, created if need be.
    pub(super) async fn in_use(&self, repo: &RepoId) -> Result<InUse, GitError> {
        check_repo(repo)?;
        loop {
            let mirror = Arc::clone(self.lock().entry(repo.clone()).or_insert_with(|| {
                let path = self
                    .options
                    .dir
                    .join(&repo.org)
                    .join(format!("{}.git", repo.repo));
                Arc::new(Mirror::new(path, 0))
            }));
            mirror
                .used
                .store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            let guard = Arc::clone(&mirror.in_use).read_owned().await;
            // It may have been removed while we waited for it.
            let current = self
                .lock()
                .get(repo)
                .is_some_and(|now| Arc::ptr_eq(now, &mirror));
            if !current {
                continue;
            }
            self.create(repo, &mirror).await?;
            return Ok(InUse {
                mirror,
                _guard: guard,
            });
        }
    }

    async fn create(&self, repo: &RepoId, mirror: &Mirror) -> Result<(), GitError> {
        if mirror.repository.get().is_some() {
            return Ok(());
        }
        let _creating = mirror.fetching.lock().await;
        if mirror.repository.get().is_some() {
            return Ok(());
        }
        let failed = |reason: String| GitError::Cache {
            path: mirror.path.clone(),
            reason,
        };
        if !mirror.path.join("HEAD").is_file() {
            std::fs::create_dir_all(&mirror.path).map_err(|error| failed(error.to_string()))?;
            self.local(repo, mirror, &["init", "--bare", "--quiet", "."])
                .await?;
        }
        let path = mirror.path.clone();
        let opened = tokio::task::spawn_blocking(move || {
            gix::open_opts(path, gix::open::Options::isolated()).map(gix::Repository::into_sync)
        })
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
        mirror.repository.get_or_init(|| opened);
        Ok(())
    }

    /// git in the mirror, where only success will do and no server is asked.
    pub(super) async fn local(
        &self,
        repo: &RepoId,
        mirror: &Mirror,
        args: &[&str],
    ) -> Result<Output, GitError> {
        let output = self.try_local(repo, mirror, args).await?;
        if output.success() {
            return Ok(output);
        }
        Err(failed(repo, args, &output))
    }

    /// The same, where the caller judges the exit code.
    pub(super) async fn try_local(
        &self,
        repo: &RepoId,
        mirror: &Mirror,
        args: &[&str],
    ) -> Result<Output, GitError> {
        self.git
            .run(&mirror.path, args, None, LOCAL_TIMEOUT)
            .await
            .map_err(|died| GitError::Failed {
                repo: repo.clone(),
                action: action(args),
                reason: died.to_string(),
            })
    }

    /// Packs what many fetches left, and lets go of the oldest pins.
    async fn tidy(&self, repo: &RepoId, mirror: &Mirror) -> Result<(), GitError> {
        self.local(repo, mirror, &["repack", "-d", "-q", "--geometric=2"])
            .await?;
        let list = [
            "for-each-ref",
            "--sort=-committerdate",
            "--format=%(refname)",
            "refs/trireme",
        ];
        let output = self.local(repo, mirror, &list).await?;
        let pins = String::from_utf8_lossy(&output.stdout).into_owned();
        for pin in pins.lines().skip(MAX_PINS) {
            self.local(repo, mirror, &["update-ref", "-d", pin]).await?;
        }
        Ok(())
    }

    /// Removes the mirrors that were not used for the longest time until the rest is within the limits.
    async fn evict(&self, but: &RepoId) {
        let limits = self.options.limits;
        let mut candidates: Vec<(u64, u64, RepoId)> = self
            .lock()
            .iter()
            .map(|(repo, mirror)| {
                let used = mirror.used.load(Ordering::Relaxed);
                (used, mirror.bytes.load(Ordering::Relaxed), repo.clone())
            })
            .collect();
        candidates.sort();
        let mut bytes: u64 = candidates.iter().map(|(_, bytes, _)| bytes).sum();
        let mut mirrors = candidates.len();
        for (_, size, repo) in candidates {
            if mirrors <= limits.mirrors && bytes <= limits.bytes {
                return;
            }
            if repo != *but && self.remove(&repo).await {
                tracing::info!(%repo, bytes = size, "removed a git mirror to stay within the cache's limits");
                bytes = bytes.saturating_sub(size);
                mirrors -= 1;
            }
        }
    }

    /// False if it is in use.
    async fn remove(&self, repo: &RepoId) -> bool {
        let Some(mirror) = self.lock().get(repo).map(Arc::clone) else {
            return true;
        };
        let Ok(_guard) = Arc::clone(&mirror.in_use).try_write_owned() else {
            return false;
        };
        // Renamed first: a half-removed directory must never be taken for a mirror.
        let doomed = mirror.path.with_extension(&DOOMED[1..]);
        let path = mirror.path.clone();
        let removed = tokio::task::spawn_blocking(move || {
            if path.exists() {
                std::fs::rename(&path, &doomed)?;
                std::fs::remove_dir_all(&doomed)?;
            }
            Ok::<_, std::io::Error>(())
        })
        .await;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%repo, %error, "a git mirror could not be removed"),
            Err(error) => tracing::warn!(%repo, %error, "a git mirror could not be removed"),
        }
        self.lock().remove(repo);
        true
    }
}

impl Mirror {
    fn new(path: PathBuf, bytes: u64) -> Self {
        Self {
            path,
            in_use: Arc::default(),
            fetching: tokio::sync::Mutex::new(0),
            wishes: Wishes::default(),
            repository: OnceLock::new(),
            used: AtomicU64::new(0),
            bytes: AtomicU64::new(bytes),
        }
    }

    async fn measure(&self) {
        let path = self.path.clone();
        if let Ok(bytes) = tokio::task::spawn_blocking(move || size_of(&path)).await {
            self.bytes.store(bytes, Ordering::Relaxed);
        }
    }
}

impl InUse {
    /// Does blocking work with the repository, off the async threads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        repo: &RepoId,
        action: &str,
        work: impl FnOnce(&gix::Repository) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, GitError> {
        let failed = |reason: String| GitError::Failed {
            repo: repo.clone(),
            action: action.to_owned(),
            reason,
        };
        let Some(repository) = self.mirror.repository.get().cloned() else {
            return Err(failed("the mirror is not open".to_owned()));
        };
        tokio::task::spawn_blocking(move || work(&repository.to_thread_local()))
            .await
            .map_err(|error| failed(error.to_string()))?
    }

    async fn missing(&self, repo: &RepoId, ids: Vec<String>) -> Result<Vec<String>, GitError> {
        self.read(repo, "looking for commits", move |repository| {
            Ok(ids
                .into_iter()
                .filter(|id| {
                    gix::ObjectId::from_hex(id.as_bytes())
                        .map_or(true, |id| !repository.has_object(id))
                })
                .collect())
        })
        .await
    }
}

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStart(reason) | Self::Output(reason) => f.write_str(reason),
            Self::TimedOut(within) => write!(f, "git took longer than {} s", within.as_secs()),
        }
    }
}

pub(super) fn action(args: &[&str]) -> String {
    format!("git {}", args.first().copied().unwrap_or_default())
}

pub(super) fn failed(repo: &RepoId, args: &[&str], output: &Output) -> GitError {
    let reason = match output.code {
        _ if !output.stderr.is_empty() => output.stderr.clone(),
        Some(code) => format!("it exited with {code} and said nothing"),
        None => "it was killed".to_owned(),
    };
    GitError::Failed {
        repo: repo.clone(),
        action: action(args),
        reason,
    }
}

/// Object ids go on command lines and into paths: nothing else may.
pub(super) fn check_id(repo: &RepoId, id: &str) -> Result<(), GitError> {
    if matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(GitError::BadInput {
        repo: repo.clone(),
        what: format!("{id:?} is not a full object id"),
    })
}

/// So do names.
pub(super) fn check_repo(repo: &RepoId) -> Result<(), GitError> {
    for name in [&repo.org, &repo.repo] {
        let fine = !name.is_empty()
            && !name.starts_with(['.', '-'])
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        // GitHub has repositories called `.github`.
        if !fine && name != ".github" && name != ".github-private" {
            return Err(GitError::BadInput {
                repo: repo.clone(),
                what: format!("{name:?} cannot be part of a repository's name"),
            });
        }
    }
    Ok(())
}

async fn check_version(git: &Git, dir: &Path) -> Result<(), GitError> {
    let bad = |found: String| GitError::Version {
        needed: NEEDED_TEXT,
        found,
    };
    let output = git
        .run(dir, &["version"], None, LOCAL_TIMEOUT)
        .await
        .map_err(|died| bad(died.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = said
        .split_whitespace()
        .nth(2)
        .unwrap_or_default()
        .split('.')
        .map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < NEEDED {
        return Err(bad(format!("this machine has {said:?}")));
    }
    Ok(())
}

/// The mirrors of an earlier run, without what a killed git left lying about.
fn existing(dir: &Path) -> std::io::Result<BTreeMap<RepoId, Arc<Mirror>>> {
    let mut found = BTreeMap::new();
    for org in std::fs::read_dir(dir)? {
        let org = org?;
        if !org.file_type()?.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(org.path())? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.ends_with(DOOMED) {
                std::fs::remove_dir_all(&path)?;
                continue;
            }
            // Whatever else somebody put here is not ours to touch.
            let Some(repo) = name.strip_suffix(".git") else {
                continue;
            };
            clean(&path)?;
            let id = RepoId::new(org.file_name().to_string_lossy(), repo);
            let bytes = size_of(&path);
            found.insert(id, Arc::new(Mirror::new(path, bytes)));
        }
    }
    Ok(found)
}

/// Locks without an owner, packs without an end.
fn clean(mirror: &Path) -> std::io::Result<()> {
    for (dir, is_left_over) in [
        (
            mirror.to_path_buf(),
            (|name| name.ends_with(".lock")) as fn(&str) -> bool,
        ),
        (mirror.join("objects/pack"), |name| name.starts_with("tmp_")),
    ] {
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            if is_left_over(&entry.file_name().to_string_lossy()) && entry.file_type()?.is_file() {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Bytes of the files in a directory; what vanishes meanwhile counts nothing.
fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
