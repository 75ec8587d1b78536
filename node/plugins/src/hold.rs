//! `/hold`: keeps a pull request from merging without withholding approval (PLG-HOLD-001).

use async_trait::async_trait;
use jiff::Timestamp;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};
use trireme_forge::{Label, RepoId, ReviewComment, has_label};

use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::label_names::HOLD;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;

commands! {
    HOLD_COMMAND = r"(?mi)^/hold(\s.*)?$";
    CANCEL_COMMAND = r"(?mi)^/(remove-hold|hold\s+cancel|unhold)(\s.*)?$";
}

pub(crate) struct Hold;

#[async_trait]
impl Plugin for Hold {
    fn name(&self) -> &'static str {
        "hold"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        event
            .generic_comment()
            .is_some_and(|comment| wanted(&comment).is_some())
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(comment) = event.generic_comment() else {
            return Ok(Decision::nothing());
        };
        if wanted(&comment).is_none() {
            return Ok(Decision::nothing());
        }
        let (repo, number) = (&comment.repo, comment.number);
        let labels = cx.forge.labels(repo, number).await?;
        let decision = decide(&comment, &labels);
        // One that was lost and is brought again must not undo what was asked for after it.
        if !decision.is_idle()
            && let Some(written) = comment.written
            && cx.is_late(written)
            && overruled(cx, repo, number, written).await?
        {
            return Ok(Decision::nothing());
        }
        Ok(decision)
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The hold plugin allows anyone to add or remove the 'do-not-merge/hold' Label from a pull request in order to temporarily prevent the PR from merging without withholding approval.".to_owned(),
            commands: vec![Command {
                usage: "/[remove-][un]hold [cancel]",
                featured: false,
                description: "Adds or removes the `do-not-merge/hold` Label which is used to indicate that the PR should not be automatically merged.",
                examples: &["/hold", "/hold cancel", "/unhold", "/remove-hold"],
                who_can_use: "Anyone can use the /hold command to add or remove the 'do-not-merge/hold' Label.",
            }],
            ..PluginHelp::default()
        }
    }
}

/// Whether the label is asked for (`true`) or asked away. Asking away wins within one text.
fn wanted(comment: &GenericComment) -> Option<bool> {
    if !comment.is_pr || comment.action != GenericAction::Created {
        return None;
    }
    asked(&comment.body)
}

fn asked(text: &str) -> Option<bool> {
    if CANCEL_COMMAND.is_match(text) {
        return Some(false);
    }
    HOLD_COMMAND.is_match(text).then_some(true)
}

/// Whether a later text asks for or away, wherever it was written.
async fn overruled(
    cx: &Planning<'_>,
    repo: &RepoId,
    number: u64,
    written: Timestamp,
) -> Result<bool, PlanError> {
    let asks = |text: &str, at: Timestamp| at > written && asked(text).is_some();
    let comments = cx.forge.comments(repo, number).await?;
    if comments
        .iter()
        .any(|said| asks(&said.body, said.created_at))
    {
        return Ok(true);
    }
    let reviews = cx.forge.reviews(repo, number).await?;
    let asks_by_review = reviews.iter().any(|review| {
        let at = review.submitted_at;
        at.is_some_and(|at| asks(&review.body, at))
    });
    if asks_by_review {
        return Ok(true);
    }
    let on_lines = cx.forge.review_comments(repo, number).await?;
    // Written with a review, they are said when that is submitted.
    let said_at = |said: &ReviewComment| {
        let review = reviews
            .iter()
            .find(|review| Some(review.id) == said.review_id);
        let submitted = review.and_then(|review| review.submitted_at);
        submitted.map_or(said.created_at, |at| at.max(said.created_at))
    };
    Ok(on_lines.iter().any(|said| asks(&said.body, said_at(said))))
}

fn decide(comment: &GenericComment, labels: &[Label]) -> Decision {
    let on = Target::new(&comment.repo, comment.number);
    match (wanted(comment), has_label(labels, HOLD)) {
        (Some(true), false) => vec![on.add_label(HOLD)].into(),
        (Some(false), true) => vec![on.remove_label(HOLD)].into(),
        _ => Decision::nothing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, labels};

    #[test]
    fn plg_hold_001_the_label_follows_the_command() {
        for (body, labelled, expected) in [
            ("/hold", false, "+do-not-merge/hold"),
            ("/hold until tomorrow", false, "+do-not-merge/hold"),
            ("text\n/HOLD\r\nmore", false, "+do-not-merge/hold"),
            ("/hold", true, "nothing"),
            ("/hold cancel", true, "-do-not-merge/hold"),
            ("/hold  cancel please", true, "-do-not-merge/hold"),
            ("/hold cancel", false, "nothing"),
            ("/unhold", true, "-do-not-merge/hold"),
            ("/remove-hold", true, "-do-not-merge/hold"),
            ("/hold\n/unhold", true, "-do-not-merge/hold"),
            ("/hold\n/unhold", false, "nothing"),
            ("/holdit", false, "nothing"),
            (" /hold", false, "nothing"),
            ("please /hold", false, "nothing"),
        ] {
            let had = if labelled { labels(&[HOLD]) } else { vec![] };
            assert_eq!(
                decide(&comment("alice", body), &had).to_string(),
                expected,
                "{body:?}"
            );
        }
    }

    #[test]
    fn plg_hold_001_only_new_texts_on_pull_requests_count() {
        let mut edited = comment("alice", "/hold");
        edited.action = GenericAction::Edited;
        assert!(decide(&edited, &[]).is_idle());
        let mut issue = comment("alice", "/hold");
        issue.is_pr = false;
        assert!(decide(&issue, &[]).is_idle());
    }
}
