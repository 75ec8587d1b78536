//! Where files of certain names are in a tree, remembered for each directory: after a push only the directories that it
//! touched are looked at.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gix::bstr::ByteSlice;

use super::GitError;
use super::mirrors::Mirrors;
use super::read::Commit;
use crate::types::RepoId;

/// Directories that are remembered, of all repositories; kubernetes has 7,000. What was not used lately goes first.
pub(crate) const MAX_DIRS: usize = 200_000;

/// Entries of trees that one search looks at, remembered ones not counted.
const MAX_ENTRIES: usize = 1_000_000;

/// Files that one search finds.
const MAX_FOUND: usize = 100_000;

/// Directories within directories: more than fit into a path.
const MAX_DEPTH: usize = 1000;

/// Which files are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// Files of this name, in any directory.
    pub(crate) name: String,
    /// Files of this name in the root.
    pub(crate) root_name: String,
    /// Files whose names end so, in any directory.
    pub(crate) suffix: Option<&'static str>,
}

impl Wanted {
    fn wants(&self, name: &str) -> bool {
        name == self.name || self.suffix.is_some_and(|suffix| name.ends_with(suffix))
    }
}

/// A file and which blob it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Found {
    pub(crate) path: String,
    id: gix::ObjectId,
}

/// What is wanted in a directory, and the directories in it that have any.
#[derive(Debug, Default)]
struct Dir {
    files: Vec<(String, gix::ObjectId)>,
    dirs: Vec<(String, gix::ObjectId)>,
}

/// What is known of directories, by tree: `None` if there is nothing in it that is wanted. The file of the root alone is
/// no part of it.
#[derive(Debug, Default)]
pub(crate) struct DirIndex(Mutex<Generations>);

type Known = HashMap<(gix::ObjectId, Arc<Wanted>), Option<Arc<Dir>>>;

/// When the young are half of what may be kept, the old go and the young become old; what is used stays young.
#[derive(Debug, Default)]
struct Generations {
    young: Known,
    old: Known,
}

impl DirIndex {
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Directories that are remembered.
    pub(crate) fn len(&self) -> usize {
        let known = self.lock();
        known.young.len() + known.old.len()
    }

    fn get(&self, key: &(gix::ObjectId, Arc<Wanted>)) -> Option<Option<Arc<Dir>>> {
        let mut known = self.lock();
        if let Some(dir) = known.young.get(key) {
            return Some(dir.clone());
        }
        let dir = known.old.remove(key)?;
        known.put(key.clone(), dir.clone());
        Some(dir)
    }

    fn put(&self, key: (gix::ObjectId, Arc<Wanted>), dir: Option<Arc<Dir>>) {
        self.lock().put(key, dir);
    }
}

impl Generations {
    fn put(&mut self, key: (gix::ObjectId, Arc<Wanted>), dir: Option<Arc<Dir>>) {
        if self.young.len() >= MAX_DIRS / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, dir);
    }
}

impl Mirrors {
    /// The wanted regular files of a commit or tree, sorted by path. Directories that `skip` accepts, by path (the root is
    /// `""`), are left out with everything below them.
    ///
    /// # Errors
    /// The tree is not in the mirror, or too large.
    pub(crate) async fn find_files(
        &self,
        repo: &RepoId,
        commit: &str,
        wanted: Wanted,
        index: Arc<DirIndex>,
        skip: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<Found>, GitError> {
        let commit = Commit::new(repo, commit)?;
        self.read(repo, "looking for files", move |repository| {
            let root = commit.tree(repository)?;
            let mut search = Search {
                repository,
                commit: &commit,
                wanted: Arc::new(wanted),
                index: &index,
                entries: 0,
            };
            let mut found = Vec::new();
            if !skip("") {
                search.collect(root.id, "", &skip, &mut found, 0)?;
            }
            let root_name = search.wanted.root_name.as_bytes();
            let entry = root
                .lookup_entry([root_name])
                .map_err(|error| commit.failed(error))?;
            if let Some(entry) = entry.filter(|entry| entry.mode().is_blob()) {
                let path = search.wanted.root_name.clone();
                let id = entry.object_id();
                found.push(Found { path, id });
            }
            found.sort_by(|a, b| a.path.cmp(&b.path));
            found.dedup();
            Ok(found)
        })
        .await
    }

    /// The bytes of files that were found; `None` for those larger than `each`.
    ///
    /// # Errors
    /// Together they are larger than `all`.
    pub(crate) async fn read_found(
        &self,
        repo: &RepoId,
        commit: &str,
        files: Arc<[Found]>,
        [each, all]: [u64; 2],
    ) -> Result<Vec<Option<Vec<u8>>>, GitError> {
        let commit = Commit::new(repo, commit)?;
        self.read(repo, "reading files", move |repository| {
            let mut left = all;
            let mut contents = Vec::with_capacity(files.len());
            for file in files.iter() {
                let size = commit.size(repository, file.id)?;
                contents.push(if size > each {
                    None
                } else {
                    let what = "all that was looked for";
                    Some(commit.blob_within(repository, file.id, what, all, &mut left)?)
                });
            }
            Ok(contents)
        })
        .await
    }
}

struct Search<'a> {
    repository: &'a gix::Repository,
    commit: &'a Commit,
    wanted: Arc<Wanted>,
    index: &'a DirIndex,
    entries: usize,
}

impl Search<'_> {
    fn collect(
        &mut self,
        tree: gix::ObjectId,
        path: &str,
        skip: &dyn Fn(&str) -> bool,
        found: &mut Vec<Found>,
        depth: usize,
    ) -> Result<(), GitError> {
        let Some(dir) = self.dir(tree, depth)? else {
            return Ok(());
        };
        let join = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}/{name}"),
        };
        for (name, id) in &dir.files {
            let path = join(name);
            found.push(Found { path, id: *id });
        }
        if found.len() > MAX_FOUND {
            return Err(self.too_many(format!("files called {:?}", self.wanted.name), MAX_FOUND));
        }
        for (name, id) in &dir.dirs {
            let path = join(name);
            if !skip(&path) {
                self.collect(*id, &path, skip, found, depth + 1)?;
            }
        }
        Ok(())
    }

    fn dir(&mut self, tree: gix::ObjectId, depth: usize) -> Result<Option<Arc<Dir>>, GitError> {
        let key = (tree, Arc::clone(&self.wanted));
        if let Some(known) = self.index.get(&key) {
            return Ok(known);
        }
        if depth > MAX_DEPTH {
            return Err(self.too_many("directories within each other".to_owned(), MAX_DEPTH));
        }
        let mut dir = Dir::default();
        let mut below = Vec::new();
        let object = self
            .repository
            .find_tree(tree)
            .map_err(|error| self.commit.failed(error))?;
        for entry in object.iter() {
            let entry = entry.map_err(|error| self.commit.failed(error))?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(self.too_many("files and directories".to_owned(), MAX_ENTRIES));
            }
            let mode = entry.mode();
            let name = entry.filename();
            if mode.is_tree() {
                below.push((name.to_str_lossy().into_owned(), entry.object_id()));
            } else if mode.is_blob() {
                let name = name.to_str_lossy();
                if self.wanted.wants(&name) {
                    dir.files.push((name.into_owned(), entry.object_id()));
                }
            }
        }
        drop(object);
        for (name, id) in below {
            if self.dir(id, depth + 1)?.is_some() {
                dir.dirs.push((name, id));
            }
        }
        let any = !dir.files.is_empty() || !dir.dirs.is_empty();
        let dir = any.then(|| Arc::new(dir));
        self.index.put(key, dir.clone());
        Ok(dir)
    }

    fn too_many(&self, what: String, limit: usize) -> GitError {
        GitError::TooMany {
            repo: self.commit.repo.clone(),
            what,
            limit: limit as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_stays_within_its_bound_and_keeps_what_is_used() {
        let index = DirIndex::default();
        let wanted = Arc::new(Wanted {
            name: "OWNERS".into(),
            root_name: String::new(),
            suffix: None,
        });
        let key = |n: usize| {
            let mut id = [0; 20];
            id[..8].copy_from_slice(&n.to_le_bytes());
            (gix::ObjectId::from(id), Arc::clone(&wanted))
        };
        for n in 0..2 * MAX_DIRS {
            index.put(key(n), None);
            assert!(index.get(&key(0)).is_some(), "{n}");
            assert!(index.len() <= MAX_DIRS);
        }
        assert!(index.get(&key(1)).is_none());
        assert!(index.get(&key(2 * MAX_DIRS - 1)).is_some());
    }
}
