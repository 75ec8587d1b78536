//! What is wrong with the core of the plugins' configuration, in upstream's words.

use std::collections::BTreeSet;

use super::{OrgPlugins, PluginConfig, Registry};
use crate::diagnostic::{Diagnostic, Rule};

pub(super) fn check(
    config: &PluginConfig,
    registry: Option<&Registry>,
    file: &str,
) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    unknown(config, registry, &mut wrong);
    doubled_plugins(config, &mut wrong);
    doubled_external_plugins(config, &mut wrong);
    exclusive(config, &mut wrong);
    doubled_repos(config, &mut wrong);
    let diagnostic = |(field, message): (&str, String)| {
        Diagnostic::error(Rule::Invalid, file, message).field(field)
    };
    wrong.into_iter().map(diagnostic).collect()
}

type Findings = Vec<(&'static str, String)>;

fn unknown(config: &PluginConfig, registry: Option<&Registry>, wrong: &mut Findings) {
    let Some(registry) = registry else { return };
    let all = config
        .core
        .plugins
        .0
        .values()
        .flat_map(|plugins| &plugins.plugins);
    let unknown: BTreeSet<_> = all.filter(|plugin| !registry.knows(plugin)).collect();
    wrong.extend(
        unknown
            .into_iter()
            .map(|plugin| ("plugins", format!("unknown plugin: {plugin}"))),
    );
}

fn both<'a>(of_repo: &[&'a str], of_org: &[&str]) -> Vec<&'a str> {
    of_repo
        .iter()
        .filter(|plugin| of_org.contains(plugin))
        .copied()
        .collect()
}

/// The org's plugins for a repository key, unless the org excludes the repository.
fn org_of<'a>(config: &'a PluginConfig, key: &str) -> Option<(&'a OrgPlugins, String, String)> {
    let mut parts = key.split('/');
    let (org, repo) = (parts.next()?, parts.next()?);
    let of_org = config.core.plugins.0.get(org)?;
    let excluded = of_org.excluded_repos.iter().any(|r| r == repo);
    (!excluded).then(|| (of_org, org.to_owned(), repo.to_owned()))
}

fn doubled_plugins(config: &PluginConfig, wrong: &mut Findings) {
    for (key, plugins) in &config.core.plugins.0 {
        let Some((of_org, org, repo)) = org_of(config, key) else {
            continue;
        };
        let names = |plugins: &'_ OrgPlugins| plugins.plugins.clone();
        let (of_repo, of_org) = (names(plugins), names(of_org));
        let of_repo: Vec<&str> = of_repo.iter().map(String::as_str).collect();
        let of_org: Vec<&str> = of_org.iter().map(String::as_str).collect();
        let doubled = both(&of_repo, &of_org);
        if !doubled.is_empty() {
            wrong.push((
                "plugins",
                format!(
                    "plugins [{}] are duplicated for {repo} and {org}",
                    doubled.join(" ")
                ),
            ));
        }
    }
}

fn doubled_external_plugins(config: &PluginConfig, wrong: &mut Findings) {
    let all = &config.core.external_plugins;
    for (key, plugins) in all {
        let Some((org, _)) = key.split_once('/') else {
            continue;
        };
        let of_repo: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let of_org: Vec<&str> = all
            .get(org)
            .into_iter()
            .flatten()
            .map(|plugin| plugin.name.as_str())
            .collect();
        let doubled = both(&of_repo, &of_org);
        if !doubled.is_empty() {
            let doubled = doubled.join(" ");
            wrong.push((
                "external_plugins",
                format!("external plugins [{doubled}] are duplicated for {key} and {org}"),
            ));
        }
    }
}

fn exclusive(config: &PluginConfig, wrong: &mut Findings) {
    let has =
        |plugins: &OrgPlugins, name: &str| plugins.plugins.iter().any(|plugin| plugin == name);
    for (key, plugins) in &config.core.plugins.0 {
        let (blunderbuss, rifle) = (has(plugins, "blunderbuss"), has(plugins, "rifle"));
        if blunderbuss && rifle {
            wrong.push((
                "plugins",
                format!("{key}: blunderbuss and rifle plugins are mutually exclusive"),
            ));
            continue;
        }
        let Some((of_org, org, _)) = org_of(config, key) else {
            continue;
        };
        if (blunderbuss && has(of_org, "rifle")) || (rifle && has(of_org, "blunderbuss")) {
            wrong.push((
                "plugins",
                format!(
                    "{key}: blunderbuss and rifle plugins are mutually exclusive (conflict between {org} and {key} \
                     config)"
                ),
            ));
        }
    }
}

fn doubled_repos(config: &PluginConfig, wrong: &mut Findings) {
    let mut seen = BTreeSet::new();
    for entry in config
        .core
        .approve
        .iter()
        .flat_map(|approve| &approve.repos)
    {
        if !seen.insert(entry) {
            let kind = if entry.contains('/') { "repo" } else { "org" };
            // Upstream names the wrong plugin here.
            wrong.push((
                "approve",
                format!(
                    "The {kind} {entry:?} is duplicated in the 'approve' plugin configuration."
                ),
            ));
        }
    }
}
