//! `lifecycle`: closes and reopens issues and pull requests, and labels how they live.

use async_trait::async_trait;
use trireme_forge::State;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};

use crate::decision::{Decision, Outcome, Target, Text};
use crate::facts::{Facts, Missing, gather};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin, outage};
use crate::respond::answer;
use crate::stage::one_of;
use crate::text::commands;

commands! {
    LIFECYCLE = r"(?mi)^/(remove-)?lifecycle (active|frozen|stale|rotten)\s*$";
    CLOSE = r"(?mi)^/close\s*$";
    CLOSE_NOT_PLANNED = r"(?mi)^/close not-planned\s*$";
    REOPEN = r"(?mi)^/reopen\s*$";
}

const ALL: [&str; 4] = [
    "lifecycle/active",
    "lifecycle/frozen",
    "lifecycle/stale",
    "lifecycle/rotten",
];
const FROZEN: &str = ALL[1];
/// Whatever has one of these, anybody may close.
const INACTIVE: [&str; 2] = [ALL[2], ALL[3]];

pub(crate) struct Lifecycle;

#[async_trait]
impl Plugin for Lifecycle {
    fn name(&self) -> &'static str {
        "lifecycle"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        event.generic_comment().is_some_and(|comment| {
            asks_to_reopen(&comment)
                || asks_to_close(&comment)
                || comment.action == GenericAction::Created && LIFECYCLE.is_match(&comment.body)
        })
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(comment) = event.generic_comment() else {
            return Ok(Decision::nothing());
        };
        let mut facts = Facts::default();
        let login = &comment.user.login;
        let needs_right = asks_to_reopen(&comment) || asks_to_close(&comment);
        if needs_right && !is_by_author(&comment) {
            // As in Prow, who cannot be told to be a collaborator is none (PLG-LIFECYCLE-002); an outage passes.
            let is = match cx.forge.is_collaborator(&comment.repo, login).await {
                Err(error) if outage(&error).is_none() => {
                    tracing::warn!(%error, login, "cannot see whether somebody is a collaborator");
                    false
                }
                answer => answer?,
            };
            facts.collaborators.insert(login.clone(), is);
        }
        let on = Target::new(&comment.repo, comment.number);
        gather(cx, &on, facts, |facts| decide(&comment, facts)).await
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        let who_can_use = "Authors and collaborators on the repository can trigger this command.";
        PluginHelp {
            description: "Close, reopen, flag and/or unflag an issue or PR as frozen/stale/rotten"
                .to_owned(),
            commands: vec![
                Command {
                    usage: "/close [not-planned]",
                    featured: false,
                    description: "Closes an issue or PR.",
                    examples: &["/close", "/close not-planned"],
                    who_can_use,
                },
                Command {
                    usage: "/reopen",
                    featured: false,
                    description: "Reopens an issue or PR",
                    examples: &["/reopen"],
                    who_can_use,
                },
                Command {
                    usage: "/[remove-]lifecycle <frozen|stale|rotten>",
                    featured: false,
                    description: "Flags an issue or PR as frozen/stale/rotten",
                    examples: &["/lifecycle frozen", "/remove-lifecycle stale"],
                    who_can_use: "Anyone can trigger this command.",
                },
            ],
            ..PluginHelp::default()
        }
    }
}

fn asks_to_reopen(comment: &GenericComment) -> bool {
    comment.action == GenericAction::Created
        && comment.issue_state == State::Closed
        && REOPEN.is_match(&comment.body)
}

fn asks_to_close(comment: &GenericComment) -> bool {
    comment.action == GenericAction::Created
        && comment.issue_state == State::Open
        && (CLOSE.is_match(&comment.body) || CLOSE_NOT_PLANNED.is_match(&comment.body))
}

fn is_by_author(comment: &GenericComment) -> bool {
    comment.user.login == comment.issue_author.login
}

fn decide(comment: &GenericComment, facts: &Facts) -> Result<Decision, Missing> {
    let mut decision = Decision::nothing();
    if asks_to_reopen(comment) {
        reopen(&mut decision, comment, facts)?;
    }
    if asks_to_close(comment) {
        close(&mut decision, comment, facts)?;
    }
    if comment.action == GenericAction::Created {
        label(&mut decision, comment, facts)?;
    }
    Ok(decision)
}

fn reopen(decision: &mut Decision, comment: &GenericComment, facts: &Facts) -> Result<(), Missing> {
    if !is_by_author(comment) && !facts.is_collaborator(&comment.user.login)? {
        let why = "You can't reopen an issue/PR unless you authored it or you are a collaborator.";
        decision.push(answer(comment, why));
        return Ok(());
    }
    let on = Target::new(&comment.repo, comment.number);
    let (action, done, failed) = match comment.is_pr {
        true => (
            on.reopen_pull_request(),
            "Reopened this PR.",
            "Failed to re-open PR: ",
        ),
        false => (
            on.reopen(),
            "Reopened this issue.",
            "Failed to re-open Issue: ",
        ),
    };
    let reopened = decision.push(action);
    decision.push_if(reopened, &[Outcome::Ok], answer(comment, done));
    let why = Text::from(failed).and_result(reopened);
    decision.push_if(reopened, &[Outcome::Conflict], answer(comment, why));
    Ok(())
}

fn close(decision: &mut Decision, comment: &GenericComment, facts: &Facts) -> Result<(), Missing> {
    let may = is_by_author(comment) || facts.is_collaborator(&comment.user.login)? || {
        let labels = facts.labels()?;
        let mut inactive = INACTIVE.iter();
        inactive.any(|label| trireme_forge::has_label(labels, label))
    };
    if !may {
        let why =
            "You can't close an active issue/PR unless you authored it or you are a collaborator.";
        decision.push(answer(comment, why));
        return Ok(());
    }
    let on = Target::new(&comment.repo, comment.number);
    let not_planned = CLOSE_NOT_PLANNED.is_match(&comment.body);
    let (action, done) = match (comment.is_pr, not_planned) {
        (true, true) => {
            decision.push(answer(comment, "PRs cannot be closed as Not Planned."));
            return Ok(());
        }
        (true, false) => (on.close(), "Closed this PR."),
        (false, true) => (
            on.close_as_not_planned(),
            "Closing this issue, marking it as \"Not Planned\".",
        ),
        (false, false) => (on.close(), "Closing this issue."),
    };
    let closed = decision.push(action);
    decision.push_if(closed, &[Outcome::Ok], answer(comment, done));
    Ok(())
}

fn label(decision: &mut Decision, comment: &GenericComment, facts: &Facts) -> Result<(), Missing> {
    let on = Target::new(&comment.repo, comment.number);
    let mut commands = Vec::new();
    for found in LIFECYCLE.captures_iter(&comment.body) {
        let remove = found.get(1).is_some();
        let label = format!("lifecycle/{}", &found[2]);
        if comment.is_pr && label.eq_ignore_ascii_case(FROZEN) && !remove {
            let why = format!("The `{FROZEN}` label cannot be applied to Pull Requests.");
            decision.push(answer(comment, why));
        } else {
            commands.push((remove, label));
        }
    }
    if !commands.is_empty() {
        decision.extend(one_of(&on, &ALL, commands, facts.labels()?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, labels};

    fn issue(login: &str, body: &str) -> GenericComment {
        GenericComment {
            is_pr: false,
            ..comment(login, body)
        }
    }

    /// "collaborator" is one, nobody else.
    fn told(comment: &GenericComment, set: &[&str]) -> String {
        let login = comment.user.login.clone();
        let is = login == "collaborator";
        let facts = Facts {
            collaborators: [(login, is)].into(),
            labels: Some(labels(set)),
            ..Facts::default()
        };
        let told = decide(comment, &facts).unwrap().to_string();
        let lines = told.lines().filter(|line| {
            !line.starts_with(['>', '<']) && !line.is_empty() && !line.starts_with("In")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn plg_lifecycle_001_one_label_of_four() {
        for (body, set, expected) in [
            ("/lifecycle stale", &[][..], "+lifecycle/stale"),
            ("/lifecycle stale", &["Lifecycle/Stale"], "nothing"),
            (
                "/lifecycle active\r\n",
                &["lifecycle/stale", "lifecycle/rotten", "x"],
                "-lifecycle/stale\n-lifecycle/rotten\n+lifecycle/active",
            ),
            ("/LIFECYCLE Rotten", &[], "+lifecycle/Rotten"),
            (
                "/remove-lifecycle stale",
                &["lifecycle/stale"],
                "-lifecycle/stale",
            ),
            ("/remove-lifecycle stale", &[], "nothing"),
            (
                "/remove-lifecycle frozen",
                &["lifecycle/frozen"],
                "-lifecycle/frozen",
            ),
            (
                "/lifecycle stale\n/remove-lifecycle stale\n/lifecycle rotten",
                &[],
                "+lifecycle/stale\n-lifecycle/stale\n+lifecycle/rotten",
            ),
            ("/lifecycle  stale", &[], "nothing"),
            ("/lifecycle dead", &[], "nothing"),
        ] {
            assert_eq!(told(&comment("anybody", body), set), expected, "{body:?}");
        }
        let frozen = |comment: &GenericComment| told(comment, &[]);
        assert_eq!(
            frozen(&issue("anybody", "/lifecycle frozen")),
            "+lifecycle/frozen"
        );
        insta::assert_snapshot!(frozen(&comment("anybody", "/lifecycle frozen\n/lifecycle stale")), @r"
        comment: @anybody: The `lifecycle/frozen` label cannot be applied to Pull Requests.
        +lifecycle/stale
        ");
    }

    #[test]
    fn plg_lifecycle_002_who_may_close() {
        for login in ["author", "collaborator"] {
            assert_eq!(
                told(&comment(login, "/close"), &[]),
                format!("close\nif 0 is done: comment: @{login}: Closed this PR.")
            );
        }
        insta::assert_snapshot!(told(&comment("anybody", "/close"), &["lifecycle/active"]), @"comment: @anybody: You can't close an active issue/PR unless you authored it or you are a collaborator.");
        for label in INACTIVE {
            let closed = told(&issue("anybody", "/close"), &[label]);
            assert_eq!(
                closed,
                "close\nif 0 is done: comment: @anybody: Closing this issue."
            );
        }
        insta::assert_snapshot!(told(&issue("author", "/CLOSE NOT-planned\r\n"), &[]), @r#"
        close as not planned
        if 0 is done: comment: @author: Closing this issue, marking it as "Not Planned".
        "#);
        insta::assert_snapshot!(told(&comment("author", "/close not-planned"), &[]), @"comment: @author: PRs cannot be closed as Not Planned.");
        let mut closed = comment("author", "/close");
        closed.issue_state = State::Closed;
        assert_eq!(told(&closed, &[]), "nothing");
        assert_eq!(told(&comment("author", "/close it"), &[]), "nothing");
        let asked = issue("author", "/close\n/lifecycle stale");
        insta::assert_snapshot!(told(&asked, &[]), @r"
        close
        if 0 is done: comment: @author: Closing this issue.
        +lifecycle/stale
        ");
    }

    #[test]
    fn plg_lifecycle_003_who_may_reopen() {
        let closed = |comment: GenericComment| GenericComment {
            issue_state: State::Closed,
            ..comment
        };
        insta::assert_snapshot!(told(&closed(comment("collaborator", "/reopen")), &[]), @r"
        reopen the pull request
        if 0 is done: comment: @collaborator: Reopened this PR.
        if 0 is a conflict: comment: @collaborator: Failed to re-open PR: {0}
        ");
        insta::assert_snapshot!(told(&closed(issue("author", "/reopen\n/close\n/lifecycle active")), &[]), @r"
        reopen
        if 0 is done: comment: @author: Reopened this issue.
        if 0 is a conflict: comment: @author: Failed to re-open Issue: {0}
        +lifecycle/active
        ");
        insta::assert_snapshot!(told(&closed(issue("anybody", "/reopen")), &["lifecycle/stale"]), @"comment: @anybody: You can't reopen an issue/PR unless you authored it or you are a collaborator.");
        assert_eq!(told(&comment("author", "/reopen"), &[]), "nothing");
    }

    #[test]
    fn plg_lifecycle_001_only_new_texts_count() {
        for body in ["/close", "/lifecycle stale"] {
            let mut edited = comment("author", body);
            edited.action = GenericAction::Edited;
            assert_eq!(told(&edited, &[]), "nothing");
        }
        assert!(crate::testing::concerns(
            &Lifecycle,
            &crate::testing::comment_event("a", "/close")
        ));
        assert!(!crate::testing::concerns(
            &Lifecycle,
            &crate::testing::comment_event("a", "/reopen")
        ));
    }
}
