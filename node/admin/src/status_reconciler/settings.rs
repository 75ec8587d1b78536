//! What a node's settings say.

use trireme_forge::RepoId;

/// How the controller is to behave; Prow's flags of these names (ADM-102).
#[derive(Debug, Clone)]
pub struct Options {
    /// Say what would be done instead of doing it.
    pub dry_run: bool,
    /// Try the rest of a repository's pull requests where one fails (ADM-097).
    pub continue_on_error: bool,
    /// Organisations and repositories where nothing is started (ADM-096).
    pub denylist: Vec<String>,
    /// Organisations and repositories that are left alone.
    pub denylist_all: Vec<String>,
}

impl Default for Options {
    /// ADM-001
    fn default() -> Self {
        Self {
            dry_run: true,
            continue_on_error: false,
            denylist: Vec::new(),
            denylist_all: Vec::new(),
        }
    }
}

impl Options {
    pub(super) fn may_start(&self, repo: &RepoId) -> bool {
        !names(&self.denylist, repo)
    }

    pub(super) fn leaves_alone(&self, repo: &RepoId) -> bool {
        names(&self.denylist_all, repo)
    }
}

/// ADM-004: whatever the case.
fn names(list: &[String], repo: &RepoId) -> bool {
    let full = repo.to_string();
    list.iter()
        .any(|name| name.eq_ignore_ascii_case(&repo.org) || name.eq_ignore_ascii_case(&full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adm_096_lists_name_organisations_and_repositories() {
        let options = Options {
            denylist: vec!["quiet".to_owned()],
            denylist_all: vec!["Org/Repo".to_owned()],
            ..Options::default()
        };
        let repo = RepoId::new;
        assert!(!options.may_start(&repo("quiet", "any")));
        assert!(!options.leaves_alone(&repo("quiet", "any")));
        assert!(options.leaves_alone(&repo("org", "repo")));
        assert!(!options.leaves_alone(&repo("org", "other")));
        assert!(options.may_start(&repo("org", "repo")));
        assert!(options.dry_run, "ADM-001");
    }
}
