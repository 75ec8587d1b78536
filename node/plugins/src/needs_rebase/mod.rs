//! `needs-rebase`: a label on pull requests that do not merge cleanly (PLG-NEEDSREBASE). What no event tells of is found by
//! looking at all of them now and then (`scan`), and at those of a branch after it moved.

mod checked;
mod scan;

use std::time::Duration;

use async_trait::async_trait;
use trireme_forge::webhook::{Event, IssueCommentEvent, PullRequestEvent};
use trireme_forge::{BotUser, IssueComment, Mergeability, PullRequest, State, has_label};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::label_names::NEEDS_REBASE;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::{self, simple_reply};

pub(crate) use checked::Checked;
pub(crate) use scan::{Query, of_branch, queries};

pub(crate) const NAME: &str = "needs-rebase";
/// How long the forge gets to find out by itself.
const SETTLE: Duration = Duration::from_secs(5);
const MESSAGE: &str = "PR needs rebase.";
const DEPENDABOT: &str = "dependabot[bot]";
/// A command of Dependabot's.
const DEPENDABOT_MESSAGE: &str = "rebase";

pub(crate) struct NeedsRebase;

#[async_trait]
impl Plugin for NeedsRebase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn external_names(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest, EventKind::IssueComment]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::PullRequest(event) => is_push(event),
            Event::IssueComment(event) => is_on_open(event),
            _ => false,
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        match event {
            Event::PullRequest(event) if is_push(event) => {
                cx.settled_for(SETTLE)?;
                let pr = &event.pull_request;
                let labels = cx.forge.labels(&pr.repo, pr.number).await?;
                let labelled = has_label(&labels, NEEDS_REBASE);
                judge(cx, pr, None, labelled).await
            }
            Event::IssueComment(event) if is_on_open(event) => {
                let (repo, number) = (&event.repository.id, event.issue.number);
                let valid = cx.options.needs_rebase.cache_valid_time;
                if cx.checked.is_fresh(repo, number, cx.now, valid) {
                    return Ok(Decision::nothing());
                }
                cx.settled_for(SETTLE)?;
                let pr = cx.forge.pull_request(repo, number).await?;
                if !pr.is_open() {
                    return Ok(Decision::nothing());
                }
                let labelled = has_label(&pr.labels, NEEDS_REBASE);
                let decided = judge(cx, &pr, pr.mergeable, labelled).await?;
                cx.checked.note(repo, number, cx.now, valid);
                Ok(decided)
            }
            _ => Ok(Decision::nothing()),
        }
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The needs-rebase plugin manages the 'needs-rebase' label by removing it from Pull Requests that are mergeable and adding it to those which are not.\nThe plugin reacts to commit changes on PRs in addition to periodically scanning all open PRs for any changes to mergeability that could have resulted from changes in other PRs.".to_owned(),
            ..PluginHelp::default()
        }
    }
}

fn is_push(event: &PullRequestEvent) -> bool {
    event.action.brings_commits() && event.pull_request.is_open()
}

fn is_on_open(event: &IssueCommentEvent) -> bool {
    event.issue.is_pull_request && event.issue.state == State::Open
}

/// Decides once it is known whether the pull request merges; `mergeable` if it is already.
async fn judge(
    cx: &Planning<'_>,
    pr: &PullRequest,
    mergeable: Option<bool>,
    labelled: bool,
) -> Result<Decision, PlanError> {
    let mergeable = match mergeable {
        Some(mergeable) => mergeable,
        None => {
            let asked = cx.forge.mergeability(&pr.repo, pr.number, &pr.head.sha);
            match asked.await? {
                Mergeability::Mergeable => true,
                Mergeability::Conflicting => false,
                // Another event tells of the head that it has now, and a scan of what stays unknown.
                Mergeability::Unknown | Mergeability::HeadMoved(_) | Mergeability::Settled => {
                    return Ok(Decision::nothing());
                }
            }
        }
    };
    let ours = match mergeable && labelled {
        true => stale(&cx.forge.comments(&pr.repo, pr.number).await?, cx.bot),
        false => Vec::new(),
    };
    let on = Target::new(&pr.repo, pr.number);
    Ok(decide(&on, &pr.author.login, labelled, mergeable, ours).for_head(&pr.head.sha))
}

/// Our comments that are not true any more.
pub(crate) fn stale(comments: &[IssueComment], bot: &BotUser) -> Vec<u64> {
    respond::stale(bot, comments, |body| body.contains(MESSAGE))
}

/// What is said of a conflict.
pub(crate) fn message(author: &str) -> String {
    match author {
        DEPENDABOT => simple_reply(DEPENDABOT_MESSAGE),
        _ => simple_reply(MESSAGE),
    }
}

/// PLG-NEEDSREBASE-001. `stale`: comments to delete.
fn decide(on: &Target, author: &str, labelled: bool, mergeable: bool, stale: Vec<u64>) -> Decision {
    let mut decision = Decision::nothing();
    match (mergeable, labelled) {
        (false, false) => {
            decision.push(on.add_label(NEEDS_REBASE));
            decision.push(on.comment(message(author)));
        }
        (true, true) => {
            decision.push(on.remove_label(NEEDS_REBASE));
            decision.extend(on.prune(stale));
        }
        _ => {}
    }
    decision
}

#[cfg(test)]
mod tests {
    use trireme_forge::RepoId;

    use super::*;
    use crate::testing::{bot, bot_comment, comment_event, pull_request_event};

    /// PLG-NEEDSREBASE-001
    #[test]
    fn plg_needsrebase_001_the_label_and_the_comment_follow_the_conflict() {
        let on = Target::new(&RepoId::new("org", "repo"), 5);
        let told =
            |labelled, mergeable| decide(&on, "ann", labelled, mergeable, vec![7]).to_string();
        insta::assert_snapshot!(told(false, false), @r"
        +needs-rebase
        comment: PR needs rebase.

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        assert_eq!(told(true, true), "-needs-rebase\ndelete [7]");
        assert_eq!(told(true, false), "nothing");
        assert_eq!(told(false, true), "nothing");
        assert!(message(DEPENDABOT).starts_with("rebase\n\n<details>"));
        let mut others = bot_comment(2, MESSAGE);
        others.author.login = "ann".into();
        let comments = [
            bot_comment(1, &message("ann")),
            others,
            bot_comment(3, &message(DEPENDABOT)),
        ];
        assert_eq!(stale(&comments, &bot()), [1]);
    }

    #[test]
    fn plg_needsrebase_001_pushes_and_comments_make_it_look() {
        let of = |action| {
            let event = Event::PullRequest(Box::new(pull_request_event(action)));
            crate::testing::concerns(&NeedsRebase, &event)
        };
        let taken = ["opened", "synchronize", "reopened", "edited", "closed"].map(of);
        assert_eq!(taken, [true, true, true, false, false]);
        assert!(crate::testing::concerns(
            &NeedsRebase,
            &comment_event("ann", "hi")
        ));
        let Event::IssueComment(mut closed) = comment_event("ann", "hi") else {
            unreachable!()
        };
        closed.issue.state = State::Closed;
        assert!(!crate::testing::concerns(
            &NeedsRebase,
            &Event::IssueComment(closed)
        ));
    }
}
