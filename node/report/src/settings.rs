//! What the configuration says about reports to GitHub.

use trireme_config::prow::GitHubReporter as Configured;

/// How a repository's pull requests are commented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommentMode {
    /// Statuses only (`github_reporter.no_comment_repos`).
    Off,
    /// Failures as they come.
    PerJob,
    /// One comment when all has ended (`github_reporter.summary_comment_repos`).
    Summary,
}

/// CRI-017
pub(crate) fn comment_mode(configured: &Configured, org: &str, repo: &str) -> CommentMode {
    let full = format!("{org}/{repo}");
    let names = |list: &[String]| list.iter().any(|name| *name == org || *name == full);
    if names(&configured.no_comment_repos) {
        CommentMode::Off
    } else if names(&configured.summary_comment_repos) {
        CommentMode::Summary
    } else {
        CommentMode::PerJob
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cri_017_repositories_choose_how_they_are_commented() {
        let configured = Configured {
            no_comment_repos: vec!["quiet".into(), "o/quiet".into()],
            summary_comment_repos: vec!["o/sum".into(), "quiet/sum".into()],
            ..Configured::default()
        };
        for (org, repo, mode) in [
            ("quiet", "sum", CommentMode::Off),
            ("o", "quiet", CommentMode::Off),
            ("o", "sum", CommentMode::Summary),
            ("o", "r", CommentMode::PerJob),
        ] {
            assert_eq!(comment_mode(&configured, org, repo), mode, "{org}/{repo}");
        }
    }
}
