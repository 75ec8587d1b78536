//! Which OWNERS paths must approve a change, which still have to, and who could be asked (PLG-APPROVE-009 … 011, 021).

use std::collections::{BTreeMap, BTreeSet};

use trireme_forge::owners::{Draw, RepoOwners};

pub(crate) type Logins = BTreeSet<String>;
type ByPath = BTreeMap<String, Logins>;
/// Login to the OWNERS paths it may approve.
type ByLogin = BTreeMap<String, BTreeSet<String>>;

/// The files of a change against the OWNERS files.
#[derive(Debug, Clone)]
pub(crate) struct Coverage {
    files: Vec<File>,
    /// The OWNERS paths that must approve, without those an ancestor stands in for.
    needed: BTreeSet<String>,
    approvers: ByPath,
    leaf_approvers: ByPath,
}

#[derive(Debug, Clone)]
struct File {
    owners: String,
    approvers: Logins,
}

impl Coverage {
    pub(crate) fn new(paths: &[String], repo: &RepoOwners) -> Self {
        let mut files = Vec::with_capacity(paths.len());
        let mut needed = BTreeSet::new();
        let mut approvers = ByPath::new();
        let mut leaf_approvers = ByPath::new();
        for path in paths {
            let owners = repo.find_approver_owners_for_file(path).to_owned();
            let all = repo.approvers(path).to_set();
            approvers
                .entry(owners.clone())
                .or_default()
                .extend(all.iter().cloned());
            leaf_approvers
                .entry(owners.clone())
                .or_default()
                .extend(repo.leaf_approvers(path));
            let free =
                in_subfolder(path, &owners) && repo.is_auto_approve_unowned_subfolders(&owners);
            if !free {
                needed.insert(owners.clone());
            }
            files.push(File {
                owners,
                approvers: all,
            });
        }
        drop_covered_by_ancestors(&mut needed, repo);
        approvers.retain(|path, _| needed.contains(path));
        leaf_approvers.retain(|path, _| needed.contains(path));
        Self {
            files,
            needed,
            approvers,
            leaf_approvers,
        }
    }

    pub(crate) fn needed(&self) -> &BTreeSet<String> {
        &self.needed
    }

    /// Who may approve a needed path.
    pub(crate) fn approvers_of(&self, path: &str) -> Option<&Logins> {
        self.approvers.get(path)
    }

    /// The needed paths that `approvals` (lower case) leave open.
    pub(crate) fn unapproved(&self, approvals: &Logins) -> BTreeSet<&str> {
        self.files
            .iter()
            .filter(|file| self.needed.contains(&file.owners))
            .filter(|file| file.approvers.is_disjoint(approvals))
            .map(|file| file.owners.as_str())
            .collect()
    }

    /// A change without files is never approved.
    pub(crate) fn approved_by(&self, approvals: &Logins) -> bool {
        !self.files.is_empty() && self.unapproved(approvals).is_empty()
    }

    /// Whether the login may approve any needed path.
    pub(crate) fn may_approve_something(&self, login: &str) -> bool {
        self.approvers.values().any(|logins| logins.contains(login))
    }

    /// The nearest approvers of every needed path, one entry per path and person: what suggestions are drawn from.
    pub(crate) fn candidates(&self) -> Vec<String> {
        let mut candidates: Vec<String> = self
            .leaf_approvers
            .values()
            .flat_map(|logins| logins.iter().cloned())
            .collect();
        candidates.sort();
        candidates
    }

    /// Whom to ask, given who approved and who is assigned. `order` is how [`Self::candidates`] are weighed: the
    /// first of equals wins.
    pub(crate) fn suggestions(
        &self,
        approved: &Logins,
        assigned: &Logins,
        order: &[String],
    ) -> Logins {
        let known: Logins = approved.union(assigned).cloned().collect();
        let suggested = self.keep_useful(&by_login(&self.leaf_approvers), &known, order);
        // Assignees who could close what the suggested leave open; here people of parent directories count too.
        let known: Logins = approved.union(&suggested).cloned().collect();
        let everyone: Vec<String> = known.union(assigned).cloned().collect();
        let assignees = self.keep_useful(&by_login(&self.approvers), &known, &everyone);
        suggested.union(&assignees).cloned().collect()
    }

    /// A set of people that covers the change, without those who add nothing to `known`.
    fn keep_useful(&self, by_login: &ByLogin, known: &Logins, order: &[String]) -> Logins {
        let open = self.unapproved(known);
        self.covering_set(by_login, order)
            .into_iter()
            .filter(|login| covered(by_login, login, &open) > 0)
            .collect()
    }

    /// Greedily: whoever covers most of what is open, until nothing is or nobody helps.
    fn covering_set(&self, by_login: &ByLogin, order: &[String]) -> Logins {
        let mut chosen = Logins::new();
        while !self.approved_by(&chosen) {
            let open = self.unapproved(&chosen);
            let mut best: Option<&String> = None;
            let mut most = 0;
            for login in order {
                if covered(by_login, login, &open) > most && !chosen.contains(login) {
                    // All paths of that person, not only the open ones: as Prow weighs it.
                    most = by_login.get(login).map_or(0, BTreeSet::len);
                    best = Some(login);
                }
            }
            match best {
                Some(login) => chosen.insert(login.clone()),
                None => break,
            };
        }
        chosen
    }
}

fn by_login(by_path: &ByPath) -> ByLogin {
    let mut reversed = ByLogin::new();
    for (path, logins) in by_path {
        for login in logins {
            reversed
                .entry(login.clone())
                .or_default()
                .insert(path.clone());
        }
    }
    reversed
}

fn covered(by_login: &ByLogin, login: &str, open: &BTreeSet<&str>) -> usize {
    by_login.get(login).map_or(0, |paths| {
        paths
            .iter()
            .filter(|path| open.contains(path.as_str()))
            .count()
    })
}

/// Whether the file lies at least one directory below `owners` (PLG-APPROVE-011, PLG-APPROVE-024).
fn in_subfolder(file: &str, owners: &str) -> bool {
    let below = if owners.is_empty() {
        Some(file)
    } else {
        file.strip_prefix(owners)
            .and_then(|rest| rest.strip_prefix('/'))
    };
    below.is_some_and(|below| below.contains('/'))
}

/// Leaves out a path if one above it is there too, unless it or one between has `no_parent_owners`.
fn drop_covered_by_ancestors(paths: &mut BTreeSet<String>, repo: &RepoOwners) {
    for path in paths.clone() {
        let mut at = path.as_str();
        while !at.is_empty() && !repo.is_no_parent_owners(at) {
            at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
            if paths.contains(at) {
                paths.remove(&path);
                break;
            }
        }
    }
}

/// The candidates in an order that is the same every time for one pull request and differs between them, so that not
/// always the same people are asked (PLG-APPROVE-022).
pub(crate) fn shuffled(mut candidates: Vec<String>, seed: u64) -> Vec<String> {
    let mut draw = Draw::seeded(seed);
    for last in (1..candidates.len()).rev() {
        candidates.swap(last, draw.below(last + 1));
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plg_approve_011_only_subfolders_are_freed() {
        assert!(in_subfolder("a/b/c.go", "a"));
        assert!(!in_subfolder("a/c.go", "a"));
        assert!(!in_subfolder("ab/b/c.go", "a"));
        // Upstream frees these two: it looks for the path anywhere in the grandparent's.
        assert!(!in_subfolder("c.go", ""));
        assert!(!in_subfolder("x/a/b/c.go", "a"));
        assert!(in_subfolder("b/c.go", ""));
    }

    #[test]
    fn plg_approve_022_the_order_is_stable_for_a_pull_request() {
        let people: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        assert_eq!(shuffled(people.clone(), 7), shuffled(people.clone(), 7));
        assert_ne!(shuffled(people.clone(), 7), shuffled(people.clone(), 8));
        let mut sorted = shuffled(people.clone(), 9);
        sorted.sort();
        assert_eq!(sorted, people);
        assert_eq!(shuffled(vec![], 1), Vec::<String>::new());
        // Pinned: a new version must not repost the notification of every open pull request.
        assert_eq!(shuffled(people, 1).join(""), "cbeda");
    }
}
