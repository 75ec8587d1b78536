//! What people say about release notes in comments (PLG-RELEASENOTE-006, PLG-RELEASENOTE-007).

use trireme_forge::webhook::IssueCommentEvent;
use trireme_forge::{has_label, norm_login};

use super::note::{LABELS, label, note, place};
use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing};
use crate::label_names::{
    DEPRECATION, RELEASE_NOTE, RELEASE_NOTE_ACTION_REQUIRED, RELEASE_NOTE_NONE,
};
use crate::respond::reply_to;
use crate::text::commands;

commands! {
    NOTE = r"(?mi)^/release-note\s*$";
    EDIT = r"(?mi)^/release-note-edit\s*$";
    NONE = r"(?mi)^/release-note-none\s*$";
    ACTION_REQUIRED = r"(?mi)^/release-note-action-required\s*$";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Edit,
    None,
    /// What the block says nowadays.
    Deprecated,
}

pub(super) fn says_none(body: &str) -> bool {
    NONE.is_match(body)
}

pub(super) fn asked(event: &IssueCommentEvent) -> Option<Asked> {
    let body = &event.comment.body;
    if !event.issue.is_pull_request || event.action != "created" {
        None
    } else if EDIT.is_match(body) {
        Some(Asked::Edit)
    } else if NOTE.is_match(body) {
        Some(Asked::Deprecated)
    } else if says_none(body) {
        Some(Asked::None)
    } else {
        ACTION_REQUIRED.is_match(body).then_some(Asked::Deprecated)
    }
}

pub(super) fn decide(
    event: &IssueCommentEvent,
    asked: Asked,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let (issue, comment) = (&event.issue, &event.comment);
    let on = Target::new(&issue.repo, issue.number);
    let login = &comment.author.login;
    let reply_at = |url: &str, message: &str| {
        let reply = reply_to(&comment.body, url, login, message);
        Ok(Decision::from(vec![on.comment(reply)]))
    };
    let reply = |message: &str| reply_at(&comment.html_url, message);
    let org = &event.repository.id.org;
    match asked {
        Asked::Deprecated => reply(&format!(
            "the `/{RELEASE_NOTE}` and `/{RELEASE_NOTE_ACTION_REQUIRED}` commands have been deprecated.\nPlease edit the `release-note` block in the PR body text to include the release note. If the release note requires additional action include the string `action required` in the release note. For example:\n````\n```release-note\nSome release note with action required.\n```\n````"
        )),
        Asked::Edit => {
            if !facts.is_member(org, login)? {
                return reply_at(
                    &issue.html_url,
                    "You must be an org member to edit the release note.",
                );
            }
            let note = note(&comment.body);
            if note.is_empty() {
                return reply("/release-note-edit must be used with a release note block.");
            }
            // As it is now: the event may have waited, and its author may have written since.
            let now = &facts.pull_request()?.body;
            let Some(place) = place(now) else {
                return reply("/release-note-edit must be used with a single release note block.");
            };
            let mut body = now.clone();
            body.replace_range(place, &format!("\r\n{note}\r\n"));
            Ok(vec![on.rewrite_body(now, body)].into())
        }
        Asked::None => {
            let by_author = norm_login(login) == norm_login(&issue.author.login);
            if !by_author && !facts.is_member(org, login)? {
                return reply(&format!(
                    "you can only set the release note label to {RELEASE_NOTE_NONE} if you are the PR author or an org member."
                ));
            }
            let labelled = |name: &str| issue.labels.iter().any(|label| label.name == name);
            if matches!(
                label(&issue.body, labelled),
                RELEASE_NOTE | RELEASE_NOTE_ACTION_REQUIRED
            ) {
                return reply(&format!(
                    "you can only set the release note label to {RELEASE_NOTE_NONE} if the release-note block in the PR body text is empty or \"none\"."
                ));
            }
            if has_label(&issue.labels, DEPRECATION) {
                return reply(&format!(
                    "you can not set the release note label to \"{RELEASE_NOTE_NONE}\" because the PR has the label \"{DEPRECATION}\"."
                ));
            }
            let mut effects = Vec::new();
            if !has_label(&issue.labels, RELEASE_NOTE_NONE) {
                effects.push(on.add_label(RELEASE_NOTE_NONE));
            }
            let others = LABELS
                .into_iter()
                .filter(|name| *name != RELEASE_NOTE_NONE && labelled(name));
            effects.extend(others.map(|name| on.remove_label(name)));
            Ok(effects.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label_names::RELEASE_NOTE_NEEDED;
    use crate::testing::{comment_event, labels, pull_request};
    use trireme_forge::webhook::Event;

    fn event(login: &str, body: &str) -> IssueCommentEvent {
        match comment_event(login, body) {
            Event::IssueComment(event) => *event,
            _ => unreachable!(),
        }
    }

    /// The first line of what is decided; whether they are a member.
    fn told(event: &IssueCommentEvent, member: bool) -> String {
        told_now(event, &event.issue.body, member)
    }

    /// The same where the pull request's text is this by now.
    fn told_now(event: &IssueCommentEvent, now: &str, member: bool) -> String {
        let login = event.comment.author.login.clone();
        let mut pr = pull_request();
        now.clone_into(&mut pr.body);
        let facts = Facts {
            members: [(("org".to_owned(), login), member)].into(),
            pull_request: Some(pr),
            ..Facts::default()
        };
        let decision = decide(event, asked(event).unwrap(), &facts).unwrap();
        let text = decision.to_string();
        let end = text.find("\n\n<details>").unwrap_or(text.len());
        text[..end].to_owned()
    }

    #[test]
    fn plg_releasenote_006_only_new_comments_on_pull_requests_count() {
        for (body, expected) in [
            ("/release-note-none", Some(Asked::None)),
            ("x\n/Release-Note-None  \r\n", Some(Asked::None)),
            ("/release-note", Some(Asked::Deprecated)),
            ("/release-note-action-required", Some(Asked::Deprecated)),
            ("/release-note-edit\n/release-note-none", Some(Asked::Edit)),
            ("/release-note no", None),
            ("release note none", None),
        ] {
            assert_eq!(asked(&event("a", body)), expected, "{body:?}");
        }
        let mut edited = event("a", "/release-note-none");
        edited.action = "edited".into();
        assert_eq!(asked(&edited), None);
        let mut issue = event("a", "/release-note-none");
        issue.issue.is_pull_request = false;
        assert_eq!(asked(&issue), None);
    }

    #[test]
    fn plg_releasenote_006_none_is_set_by_author_or_member_unless_there_is_a_note() {
        let none = |login: &str, had: &[&str], body: &str, member: bool| {
            let mut event = event(login, "/release-note-none");
            event.issue.labels = labels(had);
            body.clone_into(&mut event.issue.body);
            told(&event, member)
        };
        assert_eq!(none("author", &[], "", false), "+release-note-none");
        assert_eq!(
            none("friend", &[RELEASE_NOTE_NEEDED], "", true),
            "+release-note-none\n-do-not-merge/release-note-label-needed"
        );
        assert_eq!(
            none("friend", &[RELEASE_NOTE_NONE, RELEASE_NOTE], "", true),
            "-release-note"
        );
        insta::assert_snapshot!(none("eve", &[], "", false), @"comment: @eve: you can only set the release note label to release-note-none if you are the PR author or an org member.");
        insta::assert_snapshot!(none("author", &[], "```release-note\nA flag\n```", false), @r#"comment: @author: you can only set the release note label to release-note-none if the release-note block in the PR body text is empty or "none"."#);
        insta::assert_snapshot!(none("author", &[DEPRECATION], "", false), @r#"comment: @author: you can not set the release note label to "release-note-none" because the PR has the label "kind/deprecation"."#);
        insta::assert_snapshot!(told(&event("eve", "/release-note"), false), @r"
        comment: @eve: the `/release-note` and `/release-note-action-required` commands have been deprecated.
        Please edit the `release-note` block in the PR body text to include the release note. If the release note requires additional action include the string `action required` in the release note. For example:
        ````
        ```release-note
        Some release note with action required.
        ```
        ````
        ");
    }

    #[test]
    fn plg_releasenote_007_the_block_is_replaced_by_the_comments() {
        let edit = |comment: &str, body: &str, member: bool| {
            let mut event = event("m", comment);
            body.clone_into(&mut event.issue.body);
            told(&event, member)
        };
        let new = "/release-note-edit\r\n```release-note\r\nNew words\r\n```";
        let old = "Text\n```release-note\nOld\n```\nmore";
        assert_eq!(
            edit(new, old, true),
            "body: Text\n```release-note\r\nNew words\r\n```\nmore"
        );
        let mut event = event("m", new);
        old.clone_into(&mut event.issue.body);
        assert_eq!(
            told_now(&event, "Since\n```release-note\nOld\n```", true),
            "body: Since\n```release-note\r\nNew words\r\n```"
        );
        insta::assert_snapshot!(edit(new, old, false), @"comment: @m: You must be an org member to edit the release note.");
        insta::assert_snapshot!(edit("/release-note-edit", old, true), @"comment: @m: /release-note-edit must be used with a release note block.");
        insta::assert_snapshot!(edit(new, "Text", true), @"comment: @m: /release-note-edit must be used with a single release note block.");
    }
}
