//! From files to [`RepoOwners`]: which files of a tree count, and how they come out of a mirror or out of memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;

use super::file::{Aliases, OwnersContent, OwnersEntry, OwnersFile};
use super::{OwnersProblem, People, PeopleByPath, RepoOwners, go_regex, parent};
use crate::git::{GitError, Mirrors};
use crate::types::RepoId;

/// How many trees' owners are remembered; the oldest go first.
const MAX_REMEMBERED: usize = 200;

/// What a configuration says about OWNERS in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnersOptions {
    /// The name of owners files (OWN-002).
    pub owners: String,
    /// The name of the aliases file in the root.
    pub aliases: String,
    /// Whether the YAML headers of Markdown files count (OWN-011).
    pub md_yaml: bool,
    /// Patterns of directories to leave out, with all below them (OWN-009).
    pub dir_denylist: Vec<String>,
}

impl Default for OwnersOptions {
    fn default() -> Self {
        Self {
            owners: "OWNERS".to_owned(),
            aliases: "OWNERS_ALIASES".to_owned(),
            md_yaml: false,
            dir_denylist: [r"\.git$", r"_output$", r"vendor/.*/.*"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

impl OwnersOptions {
    /// Whether a file can have a say, by its path; directories that are left out are not looked at here.
    #[must_use]
    pub fn wants(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        name == self.owners || path == self.aliases || (self.md_yaml && name.ends_with(".md"))
    }
}

impl RepoOwners {
    /// Reads the regular files of a tree, given as path and bytes; others than [`OwnersOptions::wants`] are passed over.
    #[must_use]
    pub fn from_files<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        options: &OwnersOptions,
    ) -> Self {
        let mut files: Vec<(&str, &[u8])> = files
            .into_iter()
            .filter(|(path, _)| options.wants(path))
            .collect();
        files.sort_unstable();
        let mut builder = Builder::new(options);
        if let Some((path, bytes)) = files.iter().find(|(path, _)| *path == options.aliases) {
            builder.aliases(path, bytes);
        }
        for (path, bytes) in files {
            builder.file(path, bytes);
        }
        builder.finish()
    }
}

struct Builder<'a> {
    options: &'a OwnersOptions,
    denied: Vec<Regex>,
    aliases: Aliases,
    approvers: BTreeMap<String, Vec<People>>,
    reviewers: BTreeMap<String, Vec<People>>,
    required_reviewers: BTreeMap<String, Vec<People>>,
    labels: BTreeMap<String, Vec<People>>,
    dir_options: BTreeMap<String, super::OwnersDirOptions>,
    problems: Vec<OwnersProblem>,
}

impl<'a> Builder<'a> {
    fn new(options: &'a OwnersOptions) -> Self {
        let mut builder = Self {
            options,
            denied: Vec::new(),
            aliases: Aliases::default(),
            approvers: BTreeMap::new(),
            reviewers: BTreeMap::new(),
            required_reviewers: BTreeMap::new(),
            labels: BTreeMap::new(),
            dir_options: BTreeMap::new(),
            problems: Vec::new(),
        };
        for pattern in &options.dir_denylist {
            match go_regex::compile(pattern) {
                Ok(regex) => builder.denied.push(regex),
                Err(error) => {
                    builder.problem(
                        "",
                        format!("directory denylist {pattern:?} is ignored: {error}"),
                    );
                }
            }
        }
        builder
    }

    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(OwnersProblem {
            path: path.to_owned(),
            message: message.into(),
        });
    }

    fn aliases(&mut self, path: &str, bytes: &[u8]) {
        match Aliases::parse(bytes) {
            Ok((aliases, doubled)) => {
                self.aliases = aliases;
                for name in doubled {
                    self.problem(
                        path,
                        format!("group {name:?} is there twice, with different case"),
                    );
                }
            }
            Err(error) => self.problem(path, error.to_string()),
        }
    }

    fn file(&mut self, path: &str, bytes: &[u8]) {
        let name = path.rsplit('/').next().unwrap_or(path);
        if self.is_denied(parent(path)) {
            return;
        }
        if self.options.md_yaml && name.ends_with(".md") {
            match OwnersFile::parse_markdown(bytes) {
                Ok(Some(file)) => self.apply(path, path, file),
                Ok(None) => {}
                Err(error) => self.problem(path, error.to_string()),
            }
        } else if name == self.options.owners {
            match OwnersFile::parse(bytes) {
                Ok(file) => self.apply(path, parent(path), file),
                Err(error) => self.problem(path, error.to_string()),
            }
        }
    }

    /// A directory is left out with everything below it, so each one above counts too; the root is called `.`.
    fn is_denied(&self, dir: &str) -> bool {
        let mut dirs = dir
            .match_indices('/')
            .map(|(end, _)| &dir[..end])
            .chain([if dir.is_empty() { "." } else { dir }, "."]);
        dirs.any(|dir| self.denied.iter().any(|denied| denied.is_match(dir)))
    }

    fn apply(&mut self, path: &str, place: &str, file: OwnersFile) {
        match file.content {
            OwnersContent::Simple(entry) => self.entry(place, None, &entry),
            OwnersContent::Filters(filters) => {
                for (pattern, entry) in filters {
                    if pattern == ".*" {
                        self.entry(place, None, &entry);
                        continue;
                    }
                    match go_regex::compile(&pattern) {
                        Ok(only) => self.entry(place, Some(&only), &entry),
                        Err(error) => {
                            self.problem(path, format!("filter {pattern:?} is ignored: {error}"))
                        }
                    }
                }
            }
        }
        if file.options != super::OwnersDirOptions::default() {
            self.dir_options.insert(place.to_owned(), file.options);
        }
    }

    fn entry(&mut self, place: &str, only: Option<&Regex>, entry: &OwnersEntry) {
        for (map, names) in [
            (&mut self.approvers, &entry.approvers),
            (&mut self.reviewers, &entry.reviewers),
            (&mut self.required_reviewers, &entry.required_reviewers),
        ] {
            if !names.is_empty() {
                let names = self.aliases.expand(names);
                let only = only.cloned();
                map.entry(place.to_owned())
                    .or_default()
                    .push(People { only, names });
            }
        }
        if !entry.labels.is_empty() {
            let names = entry.labels.iter().cloned().collect();
            let only = only.cloned();
            let labels = self.labels.entry(place.to_owned()).or_default();
            labels.push(People { only, names });
        }
    }

    fn finish(self) -> RepoOwners {
        let shared = |map: BTreeMap<String, Vec<People>>| -> PeopleByPath { Arc::new(map) };
        RepoOwners {
            approvers: shared(self.approvers),
            reviewers: shared(self.reviewers),
            required_reviewers: shared(self.required_reviewers),
            labels: shared(self.labels),
            options: Arc::new(self.dir_options),
            aliases: Arc::new(self.aliases),
            md_yaml: self.options.md_yaml,
            problems: Arc::new(self.problems),
        }
    }
}

/// Loads owners out of mirrors and remembers them by commit and options (OWN-018). Cheap to clone.
#[derive(Debug, Clone)]
pub struct OwnersLoader {
    mirrors: Mirrors,
    remembered: Arc<Mutex<Remembered>>,
}

#[derive(Debug, Default)]
struct Remembered {
    owners: HashMap<Key, (u64, RepoOwners)>,
    clock: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    repo: RepoId,
    commit: String,
    options: OwnersOptions,
}

impl OwnersLoader {
    #[must_use]
    pub fn new(mirrors: Mirrors) -> Self {
        Self {
            mirrors,
            remembered: Arc::default(),
        }
    }

    /// The owners at a commit, which is fetched if need be. Not filtered by collaborators: that list changes without the
    /// tree, see [`RepoOwners::with_collaborators`].
    ///
    /// # Errors
    /// The tree cannot be had. Files that cannot be read are [`RepoOwners::problems`] instead.
    pub async fn load(
        &self,
        repo: &RepoId,
        commit: &str,
        options: &OwnersOptions,
    ) -> Result<RepoOwners, GitError> {
        let key = Key {
            repo: repo.clone(),
            commit: commit.to_owned(),
            options: options.clone(),
        };
        if let Some(owners) = self.recall(&key) {
            return Ok(owners);
        }
        self.mirrors.ensure(repo, &[commit]).await?;
        let wanted = options.clone();
        let files = self
            .mirrors
            .read_files(repo, commit, move |path| wanted.wants(path))
            .await?;
        let files = files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
        let owners = RepoOwners::from_files(files, options);
        self.remember(key, owners.clone());
        Ok(owners)
    }

    fn recall(&self, key: &Key) -> Option<RepoOwners> {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remembered.clock += 1;
        let clock = remembered.clock;
        let (used, owners) = remembered.owners.get_mut(key)?;
        *used = clock;
        Some(owners.clone())
    }

    fn remember(&self, key: Key, owners: RepoOwners) {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remembered.clock += 1;
        let clock = remembered.clock;
        remembered.owners.insert(key, (clock, owners));
        if remembered.owners.len() > MAX_REMEMBERED {
            let oldest = remembered
                .owners
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(key, _)| key.clone());
            if let Some(key) = oldest {
                remembered.owners.remove(&key);
            }
        }
    }
}
