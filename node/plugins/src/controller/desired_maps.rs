//! ConfigMaps as desired state (PLG-CONFIGUPDATER-011): whatever events were missed or failed, a repository's ConfigMaps
//! come to be of the head of its default branch. Looked at on taking office, after merges and pushes, when the
//! configuration changes, and every few minutes; what was applied last is a cursor, so that nothing is done for what is
//! there. Each write sets what may be set before: to repeat one does no harm, so that no intent is recorded.

use std::time::Duration;

use trireme_forge::git::GitError;
use trireme_forge::webhook::Event;
use trireme_forge::{ChangedFile, EntryKind, RepoId};
use trireme_office::{RunningConfig, Work};
use trireme_proto::state::command::Body;
use trireme_proto::state::{
    Alarm, ConfigMapEffect, ConfigMapKey, Cursor, PutCursor, SetAlarm, Subject,
};

use super::chores::{Chore, MAX_CHORES, unable};
use super::write::Failure;
use super::{Session, not_recorded};
use crate::config_updater::{ConfigMapId, Feeds, NAME, Updates, fed_by};

/// After a merge: the pull request's own update tells people what it did, and goes first.
const AFTER_MERGE: Duration = Duration::from_secs(15);

/// What was applied last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Applied {
    sha: String,
    /// Of the plugin's configuration.
    digest: String,
}

impl Applied {
    fn parse(cursor: &str) -> Option<Self> {
        let (sha, digest) = cursor.split_once(' ')?;
        Some(Self {
            sha: sha.to_owned(),
            digest: digest.to_owned(),
        })
    }

    fn cursor(&self) -> String {
        format!("{} {}", self.sha, self.digest)
    }
}

/// Of the cursor and of the alarm.
fn key(repo: &RepoId) -> String {
    format!("{NAME}/{repo}")
}

/// The chores of the repositories that the configuration names.
pub(super) fn chores(running: &RunningConfig) -> impl Iterator<Item = Chore> {
    let enabled = running.plugins.enabled_repos(NAME).repos.into_iter();
    enabled
        .filter_map(|name| name.parse().ok())
        .map(Chore::ConfigMaps)
}

impl Session {
    /// Takes note of a merge or a push.
    pub(super) fn note_merge(&self, running: &RunningConfig, event: &Event) {
        if self.tools.config_maps.is_some()
            && let Some(repo) = fed_by(event)
            && Feeds::of(running, repo).is_some()
            && self.chores.depth().0 < MAX_CHORES
        {
            let chore = Chore::ConfigMaps(repo.clone());
            self.chores.add_after(chore, AFTER_MERGE);
        }
    }

    pub(super) async fn apply_config_maps(&self, repo: &RepoId) -> Result<(), Work> {
        let (Some(running), view) = self.running() else {
            return Ok(());
        };
        let Some(clusters) = &self.tools.config_maps else {
            return Ok(());
        };
        let Some(feeds) = Feeds::of(&running, repo) else {
            return Ok(());
        };
        let former = view.cursor(&key(repo));
        let former = former.and_then(|cursor| Applied::parse(&cursor.value));
        let wanted = Applied {
            sha: self.default_head(repo).await?,
            digest: feeds.digest.clone(),
        };
        if former.as_ref() == Some(&wanted) {
            return self.config_maps_alarm(repo, None).await;
        }
        let updates = self.updates(repo, &feeds, former.as_ref(), &wanted).await?;
        let (mut outage, mut refused) = (None, Vec::new());
        for (id, keys) in updates {
            self.office.assert_held().await.map_err(not_recorded)?;
            let effect = effect(repo, &wanted.sha, id, keys);
            let put = self.put_config_map(clusters.as_ref(), &effect, true);
            let told = |why: &str| {
                let ConfigMapEffect {
                    cluster,
                    namespace,
                    name,
                    ..
                } = &effect;
                format!("{namespace}/{name} in {cluster}: {why}")
            };
            match put.await {
                Ok(()) => {}
                Err(Failure::Outage(why, pause) | Failure::MaybeSent(why, pause)) => {
                    outage = Some((told(&why), pause));
                }
                Err(Failure::Refused(why) | Failure::Conflict(why)) => refused.push(told(&why)),
            }
        }
        // What was refused is tried again when the next look is due, and told until then.
        self.config_maps_alarm(repo, complaint(repo, &wanted, &refused))
            .await?;
        match outage {
            Some((why, pause)) => Err(Work::Outage(why, pause)),
            None if refused.is_empty() => self.applied(repo, &wanted).await,
            None => Ok(()),
        }
    }

    async fn default_head(&self, repo: &RepoId) -> Result<String, Work> {
        let forge = self.tools.forge.as_ref();
        let failed = |error| unable(&format!("cannot tell the head of {repo}"), &error);
        let repository = forge.repository(repo).await.map_err(failed)?;
        let head = forge.branch_head(repo, &repository.default_branch).await;
        head.map_err(failed)
    }

    /// From what was applied to what is wanted: what changed in between, or everything if it is not known what is there.
    async fn updates(
        &self,
        repo: &RepoId,
        feeds: &Feeds<'_>,
        former: Option<&Applied>,
        wanted: &Applied,
    ) -> Result<Updates, Work> {
        let failed = |error: GitError| match error.is_outage() {
            true => Work::Outage(error.to_string(), None),
            false => Work::Retry(error.to_string()),
        };
        let mirrors = &self.tools.mirrors;
        mirrors.ensure(repo, &[&wanted.sha]).await.map_err(failed)?;
        let mut changed = None;
        if let Some(former) = former {
            let diff = async {
                mirrors.ensure(repo, &[&former.sha]).await?;
                mirrors.diff(repo, &former.sha, &wanted.sha).await
            };
            match diff.await {
                Ok(files) => changed = Some(files),
                // The branch was rewritten, and the forge has forgotten what it was.
                Err(error) if error.is_not_found() => {
                    tracing::warn!(%repo, former.sha, "what was applied last is not there any more");
                }
                Err(error) => return Err(failed(error)),
            }
        }
        let changed = changed.map(|files| {
            let files = files.into_iter().map(|file| ChangedFile {
                path: file.path,
                previous_path: file.previous_path,
                status: file.status,
                additions: file.additions,
                deletions: file.deletions,
                patch: None,
                blob_url: String::new(),
            });
            feeds.changed(&files.collect::<Vec<_>>())
        });
        if former.is_some_and(|former| former.digest == wanted.digest)
            && let Some(changed) = changed
        {
            return Ok(changed);
        }
        let tree = mirrors.list_tree(repo, &wanted.sha, "").await;
        let tree = tree.map_err(failed)?;
        let files = tree.iter().filter(|entry| entry.kind == EntryKind::File);
        let whole = feeds.whole(files.map(|entry| entry.path.as_str()));
        // What was removed first: another file may have its key now.
        let mut updates = changed.unwrap_or_default();
        for (id, keys) in whole {
            updates.entry(id).or_default().extend(keys);
        }
        Ok(updates)
    }

    async fn applied(&self, repo: &RepoId, applied: &Applied) -> Result<(), Work> {
        let put = PutCursor {
            cursors: vec![Cursor {
                key: key(repo),
                value: applied.cursor(),
                at_ms: self.office.now_ms(),
                ..Cursor::default()
            }],
        };
        let put = self.office.propose(Body::PutCursor(put)).await;
        put.map(|_| ()).map_err(not_recorded)
    }

    /// Raises the alarm of a repository's ConfigMaps, or lowers it.
    async fn config_maps_alarm(&self, repo: &RepoId, message: Option<String>) -> Result<(), Work> {
        let view = self.office.view();
        let raised = view.alarm(&key(repo)).map(|alarm| alarm.message.clone());
        // The state may keep less of it.
        let is_right = match (&message, &raised) {
            (None, None) => true,
            (Some(message), Some(raised)) => message.starts_with(raised),
            _ => false,
        };
        if is_right {
            return Ok(());
        }
        let set = SetAlarm {
            clear: message.is_none(),
            alarm: Some(Alarm {
                key: key(repo),
                message: message.unwrap_or_default(),
                raised_ms: self.office.now_ms(),
                ..Alarm::default()
            }),
        };
        let set = self.office.propose(Body::SetAlarm(set)).await;
        set.map(|_| ()).map_err(not_recorded)
    }
}

fn effect(repo: &RepoId, sha: &str, id: ConfigMapId, keys: Vec<ConfigMapKey>) -> ConfigMapEffect {
    ConfigMapEffect {
        subject: Some(Subject {
            org: repo.org.clone(),
            repo: repo.repo.clone(),
            number: 0,
        }),
        sha: sha.to_owned(),
        cluster: id.cluster,
        namespace: id.namespace,
        name: id.name,
        keys,
    }
}

fn complaint(repo: &RepoId, wanted: &Applied, refused: &[String]) -> Option<String> {
    let (first, more) = refused.split_first()?;
    let more = match more.len() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!(
        "ConfigMaps of {repo} are not as {} has them: {first}{more}; it is tried again every few minutes: give this \
         system the right to write there, or take the cluster out of config_updater",
        wanted.sha.get(..12).unwrap_or(&wanted.sha)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, plugins_yaml};

    #[test]
    fn what_was_applied_comes_back_out_of_the_cursor() {
        let applied = Applied {
            sha: "a".repeat(40),
            digest: "0011223344556677".into(),
        };
        assert_eq!(Applied::parse(&applied.cursor()), Some(applied));
        assert_eq!(Applied::parse(""), None);
    }

    #[test]
    fn refusals_are_told_with_what_to_do() {
        let wanted = Applied {
            sha: "c0ffee0ddc0ffee0ddc0".into(),
            digest: String::new(),
        };
        let repo = RepoId::new("org", "repo");
        assert_eq!(complaint(&repo, &wanted, &[]), None);
        let refused = ["ns/a in build: closed", "ns/b in build: closed"].map(str::to_owned);
        insta::assert_snapshot!(complaint(&repo, &wanted, &refused).unwrap(), @"ConfigMaps of org/repo are not as c0ffee0ddc0f has them: ns/a in build: closed (and 1 more); it is tried again every few minutes: give this system the right to write there, or take the cluster out of config_updater");
    }

    /// PLG-CONFIGUPDATER-011: what the plugin's configuration says now is another desired state.
    #[test]
    fn plg_configupdater_011_another_configuration_is_another_desired_state() {
        let digest = |namespace: &str, yaml: &str, repo: &str| {
            let running = RunningConfig {
                version: 1,
                config: config(&format!("prowjob_namespace: {namespace}")),
                plugins: plugins_yaml(yaml).unwrap(),
            };
            let repo = repo.parse().unwrap();
            Feeds::of(&running, &repo).map(|feeds| feeds.digest)
        };
        let on = "plugins: {o/r: {plugins: [config-updater]}}\n";
        let first = digest("prow", on, "o/r");
        assert!(first.is_some());
        assert_eq!(first, digest("prow", on, "o/r"));
        assert_ne!(first, digest("other", on, "o/r"));
        let maps = format!("{on}config_updater: {{maps: {{a: {{name: b, denied_repos: [o/x]}}}}}}");
        assert_ne!(first, digest("prow", &maps, "o/r"));
        assert_eq!(digest("prow", &maps, "o/x"), None, "it is off there");
        let nothing =
            format!("{on}config_updater: {{maps: {{a: {{name: b, denied_repos: [o]}}}}}}");
        assert_eq!(digest("prow", &nothing, "o/r"), None);
    }
}
