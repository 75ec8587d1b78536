//! What a plugin decided about one event: writes to the forge in order, jobs to make and to abort. Becomes one
//! [`PlanBody`] of the log.

use std::fmt;

use trireme_forge::RepoId;
use trireme_proto::state::{
    AbortJob, CommentEffect, Context, ContextState, EditCommentEffect, Effect, LabelEffect, NewJob,
    PeopleEffect, PlanBody, PruneCommentsEffect, StatusEffect, Subject, effect::Action,
};

/// Nothing to do unless something is put in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// In the order in which they are sent.
    pub effects: Vec<Action>,
    pub jobs: Vec<NewJob>,
    pub aborts: Vec<AbortJob>,
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

    /// Both, `self` first. What `other` would do again is left out: one event reaches a plugin as a pull request and
    /// as a text, and must not start a job or say a thing twice.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for effect in other.effects {
            if !self.effects.contains(&effect) {
                self.effects.push(effect);
            }
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
        self
    }

    #[must_use]
    pub fn into_plan(self, plugin: &str) -> PlanBody {
        PlanBody {
            plugin: plugin.to_owned(),
            effects: self
                .effects
                .into_iter()
                .map(|action| Effect {
                    action: Some(action),
                    ..Effect::default()
                })
                .collect(),
            jobs: self.jobs,
            abort: self.aborts,
            ..PlanBody::default()
        }
    }
}

impl From<Vec<Action>> for Decision {
    fn from(effects: Vec<Action>) -> Self {
        Self {
            effects,
            ..Self::default()
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
            lines.push(describe(effect));
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

pub(crate) fn describe(action: &Action) -> String {
    let people = |effect: &PeopleEffect| effect.logins.join(", ");
    match action {
        Action::Comment(effect) => format!("comment: {}", effect.body),
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
        Action::Close(_) => "close".to_owned(),
    }
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

    #[must_use]
    pub fn comment(&self, body: impl Into<String>) -> Action {
        Action::Comment(CommentEffect {
            subject: self.subject(),
            body: body.into(),
        })
    }

    #[must_use]
    pub fn edit_comment(&self, comment_id: u64, body: impl Into<String>) -> Action {
        Action::EditComment(EditCommentEffect {
            subject: self.subject(),
            comment_id,
            body: body.into(),
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
