//! Looking whether pull requests still merge: all of them now and then (PLG-NEEDSREBASE-002), and those of a branch after
//! it moved (PLG-NEEDSREBASE-005), because no event tells of conflicts that others make.

use std::time::Duration;

use jiff::Timestamp;
use trireme_config::PluginConfig;
use trireme_forge::webhook::{Event, PushEvent};
use trireme_forge::{ForgeError, RepoId, SearchedPullRequest, search};
use trireme_office::Work;

use super::chores::{Chore, MAX_CHORES, MAX_MOVED, unable};
use super::effects::millis;
use super::{Session, not_recorded};
use crate::label_names::NEEDS_REBASE;
use crate::needs_rebase::{self, Query, message, of_branch, queries, stale};

/// When all were looked at last.
const CURSOR: &str = "plugins/needs-rebase";
/// Pull requests that one look labels; the next hour goes on (PLG-NEEDSREBASE-002).
const MAX_CHANGED: usize = 360;
const HOUR: Duration = Duration::from_secs(3600);
/// How long the forge gets after a push. Pushes within it are looked at together.
const AFTER_PUSH: Duration = Duration::from_secs(15);
/// The forge finds out what it does not know once it was asked; then it is asked again, so often.
const LOOKS: u8 = 3;

/// What a look at a pull request leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Label,
    Unlabel,
}

fn change(pr: &SearchedPullRequest) -> Option<Change> {
    let labelled = pr
        .labels
        .iter()
        .any(|label| label.eq_ignore_ascii_case(NEEDS_REBASE));
    match pr.mergeable {
        search::Mergeable::Conflicting if !labelled => Some(Change::Label),
        search::Mergeable::Mergeable if labelled => Some(Change::Unlabel),
        _ => None,
    }
}

/// The branch of a push after which its pull requests may not merge any more.
fn moved(config: &PluginConfig, push: &PushEvent) -> Option<(RepoId, String)> {
    let repo = &push.repository.id;
    let branch = push.git_ref.strip_prefix("refs/heads/")?;
    // Which events the plugin asks for is about what is sent to it elsewhere.
    let keys = [repo.org.clone(), repo.to_string()];
    let mut named = keys
        .iter()
        .filter_map(|key| config.core.external_plugins.get(key))
        .flatten();
    let on = named.any(|plugin| plugin.name == needs_rebase::NAME);
    (on && !push.created && !push.deleted).then(|| (repo.clone(), branch.to_owned()))
}

/// What one search led to.
#[derive(Debug, Default)]
struct Looked {
    changed: usize,
    unknown: usize,
}

impl Session {
    /// Whether needs-rebase is run here, and not elsewhere.
    fn looks_for_rebase(&self) -> bool {
        self.tools.plugins.get(needs_rebase::NAME).is_some()
    }

    /// Takes note of a push.
    pub(super) fn note_push(&self, config: &PluginConfig, event: &Event) {
        let Event::Push(push) = event else { return };
        if !self.looks_for_rebase() {
            return;
        }
        if let Some((repo, branch)) = moved(config, push)
            && self.chores.depth().0 < MAX_CHORES
        {
            let chore = Chore::BaseMoved {
                repo,
                branch,
                look: 1,
            };
            self.chores.add_after(chore, AFTER_PUSH);
        }
    }

    /// Takes note of the pushes before this stay in office that may not have been looked at.
    pub(super) fn note_former_pushes(&self, config: &PluginConfig) {
        let view = self.office.view();
        let since_ms = self
            .office
            .now_ms()
            .saturating_sub(millis(AFTER_PUSH * 2 * u32::from(LOOKS)));
        let recent = view
            .deliveries_newest_first(None)
            .take_while(|delivery| delivery.received_ms >= since_ms)
            .take(MAX_MOVED);
        for delivery in recent.filter(|delivery| delivery.event == "push") {
            // One that does not decode is nobody's.
            if let Ok(parsed) = self.events.get(&view, delivery) {
                self.note_push(config, &parsed.event);
            }
        }
    }

    /// Looks at everything, if it is time; `Some` is when to go on.
    pub(super) async fn scan_for_rebase(&self) -> Result<Option<Duration>, Work> {
        let (Some(running), view) = self.running() else {
            return Ok(None);
        };
        if !self.looks_for_rebase() {
            return Ok(None);
        }
        let now_ms = self.office.now_ms();
        let period_ms = millis(self.tools.options.needs_rebase.update_period);
        let last_ms = view.cursor(CURSOR).map(|cursor| cursor.at_ms);
        if last_ms.is_some_and(|last_ms| now_ms.saturating_sub(last_ms) < period_ms) {
            return Ok(None);
        }
        self.tools.checked.flush();
        let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let per_org = self.tools.forge.sees_by_org();
        let mut changed = 0;
        for query in queries(&running.plugins, now, per_org) {
            changed += self
                .look(&query, MAX_CHANGED.saturating_sub(changed))
                .await?
                .changed;
            if changed >= MAX_CHANGED {
                tracing::warn!(changed, "more pull requests to label: going on in an hour");
                return Ok(Some(HOUR));
            }
        }
        self.move_cursor(CURSOR.to_owned(), now_ms).await?;
        Ok(None)
    }

    /// Looks at the pull requests of a branch that has moved.
    pub(super) async fn look_after_push(
        &self,
        repo: &RepoId,
        branch: &str,
        look: u8,
    ) -> Result<(), Work> {
        let looked = self.look(&of_branch(repo, branch), MAX_CHANGED).await?;
        if looked.unknown > 0 && look < LOOKS {
            let again = Chore::BaseMoved {
                repo: repo.clone(),
                branch: branch.to_owned(),
                look: look + 1,
            };
            self.chores.add_after(again, AFTER_PUSH * 2);
        }
        Ok(())
    }

    async fn look(&self, query: &Query, most: usize) -> Result<Looked, Work> {
        let forge = self.tools.forge.as_ref();
        let failed = |error: &ForgeError| unable("cannot search pull requests", error);
        let found = forge
            .search_all_pull_requests(&query.text, query.org.as_deref())
            .await
            .map_err(|error| failed(&error))?;
        if let Some(why) = &found.incomplete {
            tracing::warn!(query.text, why, "not all pull requests were found");
        }
        let mut looked = Looked::default();
        for pr in &found.nodes {
            if !self.tools.enablement.allows(&pr.repo.org, &pr.repo.repo) {
                continue;
            }
            looked.unknown += usize::from(pr.mergeable == search::Mergeable::Unknown);
            let Some(change) = change(pr) else { continue };
            if looked.changed >= most {
                break;
            }
            self.office.assert_held().await.map_err(not_recorded)?;
            match self.apply_rebase(pr, change).await {
                Ok(()) => looked.changed += 1,
                Err(error) => match unable(&format!("{}#{}", pr.repo, pr.number), &error) {
                    // That one is refused; the others are not.
                    Work::Done => {}
                    work => return Err(work),
                },
            }
        }
        Ok(looked)
    }

    /// Each step is looked for before it is done, or does no harm when done again; the label comes last, because it is
    /// what the next look goes by.
    async fn apply_rebase(
        &self,
        pr: &SearchedPullRequest,
        change: Change,
    ) -> Result<(), ForgeError> {
        let forge = self.tools.forge.as_ref();
        let (repo, number) = (&pr.repo, pr.number);
        let bot = forge.bot_user(&repo.org).await?;
        let ours = stale(&forge.comments(repo, number).await?, &bot);
        match change {
            Change::Label => {
                if ours.is_empty() {
                    let text = message(&pr.author.login);
                    forge.create_comment(repo, number, &text).await?;
                }
                forge.add_labels(repo, number, &[NEEDS_REBASE]).await
            }
            Change::Unlabel => {
                for id in ours {
                    forge.delete_comment(repo, id).await?;
                }
                forge.remove_label(repo, number, NEEDS_REBASE).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trireme_config::plugins::ExternalPlugin;
    use trireme_forge::User;

    use super::*;
    use crate::testing::repository;

    fn push(git_ref: &str) -> PushEvent {
        PushEvent {
            git_ref: git_ref.to_owned(),
            before: "a".repeat(40),
            after: "b".repeat(40),
            created: false,
            deleted: false,
            forced: false,
            compare_url: String::new(),
            commits: vec![],
            head_commit: None,
            pusher: "ann".into(),
            sender: User::new("ann"),
            repository: repository(),
        }
    }

    /// PLG-NEEDSREBASE-005
    #[test]
    fn plg_needsrebase_005_a_push_makes_its_branchs_pull_requests_be_looked_at() {
        let mut config = PluginConfig::default();
        assert_eq!(moved(&config, &push("refs/heads/main")), None);
        let plugin = ExternalPlugin {
            name: "needs-rebase".into(),
            events: vec!["pull_request".into()],
            ..ExternalPlugin::default()
        };
        config
            .core
            .external_plugins
            .insert("org".into(), vec![plugin]);
        let repo = RepoId::new("org", "repo");
        assert_eq!(
            moved(&config, &push("refs/heads/main")),
            Some((repo, "main".to_owned()))
        );
        assert_eq!(moved(&config, &push("refs/tags/v1")), None);
        let mut gone = push("refs/heads/main");
        gone.deleted = true;
        assert_eq!(moved(&config, &gone), None);
    }
}
