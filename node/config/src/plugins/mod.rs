//! `plugins.yaml`: which plugin is on where, and the sections that are read here because several plugins share them.
//! Every other section belongs to its plugin, which registers how it is read ([`Registry`]).

mod as_go;
mod checks;
mod fields;
mod merge;
mod registry;
mod scope;
mod sections;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub(crate) use registry::Identity;
pub use registry::{Problem, ProblemKind, Registry, Section};
pub use sections::{
    Approve, Lgtm, OrgInvite, Owners, OwnersFilenames, ProminentOrgInvite, Trigger,
};

use crate::decode::{self, Cx, Decode, Empty};
use crate::diagnostic::Diagnostic;
use crate::load::LoadOptions;
use crate::yaml::{Node, NodeValue};

/// Top-level keys of the file that no section here reads and that Prow knows.
pub(crate) const PLUGIN_SECTIONS: [&str; 31] = [
    "blockades",
    "blunderbuss",
    "rifle",
    "bugzilla",
    "branch_cleaner",
    "cat",
    "cherry_pick_approved",
    "cherry_pick_unapproved",
    "config_updater",
    "dco",
    "golint",
    "goose",
    "heart",
    "label",
    "jira",
    "milestone_applier",
    "release_note",
    "repo_milestone",
    "project_config",
    "project_manager",
    "require_matching_label",
    "retitle",
    "slack",
    "sigmention",
    "size",
    "welcome",
    "override",
    "help",
    "invalid_commit_msg",
    // Read by plugins of this system's own making.
    "merge_method_comment",
    "stage",
];

/// Names that Prow's `plugins` lists may hold.
pub const PROW_PLUGINS: [&str; 53] = [
    "approve",
    "assign",
    "blockade",
    "blunderbuss",
    "branchcleaner",
    "bugzilla",
    "buildifier",
    "cat",
    "cherry-pick-approved",
    "cherry-pick-unapproved",
    "cla",
    "config-updater",
    "dco",
    "dog",
    "golint",
    "goose",
    "heart",
    "help",
    "hold",
    "invalidcommitmsg",
    "issue-management",
    "jira",
    "label",
    "lgtm",
    "lifecycle",
    "merge-method-comment",
    "mergecommitblocker",
    "milestone",
    "milestoneapplier",
    "milestonestatus",
    "override",
    "owners-label",
    "pony",
    "project",
    "project-manager",
    "release-note",
    "require-matching-label",
    "retitle",
    "reward-owners",
    "rifle",
    "shrug",
    "sigmention",
    "size",
    "skip",
    "slackevents",
    "stage",
    "testfreeze",
    "trick-or-treat",
    "trigger",
    "verify-owners",
    "welcome",
    "wip",
    "yuks",
];

object! {
    /// The plugins of an org or repository.
    pub struct OrgPlugins {
        /// Names of repositories of the org that its plugins leave alone.
        [omit "excluded_repos"] excluded_repos: Vec<String>,
        [omit "plugins"] plugins: Vec<String>,
    }
}

object! {
    /// A plugin that runs elsewhere and gets its webhooks forwarded.
    pub struct ExternalPlugin {
        [always "name"] name: String,
        /// `http://<name>` if unset.
        [omit "endpoint"] endpoint: String,
        /// Empty = all.
        [omit "events"] events: Vec<String>,
    }
}

/// The value of `plugins`: lists by org or repository, in the present form or the older one without exclusions.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Plugins(pub BTreeMap<String, OrgPlugins>);

impl Decode for Plugins {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        let older = |node: &Node| matches!(node.value, NodeValue::Sequence(_) | NodeValue::Null);
        let entries = cx.entries(node, "a mapping");
        if !entries.is_empty() && entries.iter().all(|entry| older(&entry.value)) {
            let lists: BTreeMap<String, Vec<String>> = Decode::decode(node, cx);
            let adopt = |plugins| OrgPlugins {
                excluded_repos: Vec::new(),
                plugins,
            };
            return Self(
                lists
                    .into_iter()
                    .map(|(key, plugins)| (key, adopt(plugins)))
                    .collect(),
            );
        }
        Self(Decode::decode(node, cx))
    }
}

impl Empty for Plugins {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

object! {
    /// The part of the file that is read here.
    pub struct Core {
        [omit "plugins"] plugins: Plugins,
        [omit "external_plugins"] external_plugins: BTreeMap<String, Vec<ExternalPlugin>>,
        [omit "owners"] owners: Owners,
        [omit "approve"] approve: Vec<Approve>,
        [omit "lgtm"] lgtm: Vec<Lgtm>,
        [omit "triggers"] triggers: Vec<Trigger>,
    }
}

/// The plugins' configuration.
#[derive(Clone, Default)]
pub struct PluginConfig {
    pub core: Core,
    /// The other sections as they stand in the files, merged.
    pub sections: BTreeMap<String, Value>,
    /// The same, as their plugins read them.
    parsed: BTreeMap<&'static str, Arc<dyn Any + Send + Sync>>,
    /// Names of plugins that are on somewhere and not built, or no plugin's, so that nothing happens (HOOK-054).
    pub not_built: BTreeSet<String>,
}

impl std::fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginConfig")
            .field("core", &self.core)
            .field("sections", &self.sections)
            .finish()
    }
}

/// Where a plugin is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnabledRepos {
    /// Orgs with the repositories in them that are excluded.
    pub orgs: BTreeMap<String, BTreeSet<String>>,
    pub repos: Vec<String>,
}

impl PluginConfig {
    /// Reads the main file and its supplements, in this order.
    pub(crate) fn build(
        sources: &[(String, Arc<Node>)],
        options: LoadOptions<'_>,
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        let registry = options.plugins;
        let mut config = Self::default();
        for (n, (path, root)) in sources.iter().enumerate() {
            let mut cx = Cx::new(path, true);
            let (core, sections) = read(root, registry, &mut cx);
            found.append(&mut cx.diagnostics);
            if n == 0 {
                (config.core, config.sections) = (core, sections);
            } else {
                found.extend(merge::merge(&mut config, core, sections, path));
            }
        }
        config.set_defaults();
        found.extend(checks::check(&config, options, sources));
        let not_built = checks::not_built(&config, registry);
        config.not_built = not_built.into_iter().map(str::to_owned).collect();
        if let Some(registry) = registry {
            config.parsed = registry.parse(&config.sections, sources, found);
        }
        config
    }

    /// Reads one file as it stands, without defaults and checks.
    pub(crate) fn read_alone(path: &str, root: &Node) -> Self {
        let mut cx = Cx::new(path, true);
        let (core, sections) = read(root, None, &mut cx);
        Self {
            core,
            sections,
            ..Self::default()
        }
    }

    fn set_defaults(&mut self) {
        for plugin in self.core.external_plugins.values_mut().flatten() {
            if plugin.endpoint.is_empty() {
                plugin.endpoint = usual_endpoint(&plugin.name);
            }
        }
        for trigger in &mut self.core.triggers {
            trigger.set_defaults();
        }
        self.core.owners.set_defaults();
    }

    /// The section of a plugin as it reads it. None if the plugin did not register it or its value was refused.
    #[must_use]
    pub fn section<T: 'static>(&self, key: &str) -> Option<&T> {
        self.parsed.get(key)?.downcast_ref()
    }

    /// Names of the plugins that are on for a repository: the org's unless it is excluded, then its own.
    #[must_use]
    pub fn enabled_plugins(&self, org: &str, repo: &str) -> Vec<&str> {
        let of_org = self
            .core
            .plugins
            .0
            .get(org)
            .filter(|of_org| !of_org.excluded_repos.iter().any(|r| r == repo));
        let of_repo = self.core.plugins.0.get(&format!("{org}/{repo}"));
        of_org
            .into_iter()
            .chain(of_repo)
            .flat_map(|plugins| &plugins.plugins)
            .map(String::as_str)
            .collect()
    }

    #[must_use]
    pub fn is_enabled(&self, plugin: &str, org: &str, repo: &str) -> bool {
        self.enabled_plugins(org, repo).contains(&plugin)
    }

    /// External plugins of a repository that want an event, the org's and its own.
    pub fn external_plugins<'a>(
        &'a self,
        org: &str,
        repo: &str,
        event: &'a str,
    ) -> impl Iterator<Item = &'a ExternalPlugin> {
        self.external_plugins_of(org, repo).filter(move |plugin| {
            plugin.events.is_empty() || plugin.events.iter().any(|e| e == event)
        })
    }

    /// The same, whatever the event.
    pub fn external_plugins_of<'a>(
        &'a self,
        org: &str,
        repo: &str,
    ) -> impl Iterator<Item = &'a ExternalPlugin> + use<'a> {
        let keys = [org.to_owned(), format!("{org}/{repo}")];
        let lists = keys
            .into_iter()
            .filter_map(|key| self.core.external_plugins.get(&key));
        lists.flatten()
    }

    /// Where a plugin is on. A repository that is named itself is no exception of its org.
    #[must_use]
    pub fn enabled_repos(&self, plugin: &str) -> EnabledRepos {
        let mut enabled = EnabledRepos::default();
        for (key, plugins) in &self.core.plugins.0 {
            if !plugins.plugins.iter().any(|p| p == plugin) {
                continue;
            }
            if key.contains('/') {
                enabled.repos.push(key.clone());
            } else {
                let excluded = plugins
                    .excluded_repos
                    .iter()
                    .map(|repo| format!("{key}/{repo}"));
                enabled.orgs.insert(key.clone(), excluded.collect());
            }
        }
        for repo in &enabled.repos {
            if let Some(excluded) = repo
                .split('/')
                .next()
                .and_then(|org| enabled.orgs.get_mut(org))
            {
                excluded.remove(repo);
            }
        }
        enabled
    }

    /// Approval settings of a repository: those that name it, else those that name its org, else the defaults.
    #[must_use]
    pub fn approve_for(&self, org: &str, repo: &str) -> Approve {
        let found = narrowest(&self.core.approve, |approve| &approve.repos, org, repo);
        found.cloned().unwrap_or_default().with_links()
    }

    /// LGTM settings of a repository, found as those of [`Self::approve_for`].
    #[must_use]
    pub fn lgtm_for(&self, org: &str, repo: &str) -> Lgtm {
        narrowest(&self.core.lgtm, |lgtm| &lgtm.repos, org, repo)
            .cloned()
            .unwrap_or_default()
    }

    /// Trigger settings of a repository, found as those of [`Self::approve_for`].
    #[must_use]
    pub fn trigger_for(&self, org: &str, repo: &str) -> Trigger {
        narrowest(&self.core.triggers, |trigger| &trigger.repos, org, repo)
            .cloned()
            .unwrap_or_default()
    }

    /// Names of a repository's OWNERS files.
    #[must_use]
    pub fn owners_filenames(&self, org: &str, repo: &str) -> OwnersFilenames {
        let names = &self.core.owners.filenames;
        names
            .get(&format!("{org}/{repo}"))
            .or_else(|| names.get(org))
            .cloned()
            .unwrap_or_else(OwnersFilenames::usual)
    }

    /// Whether Markdown files of a repository may carry owners in their head.
    #[must_use]
    pub fn md_yaml_enabled(&self, org: &str, repo: &str) -> bool {
        names(&self.core.owners.md_yaml_repos, org, repo)
    }

    /// Whether collaborators of a repository need not be considered, only its owners.
    #[must_use]
    pub fn skip_collaborators(&self, org: &str, repo: &str) -> bool {
        names(&self.core.owners.skip_collaborators, org, repo)
    }
}

/// Of an external plugin without one of its own.
fn usual_endpoint(plugin: &str) -> String {
    format!("http://{plugin}")
}

fn names(list: &[String], org: &str, repo: &str) -> bool {
    list.iter().any(|entry| {
        entry == org || entry.strip_prefix(org).and_then(|e| e.strip_prefix('/')) == Some(repo)
    })
}

/// The first of a list of settings that names the repository, else the first that names its org (HOOK-055).
pub fn narrowest<'a, T>(
    list: &'a [T],
    repos: impl Fn(&T) -> &Vec<String>,
    org: &str,
    repo: &str,
) -> Option<&'a T> {
    let full = format!("{org}/{repo}");
    let naming = |name: &str| {
        list.iter()
            .find(|settings| repos(settings).iter().any(|entry| entry == name))
    };
    naming(&full).or_else(|| naming(org))
}

/// Splits a file into what is read here and what belongs to plugins.
fn read<'n>(
    root: &'n Node,
    registry: Option<&Registry>,
    cx: &mut Cx<'n>,
) -> (Core, BTreeMap<String, Value>) {
    use crate::decode::Object as _;
    let mut core = Core::default();
    let mut sections = BTreeMap::new();
    let mut known = Vec::new();
    Core::names(&mut known);
    let registered = registry.into_iter().flat_map(Registry::keys);
    let keys: Vec<&str> = PLUGIN_SECTIONS.iter().copied().chain(registered).collect();
    let entries = cx.entries(root, "a mapping");
    let mut unknown = Vec::new();
    for entry in entries {
        let is = |name: &str| name.eq_ignore_ascii_case(&entry.key);
        if let Some(name) = known.iter().find(|name| is(name)) {
            cx.under(&entry.key, |cx| core.set(name, &entry.value, cx));
            continue;
        }
        match keys.iter().find(|key| is(key)) {
            Some(key) => {
                let value = cx.under(&entry.key, |cx| cx.json(&entry.value));
                sections.insert((*key).to_owned(), value);
            }
            None => unknown.push(entry),
        }
    }
    let free = if unknown.is_empty() {
        Vec::new()
    } else {
        decode::free(known.iter().chain(&keys).copied(), entries)
    };
    for entry in unknown {
        cx.unknown_field(entry, &free);
    }
    (core, sections)
}
