//! What is wrong with the core of the plugins' configuration, in upstream's words.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::registry::place_of_text;
use super::{ExternalPlugin, OrgPlugins, PluginConfig, Registry, usual_endpoint};
use crate::check::Warning;
use crate::diagnostic::{Diagnostic, Rule};
use crate::load::LoadOptions;
use crate::yaml::Node;

pub(super) fn check(
    config: &PluginConfig,
    options: LoadOptions<'_>,
    sources: &[(String, Arc<Node>)],
) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    if let Some(registry) = options.plugins {
        former(config, registry, &mut wrong);
        unknown(config, registry, options.refuse_unknown_plugins, &mut wrong);
        unused_endpoints(config, registry, &mut wrong);
    }
    doubled_plugins(config, &mut wrong);
    doubled_external_plugins(config, &mut wrong);
    exclusive(config, &mut wrong);
    doubled_repos(config, &mut wrong);
    let diagnostic = |Finding {
                          field,
                          about,
                          message,
                          help,
                          warning,
                      }: Finding| {
        let (file, at) = place_of_text(sources, field, &about);
        let rule = warning.map_or(Rule::Invalid, Rule::Warning);
        let diagnostic = Diagnostic::error(rule, file, message)
            .at(at)
            .field(field)
            .help(help);
        match warning {
            Some(_) => diagnostic.warning(),
            None => diagnostic,
        }
    };
    wrong.into_iter().map(diagnostic).collect()
}

/// The names that stand in lists of plugins.
fn listed(config: &PluginConfig) -> BTreeSet<&str> {
    let all = config.core.plugins.0.values();
    let all = all.flat_map(|plugins| &plugins.plugins);
    all.map(String::as_str).collect()
}

/// Names of plugins that are on somewhere, and that do nothing.
pub(super) fn not_built<'c>(
    config: &'c PluginConfig,
    registry: Option<&Registry>,
) -> BTreeSet<&'c str> {
    let Some(registry) = registry else {
        return BTreeSet::new();
    };
    let does_nothing = |plugin: &&str| !registry.knows(plugin) || !registry.is_built(plugin);
    listed(config).into_iter().filter(does_nothing).collect()
}

/// A problem of a section, and the key or name in it that it is about.
struct Finding {
    field: &'static str,
    about: String,
    message: String,
    help: String,
    /// Under which name it is a warning; none for an error.
    warning: Option<Warning>,
}

impl Finding {
    fn new(field: &'static str, about: &str, message: String) -> Self {
        Self {
            field,
            about: about.to_owned(),
            message,
            help: String::new(),
            warning: None,
        }
    }
}

type Findings = Vec<Finding>;

/// HOOK-064
fn former(config: &PluginConfig, registry: &Registry, wrong: &mut Findings) {
    wrong.extend(listed(config).into_iter().filter_map(|plugin| {
        let (now, what) = registry.former_name(plugin)?;
        Some(Finding {
            help: format!("write {now}, which has the other commands too"),
            warning: Some(Warning::PluginAdvice),
            ..Finding::new(
                "plugins",
                plugin,
                format!("plugin {plugin} is part of {now} now: only {what} is on"),
            )
        })
    }));
}

/// HOOK-054: names that do nothing, whether there is such a plugin or not.
fn unknown(config: &PluginConfig, registry: &Registry, refuse: bool, wrong: &mut Findings) {
    let nothing = "nothing happens where it is on";
    for plugin in not_built(config, Some(registry)) {
        wrong.push(if registry.knows(plugin) {
            Finding {
                help: "leave it on for when it is, or turn it off to be rid of this warning"
                    .to_owned(),
                warning: Some(Warning::NotBuilt),
                ..Finding::new(
                    "plugins",
                    plugin,
                    format!("the plugin {plugin} is not built yet: {nothing}"),
                )
            }
        } else if refuse {
            Finding {
                help: registry.instead_of(plugin),
                ..Finding::new("plugins", plugin, format!("unknown plugin: {plugin}"))
            }
        } else {
            Finding {
                help: registry.instead_of(plugin),
                warning: Some(Warning::NotBuilt),
                ..Finding::new(
                    "plugins",
                    plugin,
                    format!("unknown plugin: {plugin}: {nothing}"),
                )
            }
        });
    }
}

/// Endpoints of external plugins that run here, each plugin once. The usual one need not be meant.
fn unused_endpoints(config: &PluginConfig, registry: &Registry, wrong: &mut Findings) {
    let mut told = BTreeSet::new();
    for plugin in config.core.external_plugins.values().flatten() {
        let ExternalPlugin { name, endpoint, .. } = plugin;
        let Some(help) = registry.runs_here(name) else {
            continue;
        };
        if *endpoint != usual_endpoint(name) && told.insert(name) {
            let message =
                format!("the external plugin {name} is built in here: {endpoint} is not called");
            wrong.push(Finding {
                help: help.to_owned(),
                warning: Some(Warning::PluginAdvice),
                ..Finding::new("external_plugins", endpoint, message)
            });
        }
    }
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
