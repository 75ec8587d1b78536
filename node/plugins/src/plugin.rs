//! What a plugin is, and what it may look at while it decides.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use trireme_config::job::{Postsubmit, Presubmit};
use trireme_config::plugins::Section;
use trireme_forge::git::{GitError, Mirrors};
use trireme_forge::github::AsOf;
use trireme_forge::owners::{OwnersLoader, OwnersOptions, RepoOwners};
use trireme_forge::webhook::Event;
use trireme_forge::{BotUser, Forge, ForgeError, PullRequest, RepoId};
use trireme_in_repo::InRepo;
use trireme_outside::Outside;
use trireme_proto::state;
use trireme_state::State;

use crate::decision::Decision;
use crate::help::{HelpScope, PluginHelp};
use crate::jira::JiraDirectory;
use crate::needs_rebase::Checked;
use crate::options::PluginOptions;
use trireme_office::RunningConfig;

/// Wrong credentials are for somebody to put right, not for a delivery to be lost by.
const UNAUTHORIZED_PAUSE: Duration = Duration::from_secs(60);

/// What is looked at so long after it happened has waited, was redriven, or was lost and brought again: more may have
/// happened since.
const LATE: SignedDuration = SignedDuration::from_secs(30);

/// Whether it is long ago that this happened.
pub(crate) fn is_late(happened: Timestamp, now: Timestamp) -> bool {
    now.duration_since(happened) > LATE
}

/// Something that reacts to webhooks. Stateless: what it knows it reads anew for every event.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// As `plugins.yaml` names it.
    fn name(&self) -> &'static str;

    /// The kinds of events it handles, for its help.
    fn events(&self) -> &'static [EventKind];

    /// Whether the event and the configuration allow it to do anything. An event that concerns no plugin costs one command.
    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool;

    /// Reads the facts and decides. Changes nothing outside.
    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError>;

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp;

    /// The names under which `external_plugins` turns it on, for what Prow runs as a process of its own.
    fn external_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// How its section of `plugins.yaml` is read, if it has one of its own; [`Planning::section`] gives what was read.
    fn section(&self) -> Option<Section> {
        None
    }
}

/// Kinds of events as the help names them (HOOK-082).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    Issue,
    IssueComment,
    PullRequest,
    Push,
    Review,
    ReviewComment,
    Status,
    /// Any text that people write.
    Generic,
}

impl EventKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::IssueComment => "issue_comment",
            Self::PullRequest => "pull_request",
            Self::Push => "push",
            Self::Review => "pull_request_review",
            Self::ReviewComment => "pull_request_review_comment",
            Self::Status => "status",
            Self::Generic => "GenericCommentEvent (any event for user text)",
        }
    }
}

/// What was said beforehand: all that a plugin sees when it tells whether an event concerns it. Cheap, and without facts.
#[derive(Clone, Copy)]
pub struct Configured<'a> {
    pub running: &'a RunningConfig,
    pub options: &'a PluginOptions,
}

impl<'a> Configured<'a> {
    /// The plugin's section of `plugins.yaml`, parsed with the version that it is of; `None` if it was not read, which
    /// [`Planning::section`] tells as an error: the event is to concern the plugin then.
    #[must_use]
    pub fn section<T: 'static>(&self, key: &str) -> Option<&'a T> {
        self.running.plugins.section(key)
    }
}

/// What a plugin may look at.
pub struct Planning<'a> {
    /// Of the delivery; ids of jobs derive from it.
    pub guid: &'a str,
    pub now: Timestamp,
    /// When the delivery came.
    pub received: Timestamp,
    pub forge: &'a dyn Forge,
    /// How new the forge's answers are, at least.
    pub(crate) as_of: &'a AsOf,
    /// Whom we act as.
    pub bot: &'a BotUser,
    pub running: &'a RunningConfig,
    pub state: &'a State,
    pub owners: &'a OwnersLoader,
    pub in_repo: &'a InRepo,
    pub mirrors: &'a Mirrors,
    pub options: &'a PluginOptions,
    pub(crate) jira: Option<&'a JiraDirectory>,
    /// To ask others than the forge.
    pub(crate) outside: &'a Outside,
    pub(crate) checked: &'a Checked,
    /// Whether there are Kubernetes clusters to write ConfigMaps to.
    pub has_clusters: bool,
    /// Whether the event is given up for this plugin if it fails again.
    pub last_try: bool,
    /// Webhooks that were lost together are asked for one after the other: within this the others have come too.
    pub(crate) round: Duration,
}

impl<'a> Planning<'a> {
    /// The plugin's section of `plugins.yaml`, as [`Plugin::section`] reads it; its default where the file has none.
    ///
    /// # Errors
    /// Never for a configuration that was accepted: it was read with the same registry.
    pub fn section<T: 'static>(&self, key: &str) -> Result<&'a T, PlanError> {
        let section = self.running.plugins.section(key);
        section.ok_or_else(|| PlanError::Failed(format!("the section {key} was not read")))
    }

    /// For what has to settle first: [`PlanError::NotYet`] until so long after the delivery came. Until then the lane
    /// waits, a change of leader included.
    ///
    /// # Errors
    /// While it is too early.
    pub fn settled_for(&self, wait: Duration) -> Result<(), PlanError> {
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        let until = self.received.saturating_add(wait).unwrap_or(self.now);
        match u64::try_from(until.as_millisecond() - self.now.as_millisecond()) {
            Ok(left) if left > 0 => Err(PlanError::NotYet(Duration::from_millis(left))),
            _ => {
                self.as_of.settle();
                Ok(())
            }
        }
    }

    /// Whether it is long ago that this happened.
    pub(crate) fn is_late(&self, happened: Timestamp) -> bool {
        is_late(happened, self.now)
    }

    /// The pull request as it is known, if what the event tells is older: webhooks that were lost come late, and those of
    /// a backlog are decided after what followed them has come.
    pub(crate) fn newer(&self, pr: &PullRequest) -> Option<&'a state::PullRequest> {
        let RepoId { org, repo } = &pr.repo;
        self.state
            .pull_request(org, repo, pr.number)
            .map(Arc::as_ref)
            .filter(|known| known.updated_ms > pr.updated_at.as_millisecond())
    }

    /// The presubmits that the configuration has for a repository, in their order.
    pub(crate) fn presubmits(&self, repo: &RepoId) -> Vec<&'a Presubmit> {
        self.running.config.presubmits(&repo.to_string()).collect()
    }

    /// The postsubmits that the configuration has for a repository, in their order.
    pub(crate) fn postsubmits(&self, repo: &RepoId) -> Vec<&'a Postsubmit> {
        self.running.config.postsubmits(&repo.to_string()).collect()
    }

    /// Which files of a repository are OWNERS files.
    pub(crate) fn owners_options(&self, repo: &RepoId) -> OwnersOptions {
        let plugins = &self.running.plugins;
        let names = plugins.owners_filenames(&repo.org, &repo.repo);
        let denylist = &self.running.config.prow.owners_dir_denylist;
        let denylist = denylist.clone().unwrap_or_default();
        OwnersOptions {
            owners: names.owners,
            aliases: names.owners_aliases,
            md_yaml: plugins.md_yaml_enabled(&repo.org, &repo.repo),
            dir_denylist: denylist.ignored_dirs(&repo.org, &repo.repo),
        }
    }

    /// What OWNERS files say at the tip of a branch, as far as people are collaborators (OWN-001, OWN-012).
    pub(crate) async fn owners(
        &self,
        repo: &RepoId,
        branch: &str,
    ) -> Result<RepoOwners, PlanError> {
        let plugins = &self.running.plugins;
        let options = self.owners_options(repo);
        let head = self.forge.branch_head(repo, branch).await?;
        let owners = self
            .owners
            .load_branch(repo, branch, &head, &options)
            .await?;
        if plugins.skip_collaborators(&repo.org, &repo.repo) {
            return Ok(owners);
        }
        match self.forge.collaborators(repo).await {
            Ok(collaborators) => Ok(owners.with_collaborators(&collaborators)),
            Err(error) if error.is_outage() => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, %repo, "collaborators are unknown: everybody in OWNERS counts");
                Ok(owners)
            }
        }
    }
}

/// Why a plugin could not decide.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Passes by itself: the lane waits, nothing is counted.
    #[error("{reason}")]
    Outage {
        reason: String,
        retry_after: Option<Duration>,
    },
    /// Nothing failed: to be decided after this long.
    #[error("too early by {} ms", .0.as_millis())]
    NotYet(Duration),
    /// Counted; after a few tries the event is given up for this plugin.
    #[error("{0}")]
    Failed(String),
}

impl From<ForgeError> for PlanError {
    fn from(error: ForgeError) -> Self {
        match outage(&error) {
            Some(retry_after) => Self::Outage {
                reason: error.to_string(),
                retry_after,
            },
            None => Self::Failed(error.to_string()),
        }
    }
}

/// For how long to pause, if the failure passes without anybody changing what was asked; `None` inside leaves that to
/// the backoff.
pub(crate) fn outage(error: &ForgeError) -> Option<Option<Duration>> {
    match error {
        ForgeError::Unauthorized { .. } => Some(Some(UNAUTHORIZED_PAUSE)),
        error if error.is_outage() => Some(error.retry_after()),
        _ => None,
    }
}

impl From<GitError> for PlanError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Forge(error) => error.into(),
            error if error.is_outage() => Self::Outage {
                reason: error.to_string(),
                retry_after: None,
            },
            error => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_credentials_pause_a_lane_and_a_refusal_counts() {
        let request = || "GET /user".to_owned();
        let unauthorized = ForgeError::Unauthorized {
            request: request(),
            message: String::new(),
        };
        assert_eq!(outage(&unauthorized), Some(Some(UNAUTHORIZED_PAUSE)));
        let down = ForgeError::Unavailable {
            request: request(),
            reason: "502".into(),
            maybe_sent: false,
        };
        assert!(matches!(
            PlanError::from(down),
            PlanError::Outage {
                retry_after: None,
                ..
            }
        ));
        let gone = ForgeError::NotFound {
            request: request(),
            message: String::new(),
        };
        assert_eq!(outage(&gone), None);
        assert!(matches!(PlanError::from(gone), PlanError::Failed(_)));
    }
}
