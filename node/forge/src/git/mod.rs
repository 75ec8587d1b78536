//! Bare git mirrors in a cache directory: what is read in them, trial merges, commits that are made in them and pushed.
//! Nothing needs a checkout (GHC-068).
//!
//! Fetching, comparing, merging and pushing is the git program's, in few, niced children that die with whoever asked;
//! reading is gix's. Neither names a secret in its arguments or in a URL (GHC-067). A mirror holds only the commits that somebody asked for, with their history. It is a cache: everything here can be
//! deleted at any time and is fetched again.

mod changes;
mod cherry_pick;
mod command;
mod cone;
mod find;
mod merge;
mod mirrors;
mod read;
mod remote;
mod wishes;

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;

pub use changes::{ChangedPath, MAX_COMMITS};
pub use cherry_pick::{CherryPick, Committer, MAX_PICKED};
pub use cone::{Cone, ConeContent, ConeFile, ConeLimits, ConeRequest};
pub(crate) use find::{DirIndex, Found, MAX_DIRS, Wanted};
pub use merge::{MergeOutcome, TrialMerge};
pub use mirrors::{MirrorLimits, Mirrors, MirrorsOptions};
pub use read::{MAX_FILE, TreeEntry};
pub use remote::{Push, Pushed};

use crate::types::RepoId;

/// Why git did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitError {
    /// The repository, or a commit in it, does not exist or is hidden from us.
    #[error("{repo}: {what} not found")]
    NotFound { repo: RepoId, what: String },

    #[error("{repo}: git was refused: {reason}")]
    Forbidden { repo: RepoId, reason: String },

    /// The server could not be reached or broke off; trying again later may help.
    #[error("{repo}: the git server is unavailable: {reason}")]
    Unavailable { repo: RepoId, reason: String },

    /// A text that is no object id, no repository's name, no path.
    #[error("{repo}: {what}")]
    BadInput { repo: RepoId, what: String },

    /// Larger than we are willing to read.
    #[error("{repo}: {what} is larger than {limit} bytes")]
    TooLarge {
        repo: RepoId,
        what: String,
        limit: u64,
    },

    /// More than we are willing to look at.
    #[error("{repo}: there are more than {limit} {what}")]
    TooMany {
        repo: RepoId,
        what: String,
        limit: u64,
    },

    /// git or gix failed in a way that neither the server nor the input explains.
    #[error("{repo}: {action} failed: {reason}")]
    Failed {
        repo: RepoId,
        action: String,
        reason: String,
    },

    #[error("git mirrors in {}: {reason}", path.display())]
    Cache { path: PathBuf, reason: String },

    #[error("git {needed} or newer is needed, but {found}")]
    Version { needed: &'static str, found: String },

    /// No secret could be had from the forge.
    #[error(transparent)]
    Forge(#[from] crate::error::ForgeError),
}

impl GitError {
    /// Passes by itself: pause, then try the same again.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Forge(error) => error.is_outage(),
            _ => false,
        }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// What git shows a server over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct GitSecret {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for GitSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitSecret")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Who can tell what git needs to read a repository. [`GitHub`](crate::github::GitHub) is one.
#[async_trait]
pub trait GitCredentials: Send + Sync {
    /// `None` to go without.
    async fn secret(&self, repo: &RepoId) -> crate::error::Result<Option<GitSecret>>;

    /// Whether anything may be pushed: not in a dry run (GHC-010).
    fn may_push(&self) -> bool {
        true
    }

    /// Where the repository is cloned from, if elsewhere than all others (GHC-026): what stands before `/org/repo`.
    fn remote(&self, repo: &RepoId) -> Option<&url::Url> {
        let _ = repo;
        None
    }
}
