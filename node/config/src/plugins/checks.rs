//! What is wrong with the core of the plugins' configuration, in upstream's words.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::registry::place_of_text;
use super::{OrgPlugins, PluginConfig, Registry};
use crate::check::Warning;
use crate::diagnostic::{Diagnostic, Rule};
use crate::yaml::Node;

pub(super) fn check(
    config: &PluginConfig,
    registry: Option<&Registry>,
    sources: &[(String, Arc<Node>)],
) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    unknown(config, registry, &mut wrong);
    doubled_plugins(config, &mut wrong);
    doubled_external_plugins(config, &mut wrong);
    exclusive(config, &mut wrong);
    doubled_repos(config, &mut wrong);
    let diagnostic = |Finding {
                          field,
                          about,
                          message,
                          help,
                          is_warning,
                      }: Finding| {
        let (file, at) = place_of_text(sources, field, &about);
        let diagnostic = Diagnostic::error(Rule::Invalid, file, message)
            .at(at)
            .field(field)
            .help(help);
        if is_warning {
            diagnostic.warning()
        } else {
            diagnostic
        }
    };
    let wrong = wrong.into_iter().map(diagnostic);
    let without = not_built(config, registry).into_iter().map(|plugin| {
        let message =
            format!("the plugin {plugin} is not built yet: nothing happens where it is on");
        diagnostic(Finding {
            help: "leave it on for when it is, or turn it off to be rid of this warning".to_owned(),
            ..Finding::new("plugins", plugin, message)
        })
        .rule(Rule::Warning(Warning::NotBuilt))
        .warning()
    });
    wrong.chain(without).collect()
}

/// Names of plugins that are on somewhere, that are plugins, and that do nothing.
pub(super) fn not_built<'c>(
    config: &'c PluginConfig,
    registry: Option<&Registry>,
) -> BTreeSet<&'c str> {
    let all = config.core.plugins.0.values();
    let all = all.flat_map(|plugins| &plugins.plugins).map(String::as_str);
    let Some(registry) = registry else {
        return BTreeSet::new();
    };
    all.filter(|plugin| registry.knows(plugin) && !registry.is_built(plugin))
        .collect()
}

/// A problem of a section, and the key or name in it that it is about.
struct Finding {
    field: &'static str,
    about: String,
    message: String,
    help: String,
    is_warning: bool,
}

impl Finding {
    fn new(field: &'static str, about: &str, message: String) -> Self {
        Self {
            field,
            about: about.to_owned(),
            message,
            help: String::new(),
            is_warning: false,
        }
    }
}

type Findings = Vec<Finding>;

fn unknown(config: &PluginConfig, registry: Option<&Registry>, wrong: &mut Findings) {
    let Some(registry) = registry else { return };
    let all = config
        .core
        .plugins
        .0
        .values()
        .flat_map(|plugins| &plugins.plugins);
    let all: BTreeSet<_> = all.collect();
    // HOOK-064
    wrong.extend(all.iter().filter_map(|plugin| {
        let (now, what) = registry.former_name(plugin)?;
        Some(Finding {
            help: format!("write {now}, which has the other commands too"),
            is_warning: true,
            ..Finding::new(
                "plugins",
                plugin,
                format!("plugin {plugin} is part of {now} now: only {what} is on"),
            )
        })
    }));
    let unknown = all.into_iter().filter(|plugin| !registry.knows(plugin));
    wrong.extend(unknown.map(|plugin| Finding {
        help: registry.instead_of(plugin),
        ..Finding::new("plugins", plugin, format!("unknown plugin: {plugin}"))
    }));
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
            wrong.push(Finding::new(
                "plugins",
                key,
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
            wrong.push(Finding::new(
                "external_plugins",
                key,
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
            wrong.push(Finding::new(
                "plugins",
                key,
                format!("{key}: blunderbuss and rifle plugins are mutually exclusive"),
            ));
            continue;
        }
        let Some((of_org, org, _)) = org_of(config, key) else {
            continue;
        };
        if (blunderbuss && has(of_org, "rifle")) || (rifle && has(of_org, "blunderbuss")) {
            wrong.push(Finding::new("plugins", key,
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
            wrong.push(Finding::new(
                "approve",
                entry,
                format!(
                    "The {kind} {entry:?} is duplicated in the 'approve' plugin configuration."
                ),
            ));
        }
    }
}
