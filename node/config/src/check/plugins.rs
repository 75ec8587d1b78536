//! Warnings about the plugins' configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::org_repos::OrgRepos;
use super::sources::Sources;
use super::{Warning, of_job, warning};
use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::job::AnyJob;
use crate::plugins::PluginConfig;

/// Plugins that read OWNERS files.
const OWNERS_PLUGINS: [&str; 4] = ["approve", "blunderbuss", "rifle", "owners-label"];

fn enabled(plugins: &PluginConfig, plugin: &str) -> OrgRepos {
    OrgRepos::of_plugin(plugins.enabled_repos(plugin))
}

/// The orgs and repositories where some plugin reads OWNERS files.
#[must_use]
pub fn repos_using_owners(plugins: &PluginConfig) -> OrgRepos {
    OWNERS_PLUGINS
        .iter()
        .map(|plugin| enabled(plugins, plugin))
        .fold(OrgRepos::default(), |all, more| all.union(&more))
}

/// `validate-owners`.
pub(super) fn owners(plugins: &PluginConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    let invalid = repos_using_owners(plugins).difference(&enabled(plugins, "verify-owners"));
    let told = invalid.items().into_iter().map(|item| {
        let message = format!(
            "the following orgs or repos enable at least one plugin that uses OWNERS files ({}) but do not enable the \
             verify-owners plugin to ensure validity of OWNERS files: [{}]",
            OWNERS_PLUGINS.join(", "),
            item.text
        );
        warning(Warning::ValidateOwners, message, sources.plugins(&item.key))
    });
    told.collect()
}

/// `verify-owners-presence`, once it is known which repositories have no OWNERS file.
#[must_use]
pub fn missing_owners(
    missing: &BTreeSet<String>,
    files: &crate::files::FileSet,
) -> Vec<Diagnostic> {
    let told = missing.iter().map(|repo| {
        let message = format!(
            "the following orgs or repos enable at least one plugin that uses OWNERS files ({}), but its master branch does \
             not contain a root level OWNERS file: [{repo}]",
            OWNERS_PLUGINS.join(", ")
        );
        (repo.clone(), message, "")
    });
    about_owners(told, files)
}

/// What else `verify-owners-presence` has to say: an org or a repository, the message and what to do about it. Each is
/// told where its plugins are enabled.
#[must_use]
pub fn about_owners(
    told: impl IntoIterator<Item = (String, String, &'static str)>,
    files: &crate::files::FileSet,
) -> Vec<Diagnostic> {
    let sources = Sources::of_plugins(files);
    let found = told.into_iter().map(|(name, message, help)| {
        let org = name.split('/').next().unwrap_or_default();
        let place = sources.plugins(&name).or_else(|| sources.plugins(org));
        warning(Warning::VerifyOwnersPresence, message, place).help(help)
    });
    found.collect()
}

/// `validate-github-app-installation`, once it is known in which orgs the app is.
#[must_use]
pub fn missing_installations(
    config: &Config,
    installed: &BTreeSet<String>,
    files: &crate::files::FileSet,
) -> Vec<Diagnostic> {
    let sources = Sources::of_config(files);
    let orgs: BTreeSet<&str> = config
        .jobs
        .all_repos
        .iter()
        .filter_map(|repo| repo.split('/').next())
        .filter(|org| !installed.contains(*org))
        .collect();
    let told = orgs.into_iter().map(|org| {
        let message = format!(
            "There is configuration for the GitHub org {org:?} but the GitHub app is not installed there"
        );
        let prefix = format!("{org}/");
        let job = config
            .all_jobs()
            .find(|(repo, _)| repo.is_some_and(|repo| repo.starts_with(&prefix)));
        match job {
            Some((_, job)) => of_job(job.base(), "", Warning::ValidateGitHubAppInstallation, message),
            None => {
                let repo = config.jobs.all_repos.iter().find(|repo| repo.starts_with(&prefix));
                let place = repo.and_then(|repo| sources.tide_query(repo));
                warning(Warning::ValidateGitHubAppInstallation, message, place)
            }
        }
    });
    told.collect()
}

/// `missing-trigger`.
pub(super) fn missing_trigger(config: &Config, plugins: &PluginConfig) -> Vec<Diagnostic> {
    let mut first: BTreeMap<&str, AnyJob<'_>> = BTreeMap::new();
    for (repo, job) in config.all_jobs() {
        if let Some(repo) = repo {
            first.entry(repo).or_insert(job);
        }
    }
    let configured = OrgRepos {
        repos: first.keys().map(|repo| (*repo).to_owned()).collect(),
        ..OrgRepos::default()
    };
    let missing = configured.difference(&enabled(plugins, "trigger"));
    let told = missing.items().into_iter().filter_map(|item| {
        let message = format!(
            "the following repos have jobs configured but do not have the trigger plugin enabled: {}",
            item.text
        );
        let job = first.get(item.key.as_str())?;
        let help = format!("enable trigger for {} in the plugins' configuration", item.key);
        Some(of_job(job.base(), "", Warning::MissingTrigger, message).help(help))
    });
    told.collect()
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn map(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

/// `validate-label`.
pub(super) fn labels(plugins: &PluginConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    let Some(section) = plugins.sections.get("label") else {
        return Vec::new();
    };
    let additional: BTreeSet<&str> = list(section.get("additional_labels"))
        .filter_map(Value::as_str)
        .collect();
    let mut found = Vec::new();
    for (repo, restricted) in map(section.get("restricted_labels")) {
        for label in list(Some(restricted)) {
            let name = label
                .get("label")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let message = if name.is_empty() {
                format!(
                    "the following orgs or repos have configuration of label plugin using the empty string as label name in \
                     restricted labels: {repo}"
                )
            } else if additional.contains(name) {
                format!(
                    "the following orgs or repos have configuration of label plugin using the restricted label {name} which \
                     is also configured as an additional label: {repo}"
                )
            } else {
                continue;
            };
            let place = sources.place(&["label", "restricted_labels", repo]);
            found.push(warning(Warning::ValidateLabel, message, place));
        }
    }
    found
}

/// `validate-config-updater-acls`.
pub(super) fn config_updater(plugins: &PluginConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    let section = plugins.sections.get("config_updater");
    let mut found = Vec::new();
    for (pattern, spec) in map(section.and_then(|section| section.get("maps"))) {
        for field in ["allowed_repos", "denied_repos"] {
            for entry in list(spec.get(field)) {
                if let Some(why) = repo_name_problem(entry.as_str().unwrap_or_default()) {
                    let message = format!("config_updater.maps[{pattern:?}].{field}: {why}");
                    let place = sources.place(&["config_updater", "maps", pattern, field]);
                    found.push(warning(Warning::ValidateConfigUpdaterAcls, message, place));
                }
            }
        }
    }
    found
}

fn repo_name_problem(repo: &str) -> Option<&'static str> {
    if repo.is_empty() {
        Some("org/repo cannot be empty")
    } else if repo.matches('/').count() > 1 {
        Some("org/repo contains too many slashes '/'")
    } else if repo.starts_with('/') {
        Some("you cannot set a repo without an org")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Files, told};

    #[test]
    fn cfg_115_validate_owners() {
        let text = "plugins:\n  a:\n    excluded_repos: [x]\n    plugins: [approve]\n  b/c:\n    plugins: [rifle, verify-owners]\n  d/e:\n    plugins: [owners-label]\n  f/g:\n    plugins: [lgtm]\n";
        insta::assert_snapshot!(told(Files::default().plugins(text), &["validate-owners"]), @r#"
        plugins.yaml:2:3: plugins.a: the following orgs or repos enable at least one plugin that uses OWNERS files (approve, blunderbuss, rifle, owners-label) but do not enable the verify-owners plugin to ensure validity of OWNERS files: [org: a without repo(s) a/x]
        plugins.yaml:7:3: plugins["d/e"]: the following orgs or repos enable at least one plugin that uses OWNERS files (approve, blunderbuss, rifle, owners-label) but do not enable the verify-owners plugin to ensure validity of OWNERS files: [repo: d/e]
        "#);
        assert_eq!(told(Files::default(), &["validate-owners"]), "");
    }

    #[test]
    fn cfg_115_missing_trigger() {
        let jobs = "presubmits:\n  a/b:\n  - {name: x, spec: {containers: [{image: i}]}}\npostsubmits:\n  c/d:\n  - {name: z, spec: {containers: [{image: i}]}}\n";
        let check = |plugins: &str| {
            told(
                Files::default()
                    .plugins(plugins)
                    .job_file("jobs/a.yaml", jobs),
                &["missing-trigger"],
            )
        };
        insta::assert_snapshot!(check("plugins:\n  a:\n    plugins: [trigger]\n"), @r#"jobs/a.yaml:6:5: postsubmits["c/d"][0]: the following repos have jobs configured but do not have the trigger plugin enabled: repo: c/d; enable trigger for c/d in the plugins' configuration"#);
        assert_eq!(
            check("plugins:\n  a/b:\n    plugins: [trigger]\n  c:\n    plugins: [trigger]\n"),
            ""
        );
    }

    /// The cases are upstream's.
    #[test]
    fn cfg_115_validate_label() {
        let check = |text: &str| told(Files::default().plugins(text), &["validate-label"]);
        assert_eq!(
            check(
                "label:\n  additional_labels: [x]\n  restricted_labels:\n    o/r: [{label: z}]\n"
            ),
            ""
        );
        let text = "label:\n  additional_labels: [cherry-pick-approved]\n  restricted_labels:\n    repo1: [{label: cherry-pick-approved}]\n    o/repo2: [{label: ''}]\n";
        insta::assert_snapshot!(check(text), @r#"
        plugins.yaml:4:5: label.restricted_labels.repo1: the following orgs or repos have configuration of label plugin using the restricted label cherry-pick-approved which is also configured as an additional label: repo1
        plugins.yaml:5:5: label.restricted_labels["o/repo2"]: the following orgs or repos have configuration of label plugin using the empty string as label name in restricted labels: o/repo2
        "#);
    }

    #[test]
    fn cfg_115_validate_config_updater_acls() {
        let text = "config_updater:\n  maps:\n    a/**/*.yaml:\n      name: x\n      allowed_repos: ['', org, org/repo]\n      denied_repos: [a/b/c, /repo]\n";
        insta::assert_snapshot!(told(Files::default().plugins(text), &["validate-config-updater-acls"]), @r#"
        plugins.yaml:5:7: config_updater.maps["a/**/*.yaml"].allowed_repos: config_updater.maps["a/**/*.yaml"].allowed_repos: org/repo cannot be empty
        plugins.yaml:6:7: config_updater.maps["a/**/*.yaml"].denied_repos: config_updater.maps["a/**/*.yaml"].denied_repos: org/repo contains too many slashes '/'
        plugins.yaml:6:7: config_updater.maps["a/**/*.yaml"].denied_repos: config_updater.maps["a/**/*.yaml"].denied_repos: you cannot set a repo without an org
        "#);
    }
}
