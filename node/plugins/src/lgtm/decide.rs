//! What becomes of the label `lgtm`, from what was said or pushed and the facts around it.

use std::collections::BTreeSet;

use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};
use trireme_forge::{
    BotUser, Change, IssueComment, PullRequest, RecordedChange, ReviewState, User, UserKind,
    has_label, norm_login,
};
use trireme_proto::state::effect::Action;

use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing};
use crate::label_names::LGTM;
use crate::respond::reply_to;
use crate::text::commands;

commands! {
    ADD = r"(?mi)^/lgtm(?: no-issue)?\s*$";
    REMOVE = r"(?mi)^/(remove-lgtm|lgtm cancel)\s*$";
    TREE_HASH = r"LGTM label has been added.  <details>Git tree hash: (.*)</details>";
}

pub(super) const OWN_PR: &str = "you cannot LGTM your own PR.";
pub(super) const COLLABORATORS_ONLY: &str = "changing LGTM is restricted to collaborators";
pub(super) const OWNERS_ONLY: &str =
    "adding LGTM is restricted to approvers and reviewers in OWNERS files.";
pub(super) const NEW_CHANGES: &str = "New changes are detected. LGTM label has been removed.";

/// People who are looked at for having approved of a push that comes late.
const MAX_APPROVERS: usize = 20;

fn tree_hash_comment(tree: &str) -> String {
    format!("LGTM label has been added.  <details>Git tree hash: {tree}</details>")
}

/// The part of the `lgtm` section that concerns a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) review_acts_as_lgtm: bool,
    pub(crate) store_tree_hash: bool,
    /// Display name of the team whose pull requests keep the label; empty = none.
    pub(crate) sticky_team: String,
    /// OWNERS files decide who may, instead of the list of collaborators (PLG-LGTM-005).
    pub(crate) skip_collaborators: bool,
}

/// Somebody asked for the label, or asked it away.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) add: bool,
    pub(super) by: String,
    pub(super) issue_author: String,
    pub(super) body: String,
    pub(super) html_url: String,
    pub(super) assignees: Vec<User>,
    pub(super) on: Target,
    /// The head that they saw, if the event tells.
    pub(super) head: Option<String>,
}

impl Request {
    pub(super) fn by_author(&self) -> bool {
        self.by == self.issue_author
    }
}

/// What a text asks for (PLG-LGTM-001). Adding wins within one text.
fn asked(body: &str) -> Option<bool> {
    if ADD.is_match(body) {
        Some(true)
    } else {
        REMOVE.is_match(body).then_some(false)
    }
}

/// Whether the event allows any decision, whoever is behind it.
pub(super) fn may_matter(event: &Event, options: &Options) -> bool {
    let spoken = event.generic_comment().is_some_and(|comment| {
        comment.is_new_on_open_pull_request() && asked(&comment.body).is_some()
    });
    spoken
        || match event {
            Event::Review(event) => {
                options.review_acts_as_lgtm
                    && event.action == "submitted"
                    && matches!(
                        event.review.state,
                        ReviewState::Approved | ReviewState::ChangesRequested
                    )
            }
            Event::PullRequest(event) => is_push(event),
            _ => false,
        }
}

/// The request that an event makes, by a command or by a review's verdict (PLG-LGTM-002).
pub(super) fn request(event: &Event, options: &Options, bot: &BotUser) -> Option<Request> {
    if let Some(comment) = event.generic_comment()
        && comment.is_new_on_open_pull_request()
        && let Some(add) = asked(&comment.body)
    {
        return Some(Request {
            add,
            by: comment.user.login,
            issue_author: comment.issue_author.login,
            body: comment.body,
            html_url: comment.html_url,
            assignees: comment.assignees,
            on: Target::new(&comment.repo, comment.number),
            head: comment.head,
        });
    }
    let Event::Review(event) = event else {
        return None;
    };
    let (review, pr) = (&event.review, &event.pull_request);
    let by_bot = bot.is(&review.author.login) || review.author.kind == UserKind::Bot;
    if !options.review_acts_as_lgtm
        || event.action != "submitted"
        || by_bot
        || asked(&review.body).is_some()
    {
        return None;
    }
    let add = match review.state {
        ReviewState::Approved => true,
        ReviewState::ChangesRequested => false,
        _ => return None,
    };
    Some(Request {
        add,
        by: review.author.login.clone(),
        issue_author: pr.author.login.clone(),
        body: review.body.clone(),
        html_url: review.html_url.clone(),
        assignees: pr.assignees.clone(),
        on: Target::new(&event.repository.id, pr.number),
        head: Some(pr.head.sha.clone()),
    })
}

/// Tells who asked why not.
pub(super) fn refuse(request: &Request, message: &str) -> Decision {
    let reply = reply_to(&request.body, &request.html_url, &request.by, message);
    Decision::from(vec![request.on.comment(reply)])
}

pub(super) fn decide_request(
    request: &Request,
    options: &Options,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let on = &request.on;
    let refuse = |message| Ok(refuse(request, message));
    let by_author = request.by_author();
    if by_author && request.add {
        return refuse(OWN_PR);
    }
    let mut decision = Decision::nothing();
    if !by_author {
        if options.skip_collaborators {
            if !is_owner(&request.by, facts)? {
                return refuse(OWNERS_ONLY);
            }
        } else if !facts.is_collaborator(&request.by)? {
            return refuse(COLLABORATORS_ONLY);
        } else if !request
            .assignees
            .iter()
            .any(|user| user.login == request.by)
        {
            decision.push(on.assign(vec![request.by.clone()]));
        }
    }
    match (request.add, has_label(facts.labels()?, LGTM)) {
        (true, false) => {
            // What they approved of is this head, and what is remembered is its tree; all else holds for any.
            let head = match &request.head {
                Some(head) => head,
                None => &facts.pull_request()?.head.sha,
            };
            decision.push_for_head(head, on.add_label(LGTM));
            if !is_sticky(&on.repo.org, &request.issue_author, options, facts)? {
                if options.store_tree_hash {
                    let tree = &facts.commit(head)?.tree_sha;
                    decision.push_for_head(head, on.comment(tree_hash_comment(tree)));
                }
                let notices =
                    by_bot(bot, facts)?.filter(|comment| comment.body.contains(NEW_CHANGES));
                if let Some(prune) = on.prune(notices.map(|comment| comment.id).collect()) {
                    decision.push_for_head(head, prune);
                }
            }
        }
        (false, true) => {
            decision.push(on.remove_label(LGTM));
            if options.store_tree_hash {
                decision.extend(review_again(on, &request.assignees));
                let stored =
                    by_bot(bot, facts)?.filter(|comment| TREE_HASH.is_match(&comment.body));
                decision.extend(on.prune(stored.map(|comment| comment.id).collect()));
            }
        }
        _ => {}
    }
    Ok(decision)
}

/// Whether they approve or review any of the changed files.
fn is_owner(login: &str, facts: &Facts) -> Result<bool, Missing> {
    let login = norm_login(login);
    let owners = facts.owners(&facts.pull_request()?.base.branch)?;
    Ok(facts.files()?.iter().any(|file| {
        owners.approvers(file).contains(&login) || owners.reviewers(file).contains(&login)
    }))
}

/// Whether the author's team keeps the label over pushes; a team that we may not see does not (PLG-LGTM-009).
fn is_sticky(org: &str, author: &str, options: &Options, facts: &Facts) -> Result<bool, Missing> {
    if options.sticky_team.is_empty() {
        return Ok(false);
    }
    let members = facts.unless_refused(facts.team(org, &options.sticky_team))?;
    Ok(members.is_some_and(|members| members.iter().any(|member| member == author)))
}

fn by_bot<'a>(
    bot: &'a BotUser,
    facts: &'a Facts,
) -> Result<impl DoubleEndedIterator<Item = &'a IssueComment>, Missing> {
    let comments = facts.comments()?.iter();
    Ok(comments.filter(|comment| bot.is(&comment.author.login)))
}

fn review_again(on: &Target, assignees: &[User]) -> Option<Action> {
    let logins: Vec<String> = assignees.iter().map(|user| user.login.clone()).collect();
    (!logins.is_empty()).then(|| on.request_review(logins))
}

/// Whether a pull request event may take the label away (PLG-LGTM-008).
pub(super) fn is_push(event: &PullRequestEvent) -> bool {
    event.action == PullRequestAction::Synchronize && !event.pull_request.merged
}

/// `is_late`: the push was so long ago that others may have approved of it since.
pub(super) fn decide_push(
    event: &PullRequestEvent,
    is_late: bool,
    options: &Options,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let pr = &event.pull_request;
    if !is_push(event)
        || !has_label(facts.labels()?, LGTM)
        || is_sticky(&pr.repo.org, &pr.author.login, options, facts)?
    {
        return Ok(Decision::nothing());
    }
    // As in Prow, what is not told is no tree that somebody approved of.
    if options.store_tree_hash
        && let Some(stored) = facts
            .unless_refused(by_bot(bot, facts))?
            .and_then(stored_tree)
        && let Some(pushed) = facts.unless_refused(facts.commit(&pr.head.sha))?
        && pushed.tree_sha == stored
    {
        return Ok(Decision::nothing());
    }
    if is_late && is_approved_since(pr, options, bot, facts)? {
        return Ok(Decision::nothing());
    }
    let on = Target::new(&pr.repo, pr.number);
    let mut effects = vec![on.remove_label(LGTM)];
    if options.store_tree_hash {
        effects.extend(review_again(&on, &pr.assignees));
    }
    effects.push(on.comment(NEW_CHANGES));
    Ok(effects.into())
}

/// Whether somebody who may has put the label on or asked for it after the pull request was pushed to. That it is on proves
/// nothing: what asked for it may have come as late as the push.
fn is_approved_since(
    pr: &PullRequest,
    options: &Options,
    bot: &BotUser,
    facts: &Facts,
) -> Result<bool, Missing> {
    let pushed = pr.updated_at;
    let by_hand = |line: &RecordedChange| {
        matches!(&line.change, Change::Labeled(label) if label.eq_ignore_ascii_case(LGTM))
            && line.at > pushed
            && !line.actor.login.is_empty()
            && !bot.is(&line.actor.login)
    };
    if facts.record()?.iter().any(by_hand) {
        return Ok(true);
    }
    let said = facts
        .comments()?
        .iter()
        .filter(|comment| comment.created_at > pushed && asked(&comment.body) == Some(true));
    let approved = facts.reviews()?.iter().filter(|review| {
        let is_verdict = options.review_acts_as_lgtm && review.state == ReviewState::Approved;
        review.submitted_at.is_some_and(|at| at > pushed)
            && asked(&review.body).unwrap_or(is_verdict)
    });
    let on_lines = facts
        .review_comments()?
        .iter()
        .filter(|comment| comment.created_at > pushed && asked(&comment.body) == Some(true));
    let said = said.map(|comment| &comment.author.login);
    let approved = approved.map(|review| &review.author.login);
    let on_lines = on_lines.map(|comment| &comment.author.login);
    let by: BTreeSet<&String> = said
        .chain(approved)
        .chain(on_lines)
        .filter(|login| **login != pr.author.login && !bot.is(login))
        .collect();
    for login in by.into_iter().take(MAX_APPROVERS) {
        let may = match options.skip_collaborators {
            true => is_owner(login, facts)?,
            false => facts.is_collaborator(login)?,
        };
        if may {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The tree that the newest untouched comment remembers.
fn stored_tree<'a>(comments: impl DoubleEndedIterator<Item = &'a IssueComment>) -> Option<&'a str> {
    comments
        .rev()
        .filter(|comment| comment.updated_at == comment.created_at)
        .find_map(|comment| TREE_HASH.captures(&comment.body))
        .and_then(|found| found.get(1))
        .map(|tree| tree.as_str())
        .filter(|tree| !tree.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use trireme_forge::{Commit, Review, Signature, State};

    use crate::testing::{
        bot, bot_comment, comment_event, labels, owners, pull_request, pull_request_event,
        review_event,
    };

    fn tree_hash() -> Options {
        Options {
            store_tree_hash: true,
            ..Options::default()
        }
    }

    fn reviews() -> Options {
        Options {
            review_acts_as_lgtm: true,
            ..Options::default()
        }
    }

    fn asks(login: &str, body: &str) -> Request {
        request(&comment_event(login, body), &Options::default(), &bot()).unwrap()
    }

    fn collaborator(login: &str, labelled: &[&str]) -> Facts {
        Facts {
            collaborators: [(login.to_owned(), true)].into(),
            labels: Some(labels(labelled)),
            comments: Some(vec![]),
            pull_request: Some(pull_request()),
            ..Facts::default()
        }
    }

    /// PLG-LGTM-006: what is bound to a head is the label and the tree that go with it, and nothing else.
    #[test]
    fn plg_lgtm_006_a_push_since_leaves_out_the_label_and_what_goes_with_it() {
        let head = pull_request().head.sha;
        let review = |state| review_event("rev", "", state);
        let other = || pull_request().base.sha;
        for (event, labelled, expected) in [
            (
                comment_event("rev", "/lgtm"),
                &[][..],
                "assign rev\n+lgtm HEAD\ncomment HEAD\ndelete [1] HEAD",
            ),
            (
                review(ReviewState::Approved),
                &[],
                "assign rev\n+lgtm HEAD\ncomment HEAD\ndelete [1] HEAD",
            ),
            (comment_event("rev", "/lgtm"), &["lgtm"], "assign rev"),
            (
                comment_event("rev", "/lgtm cancel"),
                &["lgtm"],
                "assign rev\n-lgtm\nrequest review from assigned",
            ),
            (comment_event("author", "/lgtm"), &[], "comment"),
        ] {
            let options = Options {
                review_acts_as_lgtm: true,
                ..tree_hash()
            };
            let request = request(&event, &options, &bot()).unwrap();
            let mut facts = Facts {
                commits: [commit(&head, "f00d")].into(),
                comments: Some(vec![bot_comment(1, NEW_CHANGES)]),
                ..collaborator("rev", labelled)
            };
            // A review names its head, whatever is there by now.
            if request.head.is_some()
                && let Some(pr) = &mut facts.pull_request
            {
                pr.head.sha = other();
            }
            let decision = decide_request(&request, &options, &bot(), &facts).unwrap();
            assert_eq!(decision.head, "");
            let told = decision.effects.iter().map(|effect| {
                let what = crate::decision::describe(effect.action.as_ref().unwrap());
                let what = what.split(": ").next().unwrap_or_default().to_owned();
                match effect.head_sha.as_str() {
                    "" => what,
                    sha if sha == head => format!("{what} HEAD"),
                    sha => format!("{what} {sha}"),
                }
            });
            assert_eq!(
                told.collect::<Vec<_>>().join("\n"),
                expected,
                "{}",
                request.body
            );
        }
    }

    fn told(request: &Request, options: &Options, facts: &Facts) -> String {
        decide_request(request, options, &bot(), facts)
            .unwrap()
            .to_string()
    }

    fn commit(sha: &str, tree: &str) -> (String, Commit) {
        let commit = Commit {
            sha: sha.to_owned(),
            tree_sha: tree.to_owned(),
            parents: vec![],
            message: String::new(),
            author: Signature::default(),
            committer: Signature::default(),
            author_login: None,
        };
        (sha.to_owned(), commit)
    }

    #[test]
    fn plg_lgtm_001_commands() {
        for (body, expected) in [
            ("/lgtm", Some(true)),
            ("/LGTM", Some(true)),
            ("/lgtm no-issue", Some(true)),
            ("thanks\n/lgtm \r\nbye", Some(true)),
            ("/lgtm cancel", Some(false)),
            ("/remove-lgtm", Some(false)),
            ("/lgtm\n/lgtm cancel", Some(true)),
            ("/lgtm it", None),
            ("/lgtmnot", None),
            ("not /lgtm", None),
            ("/lgtm\u{a0}", None),
        ] {
            assert_eq!(asked(body), expected, "{body:?}");
        }
    }

    #[test]
    fn plg_lgtm_001_only_new_texts_on_open_pull_requests() {
        let Event::IssueComment(event) = comment_event("alice", "/lgtm") else {
            unreachable!()
        };
        let none = |change: &dyn Fn(&mut trireme_forge::webhook::IssueCommentEvent)| {
            let mut event = event.clone();
            change(&mut event);
            assert_eq!(
                request(&Event::IssueComment(event), &Options::default(), &bot()),
                None
            );
        };
        none(&|event| event.action = "edited".into());
        none(&|event| event.issue.state = State::Closed);
        none(&|event| event.issue.is_pull_request = false);
    }

    #[test]
    fn plg_lgtm_002_reviews_speak_if_configured() {
        use ReviewState::{Approved, ChangesRequested, Commented};
        let add = |event: &Event, options: &Options| {
            request(event, options, &bot()).map(|request| request.add)
        };
        assert_eq!(
            add(&review_event("rev", "", Approved), &reviews()),
            Some(true)
        );
        assert_eq!(
            add(&review_event("rev", "", ChangesRequested), &reviews()),
            Some(false)
        );
        assert_eq!(add(&review_event("rev", "", Commented), &reviews()), None);
        assert_eq!(
            add(&review_event("rev", "", Approved), &Options::default()),
            None
        );
        assert_eq!(
            add(&review_event("k8s-ci-robot", "", Approved), &reviews()),
            None
        );
        // The command in the text is heard once, and with it whatever the review's own state says.
        let contradiction = review_event("rev", "/lgtm cancel", Approved);
        assert_eq!(add(&contradiction, &reviews()), Some(false));
        assert_eq!(add(&contradiction, &Options::default()), Some(false));
        let Event::Review(mut by_app) = review_event("some-app[bot]", "", Approved) else {
            unreachable!()
        };
        by_app.review.author.kind = UserKind::Bot;
        assert_eq!(add(&Event::Review(by_app.clone()), &reviews()), None);
        by_app.review.author.kind = UserKind::User;
        by_app.action = "dismissed".into();
        assert_eq!(add(&Event::Review(by_app), &reviews()), None);
    }

    #[test]
    fn plg_lgtm_003_authors_may_only_take_it_back() {
        let own = asks("author", "/lgtm");
        insta::assert_snapshot!(told(&own, &Options::default(), &Facts::default()), @r"
        comment: @author: you cannot LGTM your own PR.

        <details>

        In response to [this](https://github.com/org/repo/pull/5#issuecomment-9):

        >/lgtm


        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        let back = asks("author", "/lgtm cancel");
        let facts = Facts {
            labels: Some(labels(&["LGTM"])),
            ..Facts::default()
        };
        insta::assert_snapshot!(told(&back, &Options::default(), &facts), @"-lgtm");
    }

    #[test]
    fn plg_lgtm_004_collaborators_are_assigned_and_others_refused() {
        let decide = |login: &str, body: &str, labelled: &[&str]| {
            let facts = collaborator(login, labelled);
            told(&asks(login, body), &Options::default(), &facts)
        };
        insta::assert_snapshot!(decide("rev", "/lgtm", &[]), @r"
        assign rev
        +lgtm
        ");
        // "assigned" is an assignee of the pull request in these tests.
        insta::assert_snapshot!(decide("assigned", "/lgtm", &[]), @"+lgtm");
        insta::assert_snapshot!(decide("rev", "/lgtm", &["lgtm"]), @"assign rev");
        insta::assert_snapshot!(decide("rev", "/lgtm cancel", &["lgtm"]), @r"
        assign rev
        -lgtm
        ");
        insta::assert_snapshot!(decide("rev", "/lgtm cancel", &[]), @"assign rev");
        let stranger = Facts {
            collaborators: [("stranger".to_owned(), false)].into(),
            ..Facts::default()
        };
        insta::assert_snapshot!(told(&asks("stranger", "/lgtm"), &Options::default(), &stranger), @r"
        comment: @stranger: changing LGTM is restricted to collaborators

        <details>

        In response to [this](https://github.com/org/repo/pull/5#issuecomment-9):

        >/lgtm


        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
    }

    #[test]
    fn plg_lgtm_005_owners_instead_of_collaborators() {
        let options = Options {
            skip_collaborators: true,
            ..Options::default()
        };
        let decide = |login| {
            let owners = owners(&[
                ("a/OWNERS", "approvers: [boss]"),
                ("b/OWNERS", "reviewers: [rev]"),
            ]);
            let facts = Facts {
                pull_request: Some(pull_request()),
                owners: [("main".to_owned(), owners)].into(),
                files: Some(vec!["a/x.go".into(), "b/x.go".into()]),
                ..collaborator("nobody", &[])
            };
            told(&asks(login, "/lgtm"), &options, &facts)
        };
        insta::assert_snapshot!(decide("Rev"), @"+lgtm");
        insta::assert_snapshot!(decide("boss"), @"+lgtm");
        insta::assert_snapshot!(decide("other"), @r"
        comment: @other: adding LGTM is restricted to approvers and reviewers in OWNERS files.

        <details>

        In response to [this](https://github.com/org/repo/pull/5#issuecomment-9):

        >/lgtm


        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
    }

    #[test]
    fn plg_lgtm_006_adding_stores_the_tree_and_takes_the_notice_away() {
        let mut quoted = bot_comment(3, NEW_CHANGES);
        quoted.author.login = "alice".into();
        let facts = Facts {
            pull_request: Some(pull_request()),
            commits: [commit(&pull_request().head.sha, "f00d")].into(),
            comments: Some(vec![
                bot_comment(1, NEW_CHANGES),
                bot_comment(2, "something else"),
                quoted,
            ]),
            ..collaborator("assigned", &[])
        };
        insta::assert_snapshot!(told(&asks("assigned", "/lgtm"), &tree_hash(), &facts), @r"
        +lgtm
        comment: LGTM label has been added.  <details>Git tree hash: f00d</details>
        delete [1]
        ");
        let sticky = Options {
            sticky_team: "Our Core (EU)".into(),
            ..tree_hash()
        };
        let facts = Facts {
            teams: [(
                ("org".into(), "Our Core (EU)".into()),
                vec!["author".into()],
            )]
            .into(),
            ..facts
        };
        insta::assert_snapshot!(told(&asks("assigned", "/lgtm"), &sticky, &facts), @"+lgtm");
    }

    #[test]
    fn plg_lgtm_007_removing_asks_for_review_again() {
        let facts = Facts {
            comments: Some(vec![
                bot_comment(1, &tree_hash_comment("f00d")),
                bot_comment(2, "x"),
            ]),
            ..collaborator("assigned", &["lgtm"])
        };
        insta::assert_snapshot!(told(&asks("assigned", "/lgtm cancel"), &tree_hash(), &facts), @r"
        -lgtm
        request review from assigned
        delete [1]
        ");
    }

    #[test]
    fn plg_lgtm_008_a_push_takes_it_away_unless_the_tree_is_the_same() {
        let push = pull_request_event("synchronize");
        let facts = |tree: &str, stored: &[&str]| Facts {
            labels: Some(labels(&["lgtm"])),
            commits: [commit(&push.pull_request.head.sha, tree)].into(),
            comments: Some(
                (1..)
                    .zip(stored)
                    .map(|(id, tree)| bot_comment(id, &tree_hash_comment(tree)))
                    .collect(),
            ),
            ..Facts::default()
        };
        let decide = |options: &Options, facts: &Facts| {
            decide_push(&push, false, options, &bot(), facts)
                .unwrap()
                .to_string()
        };
        insta::assert_snapshot!(decide(&Options::default(), &facts("a", &["a"])), @r"
        -lgtm
        comment: New changes are detected. LGTM label has been removed.
        ");
        insta::assert_snapshot!(decide(&tree_hash(), &facts("b", &["a"])), @r"
        -lgtm
        request review from assigned
        comment: New changes are detected. LGTM label has been removed.
        ");
        assert_eq!(decide(&tree_hash(), &facts("a", &["b", "a"])), "nothing");
        assert_ne!(decide(&tree_hash(), &facts("a", &["a", "b"])), "nothing");
        assert_ne!(decide(&tree_hash(), &facts("a", &[])), "nothing");
        let mut edited = facts("a", &["a"]);
        edited.comments.as_mut().unwrap()[0].updated_at += jiff::SignedDuration::from_secs(1);
        assert_ne!(decide(&tree_hash(), &edited), "nothing");
        let mut by_other = facts("a", &["a"]);
        by_other.comments.as_mut().unwrap()[0].author.login = "alice".into();
        assert_ne!(decide(&tree_hash(), &by_other), "nothing");
        let unlabelled = Facts {
            labels: Some(vec![]),
            ..facts("b", &[])
        };
        assert_eq!(decide(&tree_hash(), &unlabelled), "nothing");
        let mut merged = push.clone();
        merged.pull_request.merged = true;
        for event in [merged, pull_request_event("edited")] {
            let decision = decide_push(
                &event,
                false,
                &Options::default(),
                &bot(),
                &Facts::default(),
            );
            assert_eq!(decision, Ok(Decision::nothing()));
        }
    }

    /// Who approved after the push has seen it, however late that is told; the label alone does not tell of that.
    #[test]
    fn plg_lgtm_008_a_push_that_is_told_late_takes_away_what_was_there_before_it() {
        let push = pull_request_event("synchronize");
        let at = |after: i64| push.pull_request.updated_at + SignedDuration::from_secs(after);
        let labelled = |login: &str, after| RecordedChange {
            change: Change::Labeled("lgtm".into()),
            actor: User::new(login),
            at: at(after),
        };
        let said = |login: &str, body: &str, after| IssueComment {
            author: User::new(login),
            created_at: at(after),
            ..bot_comment(1, body)
        };
        let approved = |login: &str, after| {
            let Event::Review(event) = review_event(login, "", ReviewState::Approved) else {
                panic!("a review");
            };
            Review {
                submitted_at: Some(at(after)),
                ..event.review
            }
        };
        let ours = labelled("k8s-ci-robot", 60);
        let stays = |line, comment, review, options: &Options| {
            let facts = Facts {
                labels: Some(labels(&["lgtm"])),
                record: Some(vec![line]),
                comments: Some(Vec::from_iter(comment)),
                reviews: Some(Vec::from_iter(review)),
                review_comments: Some(vec![]),
                collaborators: [("rev".to_owned(), true), ("eve".to_owned(), false)].into(),
                ..Facts::default()
            };
            let decided = |is_late| decide_push(&push, is_late, options, &bot(), &facts);
            assert!(!decided(false).unwrap().is_idle());
            decided(true).unwrap().is_idle()
        };
        let none = Options::default();
        for (comment, expected) in [
            (None, false),
            (Some(said("rev", "/lgtm", 1)), true),
            (Some(said("rev", "/lgtm", 0)), false),
            (Some(said("rev", "/lgtm cancel", 1)), false),
            (Some(said("eve", "/lgtm", 1)), false),
            (Some(said("author", "/lgtm", 1)), false),
        ] {
            let told = format!("{comment:?}");
            assert_eq!(
                stays(ours.clone(), comment, None, &none),
                expected,
                "{told}"
            );
        }
        assert!(stays(labelled("eve", 1), None, None, &none));
        assert!(!stays(labelled("eve", 0), None, None, &none));
        let verdict = || Some(approved("rev", 1));
        assert!(stays(ours.clone(), None, verdict(), &reviews()));
        assert!(!stays(ours.clone(), None, verdict(), &none));
        assert!(!stays(ours, None, Some(approved("rev", -1)), &reviews()));
    }

    #[test]
    fn plg_lgtm_009_a_trusted_team_keeps_the_label() {
        let options = Options {
            sticky_team: "core".into(),
            ..Options::default()
        };
        let decide = |members: &[&str]| {
            let members = members.iter().map(|login| (*login).to_owned()).collect();
            let facts = Facts {
                teams: [(("org".into(), "core".into()), members)].into(),
                labels: Some(labels(&["lgtm"])),
                ..Facts::default()
            };
            let push = pull_request_event("synchronize");
            decide_push(&push, false, &options, &bot(), &facts)
                .unwrap()
                .is_idle()
        };
        assert!(decide(&["author"]));
        assert!(!decide(&["Author"]));
        assert!(!decide(&[]));
    }
}
