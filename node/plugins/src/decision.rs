//! What a plugin decided about one event: writes to the outside in order, jobs to make and to abort. Becomes one
//! [`PlanBody`] of the log.
//!
//! An effect may depend on what an earlier one of its plan came to: [`Decision::push_if`] sends it only then, and a
//! [`Text`] has the answer put into it when it is sent.

mod text;

use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use trireme_forge::{Milestone, RepoId};
use trireme_proto::state::{
    AbortJob, CheckRunEffect, CherryPickEffect, CloseEffect, Condition, Context, ContextState,
    DeleteBranchEffect, EditCommentEffect, EditIssueEffect, Effect, JiraLinkEffect, LabelEffect,
    MilestoneEffect, NewJob, OpenIssueEffect, PeopleEffect, PinIssueEffect, PlanBody,
    PruneCommentsEffect, ReactionEffect, ReopenEffect, ReportAgainEffect, ReviewEffect, ReviewLine,
    SlackEffect, StatusEffect, Subject, TransferIssueEffect, WorkflowEffect, effect::Action,
};

pub use text::{Counted, Text};
pub(crate) use text::{filled, is_counted, joined};
pub use trireme_proto::state::EffectOutcome as Outcome;

/// An effect's place in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ordinal(pub u32);

/// Nothing to do unless something is put in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// In the order in which they are sent.
    pub effects: Vec<Effect>,
    pub jobs: Vec<NewJob>,
    pub aborts: Vec<AbortJob>,
    /// The head of the pull request that the effects are for; if it has another one when they are sent, they are left
    /// out. Empty: for any.
    pub head: String,
}

impl Decision {
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.effects.is_empty() && self.jobs.is_empty() && self.aborts.is_empty()
    }

    /// Adds an effect after those that are there.
    pub fn push(&mut self, action: Action) -> Ordinal {
        self.push_effect(Effect {
            action: Some(action),
            ..Effect::default()
        })
    }

    /// Adds an effect that is left out unless the earlier one `of` comes to one of `outcomes`. That somebody asks for a
    /// refusal makes it an answer: it is not tried again.
    pub fn push_if(&mut self, of: Ordinal, outcomes: &[Outcome], action: Action) -> Ordinal {
        self.push_effect(Effect {
            action: Some(action),
            condition: Some(Condition {
                ordinal: of.0,
                outcomes: outcomes.iter().map(|outcome| (*outcome).into()).collect(),
            }),
            ..Effect::default()
        })
    }

    /// Adds an effect that is left out if the pull request has another head than that when it is sent.
    pub fn push_for_head(&mut self, sha: &str, action: Action) -> Ordinal {
        self.push_effect(Effect {
            action: Some(action),
            head_sha: sha.to_owned(),
            ..Effect::default()
        })
    }

    fn push_effect(&mut self, effect: Effect) -> Ordinal {
        let ordinal = self.effects.len();
        self.effects.push(effect);
        Ordinal(u32::try_from(ordinal).unwrap_or(u32::MAX))
    }

    /// The same, for that head alone.
    #[must_use]
    pub fn for_head(self, sha: &str) -> Self {
        Self {
            head: sha.to_owned(),
            ..self
        }
    }

    /// Both, `self` first. What `other` would do again is left out: one event reaches a plugin as a pull request and
    /// as a text, and must not start a job or say a thing twice.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        // Where each effect of `other` stands now.
        let mut places: Vec<u32> = Vec::with_capacity(other.effects.len());
        let moved = |ordinal: &mut u32, places: &[u32]| {
            if let Some(place) = places.get(*ordinal as usize) {
                *ordinal = *place;
            }
        };
        for mut effect in other.effects {
            if let Some(condition) = &mut effect.condition {
                moved(&mut condition.ordinal, &places);
            }
            let inserts = match &mut effect.action {
                Some(Action::Comment(comment)) => comment.inserts.as_mut_slice(),
                Some(Action::OpenIssue(issue)) => issue.inserts.as_mut_slice(),
                _ => &mut [],
            };
            for piece in inserts.iter_mut().flat_map(|insert| &mut insert.pieces) {
                moved(&mut piece.ordinal, &places);
            }
            let had = self.effects.iter().position(|had| *had == effect);
            let place = match had {
                Some(place) => u32::try_from(place).unwrap_or(u32::MAX),
                None => self.push_effect(effect).0,
            };
            places.push(place);
        }
        for job in other.jobs {
            let id = |job: &NewJob| job.job.as_ref().map(|job| job.id.clone());
            if !self.jobs.iter().any(|had| id(had) == id(&job)) {
                self.jobs.push(job);
            }
        }
        for abort in other.aborts {
            if !self.aborts.iter().any(|had| had.id == abort.id) {
                self.aborts.push(abort);
            }
        }
        if self.head.is_empty() {
            self.head = other.head;
        }
        self
    }

    #[must_use]
    pub fn into_plan(self, plugin: &str) -> PlanBody {
        PlanBody {
            plugin: plugin.to_owned(),
            effects: self.effects,
            jobs: self.jobs,
            abort: self.aborts,
            head_sha: self.head,
            ..PlanBody::default()
        }
    }
}

impl From<Vec<Action>> for Decision {
    fn from(effects: Vec<Action>) -> Self {
        let mut decision = Self::nothing();
        decision.extend(effects);
        decision
    }
}

impl Extend<Action> for Decision {
    fn extend<T: IntoIterator<Item = Action>>(&mut self, actions: T) {
        for action in actions {
            self.push(action);
        }
    }
}

/// One write per line, as a person would tell it.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_idle() {
            return f.write_str("nothing");
        }
        let mut lines = Vec::new();
        for effect in &self.effects {
            let told = effect.action.as_ref().map(describe).unwrap_or_default();
            lines.push(match &effect.condition {
                None => told,
                Some(condition) => {
                    let of = condition.outcomes().map(outcome_word);
                    let of: Vec<&str> = of.collect();
                    format!("if {} is {}: {told}", condition.ordinal, of.join(" or "))
                }
            });
        }
        for abort in &self.aborts {
            lines.push(format!("abort {}: {}", abort.id, abort.reason));
        }
        for new in &self.jobs {
            let name = new.job.as_ref().map_or("", |job| job.job.as_str());
            lines.push(format!("run {name}"));
        }
        f.write_str(&lines.join("\n"))
    }
}

pub(crate) const fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "open",
        Outcome::Ok => "done",
        Outcome::Partly => "partly done",
        Outcome::Refused => "refused",
        Outcome::Conflict => "a conflict",
    }
}

pub(crate) fn describe(action: &Action) -> String {
    let people = |effect: &PeopleEffect| effect.logins.join(", ");
    match action {
        Action::Comment(effect) => {
            format!("comment: {}", text::marked(&effect.body, &effect.inserts))
        }
        Action::EditComment(effect) => format!("edit {}: {}", effect.comment_id, effect.body),
        Action::AddLabel(effect) => format!("+{}", effect.label),
        Action::RemoveLabel(effect) => format!("-{}", effect.label),
        Action::Status(effect) => {
            let status = effect.status.clone().unwrap_or_default();
            let state = match status.state() {
                ContextState::Success => "success",
                ContextState::Failure => "failure",
                ContextState::Error => "error",
                ContextState::Pending | ContextState::Unspecified => "pending",
            };
            let Context {
                context,
                description,
                ..
            } = status;
            format!("status {context} on {}: {state}, {description}", effect.sha)
        }
        Action::PruneComments(effect) => format!("delete {:?}", effect.comment_ids),
        Action::Assign(effect) => format!("assign {}", people(effect)),
        Action::Unassign(effect) => format!("unassign {}", people(effect)),
        Action::RequestReview(effect) => format!("request review from {}", people(effect)),
        Action::UnrequestReview(effect) => format!("unrequest review from {}", people(effect)),
        Action::Close(effect) if effect.not_planned => "close as not planned".to_owned(),
        Action::Close(_) => "close".to_owned(),
        Action::Reopen(effect) if effect.pull_request => "reopen the pull request".to_owned(),
        Action::Reopen(_) => "reopen".to_owned(),
        Action::ReportAgain(effect) => format!("report again: {}", effect.job_ids.join(", ")),
        Action::EditIssue(effect) => {
            let title = effect.title.iter().map(|title| format!("title: {title}"));
            let body = effect.body.iter().map(|body| format!("body: {body}"));
            title.chain(body).collect::<Vec<_>>().join("\n")
        }
        Action::Milestone(effect) if effect.milestone == 0 => "no milestone".to_owned(),
        Action::Milestone(effect) => format!("milestone {}", effect.title),
        Action::Review(effect) => {
            let lines = effect.comments.iter().map(
                |ReviewLine {
                     path,
                     position,
                     body,
                 }| { format!("\n{path}:{position}: {body}") },
            );
            format!(
                "review of {}: {}{}",
                effect.sha,
                effect.body,
                lines.collect::<String>()
            )
        }
        Action::CheckRun(effect) => format!(
            "check run {} on {}: {}, {}",
            effect.name, effect.sha, effect.conclusion, effect.title
        ),
        Action::DeleteBranch(effect) => format!("delete branch {}", effect.branch),
        Action::OpenIssue(effect) => {
            let body = text::marked(&effect.body, &effect.inserts);
            format!("open issue {}\n{body}", effect.title)
        }
        Action::TransferIssue(effect) => format!("transfer to {}", effect.to_repo),
        Action::PinIssue(effect) if effect.unpin => "unpin".to_owned(),
        Action::PinIssue(_) => "pin".to_owned(),
        Action::Reaction(effect) => format!("react with {}", effect.content),
        Action::Workflow(effect) if effect.approve => {
            format!("approve workflow run {}", effect.run_id)
        }
        Action::Workflow(effect) => {
            format!("rerun the failed jobs of workflow run {}", effect.run_id)
        }
        Action::CherryPick(effect) => format!(
            "cherry-pick {} onto {} as {}\ntitle: {}\n{}",
            effect.head_sha, effect.target, effect.branch, effect.title, effect.body
        ),
        Action::Forward(effect) => format!("forward to {} at {}", effect.name, effect.endpoint),
        Action::Slack(effect) => format!("tell {}: {}", effect.channel, effect.text),
        Action::JiraLink(effect) => {
            format!("link {} to {}: {}", effect.issue, effect.url, effect.title)
        }
        Action::ConfigMap(effect) => {
            let keys = effect.keys.iter().map(|key| match key.path.as_str() {
                "" => format!("\n-{}", key.key),
                path => format!("\n{}={path}", key.key),
            });
            format!(
                "config map {}/{} in {}{}",
                effect.namespace,
                effect.name,
                effect.cluster,
                keys.collect::<String>()
            )
        }
    }
}

/// How an effect remembers the text that it replaces.
pub(crate) fn sha256_of(text: &str) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(text))
}

/// A message for a channel of Slack, without `#`.
#[must_use]
pub fn tell_slack(channel: &str, text: impl Into<String>) -> Action {
    Action::Slack(SlackEffect {
        channel: channel.to_owned(),
        text: text.into(),
    })
}

/// The Jira issue links to the page.
#[must_use]
pub fn link_from_jira(issue: &str, url: &str, title: impl Into<String>) -> Action {
    Action::JiraLink(JiraLinkEffect {
        issue: issue.to_owned(),
        url: url.to_owned(),
        title: title.into(),
    })
}

/// The issue or pull request that effects are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub repo: RepoId,
    pub number: u64,
}

impl Target {
    #[must_use]
    pub fn new(repo: &RepoId, number: u64) -> Self {
        Self {
            repo: repo.clone(),
            number,
        }
    }

    fn subject(&self) -> Option<Subject> {
        Some(Subject {
            org: self.repo.org.clone(),
            repo: self.repo.repo.clone(),
            number: self.number,
        })
    }

    /// What is said; a [`Text`] may tell what came of earlier effects.
    #[must_use]
    pub fn comment(&self, text: impl Into<Text>) -> Action {
        Action::Comment(text.into().into_comment(self.subject()))
    }

    #[must_use]
    pub fn edit_comment(&self, comment_id: u64, body: impl Into<String>) -> Action {
        Action::EditComment(EditCommentEffect {
            subject: self.subject(),
            comment_id,
            body: body.into(),
            ..EditCommentEffect::default()
        })
    }

    /// As [`Self::edit_comment`], of a text that somebody else wrote: if it says something else than `was` by the time
    /// it is sent, what they wrote stays.
    #[must_use]
    pub fn rewrite_comment(&self, comment_id: u64, was: &str, body: impl Into<String>) -> Action {
        Action::EditComment(EditCommentEffect {
            subject: self.subject(),
            comment_id,
            body: body.into(),
            was_sha256: sha256_of(was),
        })
    }

    /// A status on a commit of the repository.
    #[must_use]
    pub fn status(&self, sha: &str, status: Context) -> Action {
        Action::Status(StatusEffect {
            subject: self.subject(),
            sha: sha.to_owned(),
            status: Some(status),
        })
    }

    #[must_use]
    pub fn add_label(&self, label: &str) -> Action {
        Action::AddLabel(self.label(label))
    }

    #[must_use]
    pub fn remove_label(&self, label: &str) -> Action {
        Action::RemoveLabel(self.label(label))
    }

    fn label(&self, label: &str) -> LabelEffect {
        LabelEffect {
            subject: self.subject(),
            label: label.to_owned(),
        }
    }

    /// Deletes these comments; `None` if there are none.
    #[must_use]
    pub fn prune(&self, comment_ids: Vec<u64>) -> Option<Action> {
        (!comment_ids.is_empty()).then(|| {
            Action::PruneComments(PruneCommentsEffect {
                subject: self.subject(),
                comment_ids,
            })
        })
    }

    #[must_use]
    pub fn assign(&self, logins: Vec<String>) -> Action {
        Action::Assign(self.people(logins))
    }

    #[must_use]
    pub fn request_review(&self, logins: Vec<String>) -> Action {
        Action::RequestReview(self.people(logins))
    }

    #[must_use]
    pub fn unassign(&self, logins: Vec<String>) -> Action {
        Action::Unassign(self.people(logins))
    }

    #[must_use]
    pub fn unrequest_review(&self, logins: Vec<String>) -> Action {
        Action::UnrequestReview(self.people(logins))
    }

    #[must_use]
    pub fn close(&self) -> Action {
        Action::Close(CloseEffect {
            subject: self.subject(),
            not_planned: false,
        })
    }

    #[must_use]
    pub fn close_as_not_planned(&self) -> Action {
        Action::Close(CloseEffect {
            subject: self.subject(),
            not_planned: true,
        })
    }

    /// [`Outcome::Conflict`] where its state does not allow it.
    #[must_use]
    pub fn reopen(&self) -> Action {
        Action::Reopen(ReopenEffect {
            subject: self.subject(),
            pull_request: false,
        })
    }

    /// [`Outcome::Conflict`] where its state does not allow it, e.g. because its branch is gone.
    #[must_use]
    pub fn reopen_pull_request(&self) -> Action {
        Action::Reopen(ReopenEffect {
            subject: self.subject(),
            pull_request: true,
        })
    }

    /// What the reporter has told of these jobs, it tells again.
    #[must_use]
    pub fn report_again(&self, reporter: &str, job_ids: Vec<String>) -> Action {
        Action::ReportAgain(ReportAgainEffect {
            subject: self.subject(),
            reporter: reporter.to_owned(),
            job_ids,
        })
    }

    #[must_use]
    pub fn set_title(&self, title: impl Into<String>) -> Action {
        Action::EditIssue(EditIssueEffect {
            subject: self.subject(),
            title: Some(title.into()),
            ..EditIssueEffect::default()
        })
    }

    /// Replaces the text of the issue or pull request; if it says something else than `was` by the time it is sent,
    /// what somebody wrote stays.
    #[must_use]
    pub fn rewrite_body(&self, was: &str, body: impl Into<String>) -> Action {
        Action::EditIssue(EditIssueEffect {
            subject: self.subject(),
            body: Some(body.into()),
            was_sha256: sha256_of(was),
            ..EditIssueEffect::default()
        })
    }

    /// `None` takes the milestone away.
    #[must_use]
    pub fn milestone(&self, milestone: Option<&Milestone>) -> Action {
        Action::Milestone(MilestoneEffect {
            subject: self.subject(),
            milestone: milestone.map_or(0, |milestone| milestone.number),
            title: milestone.map_or_else(String::new, |milestone| milestone.title.clone()),
        })
    }

    /// A review that only comments, on lines of the diffs of files.
    #[must_use]
    pub fn review(&self, sha: &str, body: impl Into<String>, comments: Vec<ReviewLine>) -> Action {
        Action::Review(ReviewEffect {
            subject: self.subject(),
            sha: sha.to_owned(),
            body: body.into(),
            comments,
        })
    }

    /// A completed check run on a commit of the repository; `conclusion` is `success`, `failure`, …
    #[must_use]
    pub fn check_run(
        &self,
        sha: &str,
        name: &str,
        conclusion: &str,
        title: &str,
        summary: &str,
    ) -> Action {
        Action::CheckRun(CheckRunEffect {
            subject: self.subject(),
            sha: sha.to_owned(),
            name: name.to_owned(),
            title: title.to_owned(),
            summary: summary.to_owned(),
            conclusion: conclusion.to_owned(),
        })
    }

    /// Deletes a branch (without `refs/heads/`) of the repository.
    #[must_use]
    pub fn delete_branch(&self, branch: &str) -> Action {
        Action::DeleteBranch(DeleteBranchEffect {
            subject: self.subject(),
            branch: branch.to_owned(),
        })
    }

    /// Opens another issue in the repository; its number is the result.
    #[must_use]
    pub fn open_issue(
        &self,
        title: impl Into<String>,
        body: impl Into<Text>,
        labels: Vec<String>,
        assignees: Vec<String>,
    ) -> Action {
        let (body, inserts) = body.into().into_parts();
        Action::OpenIssue(OpenIssueEffect {
            subject: self.subject(),
            title: title.into(),
            body,
            labels,
            assignees,
            inserts,
        })
    }

    /// Moves the issue of that node id to another repository of its org.
    #[must_use]
    pub fn transfer_issue(&self, node_id: &str, to_repo: &str) -> Action {
        Action::TransferIssue(TransferIssueEffect {
            subject: self.subject(),
            node_id: node_id.to_owned(),
            to_repo: to_repo.to_owned(),
        })
    }

    #[must_use]
    pub fn pin_issue(&self, node_id: &str) -> Action {
        Action::PinIssue(self.pin(node_id, false))
    }

    #[must_use]
    pub fn unpin_issue(&self, node_id: &str) -> Action {
        Action::PinIssue(self.pin(node_id, true))
    }

    fn pin(&self, node_id: &str, unpin: bool) -> PinIssueEffect {
        PinIssueEffect {
            subject: self.subject(),
            node_id: node_id.to_owned(),
            unpin,
        }
    }

    /// A reaction as GitHub names it (`+1`, `heart`, `hooray`, …), to a comment or to what it is about itself.
    #[must_use]
    pub fn react(&self, comment_id: Option<u64>, content: &str) -> Action {
        Action::Reaction(ReactionEffect {
            subject: self.subject(),
            comment_id: comment_id.unwrap_or(0),
            content: content.to_owned(),
        })
    }

    #[must_use]
    pub fn rerun_failed_workflow_jobs(&self, run_id: u64) -> Action {
        Action::Workflow(self.workflow(run_id, false))
    }

    #[must_use]
    pub fn approve_workflow(&self, run_id: u64) -> Action {
        Action::Workflow(self.workflow(run_id, true))
    }

    fn workflow(&self, run_id: u64, approve: bool) -> WorkflowEffect {
        WorkflowEffect {
            subject: self.subject(),
            run_id,
            approve,
        }
    }

    /// Fills in what the cherry-pick is of.
    #[must_use]
    pub fn cherry_pick(&self, effect: CherryPickEffect) -> Action {
        Action::CherryPick(CherryPickEffect {
            subject: self.subject(),
            ..effect
        })
    }

    fn people(&self, logins: Vec<String>) -> PeopleEffect {
        PeopleEffect {
            subject: self.subject(),
            logins,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_handlers_of_one_event_agree_on_is_done_once() {
        let on = Target::new(&RepoId::new("o", "r"), 1);
        let first = Decision::from(vec![on.add_label("a")]);
        let second = Decision::from(vec![on.add_label("a"), on.comment("hi")]);
        insta::assert_snapshot!(first.and(second), @r"
        +a
        comment: hi
        ");
        assert_eq!(Decision::nothing().to_string(), "nothing");
    }
}
