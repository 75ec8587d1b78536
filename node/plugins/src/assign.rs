//! `assign`: `/assign` and `/cc`, and `/unassign` and `/uncc`.

use async_trait::async_trait;
use regex::Regex;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};
use trireme_proto::state::effect::Action;

use crate::decision::{Decision, Outcome, Target, Text};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    ASSIGN = r"(?mi)^/(un)?assign(( @?[-\w]+?)*)\s*$";
    /// Teams are names too. Who asks for reviews in this way wants no others to be picked.
    CC = r"(?mi)^/(un)?cc(( +@?[-/\w]+?)*)\s*$";
}

pub(crate) struct Assign;

#[async_trait]
impl Plugin for Assign {
    fn name(&self) -> &'static str {
        "assign"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        event
            .generic_comment()
            .is_some_and(|comment| !decide(&comment).is_idle())
    }

    async fn plan(&self, _: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let comment = event.generic_comment();
        Ok(comment.map_or_else(Decision::nothing, |comment| decide(&comment)))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The assign plugin assigns or requests reviews from users/teams. Specific users can be assigned with the command '/assign @user1' or have reviews requested of them with the command '/cc @user1'. If no users are specified, the commands default to targeting the user who created the command. Assignments and requested reviews can be removed in the same way that they are added by prefixing the commands with 'un'.".to_owned(),
            commands: vec![
                Command {
                    usage: "/[un]assign [[@]<username>...|[@]<orgname/teamname>...]",
                    featured: true,
                    description: "Assigns assignee(s) or team(s) to the PR",
                    examples: &["/assign", "/unassign", "/assign @spongebob", "/assign spongebob patrick", "/assign @kubernetes/sig-foo-bar"],
                    who_can_use: "Anyone can use the command, but the target user(s) must be an org member, a repo collaborator, or should have previously commented on the issue or PR.",
                },
                Command {
                    usage: "/[un]cc [[@]<username>...|[@]<orgname/teamname>...]",
                    featured: true,
                    description: "Requests a review from the user(s) or team(s).",
                    examples: &["/cc", "/uncc", "/cc @spongebob", "/cc spongebob patrick", "/cc @kubernetes/sig-foo-bar"],
                    who_can_use: "Anyone can use the command, but the target user(s) must be a member of the org that owns the repository.",
                },
            ],
            ..PluginHelp::default()
        }
    }
}

/// Whom a text asks to add and to remove, in the order in which they are first named.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    add: Vec<String>,
    remove: Vec<String>,
}

impl Wanted {
    fn of(command: &Regex, comment: &GenericComment) -> Self {
        let mut people: Vec<(String, bool)> = Vec::new();
        let mut want =
            |login: &str, add: bool| match people.iter_mut().find(|(had, _)| had == login) {
                Some((_, had)) => *had = add,
                None => people.push((login.to_owned(), add)),
            };
        for found in command.captures_iter(&comment.body) {
            let add = found.get(1).is_none_or(|un| un.as_str() != "un");
            let names = found.get(2).map_or("", |names| names.as_str());
            if names.is_empty() {
                want(&comment.user.login, add);
            }
            let names = names.split(' ').map(|name| name.trim_matches(['@', ' ']));
            for name in names.filter(|name| !name.is_empty()) {
                want(name, add);
            }
        }
        let (add, remove): (Vec<_>, Vec<_>) = people.into_iter().partition(|(_, add)| *add);
        let logins = |people: Vec<(String, bool)>| people.into_iter().map(|(login, _)| login);
        Self {
            add: logins(add).collect(),
            remove: logins(remove).collect(),
        }
    }
}

fn decide(comment: &GenericComment) -> Decision {
    let mut decision = Decision::nothing();
    if comment.action != GenericAction::Created {
        return decision;
    }
    let on = Target::new(&comment.repo, comment.number);
    let org = &comment.repo.org;
    let assign = Wanted::of(&ASSIGN, comment);
    carry_out(
        &mut decision,
        comment,
        (!assign.remove.is_empty()).then(|| on.unassign(assign.remove)),
        (!assign.add.is_empty()).then(|| on.assign(assign.add)),
        "GitHub didn't allow me to assign the following users: ",
        &format!(
            ".\n\nNote that only [{org} members](https://github.com/orgs/{org}/people) with read permissions, repo collaborators and people who have commented on this issue/PR can be assigned. Additionally, issues/PRs can only have 10 assignees at the same time.\nFor more information please see [the contributor guide](https://git.k8s.io/community/contributors/guide/first-contribution.md#issue-assignment-in-github)"
        ),
    );
    if comment.is_pr {
        let review = Wanted::of(&CC, comment);
        carry_out(
            &mut decision,
            comment,
            (!review.remove.is_empty()).then(|| on.unrequest_review(review.remove)),
            (!review.add.is_empty()).then(|| on.request_review(review.add)),
            "GitHub didn't allow me to request PR reviews from the following users: ",
            &format!(
                ".\n\nNote that only [{org} members](https://github.com/orgs/{org}/people) and repo collaborators can review this PR, and authors cannot review their own PRs."
            ),
        );
    }
    decision
}

/// Removals first. Somebody who stays is an error of that command: its additions are left out.
fn carry_out(
    decision: &mut Decision,
    comment: &GenericComment,
    remove: Option<Action>,
    add: Option<Action>,
    not_added: &str,
    note: &str,
) {
    let removed = remove.map(|remove| decision.push(remove));
    let Some(add) = add else {
        return;
    };
    let added = match removed {
        Some(removed) => decision.push_if(removed, &[Outcome::Ok], add),
        None => decision.push(add),
    };
    let message = Text::from(not_added).and_result(added).and(note);
    decision.push_if(added, &[Outcome::Partly], answer(comment, message));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, comment_event, pull_request_event};

    fn told(body: &str) -> String {
        let decision = decide(&comment("alice", body)).to_string();
        // What is said when the forge refuses stands in its own test.
        let lines = decision
            .lines()
            .take_while(|line| !line.contains("comment: "));
        let told: Vec<&str> = lines.collect();
        told.join("\n")
    }

    #[test]
    fn plg_assign_001_names_or_oneself() {
        for (body, expected) in [
            ("/assign", "assign alice"),
            ("/ASSIGN  \r\n", "assign alice"),
            ("/assign @bob carl @@dora", "nothing"),
            ("/assign @bob carl", "assign bob, carl"),
            ("text\n/assign  bob\nmore", "nothing"),
            ("/unassign", "unassign alice"),
            ("/unassign @bob", "unassign bob"),
            ("/assign bob!", "nothing"),
            ("/assign org/team", "nothing"),
            ("/assigned", "nothing"),
            (" /assign", "nothing"),
            ("/cc", "request review from alice"),
            ("/cc  @bob   org/team", "request review from bob, org/team"),
            ("/uncc @bob", "unrequest review from bob"),
            ("/CC bob", "request review from bob"),
        ] {
            assert_eq!(told(body), expected, "{body:?}");
        }
    }

    #[test]
    fn plg_assign_001_new_texts_and_reviews_on_pull_requests_only() {
        let mut edited = comment("alice", "/assign");
        edited.action = GenericAction::Edited;
        assert!(decide(&edited).is_idle());
        let mut issue = comment("alice", "/assign\n/uncc");
        issue.is_pr = false;
        assert!(decide(&issue).to_string().starts_with("assign alice\n"));
        assert!(!decide(&issue).to_string().contains("unrequest"));
        assert!(crate::testing::concerns(
            &Assign,
            &comment_event("alice", "/cc")
        ));
        assert!(!crate::testing::concerns(
            &Assign,
            &comment_event("alice", "/assigning")
        ));
        let mut opened = pull_request_event("opened");
        opened.pull_request.body = "/cc bob".into();
        assert!(crate::testing::concerns(
            &Assign,
            &Event::PullRequest(Box::new(opened))
        ));
    }

    #[test]
    fn plg_assign_002_the_last_word_on_a_login_counts_and_removals_come_first() {
        assert_eq!(
            told("/assign bob\n/unassign bob\n/unassign carl"),
            "unassign bob, carl"
        );
        assert_eq!(told("/unassign bob\n/assign bob"), "assign bob");
        // Only the lower-case word takes away.
        assert_eq!(told("/UNassign bob"), "assign bob");
        assert_eq!(told("/UNcc bob"), "request review from bob");
    }

    #[test]
    fn plg_assign_004_additions_wait_for_removals_that_work() {
        assert_eq!(
            told("/assign bob\n/unassign carl"),
            "unassign carl\nif 0 is done: assign bob"
        );
        assert_eq!(
            told("/cc bob\n/uncc carl"),
            "unrequest review from carl\nif 0 is done: request review from bob"
        );
    }

    #[test]
    fn plg_assign_003_who_is_not_taken_is_named() {
        insta::assert_snapshot!(decide(&comment("alice", "/assign bob")), @r"
        assign bob
        if 0 is partly done: comment: @alice: GitHub didn't allow me to assign the following users: {0}.

        Note that only [org members](https://github.com/orgs/org/people) with read permissions, repo collaborators and people who have commented on this issue/PR can be assigned. Additionally, issues/PRs can only have 10 assignees at the same time.
        For more information please see [the contributor guide](https://git.k8s.io/community/contributors/guide/first-contribution.md#issue-assignment-in-github)

        <details>

        In response to [this](https://github.com/org/repo/pull/5#issuecomment-9):

        >/assign bob


        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        let asked = decide(&comment("alice", "/cc bob")).to_string();
        let said = asked.split("\n\n<details>").next().unwrap_or_default();
        insta::assert_snapshot!(said, @r"
        request review from bob
        if 0 is partly done: comment: @alice: GitHub didn't allow me to request PR reviews from the following users: {0}.

        Note that only [org members](https://github.com/orgs/org/people) and repo collaborators can review this PR, and authors cannot review their own PRs.
        ");
    }
}
