//! `cherrypicker`: opens pull requests that put a merged one onto other branches (PLG-CHERRYPICK). What was asked for while
//! the pull request was open stands in its comments, description and labels until it is merged.

mod decide;
mod texts;

use async_trait::async_trait;
use trireme_forge::webhook::{Event, IssueCommentEvent, PullRequestAction, PullRequestEvent};

use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather, gather_up_to};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::options::CherrypickerOptions;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};

/// What a merge may have to know: the comments, and of each of those who asked in them whether they are a member.
const MAX_FACTS: usize = 1000;

pub(crate) struct Cherrypicker;

#[async_trait]
impl Plugin for Cherrypicker {
    fn name(&self) -> &'static str {
        "cherrypicker"
    }

    fn external_names(&self) -> &'static [&'static str] {
        &["cherrypicker", "cherrypick"]
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::IssueComment, EventKind::PullRequest]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::IssueComment(event) => is_command(event),
            Event::PullRequest(event) => {
                is_merge(event) || is_label(event, &cx.options.cherrypicker)
            }
            _ => false,
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let options = &cx.options.cherrypicker;
        match event {
            Event::IssueComment(event) if is_command(event) => {
                let on = Target::new(&event.repository.id, event.issue.number);
                gather(cx, &on, Facts::default(), |facts| {
                    decide::comment(event, options, facts)
                })
                .await
            }
            Event::PullRequest(event) => {
                let pr = &event.pull_request;
                let on = Target::new(&pr.repo, pr.number);
                if is_merge(event) {
                    let decide = |facts: &Facts| decide::merged(pr, options, facts);
                    return gather_up_to(MAX_FACTS, cx, &on, Facts::default(), decide).await;
                }
                let Some(label) = event.label.as_ref().filter(|_| is_label(event, options)) else {
                    return Ok(Decision::nothing());
                };
                gather(cx, &on, Facts::default(), |facts| {
                    decide::labeled(pr, &label.name, options, facts)
                })
                .await
            }
            _ => Ok(Decision::nothing()),
        }
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The cherrypick plugin is used for cherrypicking PRs across branches. For every successful cherrypick invocation a new PR is opened against the target branch and assigned to the requester. If the parent PR contains a release note, it is copied to the cherrypick PR. Kind labels (e.g. kind/bug, kind/cleanup) from the original PR are copied into the cherry-pick PR description as /kind commands so the bot can re-apply them.".to_owned(),
            commands: vec![Command {
                usage: "/cherrypick [branch]",
                featured: true,
                description: "Cherrypick a PR to a different branch. This command works both in merged PRs (the cherrypick PR is opened immediately) and open PRs (the cherrypick PR opens as soon as the original PR merges). If multiple branches are specified, separated by a space, a cherrypick for the first branch will be created with a comment to cherrypick the remaining branches after the first merges.",
                examples: &[
                    "/cherrypick release-3.9",
                    "/cherry-pick release-1.15",
                    "/cherrypick release-1.6 release-1.5 release-1.4",
                ],
                who_can_use: "Members of the trusted organization for the repo.",
            }],
            ..PluginHelp::default()
        }
    }
}

fn is_command(event: &IssueCommentEvent) -> bool {
    event.issue.is_pull_request
        && event.action == "created"
        && !decide::commands(&event.comment.body).is_empty()
}

fn is_merge(event: &PullRequestEvent) -> bool {
    let pr = &event.pull_request;
    event.action == PullRequestAction::Closed && pr.merged && pr.merge_commit_sha.is_some()
}

/// PLG-CHERRYPICK-006
fn is_label(event: &PullRequestEvent, options: &CherrypickerOptions) -> bool {
    let prefix = options.label_prefix.as_str();
    let label = event.label.as_ref();
    event.action == PullRequestAction::Labeled
        && label.is_some_and(|label| label.name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, labels, pull_request_event};

    /// PLG-CHERRYPICK-001
    #[test]
    fn only_what_can_ask_for_a_cherry_pick_concerns_it() {
        assert!(crate::testing::concerns(
            &Cherrypicker,
            &comment_event("a", "/cherry-pick x")
        ));
        assert!(!crate::testing::concerns(
            &Cherrypicker,
            &comment_event("a", "cherry-pick x")
        ));
        let Event::IssueComment(mut edited) = comment_event("a", "/cherrypick x") else {
            unreachable!()
        };
        edited.action = "edited".into();
        assert!(!crate::testing::concerns(
            &Cherrypicker,
            &Event::IssueComment(edited)
        ));
        let mut closed = pull_request_event("closed");
        let of = |event: &PullRequestEvent| {
            crate::testing::concerns(&Cherrypicker, &Event::PullRequest(Box::new(event.clone())))
        };
        assert!(!of(&closed));
        closed.pull_request.merged = true;
        closed.pull_request.merge_commit_sha = Some("m".into());
        assert!(of(&closed));
        let mut labeled = pull_request_event("labeled");
        labeled.label = labels(&["cherrypick/x"]).pop();
        assert!(of(&labeled));
        labeled.label = labels(&["kind/bug"]).pop();
        assert!(!of(&labeled), "it asks for nothing");
        assert!(!of(&pull_request_event("opened")));
    }
}
