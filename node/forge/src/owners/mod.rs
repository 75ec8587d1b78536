//! OWNERS: who may approve and who should review which files of a repository, as Prow reads it (parity OWN-001…021).
//!
//! [`RepoOwners`] is what a tree's OWNERS files, aliases and Markdown headers say together, at one commit; immutable.
//! What follows from it for a pull request is a plugin's to decide.

mod file;
mod go_regex;
mod layers;
mod load;
mod loader;
mod metrics;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::Regex;

pub use file::{
    Aliases, OwnersContent, OwnersDirOptions, OwnersEntry, OwnersFile, OwnersParseError,
};
pub use layers::{Draw, LayeredSet};
pub use load::OwnersOptions;
pub use loader::{BranchProblems, MAX_BRANCHES, MAX_REMEMBERED, OwnersLoader};
pub use metrics::OwnersMetrics;

use crate::types::norm_login;

/// A file that could not be taken as it stands (OWN-021).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnersProblem {
    pub path: String,
    pub message: String,
}

/// Who owns what in one tree.
#[derive(Debug, Clone, Default)]
pub struct RepoOwners {
    approvers: PeopleByPath,
    reviewers: PeopleByPath,
    required_reviewers: PeopleByPath,
    labels: PeopleByPath,
    options: Arc<BTreeMap<String, OwnersDirOptions>>,
    aliases: Arc<Aliases>,
    md_yaml: bool,
    problems: Arc<Vec<OwnersProblem>>,
}

/// Per directory (`""` is the root) or Markdown file.
type PeopleByPath = Arc<BTreeMap<String, Vec<People>>>;

#[derive(Debug, Clone)]
struct People {
    /// Which files they are for, by path relative to the directory; `None` for all.
    only: Option<Regex>,
    names: BTreeSet<String>,
}

impl People {
    fn are_for(&self, relative: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.is_match(relative))
    }
}

impl RepoOwners {
    /// Everybody who may approve a file, the closest directory's first (OWN-013).
    #[must_use]
    pub fn approvers(&self, path: &str) -> LayeredSet {
        self.entries(path, &self.approvers, false)
    }

    /// The same people, without their layers.
    #[must_use]
    pub fn approver_names(&self, path: &str) -> BTreeSet<&str> {
        self.names(path, &self.approvers, false)
    }

    /// The approvers of the closest directory that has any for this file.
    #[must_use]
    pub fn leaf_approvers(&self, path: &str) -> BTreeSet<String> {
        self.entries(path, &self.approvers, true).to_set()
    }

    /// The same people, not copied.
    #[must_use]
    pub fn leaf_approver_names(&self, path: &str) -> BTreeSet<&str> {
        self.names(path, &self.approvers, true)
    }

    /// Everybody who may review a file, the closest directory's first.
    #[must_use]
    pub fn reviewers(&self, path: &str) -> LayeredSet {
        self.entries(path, &self.reviewers, false)
    }

    #[must_use]
    pub fn leaf_reviewers(&self, path: &str) -> BTreeSet<String> {
        self.entries(path, &self.reviewers, true).to_set()
    }

    #[must_use]
    pub fn required_reviewers(&self, path: &str) -> BTreeSet<String> {
        self.entries(path, &self.required_reviewers, false).to_set()
    }

    /// Labels for a pull request that touches this file, as written.
    #[must_use]
    pub fn labels(&self, path: &str) -> BTreeSet<String> {
        self.entries(path, &self.labels, false).to_set()
    }

    /// The directory whose OWNERS file names approvers for this file, the deepest if several do; the path itself if its
    /// Markdown header does; `""` for the root and for nobody (OWN-015).
    #[must_use]
    pub fn find_approver_owners_for_file(&self, path: &str) -> &str {
        owning_path(path, &self.approvers)
    }

    /// The same for reviewers.
    #[must_use]
    pub fn find_reviewer_owners_for_file(&self, path: &str) -> &str {
        owning_path(path, &self.reviewers)
    }

    /// Whether the OWNERS file of that directory (or the Markdown file of that path) keeps out the owners above it.
    #[must_use]
    pub fn is_no_parent_owners(&self, path: &str) -> bool {
        self.options
            .get(path)
            .is_some_and(|options| options.no_parent_owners)
    }

    #[must_use]
    pub fn is_auto_approve_unowned_subfolders(&self, path: &str) -> bool {
        let options = self.options.get(path);
        options.is_some_and(|options| options.auto_approve_unowned_subfolders)
    }

    /// The approvers at the root (OWN-016).
    #[must_use]
    pub fn top_level_approvers(&self) -> BTreeSet<String> {
        self.leaf_approvers(".")
    }

    /// Everybody who approves anything anywhere.
    #[must_use]
    pub fn all_approvers(&self) -> BTreeSet<String> {
        everybody(&self.approvers)
    }

    #[must_use]
    pub fn all_reviewers(&self) -> BTreeSet<String> {
        everybody(&self.reviewers)
    }

    #[must_use]
    pub fn all_owners(&self) -> BTreeSet<String> {
        &self.all_approvers() | &self.all_reviewers()
    }

    #[must_use]
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// What is wrong with the files; such a file says nothing.
    #[must_use]
    pub fn problems(&self) -> &[OwnersProblem] {
        &self.problems
    }

    /// Only those approvers and reviewers who are among the repository's collaborators (OWN-012).
    #[must_use]
    pub fn with_collaborators<S: AsRef<str>>(&self, collaborators: &[S]) -> Self {
        let allowed: BTreeSet<String> = collaborators
            .iter()
            .map(|login| norm_login(login.as_ref()))
            .collect();
        let filter = |people: &PeopleByPath| {
            let mut people = BTreeMap::clone(people);
            for group in people.values_mut().flatten() {
                group.names.retain(|name| allowed.contains(name));
            }
            Arc::new(people)
        };
        Self {
            approvers: filter(&self.approvers),
            reviewers: filter(&self.reviewers),
            ..self.clone()
        }
    }

    fn entries(&self, path: &str, people: &PeopleByPath, leaf_only: bool) -> LayeredSet {
        let mut found = LayeredSet::default();
        found.insert(0, std::iter::empty::<String>());
        self.walk(path, people, leaf_only, |layer, names| {
            found.insert(layer, names.iter().cloned());
        });
        found
    }

    fn names<'a>(
        &'a self,
        path: &str,
        people: &'a PeopleByPath,
        leaf_only: bool,
    ) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        self.walk(path, people, leaf_only, |_, names| {
            found.extend(names.iter().map(String::as_str));
        });
        found
    }

    /// Walks from the file up to the root (OWN-013, OWN-014).
    fn walk<'a>(
        &'a self,
        path: &str,
        people: &'a PeopleByPath,
        leaf_only: bool,
        mut visit: impl FnMut(usize, &'a BTreeSet<String>),
    ) {
        let own_header = self.md_yaml && path.ends_with(".md");
        let mut place = if own_header { path } else { canonical(path) };
        let mut any = false;
        let mut layer = 0;
        loop {
            for group in people.get(place).into_iter().flatten() {
                if group.are_for(relative(place, path)) {
                    visit(layer, &group.names);
                    any |= !group.names.is_empty();
                }
            }
            if place.is_empty() || (leaf_only && any) || (any && self.is_no_parent_owners(place)) {
                return;
            }
            place = parent(place);
            layer += 1;
        }
    }
}

fn owning_path<'a>(path: &str, people: &'a PeopleByPath) -> &'a str {
    let mut place = path;
    while !place.is_empty() {
        if let Some((known, groups)) = people.get_key_value(place) {
            let relative = relative(place, path);
            let owned = groups
                .iter()
                .any(|group| group.are_for(relative) && !group.names.is_empty());
            if owned {
                return known;
            }
        }
        place = parent(canonical(place));
    }
    ""
}

fn everybody(people: &PeopleByPath) -> BTreeSet<String> {
    let groups = people.values().flatten();
    groups
        .flat_map(|group| group.names.iter().cloned())
        .collect()
}

/// The root is `""`, and no directory ends in a slash.
fn canonical(path: &str) -> &str {
    if path == "." {
        return "";
    }
    path.strip_suffix('/').unwrap_or(path)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// How a file is called seen from one of the directories above it; from itself it is `.`.
fn relative<'a>(place: &str, path: &'a str) -> &'a str {
    if place.is_empty() {
        return path;
    }
    match path
        .strip_prefix(place)
        .map(|rest| rest.trim_start_matches('/'))
    {
        Some("") | None => ".",
        Some(rest) => rest,
    }
}
