//! The forge's records as GraphQL objects.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::record::{Field, Record};
use crate::forge::{
    AccountKind, CheckRun, Commit, Forge, Issue, OpenState, Pull, Repo, RepoName, Status,
    StatusState, combined_state,
};
use crate::render::{Render, node_id, path_segment, time};

fn times(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, time)
}

fn state(state: StatusState) -> Value {
    json!(state.as_str().to_uppercase())
}

/// Shows records of a forge; the same as [`Render`], for the other API.
pub(super) struct Objects<'a> {
    pub(super) render: Render<'a>,
}

impl Objects<'_> {
    fn forge(&self) -> &Forge {
        self.render.forge
    }

    fn base(&self) -> &str {
        self.render.base
    }

    pub(super) fn account(&self, login: &str) -> Option<Record> {
        let kind = match self.forge().account(login).ok()?.kind {
            AccountKind::User => "User",
            AccountKind::Bot => "Bot",
            AccountKind::Organization => "Organization",
        };
        self.account_as(kind, login)
    }

    /// Who asks, or is assigned, is a `User` by the schema, bot or not.
    pub(super) fn viewer(&self, login: &str) -> Option<Record> {
        self.account_as("User", login)
    }

    fn account_as(&self, kind: &'static str, login: &str) -> Option<Record> {
        let account = self.forge().account(login).ok()?;
        let status = (kind == "User" && account.busy).then(|| {
            Record::new("UserStatus")
                .with("id", json!(node_id("UserStatus", account.id)))
                .with("indicatesLimitedAvailability", json!(true))
                .with("message", json!("busy"))
        });
        Some(
            Record::new(kind)
                .with("status", status)
                .with("id", json!(node_id("User", account.id)))
                .with("databaseId", json!(account.id))
                .with("login", json!(account.login))
                .with("name", json!(account.name))
                .with("url", json!(format!("{}/{}", self.base(), account.login)))
                .with(
                    "avatarUrl",
                    json!(format!("{}/avatars/{}", self.base(), account.login)),
                ),
        )
    }

    pub(super) fn repo(&self, repo: &Repo) -> Record {
        let name = &repo.name;
        let default = repo.branches.get(&repo.default_branch);
        Record::new("Repository")
            .with("id", json!(node_id("Repository", repo.id)))
            .with("databaseId", json!(repo.id))
            .with("name", json!(name.name))
            .with("nameWithOwner", json!(name.to_string()))
            .with("owner", self.account(&name.owner))
            .with("isPrivate", json!(repo.private))
            .with("isArchived", json!(repo.archived))
            .with("url", json!(self.render.html_url(name)))
            .with(
                "defaultBranchRef",
                default.map(|_| self.branch(repo, &repo.default_branch)),
            )
    }

    fn branch(&self, repo: &Repo, name: &str) -> Record {
        Record::new("Ref")
            .with("id", json!(format!("REF_{}_{name}", repo.id)))
            .with("name", json!(name))
            .with("prefix", json!("refs/heads/"))
    }

    /// An issue, or a pull request.
    pub(super) fn item(&self, repo: &Repo, issue: &Issue) -> Record {
        match &issue.pull {
            Some(pull) => self.pull(repo, issue, pull),
            None => self
                .shared(Record::new("Issue"), repo, issue)
                .with("id", json!(node_id("Issue", issue.id)))
                .with("databaseId", json!(issue.id))
                .with("state", json!(issue.state.as_str().to_uppercase()))
                .with(
                    "url",
                    json!(format!(
                        "{}/issues/{}",
                        self.render.html_url(&repo.name),
                        issue.number
                    )),
                ),
        }
    }

    /// What issues and pull requests have in common.
    fn shared(&self, record: Record, repo: &Repo, issue: &Issue) -> Record {
        let labels = issue.labels.iter().filter_map(|name| repo.label(name));
        let labels = labels.map(|label| {
            let path = path_segment(&label.name);
            Record::new("Label")
                .with("id", json!(node_id("Label", label.id)))
                .with("name", json!(label.name))
                .with("color", json!(label.color))
                .with("description", json!(label.description))
                .with(
                    "url",
                    json!(format!(
                        "{}/labels/{path}",
                        self.render.html_url(&repo.name)
                    )),
                )
        });
        let milestone = issue.milestone.and_then(|n| repo.milestones.get(&n));
        let milestone = milestone.map(|milestone| {
            Record::new("Milestone")
                .with("id", json!(node_id("Milestone", milestone.id)))
                .with("number", json!(milestone.number))
                .with("state", json!(milestone.state.as_str().to_uppercase()))
                .with("title", json!(milestone.title))
        });
        let association = self.forge().association(&repo.name, &issue.author);
        record
            .with("number", json!(issue.number))
            .with("title", json!(issue.title))
            .with("body", json!(issue.body.clone().unwrap_or_default()))
            .with("author", self.account(&issue.author))
            .with("authorAssociation", json!(association))
            .with("closed", json!(issue.state == OpenState::Closed))
            .with("createdAt", time(issue.created_at))
            .with("updatedAt", time(issue.updated_at))
            .with("repository", self.repo(repo))
            .with("milestone", milestone)
            .with(
                "labels",
                Field::Connection("LabelConnection", labels.collect()),
            )
    }

    fn pull(&self, repo: &Repo, issue: &Issue, pull: &Pull) -> Record {
        let current = self.forge().current_mergeability(repo, pull);
        let mergeable = match current {
            _ if pull.merged.is_some() => "UNKNOWN",
            None => "UNKNOWN",
            Some(m) if m.merge_commit.is_some() => "MERGEABLE",
            Some(_) => "CONFLICTING",
        };
        let rebasable = current.is_some_and(|m| m.rebaseable);
        let merge_state = self.forge().merge_state(repo, pull).to_uppercase();
        let status = match (&pull.merged, issue.state) {
            (Some(_), _) => "MERGED",
            (None, OpenState::Closed) => "CLOSED",
            (None, OpenState::Open) => "OPEN",
        };
        let head_repo = self.forge().repo(&pull.head_repo).ok();
        let head_ref = head_repo
            .filter(|r| r.branches.contains_key(&pull.head_branch))
            .map(|r| self.branch(r, &pull.head_branch));
        let base_ref = repo
            .branches
            .contains_key(&pull.base_branch)
            .then(|| self.branch(repo, &pull.base_branch));
        let url = format!("{}/pull/{}", self.render.html_url(&repo.name), issue.number);
        let commits = pull.head.commits.iter().map(|commit| {
            Record::new("PullRequestCommit")
                .with("id", json!(format!("PURC_{}_{}", pull.id, commit.sha)))
                .with("url", json!(format!("{url}/commits/{}", commit.sha)))
                .with("commit", self.commit(&repo.name, commit))
        });
        let commits = Field::Connection("PullRequestCommitConnection", commits.collect());
        let assignees = issue
            .assignees
            .iter()
            .filter_map(|login| self.account(login));
        let assignees = Field::Connection("UserConnection", assignees.collect());
        self.shared(Record::new("PullRequest"), repo, issue)
            .with("id", json!(node_id("PullRequest", pull.id)))
            .with("databaseId", json!(pull.id))
            .with("fullDatabaseId", json!(pull.id.to_string()))
            .with("url", json!(url))
            .with("state", json!(status))
            .with("isDraft", json!(pull.draft))
            .with("merged", json!(pull.merged.is_some()))
            .with("mergedAt", times(pull.merged.as_ref().map(|m| m.at)))
            .with("mergeCommit", None::<Record>)
            .with("mergeable", json!(mergeable))
            .with("mergeStateStatus", json!(merge_state))
            .with("canBeRebased", json!(rebasable))
            .with(
                "reviewDecision",
                json!(self.forge().review_decision(&repo.name, issue.number)),
            )
            .with("baseRef", base_ref)
            .with("baseRefName", json!(pull.base_branch))
            .with("baseRefOid", json!(pull.base_sha))
            .with("headRef", head_ref)
            .with("headRefName", json!(pull.head_branch))
            .with("headRefOid", json!(pull.head_sha))
            .with("headRepository", head_repo.map(|r| self.repo(r)))
            .with("headRepositoryOwner", self.account(&pull.head_repo.owner))
            .with(
                "isCrossRepository",
                json!(pull.head_repo.key() != repo.name.key()),
            )
            .with("additions", json!(pull.head.additions))
            .with("deletions", json!(pull.head.deletions))
            .with("changedFiles", json!(pull.head.changed_files))
            .with("commits", commits)
            .with("assignees", assignees)
    }

    fn commit(&self, repo: &RepoName, commit: &Commit) -> Record {
        let sha = &commit.sha;
        let (headline, body) = commit
            .message
            .split_once('\n')
            .unwrap_or((&commit.message, ""));
        Record::new("Commit")
            .with("id", json!(format!("C_{sha}")))
            .with("oid", json!(sha))
            .with("abbreviatedOid", json!(&sha[..7]))
            .with("message", json!(commit.message))
            .with("messageHeadline", json!(headline))
            .with("messageBody", json!(body.trim()))
            .with("authoredDate", time(commit.author.at))
            .with("committedDate", time(commit.committer.at))
            .with(
                "url",
                json!(format!("{}/commit/{sha}", self.render.html_url(repo))),
            )
            .with("status", self.status(repo, sha))
            .with("statusCheckRollup", self.rollup(repo, sha))
    }

    fn status(&self, repo: &RepoName, sha: &str) -> Option<Record> {
        let statuses = self.forge().current_statuses(repo, sha);
        if statuses.is_empty() {
            return None;
        }
        let combined = combined_state(statuses.iter().copied());
        let contexts = statuses.into_iter().map(|status| self.context(status));
        Some(
            Record::new("Status")
                .with("id", json!(format!("S_{sha}")))
                .with("state", state(combined))
                .with("contexts", Field::List(contexts.collect())),
        )
    }

    fn context(&self, status: &Status) -> Record {
        Record::new("StatusContext")
            .with("id", json!(node_id("StatusContext", status.id)))
            .with("context", json!(status.context))
            .with("state", state(status.state))
            .with("description", json!(status.description))
            .with("targetUrl", json!(status.target_url))
            .with("createdAt", time(status.created_at))
            .with("creator", self.account(&status.creator))
    }

    fn rollup(&self, repo: &RepoName, sha: &str) -> Option<Record> {
        let statuses = self.forge().current_statuses(repo, sha);
        let runs = self.forge().repo(repo).ok()?.check_runs.get(sha);
        let runs: Vec<&CheckRun> = runs.into_iter().flatten().collect();
        if statuses.is_empty() && runs.is_empty() {
            return None;
        }
        let failed = |run: &&CheckRun| {
            let conclusion = run.conclusion.as_deref();
            conclusion.is_some_and(|c| !matches!(c, "success" | "neutral" | "skipped"))
        };
        let mut combined = statuses
            .iter()
            .map(|s| s.state)
            .max()
            .unwrap_or(StatusState::Success);
        if runs.iter().any(failed) {
            combined = combined.max(StatusState::Failure);
        } else if runs.iter().any(|run| run.conclusion.is_none()) {
            combined = combined.max(StatusState::Pending);
        }
        let mut contexts: Vec<Record> = runs.iter().map(|run| self.check_run(repo, run)).collect();
        contexts.extend(statuses.into_iter().map(|status| self.context(status)));
        Some(
            Record::new("StatusCheckRollup")
                .with("id", json!(format!("SCR_{sha}")))
                .with("state", state(combined))
                .with(
                    "contexts",
                    Field::Connection("StatusCheckRollupContextConnection", contexts),
                ),
        )
    }

    fn check_run(&self, repo: &RepoName, run: &CheckRun) -> Record {
        let url = format!("{}/runs/{}", self.render.html_url(repo), run.id);
        Record::new("CheckRun")
            .with("id", json!(node_id("CheckRun", run.id)))
            .with("databaseId", json!(run.id))
            .with("name", json!(run.name))
            .with("status", json!(run.status.to_uppercase()))
            .with(
                "conclusion",
                json!(run.conclusion.as_ref().map(|c| c.to_uppercase())),
            )
            .with("startedAt", time(run.started_at))
            .with("completedAt", times(run.completed_at))
            .with("detailsUrl", json!(url))
            .with("url", json!(url))
    }
}
