//! `mergecommitblocker`: keeps pull requests with merge commits from merging (PLG-MERGECOMMIT-001).

use async_trait::async_trait;
use trireme_forge::webhook::Event;
use trireme_forge::{BotUser, IssueComment, PullRequest, has_label};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::label_names::CONTAINS_MERGE_COMMITS;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::{simple_reply, stale};

const ADVICE: &str = "Adding label `do-not-merge/contains-merge-commits` because PR contains merge commits, which are not allowed in this repository.\nUse `git rebase` to reapply your commits on top of the target branch. Detailed instructions for doing so can be found [here](https://git.k8s.io/community/contributors/guide/github-workflow.md#4-keep-your-branch-in-sync).";

pub(crate) struct MergeCommitBlocker;

#[async_trait]
impl Plugin for MergeCommitBlocker {
    fn name(&self) -> &'static str {
        "mergecommitblocker"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        matches!(event, Event::PullRequest(event) if event.action.brings_commits())
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        if !event.action.brings_commits() {
            return Ok(Decision::nothing());
        }
        let pr = &event.pull_request;
        let (base, head) = (&pr.base.sha, &pr.head.sha);
        cx.mirrors.ensure(&pr.repo, &[base, head]).await?;
        let commits = cx.mirrors.commits_between(&pr.repo, base, head).await?;
        let merges = commits.iter().any(|commit| commit.parents.len() > 1);
        let labels = cx.forge.labels(&pr.repo, pr.number).await?;
        let labelled = has_label(&labels, CONTAINS_MERGE_COMMITS);
        let comments = match (merges, labelled) {
            (false, true) => cx.forge.comments(&pr.repo, pr.number).await?,
            _ => Vec::new(),
        };
        let decision = decide(pr, merges, labelled, &comments, cx.bot);
        Ok(decision.for_head(&pr.head.sha))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The merge commit blocker plugin adds the do-not-merge/contains-merge-commits label to pull requests that contain merge commits".to_owned(),
            ..PluginHelp::default()
        }
    }
}

fn decide(
    pr: &PullRequest,
    merges: bool,
    labelled: bool,
    comments: &[IssueComment],
    bot: &BotUser,
) -> Decision {
    let on = Target::new(&pr.repo, pr.number);
    match (merges, labelled) {
        (true, false) => vec![
            on.add_label(CONTAINS_MERGE_COMMITS),
            on.comment(simple_reply(ADVICE)),
        ]
        .into(),
        (false, true) => {
            let mut effects = vec![on.remove_label(CONTAINS_MERGE_COMMITS)];
            effects.extend(on.prune(stale(bot, comments, |body| body.contains(ADVICE))));
            effects.into()
        }
        _ => Decision::nothing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, bot_comment, pull_request, pull_request_event};

    #[test]
    fn plg_mergecommit_001_label_and_advice_follow_the_commits() {
        let pr = pull_request();
        let said = [
            bot_comment(1, &simple_reply(ADVICE)),
            bot_comment(2, "other"),
        ];
        let told = |merges, labelled| decide(&pr, merges, labelled, &said, &bot()).to_string();
        insta::assert_snapshot!(told(true, false), @r"
        +do-not-merge/contains-merge-commits
        comment: Adding label `do-not-merge/contains-merge-commits` because PR contains merge commits, which are not allowed in this repository.
        Use `git rebase` to reapply your commits on top of the target branch. Detailed instructions for doing so can be found [here](https://git.k8s.io/community/contributors/guide/github-workflow.md#4-keep-your-branch-in-sync).

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        assert_eq!(told(true, true), "nothing");
        assert_eq!(told(false, false), "nothing");
        assert_eq!(
            told(false, true),
            "-do-not-merge/contains-merge-commits\ndelete [1]"
        );
        for (action, expected) in [
            ("opened", true),
            ("reopened", true),
            ("synchronize", true),
            ("edited", false),
        ] {
            assert_eq!(pull_request_event(action).action.brings_commits(), expected);
        }
    }
}
