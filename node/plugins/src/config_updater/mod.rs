//! `config-updater`: what a merged pull request changed in the files of ConfigMaps is put into them.

mod decide;
mod glob;
mod settings;

use std::collections::BTreeMap;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use trireme_config::plugins::Section;
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};
use trireme_forge::{ChangedFile, RepoId};

use trireme_office::RunningConfig;

use crate::changes;
use crate::decision::Decision;
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use settings::{SECTION, Settings};

pub(crate) use decide::{ConfigMapId, Updates};

pub(crate) const NAME: &str = "config-updater";

pub(crate) struct ConfigUpdater;

/// What a repository is to feed into ConfigMaps (PLG-CONFIGUPDATER-011).
pub(crate) struct Feeds<'a> {
    settings: &'a Settings,
    repo: &'a RepoId,
    namespace: &'a str,
    /// Tells this configuration of the plugin from others.
    pub(crate) digest: String,
}

impl<'a> Feeds<'a> {
    /// `None` where the plugin is off, or takes nothing from there.
    pub(crate) fn of(running: &'a RunningConfig, repo: &'a RepoId) -> Option<Self> {
        let plugins = &running.plugins;
        if !plugins.is_enabled(NAME, &repo.org, &repo.repo) {
            return None;
        }
        let settings: &Settings = plugins.section(SECTION)?;
        let namespace = running.config.prow.prowjob_namespace.as_str();
        let written = plugins.sections.get(SECTION).map(ToString::to_string);
        let mut digest = Sha256::new();
        digest.update(written.unwrap_or_default());
        digest.update([0]);
        digest.update(namespace);
        let digest = digest.finalize();
        settings.take_from(repo).then(|| Self {
            settings,
            repo,
            namespace,
            digest: hex::encode(&digest[..8]),
        })
    }

    /// What these changes change.
    pub(crate) fn changed(&self, files: &[ChangedFile]) -> Updates {
        decide::updates(self.settings, self.repo, files, self.namespace)
    }

    /// What all of these files make.
    pub(crate) fn whole<'p>(&self, paths: impl Iterator<Item = &'p str>) -> Updates {
        decide::whole(self.settings, self.repo, paths, self.namespace)
    }
}

/// The repository and branch whose files an event may have changed: the default branch was pushed to, or a pull request
/// merged.
pub(crate) fn fed_by(event: &Event) -> Option<&RepoId> {
    match event {
        Event::Push(push) => {
            let branch = push.git_ref.strip_prefix("refs/heads/");
            let is_default = branch == Some(push.repository.default_branch.as_str());
            (is_default && !push.deleted).then_some(&push.repository.id)
        }
        event => merged(event).map(|(event, _)| &event.pull_request.repo),
    }
}

#[async_trait]
impl Plugin for ConfigUpdater {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let settings = cx.section::<Settings>(SECTION);
        merged(event).is_some_and(|(event, _)| {
            settings.is_none_or(|settings| settings.take_from(&event.pull_request.repo))
        })
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some((event, sha)) = merged(event) else {
            return Ok(Decision::nothing());
        };
        let pr = &event.pull_request;
        if !cx.has_clusters {
            tracing::warn!(
                repo = %pr.repo,
                number = pr.number,
                "config-updater is on, but there is no Kubernetes cluster to write to: no ConfigMap is updated; name clusters in \
                 [kubernetes] of the node's settings, or turn the plugin off (in a dry run this is as it should be)"
            );
            return Ok(Decision::nothing());
        }
        let settings: &Settings = cx.section(SECTION)?;
        let files = changes::files(cx, &event.pull_request).await?;
        let namespace = &cx.running.config.prow.prowjob_namespace;
        Ok(decide::decide(settings, pr, sha, &files, namespace))
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let told = match (scope.repos, settings) {
            ([repo], Some(settings)) => {
                let one = |(files, spec): (&String, &settings::Spec)| {
                    format!(
                        "Files matching {repo}/{files} are used to populate the {} ConfigMap in ",
                        spec.name
                    )
                };
                let told: String = settings.maps.iter().map(one).collect();
                Some(BTreeMap::from([(String::new(), told)]))
            }
            _ => None,
        };
        PluginHelp {
            description: "The config-updater plugin automatically redeploys configuration and plugin configuration files when they change. The plugin watches for pull request merges that modify either of the config files and updates the cluster's configmap resources in response.".to_owned(),
            config: told,
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(settings::section())
    }
}

/// The merge of a pull request to its repository's default branch, and what it made (PLG-CONFIGUPDATER-001).
fn merged(event: &Event) -> Option<(&PullRequestEvent, &str)> {
    let Event::PullRequest(event) = event else {
        return None;
    };
    let pr = &event.pull_request;
    let counts = event.action == PullRequestAction::Closed
        && pr.merged
        && pr.base.branch == event.repository.default_branch;
    let sha = pr.merge_commit_sha.as_deref().filter(|_| counts)?;
    Some((event, sha))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, plugins_yaml, pull_request_event};

    #[test]
    fn plg_configupdater_001_only_merges_to_the_default_branch_count() {
        let closed = |change: fn(&mut PullRequestEvent)| {
            let mut event = pull_request_event("closed");
            event.pull_request.merged = true;
            event.pull_request.merge_commit_sha = Some("c".repeat(40));
            change(&mut event);
            crate::testing::concerns(&ConfigUpdater, &Event::PullRequest(Box::new(event)))
        };
        assert!(closed(|_| ()));
        assert!(!closed(|event| event.action = PullRequestAction::Edited));
        assert!(!closed(|event| event.pull_request.merged = false));
        assert!(!closed(|event| event.pull_request.merge_commit_sha = None));
        assert!(!closed(
            |event| event.pull_request.base.branch = "release".into()
        ));
        assert!(!crate::testing::concerns(
            &ConfigUpdater,
            &comment_event("author", "closed")
        ));
    }

    #[test]
    fn its_help_tells_of_one_repository_which_files_feed_what() {
        let plugins = plugins_yaml("config_updater: {maps: {a/*: {name: b}}}").unwrap();
        let help = |repos: &[RepoId]| {
            ConfigUpdater.help(&HelpScope {
                plugins: &plugins,
                repos,
            })
        };
        let repo = RepoId::new("org", "repo");
        assert_eq!(
            help(std::slice::from_ref(&repo)).config.unwrap()[""],
            "Files matching org/repo/a/* are used to populate the b ConfigMap in "
        );
        assert_eq!(help(&[repo.clone(), repo]).config, None);
    }
}
