//! What is picked, and what is said instead. Pure.

use std::collections::{BTreeMap, BTreeSet};

use trireme_forge::webhook::IssueCommentEvent;
use trireme_forge::{IssueComment, Label, PullRequest, State};
use trireme_proto::state::CherryPickEffect;

use super::texts::{self, Request};
use crate::decision::{Decision, Outcome, Target, Text};
use crate::facts::{Facts, Missing};
use crate::options::CherrypickerOptions;
use crate::text::commands;

commands! {
    COMMAND = r"(?m)^(?:/cherrypick|/cherry-pick)\s+(.+)$";
}

const KIND: &str = "kind/";

/// What a text asks for: branches, each with those to pick onto once it has merged. If one is named twice, its last line
/// counts (PLG-CHERRYPICK-002).
pub(super) fn commands(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut asked = BTreeMap::new();
    for command in COMMAND.captures_iter(text) {
        let mut words = command[1].split_whitespace().map(str::to_owned);
        if let Some(target) = words.next() {
            asked.insert(target, words.collect());
        }
    }
    asked
}

/// A new comment with the command (PLG-CHERRYPICK-003, PLG-CHERRYPICK-004).
pub(super) fn comment(
    event: &IssueCommentEvent,
    options: &CherrypickerOptions,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let (repo, login) = (&event.repository.id, event.comment.author.login.as_str());
    let on = Target::new(repo, event.issue.number);
    let request = Request::comment(&event.comment);
    let say = |message: String| on.comment(request.answer(message));
    let pr = facts.pull_request()?;
    let base = pr.base.branch.as_str();
    let mut asked = commands(&event.comment.body);
    let asks_for_base = asked.remove(base).is_some();
    if asked.is_empty() {
        return Ok(vec![say(texts::onto_its_base(base))].into());
    }
    let is_open = event.issue.state != State::Closed;
    if !is_open && !pr.merged {
        return Ok(vec![say("cannot cherry-pick an unmerged PR".to_owned())].into());
    }
    if !options.allow_all && !facts.is_member(&repo.org, login)? {
        return Ok(vec![say(texts::not_a_member(&repo.org, login))].into());
    }
    if is_open {
        let targets: Vec<&str> = asked.keys().map(String::as_str).collect();
        let text = texts::once_merged(&targets, asks_for_base.then_some(base));
        return Ok(vec![say(text)].into());
    }
    let mut decision = Decision::nothing();
    if asks_for_base {
        decision.push(say(texts::onto_its_base(base)));
    }
    let picks = Picks {
        options,
        pr,
        on: &on,
        labels: &event.issue.labels,
    };
    for (target, chain) in &asked {
        picks.push(&mut decision, request, login, target, chain);
    }
    Ok(decision)
}

/// A label was put on (PLG-CHERRYPICK-006).
pub(super) fn labeled(
    pr: &PullRequest,
    label: &str,
    options: &CherrypickerOptions,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let Some(target) = label.strip_prefix(&options.label_prefix) else {
        return Ok(Decision::nothing());
    };
    let on = Target::new(&pr.repo, pr.number);
    let (author, base) = (pr.author.login.as_str(), pr.base.branch.as_str());
    let say = |message: String| Ok(vec![on.comment(Request::Label.answer(message))].into());
    if !options.allow_all && !facts.is_member(&pr.repo.org, author)? {
        return say(texts::not_a_member(&pr.repo.org, author));
    }
    if target == base {
        return say(texts::same_branch(base, target));
    }
    if !pr.merged {
        let text = texts::once_merged(&[target], None);
        return say(format!("@{author} {text}"));
    }
    let mut decision = Decision::nothing();
    let picks = Picks {
        options,
        pr,
        on: &on,
        labels: &pr.labels,
    };
    picks.push(&mut decision, Request::Label, author, target, &[]);
    Ok(decision)
}

/// The pull request was merged: all that was asked for meanwhile (PLG-CHERRYPICK-005).
pub(super) fn merged(
    pr: &PullRequest,
    options: &CherrypickerOptions,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let comments = facts.comments()?;
    let on = Target::new(&pr.repo, pr.number);
    let base = pr.base.branch.as_str();
    let described = IssueComment {
        id: 0,
        html_url: String::new(),
        author: pr.author.clone(),
        body: pr.body.clone(),
        created_at: pr.created_at,
        updated_at: pr.updated_at,
    };
    let mut asked = Asked::default();
    // What was written later was answered as written on a merged pull request; this event may be handled after it.
    let before = comments
        .iter()
        .filter(|comment| comment.created_at <= pr.updated_at);
    for text in std::iter::once(&described).chain(before) {
        for (target, chain) in commands(&text.body) {
            asked.note(&text.author.login, &target, Request::comment(text));
            if !chain.is_empty() {
                asked.chains.insert(target, chain);
            }
        }
    }
    for label in &pr.labels {
        if let Some(target) = label.name.strip_prefix(&options.label_prefix) {
            asked.note(&pr.author.login, target, Request::Label);
        }
    }
    let mut decision = Decision::nothing();
    let mut handled = BTreeSet::new();
    let picks = Picks {
        options,
        pr,
        on: &on,
        labels: &pr.labels,
    };
    for (login, requests) in &asked.by_login {
        if !options.allow_all && !facts.is_member(&pr.repo.org, login)? {
            continue;
        }
        for (target, request) in requests {
            if target == base {
                let text = texts::same_branch(base, target);
                decision.push(on.comment(request.answer(text)));
            } else if handled.insert(target) {
                let chain = asked.chains.get(target).map_or(&[][..], Vec::as_slice);
                picks.push(&mut decision, *request, login, target, chain);
            }
        }
    }
    Ok(decision)
}

/// What was asked for, by whom; who asked first comes first.
#[derive(Default)]
struct Asked<'a> {
    by_login: Vec<(String, BTreeMap<String, Request<'a>>)>,
    chains: BTreeMap<String, Vec<String>>,
}

impl<'a> Asked<'a> {
    fn note(&mut self, login: &str, target: &str, request: Request<'a>) {
        let known = self.by_login.iter().position(|(known, _)| known == login);
        let at = known.unwrap_or_else(|| {
            self.by_login.push((login.to_owned(), BTreeMap::new()));
            self.by_login.len() - 1
        });
        if let Some((_, requests)) = self.by_login.get_mut(at) {
            requests.insert(target.to_owned(), request);
        }
    }
}

struct Picks<'a> {
    options: &'a CherrypickerOptions,
    pr: &'a PullRequest,
    on: &'a Target,
    /// Of the pull request.
    labels: &'a [Label],
}

impl Picks<'_> {
    /// The pick, and what is said about whatever comes of it (PLG-CHERRYPICK-007 … 009).
    fn push(
        &self,
        decision: &mut Decision,
        request: Request<'_>,
        login: &str,
        target: &str,
        chain: &[String],
    ) {
        let Self {
            options, pr, on, ..
        } = *self;
        let assignee = options.use_prow_assignments.then_some(login);
        let kinds: BTreeSet<&str> = self
            .labels
            .iter()
            .filter_map(|label| label.name.strip_prefix(KIND))
            .filter(|kind| !kind.is_empty())
            .collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        let title = texts::title(target, &pr.base.branch, &pr.title);
        let pick = decision.push(on.cherry_pick(CherryPickEffect {
            base_sha: pr.base.sha.clone(),
            head_sha: pr.head.sha.clone(),
            target: target.to_owned(),
            branch: format!("cherry-pick-{}-to-{target}", pr.number),
            title: title.clone(),
            body: texts::body(pr.number, assignee, &pr.body, chain, &kinds),
            labels: options.labels.clone(),
            assignees: assignee.map(str::to_owned).into_iter().collect(),
            ..CherryPickEffect::default()
        }));
        let mut say_if = |outcome, message: Text| {
            decision.push_if(pick, &[outcome], on.comment(request.answer(message)))
        };
        let made = Text::from("new pull request created: #").and_result(pick);
        say_if(Outcome::Ok, made);
        let there = format!(
            "Looks like #{} has already been cherry picked in ",
            pr.number
        );
        say_if(Outcome::Partly, Text::from(there).and_result(pick));
        say_if(Outcome::Refused, Text::default().and_result(pick));
        let number = pr.number;
        let failed = format!(
            "#{number} failed to apply on top of branch {}:\n```\n",
            texts::quoted(target)
        );
        let failed = Text::from(failed).and_result(pick).and("\n```");
        say_if(Outcome::Conflict, failed.clone());
        if options.create_issue_on_conflict {
            let body = Text::from("Manual cherrypick required.\n\n").and(failed);
            let open = on.open_issue(title, body, vec![], vec![login.to_owned()]);
            let opened = decision.push_if(pick, &[Outcome::Conflict], open);
            let made = Text::from("new issue created for failed cherrypick: #").and_result(opened);
            decision.push_if(opened, &[Outcome::Ok], on.comment(request.answer(made)));
            let failed = "new issue could not be created for failed cherrypick: ";
            let failed = request.answer(Text::from(failed).and_result(opened));
            decision.push_if(opened, &[Outcome::Refused], on.comment(failed));
        }
    }
}

#[cfg(test)]
mod tests {
    use trireme_forge::User;
    use trireme_forge::webhook::Event;

    use super::*;
    use crate::testing::{bot_comment, comment_event, labels, pull_request};

    fn on_comment(body: &str) -> IssueCommentEvent {
        match comment_event("ann", body) {
            Event::IssueComment(event) => *event,
            _ => unreachable!(),
        }
    }

    fn facts(pr: PullRequest) -> Facts {
        let mut facts = Facts {
            pull_request: Some(pr),
            ..Facts::default()
        };
        for (login, member) in [("ann", true), ("author", true), ("bob", false)] {
            facts.members.insert(("org".into(), login.into()), member);
        }
        facts
    }

    fn merged_pr() -> PullRequest {
        PullRequest {
            state: State::Closed,
            merged: true,
            ..pull_request()
        }
    }

    /// What is said and picked, without what answers quote.
    fn short(decision: &Decision) -> Vec<String> {
        let told = decision.to_string();
        let mut lines = Vec::new();
        let mut folded = false;
        for line in told.lines() {
            folded |= line == "<details>";
            if !folded && !line.is_empty() {
                lines.push(line.to_owned());
            }
            folded &= line != "</details>";
        }
        lines
    }

    fn commented(body: &str, pr: PullRequest, options: &CherrypickerOptions) -> Vec<String> {
        let mut event = on_comment(body);
        event.issue.state = pr.state;
        short(&comment(&event, options, &facts(pr)).unwrap())
    }

    /// PLG-CHERRYPICK-002
    #[test]
    fn plg_cherrypick_002_commands_name_branches_and_chains() {
        let told = |text| {
            let asked = commands(text).into_iter();
            let told = asked.map(|(target, chain)| format!("{target}>{}", chain.join(">")));
            told.collect::<Vec<_>>().join(" ")
        };
        for (text, expected) in [
            ("/cherrypick v1", "v1>"),
            ("/cherry-pick v3 v2 v1\r\n", "v3>v2>v1"),
            ("x\n/cherrypick b\n/cherrypick a", "a> b>"),
            ("/cherrypick a b\n/cherrypick a c", "a>c"),
            ("/cherrypick", ""),
            (" /cherrypick v1", ""),
            ("/cherrypicking v1", ""),
            ("/cherrypick \r", ""),
        ] {
            assert_eq!(told(text), expected, "{text:?}");
        }
    }

    /// PLG-CHERRYPICK-003
    #[test]
    fn plg_cherrypick_003_on_an_open_pull_request_it_is_promised() {
        let options = CherrypickerOptions::default();
        let say = |body| commented(body, pull_request(), &options).join("\n");
        assert_eq!(
            say("/cherrypick v1"),
            "comment: @ann: once the present PR merges, I will cherry-pick it on top of `v1` in a new PR and assign it to you."
        );
        assert_eq!(
            say("/cherrypick v2\n/cherrypick v1 v0\n/cherrypick main"),
            "comment: @ann: once the present PR merges, I will cherry-pick it on top of `v1`, `v2` in new PRs and assign them to you. I cannot cherry-pick it on top of `main` because that is already its base branch."
        );
        assert_eq!(
            say("/cherrypick main"),
            "comment: @ann: I cannot cherry-pick the present PR on top of its base branch (`main`)."
        );
        let mut event = on_comment("/cherrypick v1");
        event.comment.author = User::new("bob");
        let refused = comment(&event, &options, &facts(pull_request())).unwrap();
        assert_eq!(
            short(&refused).join("\n"),
            "comment: @bob: only [org](https://github.com/orgs/org/people) org members may request cherry picks. If you are already part of the org, make sure to [change](https://github.com/orgs/org/people?query=bob) your membership to public. Otherwise you can still do the cherry-pick manually. "
        );
        let all = CherrypickerOptions {
            allow_all: true,
            ..CherrypickerOptions::default()
        };
        let allowed = comment(&event, &all, &facts(pull_request())).unwrap();
        assert!(short(&allowed)[0].starts_with("comment: @bob: once the present PR merges"));
    }

    /// PLG-CHERRYPICK-004, PLG-CHERRYPICK-007, PLG-CHERRYPICK-009
    #[test]
    fn plg_cherrypick_004_on_a_merged_one_it_is_done_for_every_target() {
        let options = CherrypickerOptions {
            labels: vec!["backport".into()],
            ..CherrypickerOptions::default()
        };
        let told = commented("/cherrypick v2 v1\n/cherrypick main", merged_pr(), &options);
        insta::assert_snapshot!(told.join("\n"), @r#"
        comment: @ann: I cannot cherry-pick the present PR on top of its base branch (`main`).
        cherry-pick aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa onto v2 as cherry-pick-5-to-v2
        title: [v2] Fix it
        This is an automated cherry-pick of #5
        /assign ann
        /cherrypick v1
        if 1 is done: comment: @ann: new pull request created: #{1}
        if 1 is partly done: comment: @ann: Looks like #5 has already been cherry picked in {1}
        if 1 is refused: comment: @ann: {1}
        if 1 is a conflict: comment: @ann: #5 failed to apply on top of branch "v2":
        ```
        {1}
        ```
        "#);
        let two = commented("/cherrypick v2\n/cherrypick v1", merged_pr(), &options);
        let picks = two.iter().filter(|line| line.starts_with("cherry-pick "));
        assert_eq!(picks.count(), 2);
        let closed = PullRequest {
            merged: false,
            ..merged_pr()
        };
        assert_eq!(
            commented("/cherrypick v2", closed, &options),
            ["comment: @ann: cannot cherry-pick an unmerged PR"]
        );
    }

    /// PLG-CHERRYPICK-009
    #[test]
    fn plg_cherrypick_009_a_conflict_becomes_an_issue_if_that_is_wanted() {
        let options = CherrypickerOptions {
            create_issue_on_conflict: true,
            use_prow_assignments: false,
            ..CherrypickerOptions::default()
        };
        let told = commented("/cherrypick v2", merged_pr(), &options);
        insta::assert_snapshot!(told[7..].join("\n"), @r#"
        ```
        {0}
        ```
        if 0 is a conflict: open issue [v2] Fix it
        Manual cherrypick required.
        #5 failed to apply on top of branch "v2":
        ```
        {0}
        ```
        if 5 is done: comment: @ann: new issue created for failed cherrypick: #{5}
        if 5 is refused: comment: @ann: new issue could not be created for failed cherrypick: {5}
        "#);
    }

    /// PLG-CHERRYPICK-005
    #[test]
    fn plg_cherrypick_005_a_merge_brings_all_that_was_asked_for() {
        let by = |login: &str, body: &str| IssueComment {
            author: User::new(login),
            ..bot_comment(1, body)
        };
        let pr = PullRequest {
            body: "/cherrypick v1".into(),
            labels: labels(&["cherrypick/v3", "kind/bug", "cherrypick/main"]),
            ..merged_pr()
        };
        let known = Facts {
            comments: Some(vec![
                by("bob", "/cherrypick v9"),
                by("ann", "/cherrypick v1 v0"),
                by("ann", "/cherrypick v2"),
            ]),
            ..facts(pr.clone())
        };
        let decision = merged(&pr, &CherrypickerOptions::default(), &known).unwrap();
        let told = short(&decision);
        let of_interest = |line: &&String| {
            [
                "cherry-pick ",
                "comment: ",
                "/assign",
                "/cherrypick",
                "/kind",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        };
        let told: Vec<&str> = told
            .iter()
            .filter(of_interest)
            .map(String::as_str)
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        comment: In response to a cherrypick label: base branch (main) needs to differ from target branch (main)
        cherry-pick aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa onto v1 as cherry-pick-5-to-v1
        /assign author
        /cherrypick v0
        /kind bug
        cherry-pick aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa onto v3 as cherry-pick-5-to-v3
        /assign author
        /kind bug
        cherry-pick aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa onto v2 as cherry-pick-5-to-v2
        /assign ann
        /kind bug
        ");
    }

    #[test]
    fn plg_cherrypick_005_what_is_asked_after_the_merge_is_not_done_twice() {
        let pr = merged_pr();
        let mut late = bot_comment(1, "/cherrypick v1");
        late.author = User::new("ann");
        late.created_at = jiff::Timestamp::from_second(1).unwrap();
        let known = Facts {
            comments: Some(vec![late]),
            ..facts(pr.clone())
        };
        let decision = merged(&pr, &CherrypickerOptions::default(), &known).unwrap();
        assert!(decision.is_idle(), "{decision}");
    }

    /// PLG-CHERRYPICK-006
    #[test]
    fn plg_cherrypick_006_labels_ask_in_the_authors_name() {
        let options = CherrypickerOptions::default();
        let told = |pr: &PullRequest, label| {
            let decision = labeled(pr, label, &options, &facts(pr.clone())).unwrap();
            short(&decision).join("\n")
        };
        assert_eq!(told(&pull_request(), "lgtm"), "nothing");
        assert_eq!(
            told(&pull_request(), "cherrypick/v1"),
            "comment: In response to a cherrypick label: @author once the present PR merges, I will cherry-pick it on top of `v1` in a new PR and assign it to you."
        );
        assert_eq!(
            told(&merged_pr(), "cherrypick/main"),
            "comment: In response to a cherrypick label: base branch (main) needs to differ from target branch (main)"
        );
        assert!(told(&merged_pr(), "cherrypick/v1").starts_with("cherry-pick "));
        let by_bob = PullRequest {
            author: User::new("bob"),
            ..merged_pr()
        };
        assert!(told(&by_bob, "cherrypick/v1").starts_with(
            "comment: In response to a cherrypick label: only [org](https://github.com/orgs/org/people) org members may"
        ));
    }
}
