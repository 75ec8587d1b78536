//! Reading commits, trees and files out of a mirror, without a checkout.
//!
//! Every method wants its commits in the mirror: [`Mirrors::ensure`] first, else `NotFound`.

use gix::bstr::ByteSlice;

use super::GitError;
use super::mirrors::{Mirrors, check_id};
use crate::types::{EntryKind, RepoId};

/// The largest file that is read.
pub const MAX_FILE: u64 = 16 << 20;

/// What [`Mirrors::read_files`] reads at once.
const MAX_FILES_BYTES: u64 = 128 << 20;

/// The largest tree that is walked: ten times the largest known on a Prow.
const MAX_ENTRIES: usize = 1_000_000;

/// A file, link or submodule in a tree; directories are listed by what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// From the repository's root. Bytes that are not UTF-8 become U+FFFD.
    pub path: String,
    pub kind: EntryKind,
    /// The blob's id, or the submodule's commit.
    pub id: String,
}

impl Mirrors {
    /// The id of a commit's tree.
    pub async fn tree_of(&self, repo: &RepoId, commit: &str) -> Result<String, GitError> {
        let commit = Commit::new(repo, commit)?;
        self.read(repo, "reading a commit", move |repository| {
            Ok(commit.tree(repository)?.id.to_string())
        })
        .await
    }

    /// A file's bytes; `None` if there is no regular file at that path.
    pub async fn read_file(
        &self,
        repo: &RepoId,
        commit: &str,
        path: &str,
    ) -> Result<Option<Vec<u8>>, GitError> {
        let commit = Commit::new(repo, commit)?;
        let path = path.to_owned();
        self.read(repo, "reading a file", move |repository| {
            let tree = commit.tree(repository)?;
            let entry = tree
                .lookup_entry(path.split('/').map(str::as_bytes))
                .map_err(|error| commit.failed(error))?;
            match entry {
                Some(entry) if entry.mode().is_blob() => {
                    let mut budget = MAX_FILE;
                    let bytes = commit.blob(repository, entry.object_id(), &path, &mut budget)?;
                    Ok(Some(bytes))
                }
                _ => Ok(None),
            }
        })
        .await
    }

    /// Everything below a directory (`""`: the root), at any depth, sorted by path. Empty if there is no such
    /// directory.
    pub async fn list_tree(
        &self,
        repo: &RepoId,
        commit: &str,
        dir: &str,
    ) -> Result<Vec<TreeEntry>, GitError> {
        let commit = Commit::new(repo, commit)?;
        let dir = dir.trim_matches('/').to_owned();
        self.read(repo, "listing a tree", move |repository| {
            let mut entries = Vec::new();
            commit.walk(repository, &dir, &mut |path, kind, id| {
                entries.push(TreeEntry {
                    path,
                    kind,
                    id: id.to_string(),
                });
                Ok(())
            })?;
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(entries)
        })
        .await
    }

    /// All regular files of a commit whose path `select` accepts, with their bytes, sorted by path.
    pub async fn read_files(
        &self,
        repo: &RepoId,
        commit: &str,
        select: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<(String, Vec<u8>)>, GitError> {
        let commit = Commit::new(repo, commit)?;
        self.read(repo, "reading files", move |repository| {
            let mut budget = MAX_FILES_BYTES;
            let mut files = Vec::new();
            commit.walk(repository, "", &mut |path, kind, id| {
                if kind == EntryKind::File && select(&path) {
                    let bytes = commit.blob(repository, id, &path, &mut budget)?;
                    files.push((path, bytes));
                }
                Ok(())
            })?;
            files.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(files)
        })
        .await
    }

    /// The best common ancestor; `None` for unrelated histories.
    pub async fn merge_base(
        &self,
        repo: &RepoId,
        one: &str,
        two: &str,
    ) -> Result<Option<String>, GitError> {
        let (one, two) = (Commit::new(repo, one)?, Commit::new(repo, two)?);
        self.read(repo, "finding a merge base", move |repository| {
            one.merge_base(repository, &two)
                .map(|base| base.map(|id| id.to_string()))
        })
        .await
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        repo: &RepoId,
        action: &str,
        work: impl FnOnce(&gix::Repository) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, GitError> {
        let in_use = self.inner.in_use(repo).await?;
        in_use.read(repo, action, work).await
    }
}

/// A commit of a repository; knows what to say when something is wrong with it.
#[derive(Clone)]
pub(super) struct Commit {
    pub(super) repo: RepoId,
    id: gix::ObjectId,
}

impl Commit {
    pub(super) fn new(repo: &RepoId, id: &str) -> Result<Self, GitError> {
        check_id(repo, id)?;
        let id = gix::ObjectId::from_hex(id.as_bytes()).map_err(|error| GitError::BadInput {
            repo: repo.clone(),
            what: format!("{id:?}: {error}"),
        })?;
        Ok(Self {
            repo: repo.clone(),
            id,
        })
    }

    pub(super) fn id(&self) -> gix::ObjectId {
        self.id
    }

    /// The commit itself, as it was written.
    pub(super) fn object(
        &self,
        repository: &gix::Repository,
    ) -> Result<gix::objs::Commit, GitError> {
        let object = repository
            .try_find_object(self.id)
            .map_err(|error| self.failed(error))?
            .ok_or_else(|| self.not_found())?;
        let commit = object
            .try_into_commit()
            .map_err(|error| self.failed(error))?;
        let commit = commit.decode().map_err(|error| self.failed(error))?;
        commit.try_into().map_err(|error| self.failed(error))
    }

    fn not_found(&self) -> GitError {
        GitError::NotFound {
            repo: self.repo.clone(),
            what: format!("commit {}", self.id),
        }
    }

    pub(super) fn failed(&self, error: impl std::fmt::Display) -> GitError {
        GitError::Failed {
            repo: self.repo.clone(),
            action: format!("reading {}", self.id),
            reason: error.to_string(),
        }
    }

    pub(super) fn tree<'r>(
        &self,
        repository: &'r gix::Repository,
    ) -> Result<gix::Tree<'r>, GitError> {
        let object = repository
            .try_find_object(self.id)
            .map_err(|error| self.failed(error))?
            .ok_or_else(|| self.not_found())?;
        object.peel_to_tree().map_err(|error| self.failed(error))
    }

    fn blob(
        &self,
        repository: &gix::Repository,
        id: gix::ObjectId,
        path: &str,
        budget: &mut u64,
    ) -> Result<Vec<u8>, GitError> {
        if self.size(repository, id)? > MAX_FILE {
            return Err(self.too_large(path.to_owned(), MAX_FILE));
        }
        let what = format!("all that was selected of {}", self.id);
        self.blob_within(repository, id, &what, MAX_FILES_BYTES, budget)
    }

    /// A blob's bytes, as far as they fit into what is left of a limit.
    pub(super) fn blob_within(
        &self,
        repository: &gix::Repository,
        id: gix::ObjectId,
        what: &str,
        limit: u64,
        left: &mut u64,
    ) -> Result<Vec<u8>, GitError> {
        // The size first: a blob bomb must not be unpacked.
        *left = left
            .checked_sub(self.size(repository, id)?)
            .ok_or_else(|| self.too_large(what.to_owned(), limit))?;
        let mut object = repository
            .find_object(id)
            .map_err(|error| self.failed(error))?;
        Ok(std::mem::take(&mut object.data))
    }

    pub(super) fn size(
        &self,
        repository: &gix::Repository,
        id: gix::ObjectId,
    ) -> Result<u64, GitError> {
        let header = repository
            .find_header(id)
            .map_err(|error| self.failed(error))?;
        Ok(header.size())
    }

    fn too_large(&self, what: String, limit: u64) -> GitError {
        GitError::TooLarge {
            repo: self.repo.clone(),
            what,
            limit,
        }
    }

    fn walk(
        &self,
        repository: &gix::Repository,
        dir: &str,
        visit: &mut dyn FnMut(String, EntryKind, gix::ObjectId) -> Result<(), GitError>,
    ) -> Result<(), GitError> {
        let mut root = self.tree(repository)?.id;
        if !dir.is_empty() {
            let entry = self
                .tree(repository)?
                .lookup_entry(dir.split('/').map(str::as_bytes))
                .map_err(|error| self.failed(error))?;
            match entry {
                Some(entry) if entry.mode().is_tree() => root = entry.object_id(),
                _ => return Ok(()),
            }
        }
        let mut seen = 0;
        let mut pending = vec![(dir.to_owned(), root)];
        while let Some((dir, id)) = pending.pop() {
            let tree = repository
                .find_tree(id)
                .map_err(|error| self.failed(error))?;
            for entry in tree.iter() {
                let entry = entry.map_err(|error| self.failed(error))?;
                seen += 1;
                if seen > MAX_ENTRIES {
                    return Err(GitError::TooLarge {
                        repo: self.repo.clone(),
                        what: format!("the tree of {} (in entries)", self.id),
                        limit: MAX_ENTRIES as u64,
                    });
                }
                let name = entry.filename().to_str_lossy();
                let path = if dir.is_empty() {
                    name.into_owned()
                } else {
                    format!("{dir}/{name}")
                };
                let mode = entry.mode();
                if mode.is_tree() {
                    pending.push((path, entry.object_id()));
                } else if mode.is_link() {
                    visit(path, EntryKind::Symlink, entry.object_id())?;
                } else if mode.is_commit() {
                    visit(path, EntryKind::Submodule, entry.object_id())?;
                } else {
                    visit(path, EntryKind::File, entry.object_id())?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn merge_base(
        &self,
        repository: &gix::Repository,
        other: &Self,
    ) -> Result<Option<gix::ObjectId>, GitError> {
        // Both must be there: gix reports a missing one as a broken graph.
        self.tree(repository)?;
        other.tree(repository)?;
        let base = repository
            .merge_base(self.id, other.id)
            .map_err(|error| self.failed(error))?;
        Ok(base.map(|id| id.detach()))
    }
}
