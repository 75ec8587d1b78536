//! What a sparse checkout of the top level and one directory would hold, read from objects without a checkout
//! (CFG-077, CFG-104).
//!
//! As there, a symbolic link to one of these files stands for it, directories behind links are not entered, and
//! whatever a link leads to elsewhere does not exist.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use gix::bstr::{BStr, BString, ByteSlice};
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
    /// Files, links and directories that are looked at, wanted or not, and the steps of the paths that links lead along.
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

/// What stands in a directory. Of a name that is there twice, the first counts.
type Children = BTreeMap<BString, (EntryMode, gix::ObjectId)>;

struct Look<'r> {
    commit: &'r Commit,
    repository: &'r gix::Repository,
    root: gix::ObjectId,
    request: ConeRequest,
    /// Those that were inflated; as many entries as the budget has.
    trees: HashMap<gix::ObjectId, Rc<Children>>,
    /// Charged so far, of `limits.entries`.
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
            trees: HashMap::new(),
            entries: 0,
        };
        let mut listing = Self {
            has_dir: false,
            found: Vec::new(),
        };
        let mut dir = None;
        for (name, &(mode, id)) in look.children(root)?.iter() {
            let name = name.to_str_lossy().into_owned();
            if name == request.dir {
                if mode.is_tree() {
                    (listing.has_dir, dir) = (true, Some(id));
                } else if mode.is_commit() {
                    // A submodule is checked out as an empty directory.
                    listing.has_dir = true;
                } else {
                    match look.follow("", mode, id)? {
                        Found::Blob(id) => listing.add(&look, name, Found::Blob(id))?,
                        Found::Directory(_) => listing.has_dir = true,
                        Found::Dangling(_) => {}
                    }
                }
            } else if (request.select)(&name) {
                let found = look.follow("", mode, id)?;
                listing.add(&look, name, found)?;
            }
        }
        let mut pending: Vec<(String, gix::ObjectId)> = dir
            .map(|id| (request.dir.to_owned(), id))
            .into_iter()
            .collect();
        while let Some((dir, id)) = pending.pop() {
            for (name, &(mode, id)) in look.children(id)?.iter() {
                let name = name.to_str_lossy();
                let path = format!("{dir}/{name}");
                if mode.is_tree() {
                    pending.push((path, id));
                } else if !mode.is_commit() && (request.select)(&path) {
                    let found = look.follow(&dir, mode, id)?;
                    listing.add(&look, path, found)?;
                }
            }
        }
        listing.found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(listing)
    }

    fn add(&mut self, look: &Look<'_>, path: String, found: Found) -> Result<(), GitError> {
        let limit = look.request.limits.files;
        if self.found.len() >= limit {
            return Err(look.too_many("files that are read", limit));
        }
        self.found.push((path, found));
        Ok(())
    }
}

impl Look<'_> {
    fn too_many(&self, what: &str, limit: usize) -> GitError {
        GitError::TooMany {
            repo: self.commit.repo.clone(),
            what: format!("{what} at the top level and in {}", self.request.dir),
            limit: limit as u64,
        }
    }

    /// Counts what is looked at, before it is.
    fn charge(&mut self, entries: usize) -> Result<(), GitError> {
        self.entries = self.entries.saturating_add(entries);
        if self.entries > self.request.limits.entries {
            return Err(self.too_many("entries", self.request.limits.entries));
        }
        Ok(())
    }

    /// Inflates a tree at most once.
    fn tree(&mut self, id: gix::ObjectId) -> Result<Rc<Children>, GitError> {
        if let Some(known) = self.trees.get(&id) {
            return Ok(Rc::clone(known));
        }
        let tree = self
            .repository
            .find_tree(id)
            .map_err(|error| self.commit.failed(error))?;
        let mut children = Children::new();
        for entry in tree.iter() {
            let entry = entry.map_err(|error| self.commit.failed(error))?;
            self.charge(1)?;
            children
                .entry(entry.filename().to_owned())
                .or_insert((entry.mode(), entry.object_id()));
        }
        let children = Rc::new(children);
        self.trees.insert(id, Rc::clone(&children));
        Ok(children)
    }

    /// All that stands in a directory. One tree may stand at many paths: each time counts.
    fn children(&mut self, id: gix::ObjectId) -> Result<Rc<Children>, GitError> {
        let known = self.trees.contains_key(&id);
        let children = self.tree(id)?;
        if known {
            self.charge(children.len())?;
        }
        Ok(children)
    }

    fn child(
        &mut self,
        tree: gix::ObjectId,
        name: &str,
    ) -> Result<Option<(EntryMode, gix::ObjectId)>, GitError> {
        self.charge(1)?;
        Ok(self.tree(tree)?.get(BStr::new(name)).copied())
    }

    /// What an entry of a directory stands for, once links are followed.
    fn follow(&mut self, dir: &str, mode: EntryMode, id: gix::ObjectId) -> Result<Found, GitError> {
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
        self.charge(rest.len())?;
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
                self.charge(target.split('/').count())?;
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

#[cfg(test)]
mod tests {
    use gix::objs::tree::{Entry, EntryKind};

    use super::*;

    struct Made {
        _dir: tempfile::TempDir,
        repository: gix::Repository,
    }

    impl Made {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let repository = gix::init_bare(dir.path()).unwrap();
            Self {
                _dir: dir,
                repository,
            }
        }

        fn blob(&self, content: &str) -> gix::ObjectId {
            self.repository.write_blob(content).unwrap().detach()
        }

        fn tree(&self, entries: Vec<(String, EntryKind, gix::ObjectId)>) -> gix::ObjectId {
            let mut entries: Vec<_> = entries
                .into_iter()
                .map(|(name, kind, oid)| Entry {
                    mode: kind.into(),
                    filename: name.into(),
                    oid,
                })
                .collect();
            entries.sort();
            let tree = gix::objs::Tree { entries };
            self.repository.write_object(&tree).unwrap().detach()
        }

        /// Of `.prow` with these entries.
        fn list(
            &self,
            entries: Vec<(String, EntryKind, gix::ObjectId)>,
            limits: ConeLimits,
        ) -> Result<Listing, GitError> {
            let dir = self.tree(entries);
            let tree = self.tree(vec![(".prow".to_owned(), EntryKind::Tree, dir)]);
            let who = gix::actor::Signature::default();
            let commit = gix::objs::Commit {
                tree,
                parents: Default::default(),
                author: who.clone(),
                committer: who,
                encoding: None,
                message: "m".into(),
                extra_headers: Vec::new(),
            };
            let id = self.repository.write_object(&commit).unwrap().to_string();
            let commit = Commit::new(&RepoId::new("org", "repo"), &id).unwrap();
            let request = ConeRequest {
                dir: ".prow",
                select: |path| path.ends_with(".yaml"),
                limits,
            };
            Listing::of(&commit, &self.repository, request)
        }
    }

    const LIMITS: ConeLimits = ConeLimits {
        entries: 10_000,
        files: 100,
        bytes: 1 << 20,
    };

    /// CFG-086: a chain of links, each of which leads a long way, costs as much as the limit allows and no more.
    #[test]
    fn cfg_086_links_that_lead_long_ways_count_as_entries() {
        let made = Made::new();
        let file = made.blob("presubmits: {}");
        // Entries that every step would look at anew.
        let padded: Vec<_> = (0..1000)
            .map(|number| (format!("pad-{number}"), EntryKind::Blob, file))
            .collect();
        let links = |chains: usize, turns: usize| {
            let mut entries = padded.clone();
            let inner = made.tree(vec![("x".to_owned(), EntryKind::Blob, file)]);
            entries.push(("deep".to_owned(), EntryKind::Tree, inner));
            entries.push(("link-0".to_owned(), EntryKind::Blob, file));
            for number in 1..=30 {
                let target = format!("{}link-{}", "deep/../".repeat(turns), number - 1);
                entries.push((
                    format!("link-{number}"),
                    EntryKind::Link,
                    made.blob(&target),
                ));
            }
            for chain in 0..chains {
                let target = made.blob("link-30");
                entries.push((format!("{chain}.yaml"), EntryKind::Link, target));
            }
            entries
        };
        let found = made.list(links(10, 2), LIMITS).unwrap().found;
        assert_eq!(found.len(), 10);
        assert!(found.iter().all(|(_, found)| *found == Found::Blob(file)));

        let told = made.list(links(10, 400), LIMITS).unwrap_err();
        assert!(matches!(told, GitError::TooMany { .. }), "{told}");
        // Each of the links is counted before the next one is followed.
        let told = made.list(links(101, 0), LIMITS).unwrap_err();
        let GitError::TooMany { what, limit, .. } = told else {
            panic!("{told}");
        };
        assert_eq!(
            (what.as_str(), limit),
            ("files that are read at the top level and in .prow", 100)
        );
    }

    /// CFG-086: one tree that stands at many paths counts at each.
    #[test]
    fn cfg_086_a_tree_of_equal_trees_is_bounded() {
        let made = Made::new();
        let mut tree = made.tree(vec![("a".to_owned(), EntryKind::Blob, made.blob("x"))]);
        for _ in 0..20 {
            tree = made.tree(vec![
                ("a".to_owned(), EntryKind::Tree, tree),
                ("b".to_owned(), EntryKind::Tree, tree),
            ]);
        }
        let told = made
            .list(vec![("a".to_owned(), EntryKind::Tree, tree)], LIMITS)
            .unwrap_err();
        assert!(matches!(told, GitError::TooMany { .. }), "{told}");
    }
}
