//! Warnings about the components' sections: branch protection that nobody manages, webhooks, URLs.

use super::sources::Sources;
use super::{Warning, warning};
use crate::diagnostic::Diagnostic;
use crate::go_url;
use crate::prow::ProwConfig;
use crate::prow::branch_protection::{Policy, ProtectedOrg, ProtectedRepo};

fn is_unmanaged(policy: &Policy) -> bool {
    policy.unmanaged == Some(true)
}

fn is_managed(policy: &Policy) -> bool {
    policy.unmanaged == Some(false)
}

fn has_settings(policy: &Policy) -> bool {
    policy.is_defined() || policy.exclude.is_some() || policy.include.is_some()
}

fn managed_branches(repo: &ProtectedRepo) -> bool {
    repo.branches
        .values()
        .any(|branch| is_managed(&branch.policy))
}

fn managed_repos(org: &ProtectedOrg) -> bool {
    org.repos.values().any(|repo| is_managed(&repo.policy))
}

/// `validate-unmanaged-branchconfig-has-no-subconfig`.
pub(super) fn unmanaged(prow: &ProwConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    const TOP: &str = "branch-protection";
    let all = &prow.branch_protection;
    let mut found = Vec::new();
    let mut add = |message: String, path: &[&str]| {
        found.push(warning(
            Warning::ValidateUnmanagedBranchconfigHasNoSubconfig,
            message,
            sources.place(path),
        ));
    };
    if is_unmanaged(&all.policy) {
        let overridden = all.orgs.values().any(|org| {
            is_managed(&org.policy)
                || managed_repos(org)
                || org.repos.values().any(managed_branches)
        });
        if has_settings(&all.policy) && !overridden {
            let message = "branch protection is globally set to unmanaged, but has configuration";
            add(message.to_owned(), &[TOP, "unmanaged"]);
        }
        for (name, org) in &all.orgs {
            // Upstream complains about an org that is set to managed, too.
            if !managed_repos(org) && !is_managed(&org.policy) {
                let message = format!(
                    "branch protection config is globally set to unmanaged but has configuration for org {name} without \
                     setting the org to unmanaged: false"
                );
                add(message, &[TOP, "orgs", name]);
            }
        }
    }
    for (org_name, org) in &all.orgs {
        let at_org = [TOP, "orgs", org_name.as_str()];
        if is_unmanaged(&org.policy) {
            let overridden = managed_repos(org) || org.repos.values().any(managed_branches);
            if has_settings(&org.policy) && !overridden {
                let message = format!(
                    "branch protection config for org {org_name} is set to unmanaged, but it defines settings"
                );
                add(message, &at_org);
            }
        }
        for (repo_name, repo) in &org.repos {
            let at_repo = [TOP, "orgs", org_name.as_str(), "repos", repo_name.as_str()];
            let full = format!("{org_name}/{repo_name}");
            if is_unmanaged(&org.policy) && !managed_branches(repo) && !is_managed(&repo.policy) {
                let message = format!(
                    "branch protection config for repo {full} is defined, but branch protection is unmanaged for org \
                     {org_name} without setting the repo to unmanaged: false"
                );
                add(message, &at_repo);
            }
            if is_unmanaged(&repo.policy) && has_settings(&repo.policy) && !managed_branches(repo) {
                let message = format!(
                    "branch protection config for repo {full} is set to unmanaged, but it defines settings"
                );
                add(message, &at_repo);
            }
            for (branch_name, branch) in &repo.branches {
                let at_branch = [&at_repo[..], &["branches", branch_name.as_str()]].concat();
                if is_unmanaged(&repo.policy) && !is_managed(&branch.policy) {
                    let message = format!(
                        "branch protection for repo {full} is set to unmanaged, but it defines settings for branch \
                         {branch_name} without setting the branch to unmanaged: false"
                    );
                    add(message, &at_branch);
                }
                if is_unmanaged(&branch.policy) && has_settings(&branch.policy) {
                    let message = format!(
                        "branch protection config for branch {branch_name} in repo {full} is set to unmanaged but defines \
                         settings"
                    );
                    add(message, &at_branch);
                }
            }
        }
    }
    found
}

/// `managed-webhooks`.
pub(super) fn webhooks(prow: &ProwConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    let hooks = &prow.managed_webhooks.org_repo_config;
    let doubled = hooks.keys().filter(|key| {
        key.split_once('/')
            .is_some_and(|(org, _)| hooks.contains_key(org))
    });
    let told = doubled.map(|repo| {
        let message = format!(
            "org-level and repo-level webhooks are configured together for {repo:?}, which is not allowed as there will be \
             duplicated webhook events"
        );
        let place = sources.place(&["managed_webhooks", "org_repo_config", repo]);
        warning(Warning::ManagedWebhooks, message, place)
    });
    told.collect()
}

/// `unknown-state`, as the central settings have it.
pub(super) fn states(prow: &ProwConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (key, reporter) in &prow.slack_reporter_configs {
        for state in reporter.job_states_to_report.iter().flatten() {
            if let Some((message, help)) = super::jobs::unknown_state(state) {
                let place = sources.place(&["slack_reporter_configs", key, "job_states_to_report"]);
                found.push(warning(Warning::UnknownState, message, place).help(help));
            }
        }
    }
    found
}

/// `validate-urls`.
pub(super) fn urls(prow: &ProwConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    let link = &prow.status_error_link;
    if go_url::scheme(link).is_ok() {
        return Vec::new();
    }
    let message = format!("status_error_link is not a valid url: {link}");
    let place = sources.place(&["status_error_link"]);
    vec![warning(Warning::ValidateUrls, message, place)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Files, told};

    /// The cases are upstream's: settings on all levels, one of them unmanaged.
    #[test]
    fn cfg_115_unmanaged_branches_have_no_settings() {
        let check = |levels: [&str; 4]| {
            let [top, org, repo, branch] = levels.map(|unmanaged| {
                let unmanaged = if unmanaged.is_empty() {
                    String::new()
                } else {
                    format!("unmanaged: {unmanaged}, ")
                };
                format!("{unmanaged}exclude: [x]")
            });
            let text = format!(
                "branch-protection: {{{top}, orgs: {{my-org: {{{org}, repos: {{my-repo: {{{repo}, branches: {{my-branch: {{{branch}}}}}}}}}}}}}}}\n"
            );
            let told = told(
                Files::default().config(&text),
                &["validate-unmanaged-branchconfig-has-no-subconfig"],
            );
            told.lines()
                .map(|line| line.split_once(": ").unwrap().1.to_owned())
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(check(["", "", "", ""]), "");
        insta::assert_snapshot!(check(["true", "", "", ""]), @"
        branch-protection.unmanaged: branch protection is globally set to unmanaged, but has configuration
        branch-protection.orgs.my-org: branch protection config is globally set to unmanaged but has configuration for org my-org without setting the org to unmanaged: false
        ");
        assert_eq!(check(["true", "false", "", ""]), "");
        insta::assert_snapshot!(check(["", "true", "", ""]), @"
        branch-protection.orgs.my-org: branch protection config for org my-org is set to unmanaged, but it defines settings
        branch-protection.orgs.my-org.repos.my-repo: branch protection config for repo my-org/my-repo is defined, but branch protection is unmanaged for org my-org without setting the repo to unmanaged: false
        ");
        insta::assert_snapshot!(check(["", "", "true", ""]), @"
        branch-protection.orgs.my-org.repos.my-repo: branch protection config for repo my-org/my-repo is set to unmanaged, but it defines settings
        branch-protection.orgs.my-org.repos.my-repo.branches.my-branch: branch protection for repo my-org/my-repo is set to unmanaged, but it defines settings for branch my-branch without setting the branch to unmanaged: false
        ");
        insta::assert_snapshot!(check(["", "", "", "true"]), @"branch-protection.orgs.my-org.repos.my-repo.branches.my-branch: branch protection config for branch my-branch in repo my-org/my-repo is set to unmanaged but defines settings");
        assert_eq!(check(["", "", "true", "false"]), "");
    }

    #[test]
    fn cfg_115_managed_webhooks() {
        let entry = "{token_created_after: 2017-10-02T15:00:00Z}";
        let text = format!(
            "managed_webhooks:\n  org_repo_config:\n    a: {entry}\n    a/b: {entry}\n    c/d: {entry}\n"
        );
        insta::assert_snapshot!(told(Files::default().config(&text), &["managed-webhooks"]), @r#"config.yaml:4:5: managed_webhooks.org_repo_config["a/b"]: org-level and repo-level webhooks are configured together for "a/b", which is not allowed as there will be duplicated webhook events"#);
    }

    /// Upstream looks only where there is a configuration of plugins.
    #[test]
    fn cfg_115_validate_urls() {
        let text = "status_error_link: 'http://x y'\n";
        insta::assert_snapshot!(told(Files::default().config(text).plugins("plugins: {}\n"), &["validate-urls"]), @"config.yaml:1:1: status_error_link: status_error_link is not a valid url: http://x y");
        assert_eq!(told(Files::default().config(text), &["validate-urls"]), "");
    }
}
