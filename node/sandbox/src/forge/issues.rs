//! Issues, and what pull requests share with them: comments, labels, assignees, title, body, state.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Comment, CommentAction, Forge, Happening, Id, Issue, IssueAction, IssueEvent, IssueEventKind,
    Label, MAX_ISSUE_EVENTS, OpenState, Permission, PullAction, Refusal, RepoName,
};

/// GitHub's bound on the text of an issue, a pull request or a comment.
pub const MAX_BODY_CHARS: usize = 65_536;

/// Colour of a label that was created by being used.
const DEFAULT_LABEL_COLOR: &str = "ededed";

/// What a `PATCH` on an issue asks for; absent fields stay.
#[derive(Debug, Clone, Default)]
pub struct IssueChange {
    pub title: Option<String>,
    pub body: Option<String>,
    pub state: Option<OpenState>,
    pub state_reason: Option<String>,
    pub labels: Option<Vec<String>>,
    pub assignees: Option<Vec<String>>,
    /// `Some(None)` clears it.
    pub milestone: Option<Option<u64>>,
}

/// What opening an issue takes.
#[derive(Debug, Clone, Default)]
pub struct NewIssue {
    pub title: String,
    pub body: Option<String>,
    pub labels: Vec<String>,
    pub assignees: Vec<String>,
    pub milestone: Option<u64>,
}

impl Forge {
    /// Opens an issue and gives its number. From who may not triage, labels, assignees and milestone are dropped
    /// without a word, as GitHub does.
    ///
    /// # Errors
    /// As GitHub: 404 for who may not see the repository, 422 for a blank title, a text that is too long, somebody who
    /// cannot be assigned, or a milestone that does not exist.
    pub fn open_issue(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        new: NewIssue,
    ) -> Result<u64, Refusal> {
        self.require(repo, Some(actor), Permission::Read)?;
        check_text("Issue", Some(&new.title), new.body.as_deref())?;
        let may_triage = self.require(repo, Some(actor), Permission::Triage).is_ok();
        for login in &new.assignees {
            if self.account(login).is_err() || !self.is_collaborator(repo, login)? {
                return Err(Refusal::validation_value(
                    "Issue",
                    "assignees",
                    "invalid",
                    login,
                ));
            }
        }
        if let Some(milestone) = new.milestone
            && !self.repo(repo)?.milestones.contains_key(&milestone)
        {
            return Err(Refusal::validation("Issue", "milestone", "invalid"));
        }
        let number = self.reserve_number(repo)?;
        self.insert_issue(now, actor, repo, number, &new.title, new.body)?;
        self.emit(
            now,
            actor,
            repo,
            Happening::Issue {
                number,
                action: IssueAction::Opened,
            },
        );
        if may_triage {
            self.add_labels(now, actor, repo, number, &new.labels)?;
            self.assign(now, actor, repo, number, &new.assignees)?;
            self.set_milestone(now, actor, repo, number, new.milestone)?;
        }
        Ok(number)
    }

    pub(super) fn insert_issue(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        title: &str,
        body: Option<String>,
    ) -> Result<(), Refusal> {
        let author = self.account(actor)?.login.clone();
        let id = self.next_id();
        let record = self.repo_mut(repo)?;
        record.issues.insert(
            number,
            Issue {
                id,
                number,
                title: title.to_owned(),
                body,
                author,
                state: OpenState::Open,
                state_reason: None,
                locked: false,
                labels: Vec::new(),
                assignees: Vec::new(),
                milestone: None,
                comments: Vec::new(),
                reactions: Vec::new(),
                created_at: now,
                updated_at: now,
                closed_at: None,
                closed_by: None,
                events: Vec::new(),
                pull: None,
            },
        );
        Ok(())
    }

    /// Takes the next number of issues and pull requests; one that is not used leaves a gap.
    ///
    /// # Errors
    /// 404 when the repository does not exist.
    pub fn reserve_number(&mut self, repo: &RepoName) -> Result<u64, Refusal> {
        let record = self.repo_mut(repo)?;
        let number = record.next_number;
        record.next_number += 1;
        Ok(number)
    }

    /// Tells an action that issues and pull requests share by the event of the one it is.
    pub(super) fn emit_shared(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        action: IssueAction,
    ) {
        let history = match &action {
            IssueAction::Labeled(label) => Some(IssueEventKind::Labeled(label.clone())),
            IssueAction::Unlabeled(label) => Some(IssueEventKind::Unlabeled(label.clone())),
            IssueAction::Assigned(login) => Some(IssueEventKind::Assigned(login.clone())),
            IssueAction::Unassigned(login) => Some(IssueEventKind::Unassigned(login.clone())),
            IssueAction::Closed => Some(IssueEventKind::Closed),
            IssueAction::Reopened => Some(IssueEventKind::Reopened),
            IssueAction::Milestoned(milestone) => {
                Some(IssueEventKind::Milestoned(milestone.title.clone()))
            }
            IssueAction::Demilestoned(milestone) => {
                Some(IssueEventKind::Demilestoned(milestone.title.clone()))
            }
            IssueAction::Pinned => Some(IssueEventKind::Pinned),
            IssueAction::Unpinned => Some(IssueEventKind::Unpinned),
            IssueAction::Opened
            | IssueAction::Arrived { .. }
            | IssueAction::Transferred { .. }
            | IssueAction::Edited { .. } => None,
        };
        if let Some(what) = history {
            self.remember(now, actor, repo, number, what);
        }
        let is_pull = self.pull(repo, number).is_ok();
        let what = if is_pull {
            let action = match action {
                IssueAction::Opened => PullAction::Opened,
                IssueAction::Milestoned(milestone) => PullAction::Milestoned(milestone),
                IssueAction::Demilestoned(milestone) => PullAction::Demilestoned(milestone),
                // Pull requests are neither moved nor pinned.
                IssueAction::Arrived { .. }
                | IssueAction::Transferred { .. }
                | IssueAction::Pinned
                | IssueAction::Unpinned => return,
                IssueAction::Reopened => PullAction::Reopened,
                IssueAction::Closed => PullAction::Closed,
                IssueAction::Edited { changes } => PullAction::Edited { changes },
                IssueAction::Labeled(label) => PullAction::Labeled(label),
                IssueAction::Unlabeled(label) => PullAction::Unlabeled(label),
                IssueAction::Assigned(login) => PullAction::Assigned(login),
                IssueAction::Unassigned(login) => PullAction::Unassigned(login),
            };
            Happening::PullRequest { number, action }
        } else {
            Happening::Issue { number, action }
        };
        self.emit(now, actor, repo, what);
    }

    /// Adds a line to an issue's history.
    pub(super) fn remember(
        &mut self,
        at: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        what: IssueEventKind,
    ) {
        let id = self.next_id();
        if let Ok(issue) = self.issue_mut(repo, number) {
            if issue.events.len() >= MAX_ISSUE_EVENTS {
                issue.events.remove(0);
            }
            issue.events.push(IssueEvent {
                id,
                at,
                actor: actor.to_owned(),
                what,
            });
        }
    }

    /// Changes an issue or what a pull request shares with it. All or nothing.
    ///
    /// # Errors
    /// 403 for who is neither author nor triager, 404, 422 for bad values.
    pub fn edit_issue(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        change: IssueChange,
    ) -> Result<(), Refusal> {
        let (record, issue) = self.issue(repo, number)?;
        let is_author = issue.author.eq_ignore_ascii_case(actor);
        let least = if is_author {
            Permission::Read
        } else {
            Permission::Triage
        };
        self.require(repo, Some(actor), least)?;
        check_text("Issue", change.title.as_deref(), change.body.as_deref())?;
        if change.state == Some(OpenState::Open)
            && issue.state == OpenState::Closed
            && let Some(pull) = &issue.pull
        {
            self.check_reopening(record, pull)?;
        }
        if let Some(Some(milestone)) = change.milestone
            && !record.milestones.contains_key(&milestone)
        {
            return Err(Refusal::validation("Issue", "milestone", "invalid"));
        }
        let may_triage = self.require(repo, Some(actor), Permission::Triage).is_ok();

        let mut changes = serde_json::Map::new();
        let issue = self.issue_mut(repo, number)?;
        issue.updated_at = now;
        if let Some(title) = change.title
            && title != issue.title
        {
            let from = std::mem::replace(&mut issue.title, title.clone());
            changes.insert("title".into(), json!({"from": from}));
            let renamed = IssueEventKind::Renamed { from, to: title };
            self.remember(now, actor, repo, number, renamed);
        }
        let issue = self.issue_mut(repo, number)?;
        if let Some(body) = change.body
            && issue.body.as_deref() != Some(body.as_str())
        {
            let from = issue.body.clone().unwrap_or_default();
            changes.insert("body".into(), json!({"from": from}));
            issue.body = Some(body);
        }
        if !changes.is_empty() {
            let changes = Value::Object(changes);
            self.emit_shared(now, actor, repo, number, IssueAction::Edited { changes });
        }
        if may_triage && let Some(milestone) = change.milestone {
            self.set_milestone(now, actor, repo, number, milestone)?;
        }
        if may_triage && let Some(labels) = change.labels {
            self.set_labels(now, actor, repo, number, &labels)?;
        }
        if may_triage && let Some(assignees) = change.assignees {
            let (_, issue) = self.issue(repo, number)?;
            let gone: Vec<String> = issue
                .assignees
                .iter()
                .filter(|a| !assignees.iter().any(|b| a.eq_ignore_ascii_case(b)))
                .cloned()
                .collect();
            self.unassign(now, actor, repo, number, &gone)?;
            self.assign(now, actor, repo, number, &assignees)?;
        }
        if let Some(state) = change.state {
            self.set_state(now, actor, repo, number, state, change.state_reason)?;
        }
        Ok(())
    }

    pub(super) fn set_state(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        state: OpenState,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let closer = self.account(actor)?.login.clone();
        let issue = self.issue_mut(repo, number)?;
        if issue.state == state {
            return Ok(());
        }
        issue.state = state;
        issue.updated_at = now;
        let action = if state == OpenState::Closed {
            issue.closed_at = Some(now);
            issue.closed_by = Some(closer);
            if issue.pull.is_none() {
                issue.state_reason = Some(reason.unwrap_or_else(|| "completed".into()));
            }
            IssueAction::Closed
        } else {
            issue.closed_at = None;
            issue.closed_by = None;
            if issue.pull.is_none() {
                issue.state_reason = Some("reopened".into());
            }
            IssueAction::Reopened
        };
        self.emit_shared(now, actor, repo, number, action);
        Ok(())
    }

    /// Comments on an issue or a pull request and gives the comment's id.
    ///
    /// # Errors
    /// 403 when the conversation is locked, 404, 422 for a blank or too long text.
    pub fn comment(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        body: &str,
    ) -> Result<Id, Refusal> {
        self.require(repo, Some(actor), Permission::Read)?;
        let author = self.account(actor)?.login.clone();
        let (_, issue) = self.issue(repo, number)?;
        if issue.locked && self.permission(repo, Some(actor))? < Permission::Write {
            return Err(Refusal::forbidden(
                "Unable to create comment because issue is locked.",
            ));
        }
        check_comment(body)?;
        let id = self.next_id();
        let comment = Comment {
            id,
            issue: number,
            author,
            body: body.to_owned(),
            reactions: Vec::new(),
            created_at: now,
            updated_at: now,
        };
        let record = self.repo_mut(repo)?;
        record.comments.insert(id, comment.clone());
        let issue = self.issue_mut(repo, number)?;
        issue.comments.push(id);
        issue.updated_at = now;
        let action = CommentAction::Created;
        self.emit(now, actor, repo, Happening::Comment { comment, action });
        Ok(id)
    }

    /// # Errors
    /// 404 when the repository has no such comment.
    pub fn comment_by_id(&self, repo: &RepoName, id: Id) -> Result<&Comment, Refusal> {
        self.repo(repo)?
            .comments
            .get(&id)
            .ok_or_else(Refusal::not_found)
    }

    /// # Errors
    /// 403 for who is neither the author nor a writer, 404, 422.
    pub fn edit_comment(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        id: Id,
        body: &str,
    ) -> Result<(), Refusal> {
        self.require_comment_owner(actor, repo, id)?;
        check_comment(body)?;
        let comment = self
            .repo_mut(repo)?
            .comments
            .get_mut(&id)
            .ok_or_else(Refusal::not_found)?;
        let from = std::mem::replace(&mut comment.body, body.to_owned());
        comment.updated_at = now;
        let comment = comment.clone();
        self.issue_mut(repo, comment.issue)?.updated_at = now;
        let action = CommentAction::Edited { from };
        self.emit(now, actor, repo, Happening::Comment { comment, action });
        Ok(())
    }

    /// # Errors
    /// 403 for who is neither the author nor a writer, 404.
    pub fn delete_comment(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        id: Id,
    ) -> Result<(), Refusal> {
        self.require_comment_owner(actor, repo, id)?;
        let comment = self
            .repo_mut(repo)?
            .comments
            .remove(&id)
            .ok_or_else(Refusal::not_found)?;
        let issue = self.issue_mut(repo, comment.issue)?;
        issue.comments.retain(|c| *c != id);
        issue.updated_at = now;
        let action = CommentAction::Deleted;
        self.emit(now, actor, repo, Happening::Comment { comment, action });
        Ok(())
    }

    fn require_comment_owner(&self, actor: &str, repo: &RepoName, id: Id) -> Result<(), Refusal> {
        let comment = self.comment_by_id(repo, id)?;
        if comment.author.eq_ignore_ascii_case(actor) {
            return Ok(());
        }
        self.require(repo, Some(actor), Permission::Write)
    }

    /// Creates a label in the repository.
    ///
    /// # Errors
    /// 403 without write access, 422 when it exists.
    pub fn create_label(
        &mut self,
        actor: &str,
        repo: &RepoName,
        name: &str,
        color: &str,
        description: Option<String>,
    ) -> Result<Label, Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        if name.trim().is_empty() {
            return Err(Refusal::validation("Label", "name", "missing_field"));
        }
        if self.repo(repo)?.label(name).is_some() {
            return Err(Refusal::validation("Label", "name", "already_exists"));
        }
        self.insert_label(repo, name, color, description)
    }

    fn insert_label(
        &mut self,
        repo: &RepoName,
        name: &str,
        color: &str,
        description: Option<String>,
    ) -> Result<Label, Refusal> {
        let label = Label {
            id: self.next_id(),
            name: name.to_owned(),
            color: color.trim_start_matches('#').to_owned(),
            description,
        };
        self.repo_mut(repo)?
            .labels
            .insert(name.to_lowercase(), label.clone());
        Ok(label)
    }

    /// Adds labels; those the repository lacks are created, as GitHub does.
    ///
    /// # Errors
    /// 403 without triage access, 404.
    pub fn add_labels(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        names: &[String],
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Triage)?;
        self.issue(repo, number)?;
        for name in names {
            let label = match self.repo(repo)?.label(name) {
                Some(label) => label.clone(),
                None => self.insert_label(repo, name, DEFAULT_LABEL_COLOR, None)?,
            };
            let issue = self.issue_mut(repo, number)?;
            if !has(&issue.labels, name) {
                issue.labels.push(label.name.clone());
                issue.updated_at = now;
                self.emit_shared(now, actor, repo, number, IssueAction::Labeled(label));
            }
        }
        Ok(())
    }

    /// # Errors
    /// 403 without triage access, 404 when the issue does not carry the label.
    pub fn remove_label(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        name: &str,
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Triage)?;
        let (record, issue) = self.issue(repo, number)?;
        let label = record.label(name).cloned();
        let Some(label) = label.filter(|_| has(&issue.labels, name)) else {
            return Err(Refusal {
                message: "Label does not exist".into(),
                ..Refusal::not_found()
            });
        };
        let issue = self.issue_mut(repo, number)?;
        issue.labels.retain(|l| !l.eq_ignore_ascii_case(name));
        issue.updated_at = now;
        self.emit_shared(now, actor, repo, number, IssueAction::Unlabeled(label));
        Ok(())
    }

    /// Makes `names` the issue's labels.
    ///
    /// # Errors
    /// 403 without triage access, 404.
    pub fn set_labels(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        names: &[String],
    ) -> Result<(), Refusal> {
        let (_, issue) = self.issue(repo, number)?;
        let gone: Vec<String> = issue
            .labels
            .iter()
            .filter(|l| !has(names, l))
            .cloned()
            .collect();
        self.require(repo, Some(actor), Permission::Triage)?;
        for name in gone {
            self.remove_label(now, actor, repo, number, &name)?;
        }
        self.add_labels(now, actor, repo, number, names)
    }

    /// Assigns users. Who cannot be assigned is left out without a word, as GitHub does.
    ///
    /// # Errors
    /// 403 without triage access, 404.
    pub fn assign(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        logins: &[String],
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Triage)?;
        for login in logins {
            let Ok(account) = self.account(login) else {
                continue;
            };
            let login = account.login.clone();
            let (record, issue) = self.issue(repo, number)?;
            let known = self.is_collaborator(repo, &login)?
                || issue.author == login
                || issue
                    .comments
                    .iter()
                    .any(|id| record.comments.get(id).is_some_and(|c| c.author == login));
            if known && !has(&issue.assignees, &login) {
                let issue = self.issue_mut(repo, number)?;
                issue.assignees.push(login.clone());
                issue.updated_at = now;
                self.emit_shared(now, actor, repo, number, IssueAction::Assigned(login));
            }
        }
        Ok(())
    }

    /// # Errors
    /// 403 without triage access, 404.
    pub fn unassign(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        logins: &[String],
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Triage)?;
        for login in logins {
            let issue = self.issue_mut(repo, number)?;
            let Some(at) = issue
                .assignees
                .iter()
                .position(|a| a.eq_ignore_ascii_case(login))
            else {
                continue;
            };
            let login = issue.assignees.remove(at);
            issue.updated_at = now;
            self.emit_shared(now, actor, repo, number, IssueAction::Unassigned(login));
        }
        Ok(())
    }
}

pub(super) fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

pub(super) fn check_text(
    resource: &str,
    title: Option<&str>,
    body: Option<&str>,
) -> Result<(), Refusal> {
    if title.is_some_and(|t| t.trim().is_empty()) {
        return Err(Refusal::validation(resource, "title", "missing_field"));
    }
    if body.is_some_and(|b| b.chars().count() > MAX_BODY_CHARS) {
        return Err(Refusal::validation_custom(
            resource,
            "body is too long (maximum is 65536 characters)",
        ));
    }
    Ok(())
}

fn check_comment(body: &str) -> Result<(), Refusal> {
    if body.trim().is_empty() {
        return Err(Refusal::validation_custom(
            "IssueComment",
            "Body can't be blank",
        ));
    }
    check_text("IssueComment", None, Some(body))
}
