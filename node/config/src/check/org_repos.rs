//! Sets of repositories as configurations name them: whole orgs without some of their repositories, and single ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::plugins::EnabledRepos;
use crate::tide::{OrgExceptions, TideQuery};

type Names = BTreeSet<String>;

/// The repositories of some orgs but for some, and some more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrgRepos {
    /// By org: its repositories (`org/repo`) that do not belong to the set.
    pub orgs: BTreeMap<String, Names>,
    /// `org/repo`.
    pub repos: Names,
}

/// An org or a repository of a set, as reports name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// `org` or `org/repo`.
    pub(super) key: String,
    /// `org: kubernetes without repo(s) kubernetes/a`, `repo: org/repo`.
    pub(super) text: String,
}

fn org_of(repo: &str) -> Option<&str> {
    repo.split_once('/').map(|(org, _)| org)
}

impl OrgRepos {
    pub(super) fn of_queries<'a>(queries: impl IntoIterator<Item = &'a TideQuery>) -> Self {
        let queries: Vec<TideQuery> = queries.into_iter().cloned().collect();
        let OrgExceptions { orgs, repos } = OrgExceptions::of(&queries);
        Self { orgs, repos }
    }

    pub(super) fn of_plugin(enabled: EnabledRepos) -> Self {
        Self {
            orgs: enabled.orgs,
            repos: enabled.repos.into_iter().collect(),
        }
    }

    pub(super) fn items(&self) -> Vec<Item> {
        let orgs = self.orgs.iter().map(|(org, excepted)| {
            let mut text = format!("org: {org}");
            if !excepted.is_empty() {
                let excepted: Vec<_> = excepted.iter().map(String::as_str).collect();
                text += &format!(" without repo(s) {}", excepted.join(", "));
            }
            Item {
                key: org.clone(),
                text,
            }
        });
        let repos = self.repos.iter().map(|repo| Item {
            key: repo.clone(),
            text: format!("repo: {repo}"),
        });
        orgs.chain(repos).collect()
    }

    /// Whether a repository belongs to an org of the set and is no exception there.
    fn covers_by_org(&self, repo: &str) -> bool {
        org_of(repo)
            .and_then(|org| self.orgs.get(org))
            .is_some_and(|excepted| !excepted.contains(repo))
    }

    fn repos_in<'a>(&'a self, org: &'a str) -> impl Iterator<Item = &'a String> {
        self.repos
            .iter()
            .filter(move |repo| org_of(repo) == Some(org))
    }

    /// What is in this set and not in the other.
    pub(super) fn difference(&self, other: &Self) -> Self {
        let mut left = Self {
            repos: self.repos.clone(),
            ..Self::default()
        };
        for (org, excepted) in &self.orgs {
            match other.orgs.get(org) {
                Some(others) => left.repos.extend(others.difference(excepted).cloned()),
                None => {
                    let mut excepted = excepted.clone();
                    excepted.extend(other.repos_in(org).cloned());
                    left.orgs.insert(org.clone(), excepted);
                }
            }
        }
        left.repos
            .retain(|repo| !other.repos.contains(repo) && !other.covers_by_org(repo));
        left
    }

    /// What is in both sets.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (org, excepted) in &self.orgs {
            match other.orgs.get(org) {
                Some(others) => {
                    both.orgs
                        .insert(org.clone(), excepted.union(others).cloned().collect());
                }
                None => both.repos.extend(
                    other
                        .repos_in(org)
                        .filter(|repo| !excepted.contains(*repo))
                        .cloned(),
                ),
            }
        }
        let shared = |repo: &&String| other.repos.contains(*repo) || other.covers_by_org(repo);
        both.repos.extend(self.repos.iter().filter(shared).cloned());
        both
    }

    /// What is in either set. A repository that stands beside its org is not named again.
    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all = Self::default();
        for (org, excepted) in &self.orgs {
            let mut excepted: Names = excepted.difference(&other.repos).cloned().collect();
            if let Some(others) = other.orgs.get(org) {
                excepted.retain(|repo| others.contains(repo) && !self.repos.contains(repo));
            }
            all.orgs.insert(org.clone(), excepted);
        }
        for (org, excepted) in &other.orgs {
            all.orgs
                .entry(org.clone())
                .or_insert_with(|| excepted.difference(&self.repos).cloned().collect());
        }
        let of_no_org =
            |repo: &&String| org_of(repo).is_some_and(|org| !all.orgs.contains_key(org));
        all.repos = self
            .repos
            .union(&other.repos)
            .filter(of_no_org)
            .cloned()
            .collect();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `org` or `org-repo-repo` for orgs with exceptions, `org/repo` for repositories.
    pub(crate) fn set(text: &str) -> OrgRepos {
        let mut set = OrgRepos::default();
        for word in text.split_whitespace() {
            if word.contains('/') {
                set.repos.insert(word.to_owned());
            } else {
                let mut parts = word.split('-');
                let org = parts.next().unwrap_or_default();
                let excepted = parts.map(|repo| format!("{org}/{repo}")).collect();
                set.orgs.insert(org.to_owned(), excepted);
            }
        }
        set
    }

    /// CFG-115: what mismatched-tide and validate-owners reckon with; the cases are upstream's.
    #[test]
    fn cfg_115_what_is_in_one_set_and_not_in_the_other() {
        for (a, b, left) in [
            ("org-repo 4/1 4/2", "", "org-repo 4/1 4/2"),
            ("org-repo 4/1 4/2", "2 3/1", "org-repo 4/1 4/2"),
            ("org-repo 4/1 4/2", "org-repo 4/1 4/2", ""),
            ("org-repo 4/1 4/2", "org-repo org2 4/1 4/2 5/1", ""),
            ("org-repo-foo 4/1 4/2", "org-foo 2 3/1", "4/1 4/2"),
            ("org-repo 4/1 4/2", "org-repo-foo 2 3/1", "org/foo 4/1 4/2"),
            ("org-repo 4/1 4/2", "2 org/foo 3/1", "org-repo-foo 4/1 4/2"),
            ("org-repo 4/1 4/2 4/3 5/1", "2 4-2 3/1", "org-repo 4/2 5/1"),
            (
                "org-repo 4/1 4/2 4/3 5/1",
                "2 3/1 4/2 4/3",
                "org-repo 4/1 5/1",
            ),
        ] {
            assert_eq!(set(a).difference(&set(b)), set(left), "{a} without {b}");
        }
    }

    #[test]
    fn cfg_115_what_is_in_both_sets() {
        for (a, b, both) in [
            ("org-repo 4/1 4/2", "", ""),
            ("org-repo 4/1 4/2", "org-repo 4/1 4/2", "org-repo 4/1 4/2"),
            (
                "org-repo 4/1 4/2",
                "org-repo org2 4/1 4/2 5/1",
                "org-repo 4/1 4/2",
            ),
            ("org-repo 4/1 4/2", "org2-repo1 4/1 4/2 5/1", "4/1 4/2"),
            (
                "org-repo-bar 4/1 4/2",
                "org-repo-foo 2 3/1",
                "org-repo-foo-bar",
            ),
            (
                "org-repo 4/1 4/2",
                "2 org/repo org/foo 3/1 4/1",
                "org/foo 4/1",
            ),
            ("org-repo 4/1 4/2 4/3 5/1", "2 4-2 3/1", "4/1 4/3"),
            ("org-repo 4/1 4/2 4/3 5/1", "2 3/1 4/2 4/3", "4/2 4/3"),
        ] {
            assert_eq!(set(a).intersection(&set(b)), set(both), "{a} and {b}");
        }
    }

    #[test]
    fn cfg_115_what_is_in_either_set() {
        for (a, b, all) in [
            ("org-repo 4/1 4/2", "", "org-repo 4/1 4/2"),
            ("org-repo 4/1 4/2", "2 3/1", "org-repo 2 4/1 4/2 3/1"),
            ("org-repo 4/1 4/2", "org-repo 4/1 4/2", "org-repo 4/1 4/2"),
            (
                "org-repo 4/1 4/2",
                "org-repo org2 4/1 4/2 5/1",
                "org-repo org2 4/1 4/2 5/1",
            ),
            ("org-repo-bar", "org-repo-foo", "org-repo"),
            ("org-repo", "org/repo", "org"),
            ("4/1 4/2 4/3", "4-2", "4"),
        ] {
            assert_eq!(set(a).union(&set(b)), set(all), "{a} or {b}");
        }
    }

    #[test]
    fn items_read_as_people_say_them() {
        let texts: Vec<_> = set("a b-x-y c/d")
            .items()
            .into_iter()
            .map(|item| item.text)
            .collect();
        assert_eq!(
            texts,
            ["org: a", "org: b without repo(s) b/x, b/y", "repo: c/d"]
        );
    }
}
