//! The writes themselves: one action to the forge or whatever else it is for.

use std::time::Duration;

use trireme_forge::{CommitStatus, ForgeError, StatusState};
use trireme_proto::state::effect::Action;
use trireme_proto::state::{Context, ContextState, Delivery, EffectOutcome, PeopleEffect};

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
    /// Done, and made this.
    fn made(result: impl ToString) -> Self {
        Self {
            result: result.to_string(),
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
    pub(super) async fn write(
        &self,
        action: &Action,
        delivery: &Delivery,
    ) -> Result<Answer, Failure> {
        let forge = self.tools.forge.as_ref();
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
                for id in &effect.comment_ids {
                    forge.delete_comment(&repo, *id).await?;
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
                forge.close_issue(&repo, number).await?;
            }
            Action::Forward(effect) => return self.forward(effect, delivery).await,
            other => {
                return Err(Failure::Refused(format!(
                    "not built: {}",
                    crate::decision::describe(other)
                )));
            }
        }
        Ok(Answer::default())
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
