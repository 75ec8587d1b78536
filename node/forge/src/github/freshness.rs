//! What a path says about its answer: whether it can change at all, whether an old one does harm, what a change of ours
//! makes old, and how the path is called in metrics.

use std::time::Duration;

use http::Method;

use super::call::Call;

/// For how long an answer that cannot change is given without asking: whoever loses the right to read it keeps it no
/// longer.
pub(super) const UNCHANGED_FOR: Duration = Duration::from_secs(3600);

/// For how long an old answer stands in while GitHub is broken.
pub(super) const STALE_FOR: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Named by its content: asked for once.
    Unchanging,
    /// Describes something; nobody is let in and nothing is merged because of it. An old one is better than none.
    Slow,
    /// Somebody decides by it: always asked for anew, and an error is better than an old answer.
    Live,
}

/// A whole commit id, SHA-1 or SHA-256.
fn is_sha(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Freshness {
    pub(super) fn of(path: &str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["repos", _, _, "commits", sha] if is_sha(sha) => Self::Unchanging,
            ["repos", _, _, "git", "commits" | "trees" | "blobs", sha] if is_sha(sha) => {
                Self::Unchanging
            }
            ["repos", _, _, "contents", ..] => {
                let at = query.split('&').find_map(|part| part.strip_prefix("ref="));
                match at {
                    Some(at) if is_sha(at) => Self::Unchanging,
                    _ => Self::Live,
                }
            }
            ["user" | "app"] | ["repos", _, _] | ["repos", _, _, "labels" | "milestones"] => {
                Self::Slow
            }
            ["orgs", _, "repos"] => Self::Slow,
            _ => Self::Live,
        }
    }
}

/// What a change makes old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outdated {
    /// With a slash at its end: `/repos/org/repo/`, in lower case.
    root: String,
    /// Only what is told of this issue or pull request, and lists.
    number: Option<u64>,
    /// Only what is told of commits.
    commits: bool,
}

impl Outdated {
    pub(super) fn repo(org: &str, repo: &str, number: Option<u64>) -> Self {
        Self {
            root: format!("/repos/{org}/{repo}/").to_lowercase(),
            number,
            commits: false,
        }
    }

    /// What this call makes old, if it changes anything.
    pub(super) fn by(call: &Call<'_>) -> Option<Self> {
        if !call.changes() || call.method == Method::GET || call.graphql {
            return None;
        }
        let path = call.path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let number = |text: &str| text.parse().ok();
        match parts[..] {
            // A merge moves a branch.
            ["repos", org, repo, "pulls", _, "merge"] => Some(Self::repo(org, repo, None)),
            ["repos", org, repo, "issues" | "pulls", n, ..] => {
                Some(Self::repo(org, repo, number(n)))
            }
            ["repos", org, repo, "statuses" | "check-runs", ..] => Some(Self {
                commits: true,
                ..Self::repo(org, repo, None)
            }),
            ["repos", org, repo, ..] => Some(Self::repo(org, repo, None)),
            ["orgs", org, ..] => Some(Self {
                root: format!("/orgs/{org}/").to_lowercase(),
                number: None,
                commits: false,
            }),
            _ => None,
        }
    }

    /// All paths that are outdated begin so.
    pub(super) fn root(&self) -> &str {
        // Without the slash: the repository itself is one.
        self.root.trim_end_matches('/')
    }

    pub(super) fn covers(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(self.root()) else {
            return false;
        };
        if Freshness::of(path) == Freshness::Unchanging {
            return false;
        }
        let Some(below) = rest.strip_prefix('/') else {
            return (rest.is_empty() || rest.starts_with('?')) && self.number.is_none();
        };
        if self.commits {
            return below.starts_with("commits/");
        }
        let Some(number) = self.number else {
            return true;
        };
        let below = below.split('?').next().unwrap_or_default();
        let mut parts = below.split('/');
        match (parts.next(), parts.next()) {
            (Some("issues" | "pulls"), None) => true,
            (Some("issues" | "pulls"), Some(n)) => n.parse() == Ok(number),
            _ => false,
        }
    }
}

/// As it is told to caches: GitHub does not tell upper from lower case in names of orgs and repositories.
pub(super) fn normal(path: &str) -> String {
    let mut parts = path.splitn(5, '/');
    let (empty, kind) = (parts.next(), parts.next());
    match (empty, kind, parts.next(), parts.next(), parts.next()) {
        (Some(""), Some("repos"), Some(org), Some(repo), rest) => {
            // A repository's own query, if it has one, stands behind its name.
            let (repo, query) = repo.split_at(repo.find('?').unwrap_or(repo.len()));
            let rest = rest.map(|rest| format!("/{rest}")).unwrap_or_default();
            let (org, repo) = (org.to_lowercase(), repo.to_lowercase());
            format!("/repos/{org}/{repo}{query}{rest}")
        }
        (Some(""), Some("orgs"), Some(org), ..) => {
            let rest = path.get("/orgs/".len() + org.len()..).unwrap_or_default();
            format!("/orgs/{}{rest}", org.to_lowercase())
        }
        _ => path.to_owned(),
    }
}

/// The words of GitHub's paths. All else is somebody's name for something, and there are too many of those.
const WORDS: &str = " access_tokens actions app apps approve assignees attempts branches check-runs check-suites collaborators comments \
    commits compare config contents deliveries dispatches events files forks generate git graphql heads hook hooks import \
    installation installations invitations issues keys labels languages license lock maintainers members memberships merge merges \
    milestones orgs outside_collaborators permission permissions pulls reactions readme ref refs releases replies repos \
    repositories requested_reviewers rerequest rerun rerun-failed-jobs reviews runs search status statuses subscription tags team \
    teams timeline topics transfer trees update-branch user users workflows ";

/// `/repos/:owner/:repo/issues/:var/labels` for `/repos/o/r/issues/1/labels?x`: few enough for a label of a metric.
pub(super) fn simple(path: &str) -> String {
    /// No path of GitHub's is deeper, but for files.
    const DEEPEST: usize = 8;
    let path = path.split(['?', ' ']).next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let mut simple = String::new();
    let mut before = "";
    for (n, part) in parts.iter().take(DEEPEST).enumerate() {
        let word = match (parts.first(), n) {
            (Some(&"repos"), 1) | (Some(&"orgs"), 1) => ":owner",
            (Some(&"repos"), 2) => ":repo",
            _ if before == "contents" || before == "labels" && n > 4 => ":var",
            _ if WORDS.contains(&format!(" {part} ")) => part,
            _ => ":var",
        };
        simple.push('/');
        simple.push_str(word);
        if before == "contents" {
            break;
        }
        before = part;
    }
    simple
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::github::call::Effect;
    use crate::github::credentials::Behalf;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn ghc_049_only_what_cannot_change_is_kept_and_only_what_does_no_harm_is_told_late() {
        let of = |path: &str| Freshness::of(&path.replace("SHA", SHA));
        for unchanging in [
            "/repos/o/r/commits/SHA",
            "/repos/o/r/git/trees/SHA?recursive=1",
            "/repos/o/r/contents/a/b?ref=SHA",
        ] {
            assert_eq!(of(unchanging), Freshness::Unchanging, "{unchanging}");
        }
        for slow in ["/repos/o/r", "/repos/o/r/labels?per_page=100", "/user"] {
            assert_eq!(of(slow), Freshness::Slow, "{slow}");
        }
        for live in [
            "/repos/o/r/commits/main",
            "/repos/o/r/commits/SHA/status",
            "/repos/o/r/contents/OWNERS",
            "/repos/o/r/contents/OWNERS?ref=main",
            "/repos/o/r/pulls/1",
            "/repos/o/r/issues/1/labels",
            "/orgs/o/members/x",
            "/repos/o/r/collaborators/x/permission",
        ] {
            assert_eq!(of(live), Freshness::Live, "{live}");
        }
    }

    #[test]
    fn ghc_050_a_change_makes_old_what_it_is_about_and_the_lists_that_it_stands_in() {
        let change = |path: &str| {
            let body = json!({});
            let call = Call::change(
                Method::POST,
                path.to_owned(),
                Behalf::Org("o"),
                Effect::Once,
                Some(&body),
            );
            Outdated::by(&call).unwrap()
        };
        let labelled = change("/repos/O/r/issues/7/labels");
        for old in [
            "/issues/7",
            "/issues/7/labels?x=1",
            "/pulls/7/files",
            "/pulls?state=open",
        ] {
            assert!(labelled.covers(&format!("/repos/o/r{old}")), "{old}");
        }
        for current in ["", "/issues/70", "/labels", "/commits/main/status"] {
            assert!(
                !labelled.covers(&format!("/repos/o/r{current}")),
                "{current}"
            );
        }
        assert!(!labelled.covers("/repos/o/r2/issues/7"));

        let merged = change("/repos/o/r/pulls/7/merge");
        assert!(merged.covers("/repos/o/r") && merged.covers("/repos/o/r/git/ref/heads/main"));
        assert!(!merged.covers(&format!("/repos/o/r/commits/{SHA}")));
        assert!(!merged.covers("/repos/o/r2"));

        let told = change(&format!("/repos/o/r/statuses/{SHA}"));
        assert!(told.covers(&format!("/repos/o/r/commits/{SHA}/status")));
        assert!(!told.covers("/repos/o/r/issues/7"));
        assert_eq!(
            Outdated::by(&Call::read("/repos/o/r".into(), Behalf::Ourselves)),
            None
        );
    }

    #[test]
    fn names_are_the_same_in_any_case_and_few_in_metrics() {
        assert_eq!(normal("/repos/Org/Repo?a=B"), "/repos/org/repo?a=B");
        assert_eq!(
            normal("/repos/Org/Repo/contents/A/B"),
            "/repos/org/repo/contents/A/B"
        );
        assert_eq!(normal("/orgs/Org/members/Eve"), "/orgs/org/members/Eve");
        assert_eq!(normal("/user"), "/user");
        assert_eq!(
            simple("/repos/o/r/issues/1/labels/do-not-merge?x"),
            "/repos/:owner/:repo/issues/:var/labels/:var"
        );
        assert_eq!(
            simple("/repos/o/r/contents/a/labels/c"),
            "/repos/:owner/:repo/contents/:var"
        );
        assert_eq!(simple("/graphql (search pull requests)"), "/graphql");
    }
}
