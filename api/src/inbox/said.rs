//! What each plugin made of a delivery, in words.

use std::sync::Arc;

use trireme_proto::state::{
    Delivery, DeliveryState, Effect, EffectOutcome, EffectState, PeopleEffect, Plan, Subject,
    effect::Action,
};
use trireme_state::is_committed;

/// Of a rare effect's own form, characters that are told.
const MAX_RAW: usize = 300;

/// What a plugin made of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// It has not decided yet.
    Waits {
        /// Times that it failed to.
        failures: u32,
        /// Why it did the last time.
        error: String,
    },
    /// It had nothing to do.
    Nothing,
    /// It failed to decide so often that it was given up.
    GivenUp { failures: u32, error: String },
    /// It decided on something.
    Planned(Arc<Plan>),
}

/// Every plugin of the delivery, in its order; none before its plugins are fixed.
#[must_use]
pub fn said(delivery: &Delivery, plans: &[Arc<Plan>]) -> Vec<(String, Said)> {
    let of = |plugin: &String| {
        let is_settled = delivery.settled.contains(plugin);
        let plan = plans
            .iter()
            .find(|plan| plan.guid == delivery.guid && plan.plugin == *plugin);
        match plan {
            None if is_settled => Said::Nothing,
            None => Said::Waits {
                failures: 0,
                error: String::new(),
            },
            Some(plan) if plan.dead => Said::GivenUp {
                failures: plan.failures,
                error: plan.error.clone(),
            },
            Some(plan) if !is_committed(plan) => Said::Waits {
                failures: plan.failures,
                error: plan.error.clone(),
            },
            Some(plan) if is_idle(plan) => Said::Nothing,
            Some(plan) => Said::Planned(Arc::clone(plan)),
        }
    };
    let plugins = delivery.plugins.iter();
    plugins.map(|plugin| (plugin.clone(), of(plugin))).collect()
}

fn is_idle(plan: &Plan) -> bool {
    plan.effects.is_empty() && plan.jobs.is_empty() && plan.aborted.is_empty()
}

/// The state of a delivery in one word.
#[must_use]
pub fn delivery_word(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Unspecified => "-",
        DeliveryState::Received => "received",
        DeliveryState::Planned => "planned",
        DeliveryState::Handled => "handled",
    }
}

/// The state of an effect in one word.
#[must_use]
pub fn effect_word(state: EffectState) -> &'static str {
    match state {
        EffectState::Unspecified => "-",
        EffectState::Waiting => "waiting",
        EffectState::Started => "started",
        EffectState::Done => "done",
        EffectState::Dead => "dead",
        EffectState::Skipped => "skipped",
    }
}

/// What a settled effect came to; empty where its state says it all.
#[must_use]
pub fn outcome_words(outcome: EffectOutcome) -> &'static str {
    match outcome {
        EffectOutcome::Unspecified | EffectOutcome::Ok => "",
        EffectOutcome::Partly => "partly done",
        EffectOutcome::Refused => "refused",
        EffectOutcome::Conflict => "conflict",
    }
}

/// `acme/widget#7: opened by ann`-like: what a delivery is about; empty where it is about nothing in particular.
#[must_use]
pub fn about(delivery: &Delivery) -> String {
    let Delivery {
        org,
        repo,
        number,
        r#ref,
        ..
    } = delivery;
    match (org.as_str(), repo.as_str(), number, r#ref.as_str()) {
        (org, "", ..) => org.to_owned(),
        (_, _, 0, "") => format!("{org}/{repo}"),
        (_, _, 0, branch) => {
            let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch);
            format!("{org}/{repo}@{branch}")
        }
        (_, _, number, _) => format!("{org}/{repo}#{number}"),
    }
}

/// `pull_request.opened`.
#[must_use]
pub fn event(delivery: &Delivery) -> String {
    match delivery.action.as_str() {
        "" => delivery.event.clone(),
        action => format!("{}.{action}", delivery.event),
    }
}

/// One effect for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// One line: what is done to what.
    pub what: String,
    /// What is written, if it is a text.
    pub text: String,
}

/// What an effect does.
#[must_use]
pub fn words(effect: &Effect) -> Words {
    let Some(action) = &effect.action else {
        return Words {
            what: "nothing that this build knows".to_owned(),
            text: String::new(),
        };
    };
    let people = |effect: &PeopleEffect, what: &str| {
        let logins = effect.logins.join(", ");
        format!("{what} {logins} on {}", on(effect.subject.as_ref()))
    };
    let mut text = String::new();
    let what = match action {
        Action::Comment(effect) => {
            text.clone_from(&effect.body);
            format!("comment on {}", on(effect.subject.as_ref()))
        }
        Action::EditComment(effect) => {
            text.clone_from(&effect.body);
            let on = on(effect.subject.as_ref());
            format!("edit comment {} on {on}", effect.comment_id)
        }
        Action::PruneComments(effect) => {
            let (count, on) = (effect.comment_ids.len(), on(effect.subject.as_ref()));
            format!("delete {count} of our comments on {on}")
        }
        Action::AddLabel(effect) => {
            format!(
                "add label {} to {}",
                effect.label,
                on(effect.subject.as_ref())
            )
        }
        Action::RemoveLabel(effect) => {
            let on = on(effect.subject.as_ref());
            format!("remove label {} from {on}", effect.label)
        }
        Action::Status(effect) => {
            let status = effect.status.clone().unwrap_or_default();
            let state = status.state().as_str_name();
            let state = state.rsplit('_').next().unwrap_or_default().to_lowercase();
            text.clone_from(&status.description);
            format!(
                "set status {} of {} to {state}",
                status.context,
                short(&effect.sha)
            )
        }
        Action::CheckRun(effect) => {
            text.clone_from(&effect.title);
            format!(
                "complete check run {} of {}",
                effect.name,
                short(&effect.sha)
            )
        }
        Action::Assign(effect) => people(effect, "assign"),
        Action::Unassign(effect) => people(effect, "unassign"),
        Action::RequestReview(effect) => people(effect, "request a review by"),
        Action::UnrequestReview(effect) => people(effect, "take back the request for a review by"),
        Action::Close(effect) => {
            let reason = if effect.not_planned {
                " as not planned"
            } else {
                ""
            };
            format!("close {}{reason}", on(effect.subject.as_ref()))
        }
        Action::Reopen(effect) => format!("reopen {}", on(effect.subject.as_ref())),
        Action::ReportAgain(effect) => {
            let (count, on) = (effect.job_ids.len(), on(effect.subject.as_ref()));
            format!("report {count} jobs of {on} again")
        }
        Action::EditIssue(effect) => {
            let (title, body) = (effect.title.as_deref(), effect.body.as_deref());
            text = [title, body]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("\n\n");
            format!("edit {}", on(effect.subject.as_ref()))
        }
        Action::Milestone(effect) if effect.milestone == 0 => {
            format!("clear the milestone of {}", on(effect.subject.as_ref()))
        }
        Action::Milestone(effect) => {
            let on = on(effect.subject.as_ref());
            format!("set milestone {} of {on}", effect.title)
        }
        Action::Review(effect) => {
            text.clone_from(&effect.body);
            for line in &effect.comments {
                text.push_str(&format!(
                    "\n\n{}:{}: {}",
                    line.path, line.position, line.body
                ));
            }
            format!("review {}", on(effect.subject.as_ref()))
        }
        Action::DeleteBranch(effect) => {
            let on = on(effect.subject.as_ref());
            format!("delete branch {} of {on}", effect.branch)
        }
        Action::OpenIssue(effect) => {
            text.clone_from(&effect.body);
            format!(
                "open an issue in {}: {}",
                on(effect.subject.as_ref()),
                effect.title
            )
        }
        Action::TransferIssue(effect) => {
            let on = on(effect.subject.as_ref());
            format!("transfer {on} to {}", effect.to_repo)
        }
        Action::PinIssue(effect) => {
            let what = if effect.unpin { "unpin" } else { "pin" };
            format!("{what} {}", on(effect.subject.as_ref()))
        }
        Action::Reaction(effect) => {
            format!(
                "react with {} on {}",
                effect.content,
                on(effect.subject.as_ref())
            )
        }
        Action::Workflow(effect) => {
            let what = if effect.approve {
                "approve"
            } else {
                "rerun failed jobs of"
            };
            let on = on(effect.subject.as_ref());
            format!("{what} workflow run {} of {on}", effect.run_id)
        }
        Action::CherryPick(effect) => {
            text = format!("{}\n\n{}", effect.title, effect.body);
            let on = on(effect.subject.as_ref());
            format!(
                "cherry-pick {on} onto {} as {}",
                effect.target, effect.branch
            )
        }
        Action::Forward(effect) => {
            format!(
                "forward the delivery to {} at {}",
                effect.name, effect.endpoint
            )
        }
        Action::Slack(effect) => {
            text.clone_from(&effect.text);
            format!("tell Slack channel {}", effect.channel)
        }
        // Rare ones in their own form.
        rare => {
            let raw = format!("{rare:?}");
            let end = raw.floor_char_boundary(MAX_RAW);
            raw[..end].to_owned()
        }
    };
    Words { what, text }
}

fn on(subject: Option<&Subject>) -> String {
    match subject {
        None => "nothing".to_owned(),
        Some(on) if on.number == 0 => format!("{}/{}", on.org, on.repo),
        Some(on) => format!("{}/{}#{}", on.org, on.repo, on.number),
    }
}

fn short(sha: &str) -> &str {
    sha.get(..8).unwrap_or(sha)
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{CommentEffect, Context, ContextState, LabelEffect, StatusEffect};

    use super::*;

    #[test]
    fn every_plugin_says_what_it_made_of_a_delivery() {
        let delivery = Delivery {
            guid: "g".to_owned(),
            plugins: ["idle", "waits", "failed", "dead", "plans", "nothing"]
                .map(str::to_owned)
                .to_vec(),
            settled: vec!["idle".to_owned(), "nothing".to_owned()],
            ..Delivery::default()
        };
        let plan = |plugin: &str| Plan {
            guid: "g".to_owned(),
            plugin: plugin.to_owned(),
            ..Plan::default()
        };
        let planned = Arc::new(Plan {
            planned_ms: 1,
            jobs: vec!["id".to_owned()],
            ..plan("plans")
        });
        let plans = [
            Arc::new(Plan {
                failures: 2,
                error: "404".to_owned(),
                ..plan("failed")
            }),
            Arc::new(Plan {
                failures: 5,
                error: "404".to_owned(),
                dead: true,
                ..plan("dead")
            }),
            Arc::clone(&planned),
            Arc::new(Plan {
                planned_ms: 1,
                failures: 1,
                ..plan("nothing")
            }),
            // Of another delivery.
            Arc::new(Plan {
                guid: "h".to_owned(),
                dead: true,
                ..plan("waits")
            }),
        ];
        let waits = |failures, error: &str| Said::Waits {
            failures,
            error: error.to_owned(),
        };
        let said: Vec<Said> = said(&delivery, &plans)
            .into_iter()
            .map(|(_, said)| said)
            .collect();
        let dead = Said::GivenUp {
            failures: 5,
            error: "404".to_owned(),
        };
        let planned = Said::Planned(planned);
        assert_eq!(
            said,
            [
                Said::Nothing,
                waits(0, ""),
                waits(2, "404"),
                dead,
                planned,
                Said::Nothing
            ]
        );
    }

    #[test]
    fn effects_are_told_by_what_they_are_done_to() {
        let told = |action: Action| {
            let Words { what, text } = words(&Effect {
                action: Some(action),
                ..Effect::default()
            });
            format!("{what}: {text}")
        };
        let subject = Some(Subject {
            org: "acme".to_owned(),
            repo: "widget".to_owned(),
            number: 7,
        });
        let comment = CommentEffect {
            subject: subject.clone(),
            body: "hello".to_owned(),
            ..CommentEffect::default()
        };
        insta::assert_snapshot!(told(Action::Comment(comment)), @"comment on acme/widget#7: hello");
        let label = LabelEffect {
            subject: subject.clone(),
            label: "lgtm".to_owned(),
        };
        insta::assert_snapshot!(told(Action::RemoveLabel(label)), @"remove label lgtm from acme/widget#7: ");
        let status = StatusEffect {
            subject,
            sha: "0123456789abcdef".to_owned(),
            status: Some(Context {
                context: "tide".to_owned(),
                state: ContextState::Pending.into(),
                description: "Not mergeable.".to_owned(),
                ..Context::default()
            }),
        };
        insta::assert_snapshot!(told(Action::Status(status)), @"set status tide of 01234567 to pending: Not mergeable.");
    }

    #[test]
    fn deliveries_are_about_a_number_a_branch_a_repository_or_an_org() {
        let of = |org: &str, repo: &str, number, branch: &str| {
            about(&Delivery {
                org: org.to_owned(),
                repo: repo.to_owned(),
                number,
                r#ref: branch.to_owned(),
                ..Delivery::default()
            })
        };
        assert_eq!(of("acme", "widget", 7, "x"), "acme/widget#7");
        assert_eq!(
            of("acme", "widget", 0, "refs/heads/main"),
            "acme/widget@main"
        );
        assert_eq!(of("acme", "widget", 0, ""), "acme/widget");
        assert_eq!(of("acme", "", 0, ""), "acme");
    }
}
