//! The label that follows from a pull request's text (PLG-RELEASENOTE-003 … 005).

use trireme_forge::webhook::{PullRequestAction, PullRequestEvent};
use trireme_forge::{BotUser, Label, PullRequest, has_label};

use super::command::says_none;
use super::note::{LABELS, label};
use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing};
use crate::label_names::{
    DEPRECATION, RELEASE_NOTE, RELEASE_NOTE_ACTION_REQUIRED, RELEASE_NOTE_NEEDED, RELEASE_NOTE_NONE,
};
use crate::respond::{reply, simple_reply, stale};
use crate::text::commands;

commands! {
    CHERRY_PICK = r"Cherry pick of #([[:digit:]]+) on release-([[:digit:]]+\.[[:digit:]]+).";
}

/// So many parents are looked at.
const MAX_PARENTS: usize = 30;

const PARENTS: &str = "All 'parent' PRs of a cherry-pick PR must have one of the \"release-note\" or \"release-note-action-required\" labels, or this PR must follow the standard/parent release note labeling requirement.";
const DEPRECATES: &str = "Adding the \"do-not-merge/release-note-label-needed\" label and removing any existing \"release-note-none\" label because there is a \"kind/deprecation\" label on the PR.";

fn needed(guidelines: &str) -> String {
    format!(
        "Adding the \"{RELEASE_NOTE_NEEDED}\" label because no release-note block was detected, please follow our [release note process]({guidelines}) to remove it."
    )
}

/// What this is a cherry-pick of.
#[derive(Debug, Clone, Default)]
pub(super) struct Parents {
    known: bool,
    without_note: Vec<u64>,
}

impl Parents {
    /// `None` for one that cannot be seen, or is none: as upstream, it is not missed.
    pub(super) fn add(&mut self, number: u64, labels: Option<&[Label]>) {
        self.known = true;
        let noted = [RELEASE_NOTE, RELEASE_NOTE_ACTION_REQUIRED];
        if labels.is_some_and(|labels| !noted.iter().any(|name| has_label(labels, name))) {
            self.without_note.push(number);
        }
    }
}

/// Whether text or labels may be other than before.
pub(super) fn counts(event: &PullRequestEvent) -> bool {
    match event.action {
        PullRequestAction::Opened
        | PullRequestAction::Edited
        | PullRequestAction::ReadyForReview => true,
        PullRequestAction::Labeled => event
            .label
            .as_ref()
            .is_some_and(|label| LABELS.contains(&label.name.as_str())),
        _ => false,
    }
}

/// The parents whose labels matter: those that the text names, if the pull request is not for `master`.
pub(super) fn parents(pr: &PullRequest) -> Vec<u64> {
    if pr.base.branch == "master" || !may_need(pr) {
        return Vec::new();
    }
    let lines = pr.body.split('\n');
    let named = lines.filter_map(|line| CHERRY_PICK.captures(line)?.get(1)?.as_str().parse().ok());
    named.take(MAX_PARENTS).collect()
}

/// Whether labels may make a note needed: a note in the block is enough whatever they are.
fn may_need(pr: &PullRequest) -> bool {
    label(&pr.body, |_| true) == RELEASE_NOTE_NEEDED
}

pub(super) fn decide(
    event: &PullRequestEvent,
    guidelines: &str,
    parents: &Parents,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let pr = &event.pull_request;
    let on = Target::new(&pr.repo, pr.number);
    let labels = facts.labels()?;
    let labelled = |name: &str| labels.iter().any(|label| label.name == name);
    let must_follow = !parents.known || !parents.without_note.is_empty();
    let mut wanted = label(&pr.body, labelled);
    let mut effects = Vec::new();
    let had_needed = labelled(RELEASE_NOTE_NEEDED);
    if wanted == RELEASE_NOTE_NEEDED {
        if pr.merged {
            return Ok(Decision::nothing());
        }
        if !must_follow {
            if had_needed {
                effects.push(on.remove_label(RELEASE_NOTE_NEEDED));
            }
            effects.extend(on.prune(obsolete(guidelines, bot, facts)?));
            return Ok(effects.into());
        }
        if !parents.without_note.is_empty() && !had_needed {
            let numbers = parents
                .without_note
                .iter()
                .map(|number| format!("#{number}"));
            let numbers = numbers.collect::<Vec<_>>().join(", ");
            let reason = format!(
                "The following parent PRs have neither the \"{RELEASE_NOTE}\" nor the \"{RELEASE_NOTE_ACTION_REQUIRED}\" labels: {numbers}."
            );
            effects.push(on.comment(reply(&pr.author.login, PARENTS, &reason)));
        }
        if labelled(DEPRECATION) {
            if !had_needed {
                effects.push(on.comment(simple_reply(DEPRECATES)));
            }
        } else if facts
            .comments()?
            .iter()
            .any(|comment| says_none(&comment.body))
        {
            wanted = RELEASE_NOTE_NONE;
        } else if !had_needed {
            effects.push(on.comment(simple_reply(&needed(guidelines))));
        }
    }
    if !labelled(wanted) {
        effects.push(on.add_label(wanted));
    }
    let others = LABELS
        .into_iter()
        .filter(|name| *name != wanted && labelled(name));
    effects.extend(others.map(|name| on.remove_label(name)));
    if wanted != RELEASE_NOTE_NEEDED {
        effects.extend(on.prune(obsolete(guidelines, bot, facts)?));
    }
    Ok(effects.into())
}

/// Our comments that ask for what is there now.
fn obsolete(guidelines: &str, bot: &BotUser, facts: &Facts) -> Result<Vec<u64>, Missing> {
    let needed = needed(guidelines);
    Ok(stale(bot, facts.comments()?, |body| {
        body.contains(&needed) || body.contains(PARENTS)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, bot_comment, labels, pull_request_event};

    const URL: &str = super::super::GUIDELINES;

    fn told(event: &PullRequestEvent, parents: &Parents, had: &[&str], said: &[&str]) -> String {
        let comments = (1..).zip(said).map(|(id, body)| bot_comment(id, body));
        let facts = Facts {
            labels: Some(labels(had)),
            comments: Some(comments.collect()),
            ..Facts::default()
        };
        let decision = decide(event, URL, parents, &bot(), &facts).unwrap();
        let text = decision.to_string();
        let mut told = String::new();
        let mut hidden = false;
        for line in text.lines() {
            hidden |= line == "<details>";
            if !hidden && !line.is_empty() {
                told.push_str(line);
                told.push('\n');
            }
            hidden &= line != "</details>";
        }
        told.trim_end().to_owned()
    }

    fn opened(body: &str) -> PullRequestEvent {
        let mut event = pull_request_event("opened");
        body.clone_into(&mut event.pull_request.body);
        event.pull_request.base.branch = "release-1.9".into();
        event
    }

    #[test]
    fn plg_releasenote_003_only_these_events_count() {
        for (action, expected) in [
            ("opened", true),
            ("edited", true),
            ("ready_for_review", true),
            ("labeled", false),
            ("reopened", false),
            ("synchronize", false),
        ] {
            assert_eq!(counts(&pull_request_event(action)), expected, "{action}");
        }
        for (name, expected) in [(RELEASE_NOTE_NEEDED, true), ("lgtm", false)] {
            let mut event = pull_request_event("labeled");
            event.label = labels(&[name]).pop();
            assert_eq!(counts(&event), expected, "{name}");
        }
    }

    #[test]
    fn plg_releasenote_003_what_is_missing_is_asked_for_once() {
        let none = Parents::default();
        let event = opened("no block");
        insta::assert_snapshot!(told(&event, &none, &[RELEASE_NOTE], &[]), @r#"
        comment: Adding the "do-not-merge/release-note-label-needed" label because no release-note block was detected, please follow our [release note process](https://git.k8s.io/community/contributors/guide/release-notes.md) to remove it.
        +do-not-merge/release-note-label-needed
        -release-note
        "#);
        assert_eq!(told(&event, &none, &[RELEASE_NOTE_NEEDED], &[]), "nothing");
        insta::assert_snapshot!(told(&event, &none, &[DEPRECATION, RELEASE_NOTE_NONE], &[]), @r#"
        comment: Adding the "do-not-merge/release-note-label-needed" label and removing any existing "release-note-none" label because there is a "kind/deprecation" label on the PR.
        +do-not-merge/release-note-label-needed
        -release-note-none
        "#);
        let mut merged = event;
        merged.pull_request.merged = true;
        assert_eq!(told(&merged, &none, &[], &[]), "nothing");
    }

    #[test]
    fn plg_releasenote_003_what_was_asked_for_goes_once_it_is_there() {
        let event = opened("```release-note\nA flag\n```");
        let said = [needed(URL), PARENTS.to_owned(), "other".to_owned()];
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        assert_eq!(
            told(&event, &Parents::default(), &[RELEASE_NOTE_NEEDED], &said),
            "+release-note\n-do-not-merge/release-note-label-needed\ndelete [1, 2]"
        );
        assert_eq!(
            told(&event, &Parents::default(), &[RELEASE_NOTE], &["x"]),
            "nothing"
        );
    }

    #[test]
    fn plg_releasenote_004_an_earlier_comment_satisfies_an_empty_block() {
        let event = opened("");
        let said = ["/release-note-none"];
        let none = Parents::default();
        assert_eq!(told(&event, &none, &[], &said), "+release-note-none");
        let deprecates = told(&event, &none, &[DEPRECATION], &said);
        assert!(
            deprecates.contains("+do-not-merge/release-note-label-needed"),
            "{deprecates}"
        );
    }

    #[test]
    fn plg_releasenote_005_cherry_picks_follow_their_parents() {
        let body = "Cherry pick of #12 on release-1.9.\r\nCherry pick of #13 on release-1.9.\n";
        let event = opened(body);
        assert_eq!(parents(&event.pull_request), [12, 13]);
        let mut to_master = event.clone();
        to_master.pull_request.base.branch = "master".into();
        assert_eq!(parents(&to_master.pull_request), Vec::<u64>::new());
        let with_note = opened(&format!("{body}```release-note\nA flag\n```"));
        assert_eq!(parents(&with_note.pull_request), Vec::<u64>::new());

        let mut noted = Parents::default();
        noted.add(11, None);
        noted.add(12, Some(&labels(&[RELEASE_NOTE])));
        noted.add(13, Some(&labels(&[RELEASE_NOTE_ACTION_REQUIRED])));
        let asked = needed(URL);
        assert_eq!(
            told(&event, &noted, &[RELEASE_NOTE_NEEDED], &[&asked]),
            "-do-not-merge/release-note-label-needed\ndelete [1]"
        );
        assert_eq!(told(&event, &noted, &[], &[]), "nothing");

        noted.add(14, Some(&labels(&[RELEASE_NOTE_NONE])));
        let facts = Facts {
            labels: Some(vec![]),
            comments: Some(vec![]),
            ..Facts::default()
        };
        let decision = decide(&event, URL, &noted, &bot(), &facts).unwrap();
        insta::assert_snapshot!(decision.to_string(), @r#"
        comment: @author: All 'parent' PRs of a cherry-pick PR must have one of the "release-note" or "release-note-action-required" labels, or this PR must follow the standard/parent release note labeling requirement.

        <details>

        The following parent PRs have neither the "release-note" nor the "release-note-action-required" labels: #14.

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        comment: Adding the "do-not-merge/release-note-label-needed" label because no release-note block was detected, please follow our [release note process](https://git.k8s.io/community/contributors/guide/release-notes.md) to remove it.

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        +do-not-merge/release-note-label-needed
        "#);
    }
}
