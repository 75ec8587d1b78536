//! The plugins that are built in.

use std::sync::Arc;

use trireme_config::PluginConfig;
use trireme_config::plugins::{PROW_PLUGINS, Registry as ConfigRegistry};
use trireme_forge::RepoId;

use crate::help::{HelpScope, PluginHelp};
use crate::plugin::Plugin;

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
        let registry = ConfigRegistry::new()
            .with_names(names)
            .with_built(own.clone());
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
        plugin-advice: repo_milestone.maintainers_id
        plugin-advice: blockades.0.blockregexps.0
        plugin-advice: branch_cleaner.preserved_branches.o.0
        plugin-advice: welcome.0.message_template
        plugin-advice: config_updater.maps.a/*[z-a]
        ");
        assert!(report.passes(true));
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
