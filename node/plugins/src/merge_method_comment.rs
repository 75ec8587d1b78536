//! `merge-method-comment`: says how several commits will be merged, and how to have it otherwise (PLG-MERGEMETHOD-001).

use async_trait::async_trait;
use trireme_config::tide::{MergeMethod, Tide};
use trireme_forge::PullRequest;
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::{simple_reply, stale};

pub(crate) struct MergeMethodComment;

#[async_trait]
impl Plugin for MergeMethodComment {
    fn name(&self) -> &'static str {
        "merge-method-comment"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        matches!(event, Event::PullRequest(event) if has_several(event))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        if !has_several(event) {
            return Ok(Decision::nothing());
        }
        let pr = &event.pull_request;
        let text = text(&cx.running.config.prow.tide, pr);
        let comments = cx.forge.comments(&pr.repo, pr.number).await?;
        let said = !stale(cx.bot, &comments, |body| body.contains(&text)).is_empty();
        Ok(decide(pr, &text, said))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The merge-method-comment plugin adds a comment on how to request a different-from-default merge method to PRs with more than 1 commit".to_owned(),
            ..PluginHelp::default()
        }
    }
}

/// Whether it has several commits, and the event may have changed that.
fn has_several(event: &PullRequestEvent) -> bool {
    event.pull_request.commits.is_some_and(|count| count > 1)
        && (event.action.brings_commits() || event.action == PullRequestAction::Edited)
}

fn text(tide: &Tide, pr: &PullRequest) -> String {
    let method = tide.merge_method(&pr.repo.org, &pr.repo.repo, "");
    let otherwise = match (
        method,
        tide.merge_label.as_str(),
        tide.squash_label.as_str(),
    ) {
        (MergeMethod::Squash, "", _) => {
            "Commits will be squashed, as no merge labels are defined".to_owned()
        }
        (MergeMethod::Squash, label, _) => {
            format!("You can request commits to be merged using the label: {label}")
        }
        (MergeMethod::Merge, _, "") => {
            "Commits will be merged, as no squash labels are defined".to_owned()
        }
        (MergeMethod::Merge, _, label) => {
            format!("You can request commits to be squashed using the label: {label}")
        }
        (MergeMethod::Rebase, ..) => String::new(),
    };
    format!(
        "This PR has multiple commits, and the default merge method is: {}.\n{otherwise}",
        method.as_str()
    )
}

fn decide(pr: &PullRequest, text: &str, said: bool) -> Decision {
    match said {
        true => Decision::nothing(),
        false => {
            let on = Target::new(&pr.repo, pr.number);
            vec![on.comment(simple_reply(text))].into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, pull_request, pull_request_event};

    #[test]
    fn plg_mergemethod_001_the_text_follows_tides_configuration() {
        let of = |yaml: &str| text(&config(yaml).prow.tide, &pull_request());
        insta::assert_snapshot!(of("{}"), @r"
        This PR has multiple commits, and the default merge method is: merge.
        Commits will be merged, as no squash labels are defined
        ");
        insta::assert_snapshot!(of("tide: {squash_label: tide/squash}"), @r"
        This PR has multiple commits, and the default merge method is: merge.
        You can request commits to be squashed using the label: tide/squash
        ");
        insta::assert_snapshot!(of("tide: {merge_method: {org/repo: squash}}"), @r"
        This PR has multiple commits, and the default merge method is: squash.
        Commits will be squashed, as no merge labels are defined
        ");
        insta::assert_snapshot!(of("tide: {merge_method: {org: squash}, merge_label: tide/merge}"), @r"
        This PR has multiple commits, and the default merge method is: squash.
        You can request commits to be merged using the label: tide/merge
        ");
        insta::assert_snapshot!(of("tide: {merge_method: {org: rebase}}"), @"This PR has multiple commits, and the default merge method is: rebase.");
    }

    #[test]
    fn plg_mergemethod_001_it_is_said_once_of_several_commits() {
        let pr = pull_request();
        assert!(decide(&pr, "x", true).is_idle());
        assert!(
            decide(&pr, "x", false)
                .to_string()
                .starts_with("comment: x\n")
        );
        for (action, commits, expected) in [
            ("opened", 2, true),
            ("edited", 2, true),
            ("synchronize", 2, true),
            ("reopened", 2, true),
            ("opened", 1, false),
            ("labeled", 2, false),
        ] {
            let mut event = pull_request_event(action);
            event.pull_request.commits = Some(commits);
            assert_eq!(has_several(&event), expected, "{action} {commits}");
        }
    }
}
