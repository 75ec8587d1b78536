//! From files to [`RepoOwners`]: which files of a tree count, and what they say together.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use super::file::{Aliases, MAX_BYTES, OwnersContent, OwnersEntry, OwnersFile};
use super::{OwnersProblem, People, PeopleByPath, RepoOwners, go_regex, parent};

/// How the names of Markdown files end.
pub(super) const MARKDOWN: &str = ".md";

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
        self.is_owners(path) || self.is_aliases(path) || self.is_markdown(path)
    }

    /// Whether it is an owners file, by its name (OWN-002).
    #[must_use]
    pub fn is_owners(&self, path: &str) -> bool {
        path.rsplit('/').next() == Some(&self.owners)
    }

    /// Whether it is the aliases file: there is one in the root only.
    #[must_use]
    pub fn is_aliases(&self, path: &str) -> bool {
        path == self.aliases
    }

    /// Whether its YAML header may name owners (OWN-011).
    #[must_use]
    pub fn is_markdown(&self, path: &str) -> bool {
        self.md_yaml && path.ends_with(MARKDOWN)
    }

    /// Whether a directory (`""` is the root) is left out, with everything below it (OWN-009). Patterns are searched in
    /// its path from the root; those that are none are passed over.
    #[must_use]
    pub fn is_denied(&self, dir: &str) -> bool {
        let (denied, _) = Denied::new(&self.dir_denylist);
        denied.with_all_above(dir)
    }
}

/// Directories that are left out.
pub(super) struct Denied(Vec<Regex>);

impl Denied {
    /// The second value complains about patterns that are none.
    pub(super) fn new(patterns: &[String]) -> (Self, Vec<String>) {
        let (mut denied, mut complaints) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match go_regex::compile(pattern) {
                Ok(regex) => denied.push(regex),
                Err(error) => complaints.push(format!(
                    "directory denylist {pattern:?} is ignored: {error}"
                )),
            }
        }
        (Self(denied), complaints)
    }

    /// Whether the directory itself matches; the root is called `.` then.
    pub(super) fn is_match(&self, dir: &str) -> bool {
        let dir = if dir.is_empty() { "." } else { dir };
        self.0.iter().any(|denied| denied.is_match(dir))
    }

    /// A directory is left out with everything below it, so each one above counts too.
    fn with_all_above(&self, dir: &str) -> bool {
        let mut above = dir.match_indices('/').map(|(end, _)| &dir[..end]);
        self.is_match("") || self.is_match(dir) || above.any(|dir| self.is_match(dir))
    }
}

impl RepoOwners {
    /// Reads the regular files of a tree, given as path and bytes; others than [`OwnersOptions::wants`] are passed over.
    #[must_use]
    pub fn from_files<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        options: &OwnersOptions,
    ) -> Self {
        let files = files.into_iter().map(|(path, bytes)| (path, Some(bytes)));
        Self::build(files, options)
    }

    /// The same; files without bytes are too large to be read.
    pub(super) fn build<'a>(
        files: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        options: &OwnersOptions,
    ) -> Self {
        let mut files: Vec<(&str, Option<&[u8]>)> = files
            .into_iter()
            .filter(|(path, _)| options.wants(path))
            .collect();
        files.sort_unstable();
        let mut builder = Builder::new(options);
        if let Some((path, bytes)) = files.iter().find(|(path, _)| options.is_aliases(path)) {
            match bytes {
                Some(bytes) => builder.aliases(path, bytes),
                None => builder.too_large(path),
            }
        }
        for (path, bytes) in files {
            match bytes {
                Some(bytes) => builder.file(path, bytes),
                None if options.is_aliases(path) => {}
                None => builder.too_large(path),
            }
        }
        builder.finish()
    }
}

struct Builder<'a> {
    options: &'a OwnersOptions,
    denied: Denied,
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
        let (denied, complaints) = Denied::new(&options.dir_denylist);
        let mut builder = Self {
            options,
            denied,
            aliases: Aliases::default(),
            approvers: BTreeMap::new(),
            reviewers: BTreeMap::new(),
            required_reviewers: BTreeMap::new(),
            labels: BTreeMap::new(),
            dir_options: BTreeMap::new(),
            problems: Vec::new(),
        };
        for complaint in complaints {
            builder.problem("", complaint);
        }
        builder
    }

    fn too_large(&mut self, path: &str) {
        self.problem(path, format!("the file is larger than {MAX_BYTES} bytes"));
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
        if self.denied.with_all_above(parent(path)) {
            return;
        }
        if self.options.is_markdown(path) {
            match OwnersFile::parse_markdown(bytes) {
                Ok(Some(file)) => self.apply(path, path, file),
                Ok(None) => {}
                Err(error) => self.problem(path, error.to_string()),
            }
        } else if self.options.is_owners(path) {
            match OwnersFile::parse(bytes) {
                Ok(file) => self.apply(path, parent(path), file),
                Err(error) => self.problem(path, error.to_string()),
            }
        }
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
