//! Who is asked to review: picked from the OWNERS files of what is changed (PLG-BLUNDERBUSS-004 … 007).

use std::collections::{BTreeMap, BTreeSet};

use trireme_forge::norm_login;
use trireme_forge::owners::{LayeredSet, RepoOwners};

use super::Settings;

/// Whose availability has to be known before somebody can be picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

/// Picks from sets of people.
pub(super) struct Picker<'a> {
    /// One of so many, counted from 0.
    pub(super) choose: &'a mut dyn FnMut(usize) -> usize,
    /// Who is known to be busy, and who not to be; `None`: nobody asks.
    pub(super) busy: Option<&'a BTreeMap<String, bool>>,
    /// Enough were asked.
    pub(super) unknown_are_available: bool,
}

impl Picker<'_> {
    /// Takes people out of the set until one is available.
    fn pick(&mut self, from: &mut LayeredSet) -> Result<Option<String>, Unknown> {
        while let Some(login) = from.pop(&mut *self.choose) {
            match self.busy.map(|busy| busy.get(&login)) {
                Some(Some(true)) => {}
                Some(None) if !self.unknown_are_available => return Err(Unknown(login)),
                Some(_) | None => return Ok(Some(login)),
            }
        }
        Ok(None)
    }
}

/// As whom people are picked.
#[derive(Clone, Copy)]
enum As {
    Reviewers,
    Approvers,
}

impl As {
    /// Where the file's owners stand.
    fn place<'o>(self, owners: &'o RepoOwners, path: &'o str) -> &'o str {
        match self {
            Self::Reviewers => owners.find_reviewer_owners_for_file(path),
            Self::Approvers => owners.find_approver_owners_for_file(path),
        }
    }

    fn leaves(self, owners: &RepoOwners, path: &str) -> BTreeSet<String> {
        match self {
            Self::Reviewers => owners.leaf_reviewers(path),
            Self::Approvers => owners.leaf_approvers(path),
        }
    }

    fn all(self, owners: &RepoOwners, path: &str) -> LayeredSet {
        match self {
            Self::Reviewers => owners.reviewers(path),
            Self::Approvers => owners.approvers(path),
        }
    }
}

/// The logins to ask; empty if there is nobody.
pub(super) fn reviewers(
    owners: &RepoOwners,
    settings: &Settings,
    author: &str,
    files: &[String],
    picker: &mut Picker<'_>,
) -> Result<Vec<String>, Unknown> {
    let author = norm_login(author);
    let wanted = settings.request_count();
    let mut picked = some(owners, As::Reviewers, &author, files, wanted, picker)?;
    if picked.len() < wanted && !settings.exclude_approvers {
        let approvers = some(owners, As::Approvers, &author, files, wanted, picker)?;
        for approver in approvers {
            if picked.len() < wanted && !picked.contains(&approver) {
                picked.push(approver);
            }
        }
    }
    if let Some(most) = settings.max_request_count() {
        picked.truncate(most);
    }
    for login in required(owners, files) {
        // The forge lets nobody review their own changes.
        if !picked.contains(&login) && login != author {
            picked.push(login);
        }
    }
    Ok(picked)
}

/// Whoever has to review, once for each place where reviewers stand.
fn required(owners: &RepoOwners, files: &[String]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let first = files
        .iter()
        .filter(|path| seen.insert(owners.find_reviewer_owners_for_file(path)));
    first
        .flat_map(|path| owners.required_reviewers(path))
        .collect()
}

/// One closest owner for each place, more if there are more places; then others of them, then anybody who owns a file, up
/// to `wanted`. Ordered by how they were found, then by name.
fn some(
    owners: &RepoOwners,
    role: As,
    author: &str,
    files: &[String],
    wanted: usize,
    picker: &mut Picker<'_>,
) -> Result<Vec<String>, Unknown> {
    let author = BTreeSet::from([author.to_owned()]);
    let mut picked = LayeredSet::default();
    let mut leaves = LayeredSet::default();
    let mut seen = BTreeSet::new();
    for path in files {
        if !seen.insert(role.place(owners, path)) {
            continue;
        }
        let mut unused = LayeredSet::default();
        unused.insert(0, role.leaves(owners, path));
        let mut unused = unused.difference(&picked.to_set()).difference(&author);
        leaves = leaves.union(&unused);
        if let Some(login) = picker.pick(&mut unused)? {
            picked.insert(0, [login]);
        }
    }
    let mut unused = leaves.difference(&picked.to_set());
    while picked.len() < wanted {
        match picker.pick(&mut unused)? {
            Some(login) => picked.insert(1, [login]),
            None => break,
        }
    }
    for path in files {
        if picked.len() >= wanted {
            break;
        }
        let mut all = role.all(owners, path).difference(&author);
        while picked.len() < wanted {
            match picker.pick(&mut all)? {
                Some(login) => picked.insert(2, [login]),
                None => break,
            }
        }
    }
    Ok(picked.iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::owners;

    fn tree() -> RepoOwners {
        owners(&[
            ("OWNERS", "approvers: [top, Boss]\nreviewers: [root]\n"),
            (
                "a/OWNERS",
                "approvers: [lead]\nreviewers: [alice, bob, carl]\nrequired_reviewers: [must]\n",
            ),
            ("b/OWNERS", "reviewers: [bob]\n"),
            (
                "c/OWNERS",
                "options: {no_parent_owners: true}\nreviewers: [solo]\napprovers: [solo]\n",
            ),
        ])
    }

    fn settings(count: i64) -> Settings {
        Settings {
            request_count: Some(count),
            ..Settings::default()
        }
    }

    fn picked(settings: &Settings, author: &str, files: &[&str]) -> String {
        let files: Vec<String> = files.iter().map(|path| (*path).to_owned()).collect();
        let mut picker = Picker {
            choose: &mut |_| 0,
            busy: None,
            unknown_are_available: false,
        };
        let picked = reviewers(&tree(), settings, author, &files, &mut picker);
        picked.unwrap().join(" ")
    }

    #[test]
    fn plg_blunderbuss_004_closest_reviewers_first() {
        let count = |count, author, files: &[&str]| picked(&settings(count), author, files);
        // One of a/, then another one of a/.
        assert_eq!(count(1, "x", &["a/1", "a/2"]), "alice must");
        assert_eq!(count(2, "x", &["a/1"]), "alice bob must");
        assert_eq!(count(2, "ALICE", &["a/1"]), "bob carl must");
        // One for each place, even if that is more than asked for; a place of its own for c/.
        assert_eq!(count(1, "x", &["b/1", "a/1", "c/1"]), "alice bob solo must");
        // bob is the only one of b/: then whoever reviews above.
        assert_eq!(count(2, "x", &["b/1"]), "bob root");
        assert_eq!(count(2, "bob", &["b/1", "a/1"]), "alice carl must");
    }

    #[test]
    fn plg_blunderbuss_005_approvers_fill_up_and_required_reviewers_come_on_top() {
        let two = settings(2);
        assert_eq!(picked(&two, "x", &["c/1"]), "solo");
        assert_eq!(picked(&settings(3), "x", &["b/1"]), "bob root boss");
        let strict = Settings {
            exclude_approvers: true,
            ..settings(3)
        };
        assert_eq!(picked(&strict, "x", &["b/1"]), "bob root");
        let cut = Settings {
            max_request_count: 1,
            ..two
        };
        assert_eq!(picked(&cut, "x", &["b/1", "a/1", "c/1"]), "alice must");
        assert_eq!(picked(&settings(1), "must", &["a/1"]), "alice");
        assert_eq!(picked(&settings(2), "solo", &["c/1"]), "");
    }

    #[test]
    fn plg_blunderbuss_007_no_more_approvers_than_are_missing() {
        // Upstream would add both approvers of the root.
        assert_eq!(picked(&settings(3), "x", &["b/1"]), "bob root boss");
    }

    #[test]
    fn plg_blunderbuss_006_who_is_busy_is_passed_over() {
        let files = ["a/1".to_owned()];
        let mut busy: BTreeMap<String, bool> = BTreeMap::new();
        let mut asked = Vec::new();
        let picked = loop {
            let mut picker = Picker {
                choose: &mut |_| 0,
                busy: Some(&busy),
                unknown_are_available: false,
            };
            match reviewers(&tree(), &settings(2), "x", &files, &mut picker) {
                Ok(picked) => break picked,
                Err(Unknown(login)) => {
                    busy.insert(login.clone(), login == "alice");
                    asked.push(login);
                }
            }
        };
        assert_eq!(picked.join(" "), "bob carl must");
        assert_eq!(asked, ["alice", "bob", "carl"]);
    }
}
