//! What a sparse checkout of the top level and one directory would hold, read from objects without a checkout
//! (CFG-077, CFG-104).
//!
//! As there, a symbolic link to one of these files stands for it, directories behind links are not entered, and
//! whatever a link leads to elsewhere does not exist.

use std::collections::VecDeque;

use gix::bstr::ByteSlice;
use gix::objs::tree::EntryMode;

use super::GitError;
use super::mirrors::Mirrors;
use super::read::Commit;
use crate::types::RepoId;

/// Links that lead to links, as Linux counts them.
const MAX_HOPS: usize = 40;

/// A longer target is no path.
const MAX_TARGET: u64 = 4096;

/// How much of a repository may be looked at. What goes beyond is an error that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConeLimits {
    /// Files, links and directories that are looked at, wanted or not.
    pub entries: usize,
    /// Files that are read.
    pub files: usize,
    /// Their bytes together.
    pub bytes: u64,
}

/// The files that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cone {
    /// Whether the directory is there, even without a file.
    pub has_dir: bool,
    /// Sorted by path.
    pub files: Vec<ConeFile>,
    /// Whether the same look at the commit before finds anything else.
    pub changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConeFile {
    /// From the repository's root.
    pub path: String,
    pub content: ConeContent,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConeContent {
    Bytes(Vec<u8>),
    /// A link to nothing that is looked at; says to what.
    Dangling(String),
    /// A directory, or a link to one; says which.
    Directory(String),
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct ConeRequest {
    /// A name at the top level.
    pub dir: &'static str,
    /// Which paths count, at the top level and below the directory. A file in the directory's place always does.
    pub select: fn(&str) -> bool,
    pub limits: ConeLimits,
}

impl Mirrors {
    /// Reads the selected files of a commit. `before` is the commit that they are compared with.
    ///
    /// # Errors
    /// `NotFound` if a commit is not in the mirror; `TooMany` or `TooLarge` beyond the limits.
    pub async fn read_cone(
        &self,
        repo: &RepoId,
        commit: &str,
        before: Option<&str>,
        request: ConeRequest,
    ) -> Result<Cone, GitError> {
        let at = Commit::new(repo, commit)?;
        let before = match before {
            Some(id) if id != commit => Some(Commit::new(repo, id)?),
            _ => None,
        };
        let in_use = self.inner.in_use(repo).await?;
        in_use
            .read(repo, "reading files", move |repository| {
                let now = Listing::of(&at, repository, request)?;
                let changed = match before {
                    Some(before) => match Listing::of(&before, repository, request) {
                        Ok(then) => then != now,
                        // Whatever is wrong there is not wrong here.
                        Err(GitError::TooMany { .. } | GitError::TooLarge { .. }) => true,
                        Err(error) => return Err(error),
                    },
                    None => false,
                };
                let mut budget = request.limits.bytes;
                let mut files = Vec::with_capacity(now.found.len());
                for (path, found) in now.found {
                    let content = match found {
                        Found::Blob(id) => {
                            let what = format!("what is read of {}", request.dir);
                            let limit = request.limits.bytes;
                            ConeContent::Bytes(at.blob_within(
                                repository,
                                id,
                                &what,
                                limit,
                                &mut budget,
                            )?)
                        }
                        Found::Dangling(why) => ConeContent::Dangling(why),
                        Found::Directory(why) => ConeContent::Directory(why),
                    };
                    files.push(ConeFile { path, content });
                }
                Ok(Cone {
                    has_dir: now.has_dir,
                    files,
                    changed,
                })
            })
            .await
    }
}

/// The selected files before they are read.
#[derive(Debug, PartialEq, Eq)]
struct Listing {
    has_dir: bool,
    found: Vec<(String, Found)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Blob(gix::ObjectId),
    Dangling(String),
    Directory(String),
}

struct Look<'r> {
    commit: &'r Commit,
    repository: &'r gix::Repository,
    root: gix::ObjectId,
    request: ConeRequest,
    entries: usize,
}

impl Listing {
    fn of(
        commit: &Commit,
        repository: &gix::Repository,
        request: ConeRequest,
    ) -> Result<Self, GitError> {
        let root = commit.tree(repository)?.id;
        let mut look = Look {
            commit,
            repository,
            root,
            request,
            entries: 0,
        };
        let mut listing = Self {
            has_dir: false,
            found: Vec::new(),
        };
        let mut dir = None;
        for (name, mode, id) in look.children(root)? {
            if name == request.dir {
                if mode.is_tree() {
                    (listing.has_dir, dir) = (true, Some(id));
                } else if mode.is_commit() {
                    // A submodule is checked out as an empty directory.
                    listing.has_dir = true;
                } else {
                    match look.follow("", mode, id)? {
                        Found::Blob(id) => listing.found.push((name, Found::Blob(id))),
                        Found::Directory(_) => listing.has_dir = true,
                        Found::Dangling(_) => {}
                    }
                }
            } else if (request.select)(&name) {
                let found = look.follow("", mode, id)?;
                listing.found.push((name, found));
            }
        }
        let mut pending: Vec<(String, gix::ObjectId)> = dir
            .map(|id| (request.dir.to_owned(), id))
            .into_iter()
            .collect();
        while let Some((dir, id)) = pending.pop() {
            for (name, mode, id) in look.children(id)? {
                let path = format!("{dir}/{name}");
                if mode.is_tree() {
                    pending.push((path, id));
                } else if !mode.is_commit() && (request.select)(&path) {
                    let found = look.follow(&dir, mode, id)?;
                    listing.found.push((path, found));
                }
            }
        }
        if listing.found.len() > request.limits.files {
            return Err(look.too_many("files that are read", request.limits.files));
        }
        listing.found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(listing)
    }
}

type Child = (String, EntryMode, gix::ObjectId);

impl Look<'_> {
    fn too_many(&self, what: &str, limit: usize) -> GitError {
        GitError::TooMany {
            repo: self.commit.repo.clone(),
            what: format!("{what} at the top level and in {}", self.request.dir),
            limit: limit as u64,
        }
    }

    fn children(&mut self, tree: gix::ObjectId) -> Result<Vec<Child>, GitError> {
        let tree = self
            .repository
            .find_tree(tree)
            .map_err(|error| self.commit.failed(error))?;
        let mut children = Vec::new();
        for entry in tree.iter() {
            let entry = entry.map_err(|error| self.commit.failed(error))?;
            self.entries += 1;
            if self.entries > self.request.limits.entries {
                return Err(self.too_many("entries", self.request.limits.entries));
            }
            let name = entry.filename().to_str_lossy().into_owned();
            children.push((name, entry.mode(), entry.object_id()));
        }
        Ok(children)
    }

    fn child(
        &self,
        tree: gix::ObjectId,
        name: &str,
    ) -> Result<Option<(EntryMode, gix::ObjectId)>, GitError> {
        let tree = self
            .repository
            .find_tree(tree)
            .map_err(|error| self.commit.failed(error))?;
        for entry in tree.iter() {
            let entry = entry.map_err(|error| self.commit.failed(error))?;
            if entry.filename().as_bytes() == name.as_bytes() {
                return Ok(Some((entry.mode(), entry.object_id())));
            }
        }
        Ok(None)
    }

    /// What an entry of a directory stands for, once links are followed.
    fn follow(&self, dir: &str, mode: EntryMode, id: gix::ObjectId) -> Result<Found, GitError> {
        if mode.is_tree() || mode.is_commit() {
            return Ok(Found::Directory("it is a directory".to_owned()));
        }
        if !mode.is_link() {
            return Ok(Found::Blob(id));
        }
        let first = match self.target(id)? {
            Ok(target) => target,
            Err(why) => return Ok(Found::Dangling(why)),
        };
        let dangling = |why: &str| Ok(Found::Dangling(format!("it is a link to {first:?}, {why}")));
        // The directories that are passed, each with its tree, the root left out.
        let mut at: Vec<(String, gix::ObjectId)> = Vec::new();
        let mut rest: VecDeque<String> = dir.split('/').map(str::to_owned).collect();
        rest.extend(first.split('/').map(str::to_owned));
        if first.starts_with('/') {
            return dangling("which is outside of the repository");
        }
        let mut hops = 1;
        while let Some(part) = rest.pop_front() {
            if part.is_empty() || part == "." {
                continue;
            }
            if part == ".." {
                if at.pop().is_none() {
                    return dangling("which is outside of the repository");
                }
                continue;
            }
            let tree = at.last().map_or(self.root, |(_, id)| *id);
            let Some((mode, id)) = self.child(tree, &part)? else {
                return dangling("which is not there");
            };
            if mode.is_link() {
                hops += 1;
                if hops > MAX_HOPS {
                    return dangling("which leads through too many links");
                }
                let target = match self.target(id)? {
                    Ok(target) => target,
                    Err(why) => return dangling(&format!("which leads on: {why}")),
                };
                if target.starts_with('/') {
                    return dangling("which is outside of the repository");
                }
                for part in target.split('/').rev() {
                    rest.push_front(part.to_owned());
                }
            } else if mode.is_tree() {
                if at.is_empty() && part != self.request.dir {
                    let dir = self.request.dir;
                    return dangling(&format!("which is neither at the top level nor in {dir}/"));
                }
                at.push((part, id));
            } else if mode.is_commit() {
                return dangling("which is in a submodule");
            } else if rest.iter().all(|part| part.is_empty() || part == ".") {
                return Ok(Found::Blob(id));
            } else {
                return dangling("which leads through a file");
            }
        }
        Ok(Found::Directory(format!(
            "it is a link to the directory {first:?}"
        )))
    }

    /// Where a link leads, or why that is no path.
    fn target(&self, link: gix::ObjectId) -> Result<Result<String, String>, GitError> {
        let header = self
            .repository
            .find_header(link)
            .map_err(|error| self.commit.failed(error))?;
        if header.size() > MAX_TARGET {
            return Ok(Err(format!(
                "it is a link of {} bytes, which is no path",
                header.size()
            )));
        }
        let object = self
            .repository
            .find_object(link)
            .map_err(|error| self.commit.failed(error))?;
        Ok(match object.data.to_str() {
            Ok(target) if !target.is_empty() => Ok(target.to_owned()),
            _ => Err("it is a link whose target is no UTF-8".to_owned()),
        })
    }
}
