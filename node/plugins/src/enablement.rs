//! Which orgs and repositories webhooks are handled for at all (HOOK-013): Prow's `--github-enabled-org` and the like.

use std::collections::BTreeSet;

/// All, unless told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enablement {
    enabled_orgs: BTreeSet<String>,
    enabled_repos: BTreeSet<String>,
    disabled_orgs: BTreeSet<String>,
    disabled_repos: BTreeSet<String>,
}

/// What contradicts itself or names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnablementError {
    #[error("{list}: {name:?} is not in org/repo format")]
    NoRepo { list: &'static str, name: String },
    #[error("{list}: {name:?} names no org")]
    NoOrg { list: &'static str, name: String },
    #[error("{name:?} is in both {enabled} and {disabled}: leave it in one of them")]
    Both {
        name: String,
        enabled: &'static str,
        disabled: &'static str,
    },
}

impl Enablement {
    /// Orgs by name, repositories as `org/repo`. If any are enabled, only these are; disabled ones never are.
    ///
    /// # Errors
    /// [`EnablementError`], as Prow refuses to start.
    pub fn new(
        enabled_orgs: &[String],
        enabled_repos: &[String],
        disabled_orgs: &[String],
        disabled_repos: &[String],
    ) -> Result<Self, EnablementError> {
        let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
        let all = Self {
            enabled_orgs: set(enabled_orgs),
            enabled_repos: set(enabled_repos),
            disabled_orgs: set(disabled_orgs),
            disabled_repos: set(disabled_repos),
        };
        for (list, orgs) in [
            ("enabled_orgs", &all.enabled_orgs),
            ("disabled_orgs", &all.disabled_orgs),
        ] {
            if let Some(name) = orgs.iter().find(|org| org.is_empty() || org.contains('/')) {
                let name = name.clone();
                return Err(EnablementError::NoOrg { list, name });
            }
        }
        let is_repo = |name: &str| {
            let parts: Vec<&str> = name.split('/').collect();
            parts.len() == 2 && parts.iter().all(|part| !part.is_empty())
        };
        for (list, repos) in [
            ("enabled_repos", &all.enabled_repos),
            ("disabled_repos", &all.disabled_repos),
        ] {
            if let Some(name) = repos.iter().find(|name| !is_repo(name)) {
                let name = name.clone();
                return Err(EnablementError::NoRepo { list, name });
            }
        }
        let pairs = [
            (
                "enabled_orgs",
                &all.enabled_orgs,
                "disabled_orgs",
                &all.disabled_orgs,
            ),
            (
                "enabled_repos",
                &all.enabled_repos,
                "disabled_repos",
                &all.disabled_repos,
            ),
        ];
        for (enabled, these, disabled, those) in pairs {
            if let Some(name) = these.intersection(those).next() {
                return Err(EnablementError::Both {
                    name: name.clone(),
                    enabled,
                    disabled,
                });
            }
        }
        Ok(all)
    }

    /// Whether events of the repository, or of the org if `repo` is empty, are handled.
    #[must_use]
    pub fn allows(&self, org: &str, repo: &str) -> bool {
        let full = format!("{org}/{repo}");
        let is_limited = !self.enabled_orgs.is_empty() || !self.enabled_repos.is_empty();
        let is_enabled = self.enabled_orgs.contains(org) || self.enabled_repos.contains(&full);
        let is_disabled = self.disabled_orgs.contains(org) || self.disabled_repos.contains(&full);
        (!is_limited || is_enabled) && !is_disabled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(lists: [&[&str]; 4]) -> Result<Enablement, EnablementError> {
        let [eo, er, d_o, dr] = lists.map(|list| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        });
        Enablement::new(&eo, &er, &d_o, &dr)
    }

    /// HOOK-013
    #[test]
    fn hook_013_only_what_is_enabled_and_never_what_is_disabled() {
        let all = Enablement::default();
        assert!(all.allows("a", "x") && all.allows("a", "") && all.allows("", ""));
        let only = new([&["a"], &["b/x"], &[], &["a/z"]]).unwrap();
        for (org, repo, allowed) in [
            ("a", "x", true),
            ("a", "z", false),
            ("a", "", true),
            ("b", "x", true),
            ("b", "y", false),
            ("b", "", false),
            ("c", "x", false),
        ] {
            assert_eq!(only.allows(org, repo), allowed, "{org}/{repo}");
        }
        let without = new([&[], &[], &["a"], &["b/x"]]).unwrap();
        assert!(!without.allows("a", "x") && !without.allows("b", "x") && without.allows("b", "y"));
    }

    /// HOOK-013: what Prow refuses to start with.
    #[test]
    fn hook_013_what_contradicts_itself_is_refused() {
        let told = |lists| new(lists).unwrap_err().to_string();
        insta::assert_snapshot!(told([&[], &["a"], &[], &[]]), @r#"enabled_repos: "a" is not in org/repo format"#);
        insta::assert_snapshot!(told([&[], &[], &[], &["a/b/c"]]), @r#"disabled_repos: "a/b/c" is not in org/repo format"#);
        insta::assert_snapshot!(told([&["a/b"], &[], &[], &[]]), @r#"enabled_orgs: "a/b" names no org"#);
        insta::assert_snapshot!(told([&["a", "b"], &[], &["b"], &[]]), @r#""b" is in both enabled_orgs and disabled_orgs: leave it in one of them"#);
        insta::assert_snapshot!(told([&[], &["a/x"], &[], &["a/x"]]), @r#""a/x" is in both enabled_repos and disabled_repos: leave it in one of them"#);
    }
}
