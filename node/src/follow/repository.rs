//! A branch of a repository on the forge as a sequence of whole states: each head that it comes to, read without a
//! checkout (PLG-CONFIGUPDATER-011). A merge is one state, however many files it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rand::RngExt as _;
use tokio::time::{Instant, sleep};
use trireme_config::{FileSet, Layout};
use trireme_forge::{EntryKind, Forge, RepoId, git::Mirrors};
use trireme_office::Office;
use trireme_raft::{Watch, WatchError};
use trireme_state::{Change, limits::MAX_CONFIG_BYTES};

use crate::configuration::Listing;

/// How a branch is reached.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) forge: Arc<dyn Forge>,
    pub(crate) mirrors: Mirrors,
}

/// The waits of a followed branch, each up to a quarter longer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Between two looks when no push is heard of: webhooks may be lost.
    pub(super) look: Duration,
    /// Before what failed is tried again.
    pub(super) retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(60),
            retry: Duration::from_secs(40),
        }
    }
}

/// See the module.
pub(super) struct Repository {
    reach: Reach,
    repo: RepoId,
    /// The default one if absent.
    branch: Option<String>,
    layout: Layout,
    pace: Pace,
    /// What was handed out last.
    head: Option<String>,
    /// Deliveries since the first look.
    watch: Option<Watch>,
    took: Duration,
}

impl Repository {
    pub(super) fn new(
        reach: Reach,
        repo: RepoId,
        branch: Option<String>,
        layout: Layout,
        pace: Pace,
    ) -> Self {
        Self {
            reach,
            repo,
            branch,
            layout,
            pace,
            head: None,
            watch: None,
            took: Duration::ZERO,
        }
    }

    /// How long the last read took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// The commit that was handed out last.
    pub(super) fn commit(&self) -> &str {
        self.head.as_deref().unwrap_or_default()
    }

    /// The next whole state: the first time what is there, then when the branch has moved; and the same again where the
    /// last `failed`.
    pub(super) async fn next(&mut self, office: &Office, failed: bool) -> Result<FileSet, String> {
        let mut first = self.watch.is_none();
        loop {
            if !std::mem::take(&mut first) {
                let wait = if failed {
                    self.pace.retry
                } else {
                    self.pace.look
                };
                let longer = rand::rng().random_range(1.0..=1.25);
                self.moved(office, wait.mul_f64(longer)).await;
            }
            // From before the look, so that no push is missed behind it.
            if self.watch.is_none() {
                self.watch = Some(office.watch(office.view().revision));
            }
            let began = Instant::now();
            let head = self.newest().await?;
            if self.head.as_ref() == Some(&head) && !failed {
                continue;
            }
            let files = self.read(&head).await?;
            self.took = began.elapsed();
            self.head = Some(head);
            return Ok(files);
        }
    }

    /// Waits until the repository is pushed to, or for so long.
    async fn moved(&mut self, office: &Office, wait: Duration) {
        let repo = &self.repo;
        let watch = self
            .watch
            .get_or_insert_with(|| office.watch(office.view().revision));
        let is_push = |change: &Change| {
            matches!(change, Change::Delivery(delivery)
                if delivery.event == "push" && delivery.org == repo.org && delivery.repo == repo.repo)
        };
        let pushed = async {
            loop {
                match watch.next().await {
                    Ok(batch) if batch.changes.iter().any(is_push) => return false,
                    Ok(_) => {}
                    // The node stops, and the office with it.
                    Err(WatchError::Closed) => std::future::pending().await,
                    Err(_) => return true,
                }
            }
        };
        let is_behind = tokio::select! {
            () = sleep(wait) => false,
            is_behind = pushed => is_behind,
        };
        if is_behind {
            self.watch = None;
        }
    }

    async fn newest(&self) -> Result<String, String> {
        let (forge, repo) = (&self.reach.forge, &self.repo);
        let told =
            |why: trireme_forge::ForgeError| format!("the head of {repo} is not known: {why}");
        let branch = match &self.branch {
            Some(branch) => branch.clone(),
            None => forge.repository(repo).await.map_err(told)?.default_branch,
        };
        forge.branch_head(repo, &branch).await.map_err(told)
    }

    async fn read(&self, head: &str) -> Result<FileSet, String> {
        let (mirrors, repo) = (&self.reach.mirrors, &self.repo);
        let told = |why: trireme_forge::git::GitError| format!("{repo}@{head}: {why}");
        mirrors.ensure(repo, &[head]).await.map_err(told)?;
        let tree = mirrors.list_tree(repo, head, "").await.map_err(told)?;
        let (mut files, mut links) = (BTreeMap::new(), BTreeSet::new());
        for entry in tree {
            match entry.kind {
                EntryKind::File => {
                    files.insert(entry.path, entry.id);
                }
                EntryKind::Symlink => {
                    links.insert(entry.path);
                }
                _ => {}
            }
        }
        let listing = Listing {
            id: head.to_owned(),
            files,
            links,
        };
        let wanted = listing.wanted(&self.layout);
        let wanted = wanted.map_err(|why| format!("{repo}: {why:#}"))?;
        let wanted: BTreeSet<String> = wanted.into_iter().map(str::to_owned).collect();
        let read = mirrors.read_files(repo, head, move |path| wanted.contains(path));
        let read = read.await.map_err(told)?;
        let bytes: u64 = read.iter().map(|(_, content)| content.len() as u64).sum();
        if bytes > MAX_CONFIG_BYTES {
            return Err(format!(
                "{repo}@{head}: the files are {bytes} bytes, and a configuration may be {MAX_CONFIG_BYTES} at most"
            ));
        }
        let mut set = FileSet::new(self.layout.clone());
        for (path, content) in read {
            set.insert(path, content);
        }
        listing.keep_empty_tree(&self.layout, &mut set);
        Ok(set)
    }
}
