//! When approval is looked at again, and what becomes of the label and the notification.

use regex::Regex;
use trireme_forge::webhook::{Event, PullRequestAction};
use trireme_forge::{BotUser, Change, IssueComment, RecordedChange, RepoId, User, UserKind};

use super::approvals::{
    Approvals, How, Rules, add_from_texts, conversation, has_command, review_counts,
};
use super::coverage::{Coverage, shuffled};
use super::notification::{Assessment, Links, is_notification};
use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing};
use crate::label_names::APPROVED;

/// The part of the `approve` section that concerns a repository, and the forge's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) issue_required: bool,
    pub(crate) require_self_approval: bool,
    pub(crate) lgtm_acts_as_approve: bool,
    pub(crate) ignore_review_state: bool,
    pub(crate) command_help_link: String,
    pub(crate) pr_process_link: String,
    /// `https://github.com`: what stands before a repository's name, without a slash at its end.
    pub(crate) link_url: String,
    /// `OWNERS`, unless configured otherwise.
    pub(crate) owners_file_name: String,
}

impl Options {
    fn rules(&self) -> Rules {
        Rules {
            lgtm_acts_as_approve: self.lgtm_acts_as_approve,
            reviews_count: !self.ignore_review_state,
        }
    }
}

/// A pull request whose approval may have changed, as the event describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occasion {
    pub(super) repo: RepoId,
    pub(super) number: u64,
    /// The base branch, if the event tells it.
    branch: Option<String>,
    body: String,
    author: String,
    assignees: Vec<User>,
    html_url: String,
}

#[cfg(feature = "cost")]
impl Occasion {
    pub(super) fn of(repo: RepoId, number: u64, branch: &str, author: &str) -> Self {
        Self {
            html_url: format!("https://github.com/{repo}/pull/{number}"),
            repo,
            number,
            branch: Some(branch.to_owned()),
            body: String::new(),
            author: author.to_owned(),
            assignees: Vec::new(),
        }
    }
}

/// Whether the event allows any decision, whoever is behind it.
pub(super) fn may_matter(event: &Event, options: &Options) -> bool {
    let rules = options.rules();
    let spoken = event
        .generic_comment()
        .is_some_and(|comment| comment.is_pr && has_command(&comment.body, rules));
    spoken
        || match event {
            Event::Review(event) => rules.reviews_count && review_counts(event.review.state, rules),
            Event::PullRequest(event) => match event.action {
                PullRequestAction::Labeled => {
                    let label = event.label.as_ref();
                    label.is_some_and(|label| label.name == APPROVED)
                }
                PullRequestAction::Opened
                | PullRequestAction::Reopened
                | PullRequestAction::Synchronize => true,
                _ => false,
            },
            _ => false,
        }
}

/// PLG-APPROVE-002, PLG-APPROVE-003.
pub(super) fn occasion(event: &Event, options: &Options, bot: &BotUser) -> Option<Occasion> {
    match event {
        Event::PullRequest(event) => {
            let pr = &event.pull_request;
            let counts = match event.action {
                PullRequestAction::Opened
                | PullRequestAction::Reopened
                | PullRequestAction::Synchronize => true,
                PullRequestAction::Labeled => {
                    let approved = event
                        .label
                        .as_ref()
                        .is_some_and(|label| label.name == APPROVED);
                    approved && !bot.is(&event.sender.login) && pr.is_open()
                }
                _ => false,
            };
            if counts {
                return Some(Occasion {
                    repo: event.repository.id.clone(),
                    number: pr.number,
                    branch: Some(pr.base.branch.clone()),
                    body: pr.body.clone(),
                    author: pr.author.login.clone(),
                    assignees: pr.assignees.clone(),
                    html_url: pr.html_url.clone(),
                });
            }
        }
        Event::Review(event) => {
            let (review, pr) = (&event.review, &event.pull_request);
            let by_bot = bot.is(&review.author.login) || review.author.kind == UserKind::Bot;
            let settled = matches!(event.action.as_str(), "submitted" | "dismissed");
            // With a command in its body it is heard as a text, below.
            if settled
                && !by_bot
                && !has_command(&review.body, options.rules())
                && review_counts(review.state, options.rules())
            {
                return Some(Occasion {
                    repo: event.repository.id.clone(),
                    number: pr.number,
                    branch: Some(pr.base.branch.clone()),
                    body: pr.body.clone(),
                    author: pr.author.login.clone(),
                    assignees: pr.assignees.clone(),
                    html_url: pr.html_url.clone(),
                });
            }
        }
        _ => {}
    }
    let comment = event.generic_comment()?;
    let counts = comment.is_new_on_open_pull_request()
        && !bot.is(&comment.user.login)
        && has_command(&comment.body, options.rules());
    counts.then_some(Occasion {
        repo: comment.repo,
        number: comment.number,
        branch: None,
        body: comment.issue_body,
        author: comment.issue_author.login,
        assignees: comment.assignees,
        html_url: comment.issue_html_url,
    })
}

pub(super) fn decide(
    occasion: &Occasion,
    options: &Options,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let branch = match &occasion.branch {
        Some(branch) => branch,
        None => &facts.pull_request()?.base.branch,
    };
    let labelled = facts.labels()?.iter().any(|label| label.name == APPROVED);
    let comments = facts.comments()?;
    let coverage = Coverage::new(facts.files()?, facts.owners(branch)?);
    let mut assessment = Assessment {
        candidates: shuffled(coverage.candidates(), occasion.number),
        coverage,
        approvals: approvals(occasion, options, bot, facts)?,
        assignees: occasion
            .assignees
            .iter()
            .map(|user| user.login.to_lowercase())
            .collect(),
        require_issue: options.issue_required,
        associated_issue: associated_issue(&occasion.body, &occasion.repo.org),
        manually_approved: false,
    };
    // Who set the label matters only while the rules do not grant it.
    if labelled && !assessment.requirements_met() {
        assessment.manually_approved = added_by_human(facts.record()?, bot);
    }

    let on = Target::new(&occasion.repo, occasion.number);
    let notification = assessment.notification(&Links {
        repo: format!("{}/{}", options.link_url, occasion.repo),
        branch: branch.clone(),
        command_help: options.command_help_link.clone(),
        process: options.pr_process_link.clone(),
        org: occasion.repo.org.clone(),
        repo_name: occasion.repo.repo.clone(),
        owners_file_name: options.owners_file_name.clone(),
    });
    let mut effects = Vec::new();
    let former: Vec<&IssueComment> = comments
        .iter()
        .filter(|comment| bot.is(&comment.author.login) && is_notification(&comment.body))
        .collect();
    if !former
        .last()
        .is_some_and(|last| last.body.contains(&notification))
    {
        effects.extend(on.prune(former.iter().map(|comment| comment.id).collect()));
        effects.push(on.comment(notification));
    }
    match (assessment.is_approved(), labelled) {
        (true, false) => effects.push(on.add_label(APPROVED)),
        (false, true) => effects.push(on.remove_label(APPROVED)),
        _ => {}
    }
    Ok(effects.into())
}

fn approvals(
    occasion: &Occasion,
    options: &Options,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Approvals, Missing> {
    let reviews = facts.reviews()?;
    let texts = conversation(facts.comments()?, facts.review_comments()?, reviews);
    let mut approvals = Approvals::default();
    if !options.require_self_approval {
        let reference = format!("{}#", occasion.html_url);
        approvals.add(&occasion.author, How::SelfApproved, &reference, false);
    }
    let is_app = |login: &str| {
        reviews
            .iter()
            .any(|review| review.author.kind == UserKind::Bot && review.author.login == login)
    };
    add_from_texts(&mut approvals, &texts, options.rules(), |login| {
        bot.is(login) || is_app(login)
    });
    Ok(approvals)
}

/// The first issue that the text refers to, 0 if none (PLG-APPROVE-012).
fn associated_issue(body: &str, org: &str) -> u64 {
    let pattern = format!("(?:{}/[^/]+/issues/|#)([0-9]+)", regex::escape(org));
    let Ok(pattern) = Regex::new(&pattern) else {
        return 0;
    };
    pattern
        .captures(body)
        .and_then(|found| found[1].parse().ok())
        .unwrap_or(0)
}

/// Whether the label was last set by a person (HOOK-022).
fn added_by_human(record: &[RecordedChange], bot: &BotUser) -> bool {
    record
        .iter()
        .rfind(|line| matches!(&line.change, Change::Labeled(label) if label == APPROVED))
        .is_some_and(|line| !line.actor.login.is_empty() && !bot.is(&line.actor.login))
}

#[cfg(test)]
mod tests {
    use trireme_forge::{Label, ReviewState, State};

    use super::*;
    use crate::testing::{
        bot, bot_comment, comment_event, labels, owners, pull_request, pull_request_event,
        review_event,
    };

    fn options() -> Options {
        Options {
            issue_required: false,
            require_self_approval: false,
            lgtm_acts_as_approve: false,
            ignore_review_state: false,
            command_help_link: "https://go.k8s.io/bot-commands".into(),
            pr_process_link: "https://process".into(),
            link_url: "https://github.com".into(),
            owners_file_name: "OWNERS".into(),
        }
    }

    fn happens(event: &Event) -> bool {
        occasion(event, &options(), &bot()).is_some()
    }

    #[test]
    fn plg_approve_002_texts_and_reviews_that_count() {
        assert!(happens(&comment_event("alice", "/approve")));
        assert!(!happens(&comment_event("alice", "/lgtm")));
        assert!(!happens(&comment_event("k8s-ci-robot", "/approve")));
        assert!(!happens(&comment_event("alice", "fine")));
        for (state, expected) in [
            (ReviewState::Approved, true),
            (ReviewState::ChangesRequested, true),
            (ReviewState::Dismissed, true),
            (ReviewState::Commented, false),
        ] {
            assert_eq!(
                happens(&review_event("alice", "", state)),
                expected,
                "{state:?}"
            );
        }
        // Heard as a text.
        let spoken = occasion(
            &review_event("alice", "/approve", ReviewState::Commented),
            &options(),
            &bot(),
        );
        assert_eq!(spoken.unwrap().branch, None);
        let deaf = Options {
            ignore_review_state: true,
            ..options()
        };
        let review = review_event("alice", "", ReviewState::Approved);
        assert_eq!(occasion(&review, &deaf, &bot()), None);
        assert!(!happens(&review_event(
            "k8s-ci-robot",
            "",
            ReviewState::Approved
        )));
    }

    #[test]
    fn plg_approve_003_pull_request_events_that_count() {
        for (action, expected) in [
            ("opened", true),
            ("reopened", true),
            ("synchronize", true),
            ("edited", false),
            ("closed", false),
            ("labeled", false),
        ] {
            let event = Event::PullRequest(Box::new(pull_request_event(action)));
            assert_eq!(happens(&event), expected, "{action}");
        }
        let labeled = |label: &str, sender: &str, state| {
            let mut event = pull_request_event("labeled");
            event.label = Some(Label {
                name: label.into(),
                ..Label::default()
            });
            event.sender.login = sender.into();
            event.pull_request.state = state;
            happens(&Event::PullRequest(Box::new(event)))
        };
        assert!(labeled("approved", "alice", State::Open));
        assert!(!labeled("approved", "alice", State::Closed));
        assert!(!labeled("approved", "k8s-ci-robot", State::Open));
        assert!(!labeled("lgtm", "alice", State::Open));
    }

    #[test]
    fn plg_approve_012_the_first_reference_is_the_issue() {
        for (body, expected) in [
            ("Fixes #12, #13", 12),
            ("see https://github.com/org/other/issues/7", 7),
            ("see https://github.com/else/other/issues/7", 0),
            ("none", 0),
            ("#99999999999999999999999", 0),
        ] {
            assert_eq!(associated_issue(body, "org"), expected, "{body}");
        }
    }

    fn facts() -> Facts {
        Facts {
            pull_request: Some(pull_request()),
            labels: Some(vec![]),
            comments: Some(vec![]),
            reviews: Some(vec![]),
            review_comments: Some(vec![]),
            files: Some(vec!["a.go".into()]),
            owners: [(
                "main".to_owned(),
                owners(&[("OWNERS", "approvers: [boss]")]),
            )]
            .into(),
            ..Facts::default()
        }
    }

    fn told(facts: &Facts) -> String {
        let event = Event::PullRequest(Box::new(pull_request_event("opened")));
        let occasion = occasion(&event, &options(), &bot()).unwrap();
        decide(&occasion, &options(), &bot(), facts)
            .unwrap()
            .to_string()
    }

    #[test]
    fn plg_approve_013_a_new_pull_request_is_told_whom_to_ask() {
        insta::assert_snapshot!(told(&facts()), @r#"
        comment: [APPROVALNOTIFIER] This PR is **NOT APPROVED**

        This pull-request has been approved by: *<a href="https://github.com/org/repo/pull/5#" title="Author self-approved">author</a>*
        **Once this PR has been reviewed and has the lgtm label**, please assign [boss](https://github.com/boss) for approval. For more information see [the Code Review Process](https://process).

        The full list of commands accepted by this bot can be found [here](https://go.k8s.io/bot-commands?repo=org%2Frepo).

        <details open>
        Needs approval from an approver in each of these files:

        - **[OWNERS](https://github.com/org/repo/blob/main/OWNERS)**

        Approvers can indicate their approval by writing `/approve` in a comment
        Approvers can cancel approval by writing `/approve cancel` in a comment
        </details>
        <!-- META={"approvers":["boss"]} -->
        "#);
    }

    #[test]
    fn plg_approve_013_the_owners_word_is_enough() {
        let mut facts = facts();
        let mut comment = bot_comment(2, "/approve");
        comment.author.login = "Boss".into();
        facts.comments = Some(vec![comment]);
        insta::assert_snapshot!(told(&facts), @r#"
        comment: [APPROVALNOTIFIER] This PR is **APPROVED**

        This pull-request has been approved by: *<a href="https://github.com/org/repo/pull/5#" title="Author self-approved">author</a>*, *<a href="https://github.com/org/repo/pull/5#issuecomment-2" title="Approved">Boss</a>*

        The full list of commands accepted by this bot can be found [here](https://go.k8s.io/bot-commands?repo=org%2Frepo).

        The pull request process is described [here](https://process)

        <details >
        Needs approval from an approver in each of these files:

        - ~~[OWNERS](https://github.com/org/repo/blob/main/OWNERS)~~ [Boss]

        Approvers can indicate their approval by writing `/approve` in a comment
        Approvers can cancel approval by writing `/approve cancel` in a comment
        </details>
        <!-- META={"approvers":[]} -->
        +approved
        "#);
    }

    #[test]
    fn plg_approve_013_a_label_set_by_a_person_stays() {
        let event = |login: &str| RecordedChange {
            change: Change::Labeled(APPROVED.into()),
            actor: User::new(login),
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        let labelled = |events| Facts {
            labels: Some(labels(&[APPROVED])),
            record: Some(events),
            ..facts()
        };
        insta::assert_snapshot!(told(&labelled(vec![event("k8s-ci-robot"), event("alice")])), @r#"
        comment: [APPROVALNOTIFIER] This PR is **APPROVED**

        Approval requirements bypassed by manually added approval.

        This pull-request has been approved by: *<a href="https://github.com/org/repo/pull/5#" title="Author self-approved">author</a>*

        The full list of commands accepted by this bot can be found [here](https://go.k8s.io/bot-commands?repo=org%2Frepo).

        The pull request process is described [here](https://process)

        <details >
        Needs approval from an approver in each of these files:

        - **[OWNERS](https://github.com/org/repo/blob/main/OWNERS)**

        Approvers can indicate their approval by writing `/approve` in a comment
        Approvers can cancel approval by writing `/approve cancel` in a comment
        </details>
        <!-- META={"approvers":["boss"]} -->
        "#);
        let by_bot = told(&labelled(vec![event("alice"), event("k8s-ci-robot")]));
        assert!(by_bot.ends_with("\n-approved"), "{by_bot}");
        let by_ghost = told(&labelled(vec![event("")]));
        assert!(by_ghost.ends_with("\n-approved"), "{by_ghost}");
    }

    #[test]
    fn plg_approve_014_the_notification_is_replaced_only_if_it_differs() {
        let first = told(&facts());
        let text = first.strip_prefix("comment: ").unwrap().to_owned();
        let with = |comments| {
            told(&Facts {
                comments: Some(comments),
                ..facts()
            })
        };
        assert_eq!(with(vec![bot_comment(1, &text)]), "nothing");
        let old = "[APPROVALNOTIFIER] This PR is **APPROVED**";
        let again = with(vec![
            bot_comment(1, old),
            bot_comment(2, "other"),
            bot_comment(3, old),
        ]);
        assert_eq!(again, format!("delete [1, 3]\n{first}"));
        // Only the newest is compared; a person's copy of it is none.
        assert_eq!(
            with(vec![bot_comment(1, &text), bot_comment(3, old)]),
            format!("delete [1, 3]\n{first}")
        );
        let mut quoted = bot_comment(1, &text);
        quoted.author.login = "alice".into();
        assert_eq!(with(vec![quoted]), first);
    }

    #[test]
    fn plg_approve_008_self_approval_can_be_switched_off() {
        let event = Event::PullRequest(Box::new(pull_request_event("opened")));
        let strict = Options {
            require_self_approval: true,
            ..options()
        };
        let facts = Facts {
            owners: [(
                "main".to_owned(),
                owners(&[("OWNERS", "approvers: [Author]")]),
            )]
            .into(),
            ..facts()
        };
        let approved = |options: &Options| {
            let occasion = occasion(&event, options, &bot()).unwrap();
            let decision = decide(&occasion, options, &bot(), &facts).unwrap();
            decision.to_string().ends_with("\n+approved")
        };
        assert!(approved(&options()));
        assert!(!approved(&strict));
    }
}
