//! Issues that hold up all merges of a repository or of some of its branches (section 10 of the checklist).

use std::sync::LazyLock;

use regex::Regex;
use trireme_forge::search::SearchedIssue;

// Go's word characters and boundaries are ASCII.
static BRANCH: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)(?-u:\b)branch:[^0-9A-Za-z_-]*([0-9A-Za-z_./-]+)(?-u:\b)")
        .expect("a constant pattern")
});

/// An open issue with the blocker label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    pub org: String,
    pub repo: String,
    pub number: u64,
    /// Without its branch tokens.
    pub title: String,
    pub url: String,
    /// Empty = all branches.
    pub branches: Vec<String>,
}

impl From<&SearchedIssue> for Blocker {
    fn from(issue: &SearchedIssue) -> Self {
        Self {
            org: issue.repo.org.clone(),
            repo: issue.repo.repo.clone(),
            number: issue.number,
            title: without_branches(&issue.title),
            url: issue.url.clone(),
            branches: branches(&issue.title),
        }
    }
}

/// Those that hold up this branch, by number.
#[must_use]
pub fn applicable<'a>(
    blockers: &'a [Blocker],
    org: &str,
    repo: &str,
    branch: &str,
) -> Vec<&'a Blocker> {
    let mut found: Vec<&Blocker> = blockers
        .iter()
        .filter(|blocker| blocker.org == org && blocker.repo == repo)
        .filter(|blocker| {
            blocker.branches.is_empty() || blocker.branches.iter().any(|b| b == branch)
        })
        .collect();
    found.sort_by_key(|blocker| blocker.number);
    found
}

/// `branch:x` tokens of a title, quoted or not, in any case (TIDE-101).
fn branches(title: &str) -> Vec<String> {
    BRANCH
        .captures_iter(title)
        .filter_map(|found| found.get(1))
        .map(|branch| branch.as_str().to_owned())
        .collect()
}

fn without_branches(title: &str) -> String {
    BRANCH.replace_all(title, "").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tide_101_branch_tokens_limit_a_blocker() {
        for (title, expected) in [
            ("BLOCK BRANCH!", &[][..]),
            (
                r#"blocking branch:"release-1.11" and Branch: 'foo/bar', branch:x_y."#,
                &["release-1.11", "foo/bar", "x_y"],
            ),
            ("branch:\"a\"\nBRANCH:b", &["a", "b"]),
            ("subbranch:no", &[]),
        ] {
            assert_eq!(branches(title), expected, "{title}");
        }
        assert_eq!(
            without_branches("tree closed branch:main now"),
            "tree closed  now"
        );
    }

    #[test]
    fn tide_101_a_blocker_without_branches_holds_up_the_repository() {
        let blocker = |number, branches: &[&str]| Blocker {
            org: "o".into(),
            repo: "r".into(),
            number,
            title: String::new(),
            url: String::new(),
            branches: branches.iter().map(|&b| b.to_owned()).collect(),
        };
        let all = [
            blocker(12, &[]),
            blocker(3, &["main"]),
            blocker(5, &["other"]),
        ];
        let numbers: Vec<u64> = applicable(&all, "o", "r", "main")
            .iter()
            .map(|b| b.number)
            .collect();
        assert_eq!(numbers, [3, 12]);
        assert!(applicable(&all, "o", "x", "main").is_empty());
    }
}
