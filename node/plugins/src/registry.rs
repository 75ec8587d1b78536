//! The plugins that are built in.

use std::sync::Arc;

use trireme_config::PluginConfig;
use trireme_config::plugins::{PROW_PLUGINS, Registry as ConfigRegistry};
use trireme_forge::RepoId;

use crate::help::{HelpScope, PluginHelp};
use crate::plugin::Plugin;

/// Where the node's settings hold what are flags of a process of its own in Prow, by the name of the plugin.
const FLAGS: [(&str, &str); 2] = [
    ("cherrypicker", "[cherrypicker]"),
    ("needs-rebase", "[needs_rebase]"),
];

/// Plugins by name.
#[derive(Clone)]
pub struct Plugins {
    all: Vec<Arc<dyn Plugin>>,
}

impl Plugins {
    /// Everything that is built in.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            all: crate::built_in(),
        }
    }

    /// One more; it takes the place of another of its name.
    #[must_use]
    pub fn with(mut self, plugin: impl Plugin) -> Self {
        self.all.retain(|known| known.name() != plugin.name());
        self.all.push(Arc::new(plugin));
        self
    }

    /// Without those that `external_plugins` turns on by one of these names: whatever they are called there, their
    /// endpoints get the webhooks.
    #[must_use]
    pub fn elsewhere(mut self, names: &[String]) -> Self {
        let is_named = |name: &str| names.iter().any(|elsewhere| elsewhere == name);
        self.all
            .retain(|plugin| !plugin.external_names().iter().any(|name| is_named(name)));
        self
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Plugin>> {
        self.all.iter().find(|plugin| plugin.name() == name)
    }

    /// The built-in plugin that `external_plugins` means by this name.
    #[must_use]
    pub fn external(&self, name: &str) -> Option<&Arc<dyn Plugin>> {
        let mut all = self.all.iter();
        all.find(|plugin| plugin.external_names().contains(&name))
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.all.iter().map(|plugin| plugin.name())
    }

    /// Names under which `external_plugins` turns on what is built in here.
    pub fn external_names(&self) -> impl Iterator<Item = &'static str> {
        let all = self.all.iter();
        all.flat_map(|plugin| plugin.external_names().iter().copied())
    }

    /// A plugin's help for the repositories where it is on; `None` if it is not built in.
    #[must_use]
    pub fn help(&self, name: &str, plugins: &PluginConfig, repos: &[RepoId]) -> Option<PluginHelp> {
        let plugin = self.get(name)?;
        let mut help = plugin.help(&HelpScope { plugins, repos });
        help.events = plugin
            .events()
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect();
        Some(help)
    }

    /// How `plugins.yaml` is to be read: Prow's names are accepted whether or not they are built in; the sections are
    /// read as their plugins say, those that several plugins share by `trireme-config` itself.
    #[must_use]
    pub fn config_registry(&self) -> ConfigRegistry {
        let own = self
            .all
            .iter()
            .filter(|plugin| plugin.external_names().is_empty());
        let own: Vec<&str> = own.map(|plugin| plugin.name()).collect();
        let names = PROW_PLUGINS.into_iter().chain(own.iter().copied());
        let sections = self.all.iter().filter_map(|plugin| plugin.section());
        let external = self.all.iter().flat_map(|plugin| {
            let mut flags = FLAGS.iter();
            let flags = flags.find(|(of, _)| *of == plugin.name());
            let called = "to have it called after all";
            let help = match flags {
                Some((_, section)) => format!(
                    "its flags are in {section} of each node's settings; list it in plugins.elsewhere there {called}"
                ),
                None => format!("list it in plugins.elsewhere of each node's settings {called}"),
            };
            let names = plugin.external_names().iter();
            names.map(move |name| (*name, help.clone()))
        });
        let registry = ConfigRegistry::new()
            .with_names(names)
            .with_built(own.clone())
            .with_external(external);
        sections.fold(registry, ConfigRegistry::with)
    }
}

#[cfg(test)]
mod tests {
    use trireme_config::check::{self, CheckOptions, Enabled};
    use trireme_config::{Config, Diagnostic, FileSet, Layout, LoadOptions};

    use super::*;

    #[test]
    fn hook_054_what_is_built_in_is_a_plugin_of_prows() {
        for plugin in &Plugins::built_in().all {
            // One by its former name (HOOK-064).
            let of_prow =
                PROW_PLUGINS.contains(&plugin.name()) || plugin.name() == "transfer-issue";
            assert_eq!(
                of_prow,
                plugin.external_names().is_empty(),
                "{}",
                plugin.name()
            );
        }
    }

    #[test]
    fn hook_081_help_is_the_json_that_deck_reads() {
        let config = PluginConfig::default();
        let repos = [RepoId::new("org", "repo")];
        let help = Plugins::built_in().help("hold", &config, &repos).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&help).unwrap(), @r#"
        {
          "Description": "The hold plugin allows anyone to add or remove the 'do-not-merge/hold' Label from a pull request in order to temporarily prevent the PR from merging without withholding approval.",
          "Config": null,
          "Events": [
            "GenericCommentEvent (any event for user text)"
          ],
          "Commands": [
            {
              "Usage": "/[remove-][un]hold [cancel]",
              "Featured": false,
              "Description": "Adds or removes the `do-not-merge/hold` Label which is used to indicate that the PR should not be automatically merged.",
              "Examples": [
                "/hold",
                "/hold cancel",
                "/unhold",
                "/remove-hold"
              ],
              "WhoCanUse": "Anyone can use the /hold command to add or remove the 'do-not-merge/hold' Label."
            }
          ]
        }
        "#);
        let help = Plugins::built_in().help("wip", &config, &repos).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&help).unwrap(), @r#"
        {
          "Description": "The wip (Work In Progress) plugin applies the 'do-not-merge/work-in-progress' Label to pull requests whose title starts with 'WIP' or are in the 'draft' stage, and removes it from pull requests when they remove the title prefix or become ready for review. The 'do-not-merge/work-in-progress' Label is typically used to block a pull request from merging while it is still in progress.",
          "Config": null,
          "Events": [
            "pull_request"
          ],
          "Commands": null
        }
        "#);
        let help = Plugins::built_in()
            .help("approve", &config, &repos)
            .unwrap();
        insta::assert_snapshot!(help.config.unwrap()["org/repo"], @"Pull requests do not  require an associated issue.<br>Pull request authors  implicitly approve their own PRs.<br>The /lgtm [cancel] command(s) will not  act as approval.<br>A GitHub approved or changes requested review will  act as approval or cancel respectively.");
        let help = Plugins::built_in()
            .help("trigger", &config, &repos)
            .unwrap();
        insta::assert_snapshot!(help.config.unwrap()["org/repo"], @r#"The trusted GitHub organization for this repository is "org"."#);
        assert_eq!(
            help.events,
            [
                "pull_request",
                "push",
                "GenericCommentEvent (any event for user text)"
            ]
        );
        assert_eq!(Plugins::built_in().help("bugzilla", &config, &repos), None);
    }

    /// What the plugins' own sections find wrong in the plugin configurations of public instances: nothing.
    #[test]
    fn sections_of_the_wild_are_read() {
        let corpus = crate::testing::shared().join("corpus");
        let mut dirs = vec![corpus.clone()];
        let mut read = 0;
        while let Some(dir) = dirs.pop() {
            let Ok(entries) = std::fs::read_dir(&dir) else {
                println!("skipped: {} is absent", dir.display());
                return;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.file_name().is_some_and(|name| name == "plugins.yaml") {
                    let text = std::fs::read(&path).unwrap();
                    assert_eq!(
                        errors_of_sections(&text),
                        Vec::<String>::new(),
                        "{}",
                        path.display()
                    );
                    read += 1;
                }
            }
        }
        assert!(read > 5, "{read} files below {}", corpus.display());
    }

    /// CFG-112, CFG-110, HOOK-064: what Prow takes, with a line in its log at most, passes `checkconfig --strict`.
    #[test]
    fn cfg_112_what_prow_only_logs_does_not_fail_a_strict_check() {
        let text = "\
plugins: {o: {plugins: [transfer-issue]}}
external_plugins: {o: [{name: cherrypicker, endpoint: 'http://cp'}, {name: needs-rebase}, {name: x, endpoint: 'http://x.y'}]}
repo_milestone: {'': {maintainers_id: 7, maintainers_team: leads}}
blockades: [{repos: [o], blockregexps: ['(']}]
branch_cleaner: {preserved_branches: {o: ['*bad']}}
welcome: [{repos: [o], message_template: '{{'}]
config_updater: {maps: {'a/*[z-a]': {name: b}}}
";
        let files = files(text.as_bytes());
        let registry = Plugins::built_in().config_registry();
        let options = LoadOptions {
            plugins: Some(&registry),
            ..LoadOptions::default()
        };
        let loaded = check::load(&files, options);
        let enabled = Enabled::new(&[], &[], false, true, false).unwrap();
        let options = CheckOptions {
            enabled,
            ..CheckOptions::default()
        };
        let report = check::check(&files, &loaded, &options);
        let told = report.errors.iter().chain(&report.warnings);
        let told = told.map(|found| format!("{}: {}", found.rule.name(), found.field));
        insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"), @r"
        plugin-advice: plugins
        plugin-advice: external_plugins
        plugin-advice: repo_milestone.maintainers_id
        plugin-advice: blockades.0.blockregexps.0
        plugin-advice: branch_cleaner.preserved_branches.o.0
        plugin-advice: welcome.0.message_template
        plugin-advice: config_updater.maps.a/*[z-a]
        ");
        assert!(report.passes(true));
    }

    /// HOOK-030: what is built in is run here and its endpoint is not called, which is told; or it is called after all.
    #[test]
    fn hook_030_an_endpoint_of_what_is_built_in_is_told_of() {
        let text = "\
external_plugins:
  o:
  - {name: cherrypicker, endpoint: 'http://cp:8080'}
  - {name: needs-rebase, endpoint: 'http://needs-rebase'}
  - {name: other, endpoint: 'http://other.ns'}
  p: [{name: cherrypicker, endpoint: 'http://cp:8080'}, {name: refresh, endpoint: 'http://r'}]
";
        let told = |plugins: &Plugins| {
            let registry = plugins.config_registry();
            let options = LoadOptions {
                plugins: Some(&registry),
                ..LoadOptions::default()
            };
            let warnings = Config::load(&files(text.as_bytes()), options).warnings;
            let warnings = warnings.iter().map(ToString::to_string);
            warnings.collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(told(&Plugins::built_in()), @r"
        plugins.yaml:3:36: external_plugins: the external plugin cherrypicker is built in here: http://cp:8080 is not called; its flags are in [cherrypicker] of each node's settings; list it in plugins.elsewhere there to have it called after all
        plugins.yaml:6:83: external_plugins: the external plugin refresh is built in here: http://r is not called; list it in plugins.elsewhere of each node's settings to have it called after all
        ");
        let names = ["cherrypick", "refresh"].map(str::to_owned);
        let some = Plugins::built_in().elsewhere(&names);
        assert_eq!(told(&some), "");
        assert!(some.external("cherrypicker").is_none() && some.get("needs-rebase").is_some());
    }

    fn files(plugins: &[u8]) -> FileSet {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            plugins: Some("plugins.yaml".to_owned()),
            ..Layout::default()
        });
        files.insert("config.yaml", *b"{}");
        files.insert("plugins.yaml", plugins);
        files
    }

    fn errors_of_sections(text: &[u8]) -> Vec<String> {
        let files = files(text);
        let plugins = Plugins::built_in();
        let registry = plugins.config_registry();
        let options = LoadOptions {
            plugins: Some(&registry),
            ..LoadOptions::default()
        };
        // Names of plugins that only a fork has are none of a section's.
        let of_section = |found: &Diagnostic| !found.field.starts_with("plugins");
        let errors = Config::load(&files, options).errors.into_iter();
        let errors = errors.filter(of_section);
        errors
            .map(|found| format!("{}: {}", found.field, found.message))
            .collect()
    }
}
