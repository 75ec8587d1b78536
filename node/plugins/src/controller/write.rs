//! The writes themselves: one action to the forge or whatever else it is for.

use std::time::Duration;

use trireme_forge::{
    CloseReason, CommitStatus, ForgeError, IssueEdit, NewCheckRun, NewIssue, NewReview,
    NewReviewComment, Reaction, RepoId, StatusState,
};
use trireme_office::OfficeError;
use trireme_proto::state::command::Body;
use trireme_proto::state::effect::Action;
use trireme_proto::state::{
    Context, ContextState, Delivery, EffectOutcome, PeopleEffect, Plan, Redrive, Rejection,
    ReportAgainEffect, ReviewEffect,
};

use super::Session;
use super::effects::subject;
use crate::plugin::outage;

/// What a write that was done answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: EffectOutcome,
    pub(super) result: String,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            outcome: EffectOutcome::Ok,
            result: String::new(),
        }
    }
}

impl Answer {
    /// Done, and made what has this number.
    pub(super) fn made(number: u64) -> Self {
        Self {
            result: number.to_string(),
            ..Self::default()
        }
    }

    /// Done but for these.
    fn but(left_out: &[String]) -> Self {
        Self {
            outcome: match left_out {
                [] => EffectOutcome::Ok,
                _ => EffectOutcome::Partly,
            },
            result: left_out.join(", "),
        }
    }
}

/// Why a write was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may have been.
    MaybeSent(String, Option<Duration>),
    /// It passes by itself.
    Outage(String, Option<Duration>),
    /// For good.
    Refused(String),
    /// Git cannot.
    Conflict(String),
}

impl From<ForgeError> for Failure {
    fn from(error: ForgeError) -> Self {
        if error.maybe_sent() {
            return Self::MaybeSent(error.to_string(), error.retry_after());
        }
        match outage(&error) {
            Some(pause) => Self::Outage(error.to_string(), pause),
            None => Self::Refused(error.to_string()),
        }
    }
}

impl Session {
    /// Asked again before a write that comes long after the effect was begun: who is in office now may be at it.
    pub(super) async fn still_held(&self) -> Result<(), Failure> {
        let held = self.office.assert_held().await;
        held.map_err(|error| Failure::Outage(error.to_string(), None))
    }

    pub(super) async fn write(
        &self,
        action: &Action,
        plan: &Plan,
        delivery: &Delivery,
    ) -> Result<Answer, Failure> {
        let forge = self.tools.forges.of_plugin(&plan.plugin);
        let forge = forge.as_ref();
        match action {
            Action::Comment(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                forge.create_comment(&repo, number, &effect.body).await?;
            }
            Action::EditComment(effect) => {
                let (repo, _) = subject(effect.subject.as_ref());
                let id = effect.comment_id;
                forge.edit_comment(&repo, id, &effect.body).await?;
            }
            Action::AddLabel(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                forge.add_labels(&repo, number, &[&effect.label]).await?;
            }
            Action::RemoveLabel(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                forge.remove_label(&repo, number, &effect.label).await?;
            }
            Action::Status(effect) => {
                let (repo, _) = subject(effect.subject.as_ref());
                let status = effect.status.as_ref().map(commit_status);
                if let Some(status) = status {
                    forge.create_status(&repo, &effect.sha, &status).await?;
                }
            }
            Action::PruneComments(effect) => {
                let (repo, _) = subject(effect.subject.as_ref());
                let mut refused = None;
                for id in &effect.comment_ids {
                    match forge.delete_comment(&repo, *id).await {
                        Ok(()) => {}
                        Err(error) if error.is_outage() => return Err(error.into()),
                        // One that stays does not keep the others (HOOK-021).
                        Err(error) => refused = refused.or(Some(error)),
                    }
                }
                if let Some(error) = refused {
                    return Err(error.into());
                }
            }
            Action::Assign(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let left = forge.assign(&repo, number, &logins(effect)).await?;
                return Ok(Answer::but(&left));
            }
            Action::Unassign(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let left = forge.unassign(&repo, number, &logins(effect)).await?;
                return Ok(Answer::but(&left));
            }
            Action::RequestReview(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let left = forge.request_review(&repo, number, &logins(effect)).await?;
                return Ok(Answer::but(&left));
            }
            Action::Close(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                match effect.not_planned {
                    true => {
                        let reason = CloseReason::NotPlanned;
                        forge.close_issue_as(&repo, number, reason).await?;
                    }
                    false => forge.close_issue(&repo, number).await?,
                }
            }
            Action::UnrequestReview(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let left = forge
                    .unrequest_review(&repo, number, &logins(effect))
                    .await?;
                return Ok(Answer::but(&left));
            }
            Action::EditIssue(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let edit = IssueEdit {
                    title: effect.title.clone(),
                    body: effect.body.clone(),
                };
                forge.edit_issue(&repo, number, &edit).await?;
            }
            Action::Reopen(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let reopened = match effect.pull_request {
                    true => forge.reopen_pull_request(&repo, number).await,
                    false => forge.reopen_issue(&repo, number).await,
                };
                reopened.map_err(not_reopened)?;
            }
            Action::ReportAgain(effect) => return self.report_again(effect).await,
            Action::Milestone(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let milestone = Some(effect.milestone).filter(|milestone| *milestone > 0);
                forge.set_milestone(&repo, number, milestone).await?;
            }
            Action::Review(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                forge.create_review(&repo, number, &review(effect)).await?;
            }
            Action::CheckRun(effect) => {
                let (repo, _) = subject(effect.subject.as_ref());
                let conclusion = match effect.conclusion.as_str() {
                    "" => "success",
                    conclusion => conclusion,
                };
                let run = NewCheckRun {
                    name: effect.name.clone(),
                    head_sha: effect.sha.clone(),
                    conclusion: conclusion.to_owned(),
                    details_url: String::new(),
                    title: effect.title.clone(),
                    summary: effect.summary.clone(),
                };
                forge.create_check_run(&repo, &run).await?;
            }
            Action::DeleteBranch(effect) => {
                let (repo, _) = subject(effect.subject.as_ref());
                forge.delete_branch(&repo, &effect.branch).await?;
            }
            Action::OpenIssue(effect) => {
                let (repo, _) = subject(effect.subject.as_ref());
                let new = NewIssue {
                    title: effect.title.clone(),
                    body: effect.body.clone(),
                    labels: effect.labels.clone(),
                    assignees: effect.assignees.clone(),
                };
                let made = forge.create_issue(&repo, &new).await?;
                return Ok(Answer::made(made.number));
            }
            Action::TransferIssue(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let to = RepoId::new(&repo.org, &effect.to_repo);
                let moved = forge.transfer_issue(&repo, &effect.node_id, &to).await;
                match moved {
                    // An issue that is not where it was has been moved, perhaps by an attempt that was lost.
                    Err(error) if error.is_not_found() => {
                        let is_gone = forge.issue(&repo, number).await;
                        if !is_gone.is_err_and(|error| error.is_not_found()) {
                            return Err(error.into());
                        }
                    }
                    moved => {
                        moved?;
                    }
                }
            }
            Action::PinIssue(effect) => {
                let (repo, _) = subject(effect.subject.as_ref());
                match effect.unpin {
                    true => forge.unpin_issue(&repo, &effect.node_id).await?,
                    false => forge.pin_issue(&repo, &effect.node_id).await?,
                }
            }
            Action::Reaction(effect) => {
                let (repo, number) = subject(effect.subject.as_ref());
                let Some(reaction) = Reaction::named(&effect.content) else {
                    let why = format!("{:?} is no reaction", effect.content);
                    return Err(Failure::Refused(why));
                };
                match effect.comment_id {
                    0 => forge.react_to_issue(&repo, number, reaction).await?,
                    id => forge.react_to_comment(&repo, id, reaction).await?,
                }
            }
            Action::Workflow(effect) => {
                let (repo, _) = subject(effect.subject.as_ref());
                let run = effect.run_id;
                let asked = match effect.approve {
                    true => forge.approve_workflow_run(&repo, run).await,
                    false => forge.rerun_failed_jobs(&repo, run).await,
                };
                // Somebody else may have been first, or we may not: nothing that would change by itself
                // (PLG-TRIGGER-023).
                match asked {
                    Err(error) if effect.approve && error.is_not_found() => {
                        tracing::info!(%repo, run, %error, "a workflow run needs no approval any more");
                    }
                    Err(error) if outage(&error).is_none() && !error.maybe_sent() => {
                        tracing::warn!(%repo, run, %error, "a workflow run is left as it is");
                        return Ok(Answer {
                            outcome: EffectOutcome::Refused,
                            result: error.to_string(),
                        });
                    }
                    asked => asked?,
                }
            }
            Action::CherryPick(effect) => return self.pick(effect, plan, delivery).await,
            Action::Forward(effect) => return self.forward(effect, delivery).await,
            Action::Slack(effect) => return self.tell_slack(effect, delivery).await,
            Action::JiraLink(effect) => return self.link_from_jira(effect, delivery).await,
            Action::ConfigMap(effect) => return self.update_config_map(effect, delivery).await,
        }
        Ok(Answer::default())
    }

    /// Asking twice tells twice, which changes nothing.
    async fn report_again(&self, effect: &ReportAgainEffect) -> Result<Answer, Failure> {
        for job_id in &effect.job_ids {
            let again = Redrive {
                job_id: job_id.clone(),
                reporter: effect.reporter.clone(),
                again: true,
                ..Redrive::default()
            };
            match self.office.propose(Body::Redrive(again)).await {
                Ok(_) => {}
                Err(OfficeError::Rejected {
                    code: Rejection::NotFound,
                    ..
                }) => {
                    tracing::info!(job_id, "swept meanwhile: it is not reported again");
                }
                Err(error @ OfficeError::Rejected { .. }) => {
                    return Err(Failure::Refused(error.to_string()));
                }
                Err(error) => return Err(Failure::Outage(error.to_string(), None)),
            }
        }
        Ok(Answer::default())
    }
}

/// That its state does not allow it is an answer to who asked; anything else is for an operator to see.
fn not_reopened(error: ForgeError) -> Failure {
    match error.state_cannot_be_changed() {
        Some(sentence) => Failure::Conflict(sentence.to_owned()),
        None => error.into(),
    }
}

pub(super) fn review(effect: &ReviewEffect) -> NewReview {
    let comments = effect.comments.iter().map(|line| NewReviewComment {
        path: line.path.clone(),
        position: u64::from(line.position),
        body: line.body.clone(),
    });
    NewReview {
        commit_sha: effect.sha.clone(),
        body: effect.body.clone(),
        comments: comments.collect(),
    }
}

fn logins(effect: &PeopleEffect) -> Vec<&str> {
    effect.logins.iter().map(String::as_str).collect()
}

fn commit_status(context: &Context) -> CommitStatus {
    let state = match context.state() {
        ContextState::Success => StatusState::Success,
        ContextState::Failure => StatusState::Failure,
        ContextState::Error => StatusState::Error,
        ContextState::Pending | ContextState::Unspecified => StatusState::Pending,
    };
    CommitStatus {
        context: context.context.clone(),
        state,
        description: context.description.clone(),
        target_url: context.target_url.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PLG-LIFECYCLE-003: only that the state cannot be changed is told to who asked.
    #[test]
    fn plg_lifecycle_003_what_keeps_it_closed() {
        let refused = |status: u16, sentence: &str| ForgeError::Refused {
            request: "PATCH it".to_owned(),
            status,
            message: "Validation Failed".to_owned(),
            errors: vec![sentence.to_owned()],
        };
        let sentence = "state cannot be changed. The fix branch has been deleted.";
        for (error, is_told) in [
            (refused(422, sentence), true),
            (refused(422, "other"), false),
            (refused(403, sentence), false),
        ] {
            let text = error.to_string();
            let expected = match is_told {
                true => Failure::Conflict(sentence.to_owned()),
                false => Failure::Refused(text.clone()),
            };
            assert_eq!(not_reopened(error), expected, "{text}");
        }
    }
}
