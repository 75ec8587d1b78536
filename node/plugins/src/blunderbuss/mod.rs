//! `blunderbuss`: asks people of the OWNERS files for their review.

mod pick;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::GoRegex;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::owners::Draw;
use trireme_forge::webhook::{
    Event, GenericAction, GenericComment, PullRequestAction, PullRequestEvent, StatusEvent,
};
use trireme_forge::{RepoId, SearchedPullRequest, State};

use crate::assign::CC;
use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;
use pick::{Picker, Unknown};

commands! {
    AUTO_CC = r"(?mi)^/auto-cc\s*$";
}

const SECTION: &str = "blunderbuss";
/// People whose availability is asked for about one pull request; beyond them everybody counts as available.
const MAX_ASKED: usize = 100;
/// What Tide says of a pull request that only lacks reviews.
const LACKS_REVIEW: &str = r"Not mergeable. (PullRequest is missing sufficient approving GitHub review\(s\)|Needs (lgtm|approved|approved, lgtm) labels?)\.?";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    request_count: Option<i64>,
    /// 0 = no limit.
    max_request_count: i64,
    exclude_approvers: bool,
    use_status_availability: bool,
    ignore_drafts: bool,
    ignore_authors: Vec<String>,
    wait_for_status: Option<ContextMatch>,
}

/// The status that shows that reviews are all that is missing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ContextMatch {
    context: String,
    state: String,
    description: String,
    #[serde(skip)]
    matcher: Option<GoRegex>,
}

impl ContextMatch {
    fn set_defaults(&mut self) {
        for (field, default) in [
            (&mut self.context, "tide"),
            (&mut self.state, "pending"),
            (&mut self.description, LACKS_REVIEW),
        ] {
            if field.is_empty() {
                default.clone_into(field);
            }
        }
    }

    fn matches(&self, event: &StatusEvent) -> bool {
        let status = &event.status;
        let matcher = self.matcher.as_ref();
        status.context == self.context
            && status.state.as_str() == self.state
            && matcher.is_some_and(|matcher| matcher.is_match(&status.description))
    }
}

impl Settings {
    /// HOOK-057, HOOK-061
    fn complete(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(count) = self.request_count.filter(|count| *count < 1) {
            let message = format!("invalid request_count: {count} (needs to be positive)");
            problems.push(Problem::error("request_count", message));
        }
        if let Some(wait_for) = &mut self.wait_for_status {
            wait_for.set_defaults();
            match GoRegex::new(&wait_for.description) {
                Ok(matcher) => wait_for.matcher = Some(matcher),
                Err(error) => problems.push(Problem::error(
                    "wait_for_status.description",
                    format!("failed to compile blunderbuss wait for context description regular expression: {:?}, error: {error}", wait_for.description),
                )),
            }
        }
        problems
    }

    /// At least 1.
    fn request_count(&self) -> usize {
        let count = self.request_count.unwrap_or(2);
        usize::try_from(count).unwrap_or(1)
    }

    fn max_request_count(&self) -> Option<usize> {
        let most = usize::try_from(self.max_request_count).ok();
        most.filter(|most| *most > 0)
    }

    /// Whether nobody is asked of their own accord about what that author does.
    fn leaves_out(&self, draft: bool, author: &str) -> bool {
        draft && self.ignore_drafts || self.ignore_authors.iter().any(|login| login == author)
    }
}

pub(crate) struct Blunderbuss;

#[async_trait]
impl Plugin for Blunderbuss {
    fn name(&self) -> &'static str {
        "blunderbuss"
    }

    fn events(&self) -> &'static [EventKind] {
        &[
            EventKind::PullRequest,
            EventKind::Generic,
            EventKind::Status,
        ]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let settings = cx.section::<Settings>(SECTION);
        let wait_for = settings.and_then(|settings| settings.wait_for_status.as_ref());
        let leaves_out = |event: &PullRequestEvent| {
            let pr = &event.pull_request;
            settings.is_some_and(|settings| settings.leaves_out(pr.draft, &pr.author.login))
        };
        commanded(event).is_some()
            || match event {
                Event::PullRequest(event) => {
                    begins(event) && wait_for.is_none() && !leaves_out(event)
                }
                Event::Status(event) => wait_for.is_some_and(|wait_for| wait_for.matches(event)),
                _ => false,
            }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let settings: &Settings = cx.section(SECTION)?;
        if let Some(comment) = commanded(event) {
            let base = base_branch(cx, event, &comment).await?;
            let on = Target::new(&comment.repo, comment.number);
            return ask(cx, settings, &on, &comment.issue_author.login, &base).await;
        }
        match event {
            Event::PullRequest(event) if begins(event) => {
                let pr = &event.pull_request;
                let author = &pr.author.login;
                let waits = settings.wait_for_status.is_some();
                if waits || settings.leaves_out(pr.draft, author) {
                    return Ok(Decision::nothing());
                }
                let on = Target::new(&pr.repo, pr.number);
                ask(cx, settings, &on, author, &pr.base.branch).await
            }
            Event::Status(event) => {
                let wait_for = settings.wait_for_status.as_ref();
                if !wait_for.is_some_and(|wait_for| wait_for.matches(event)) {
                    return Ok(Decision::nothing());
                }
                ready_for_review(cx, settings, event).await
            }
            _ => Ok(Decision::nothing()),
        }
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let count = settings.cloned().unwrap_or_default().request_count();
        let plural = if count > 1 { "s" } else { "" };
        let configured = format!(
            "blunderbuss is currently configured to request reviews from {count} reviewer{plural}."
        );
        PluginHelp {
            description: "The blunderbuss plugin automatically requests reviews from reviewers when a new PR is created. The reviewers are selected randomly from the OWNERS files that apply to the files modified by the PR.".to_owned(),
            config: Some([(String::new(), configured)].into()),
            snippet: "blunderbuss:\n  exclude_approvers: true\n  max_request_count: 3\n  request_count: 2\n  use_status_availability: true\n".to_owned(),
            commands: vec![Command {
                usage: "/auto-cc",
                featured: false,
                description: "Manually request reviews from reviewers for a PR. Useful if OWNERS file were updated since the PR was opened.",
                examples: &["/auto-cc"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, Settings::complete))
    }
}

/// A new text that asks for it (PLG-BLUNDERBUSS-002).
fn commanded(event: &Event) -> Option<GenericComment> {
    event.generic_comment().filter(|comment| {
        comment.action == GenericAction::Created
            && comment.is_pr
            && comment.issue_state != State::Closed
            && AUTO_CC.is_match(&comment.body)
    })
}

/// A pull request is there to be reviewed, and its author named nobody (PLG-BLUNDERBUSS-001).
fn begins(event: &PullRequestEvent) -> bool {
    let begins = matches!(
        event.action,
        PullRequestAction::Opened | PullRequestAction::ReadyForReview
    );
    begins && !CC.is_match(&event.pull_request.body)
}

/// A comment does not tell the branch: the mirror does, or the forge.
async fn base_branch(
    cx: &Planning<'_>,
    event: &Event,
    comment: &GenericComment,
) -> Result<String, PlanError> {
    let pull_request = match event {
        Event::PullRequest(event) => Some(&event.pull_request),
        Event::Review(event) => Some(&event.pull_request),
        Event::ReviewComment(event) => Some(&event.pull_request),
        _ => None,
    };
    if let Some(pr) = pull_request {
        return Ok(pr.base.branch.clone());
    }
    let RepoId { org, repo } = &comment.repo;
    match cx.state.pull_request(org, repo, comment.number) {
        Some(known) => Ok(known.base_ref.clone()),
        None => {
            let asked = cx.forge.pull_request(&comment.repo, comment.number);
            Ok(asked.await?.base.branch)
        }
    }
}

/// Asks for reviews of what has that head and lacks nothing else (PLG-BLUNDERBUSS-003).
async fn ready_for_review(
    cx: &Planning<'_>,
    settings: &Settings,
    event: &StatusEvent,
) -> Result<Decision, PlanError> {
    let (repo, sha) = (&event.repository.id, &event.sha);
    let found = cx.forge.open_pull_requests_with_head(repo, sha).await?;
    let mut decision = Decision::nothing();
    let mut failed = None;
    for found in found {
        if settings.leaves_out(found.draft, &found.author.login) {
            continue;
        }
        match ask_about(cx, settings, &found, sha).await {
            Ok(asked) => decision = decision.and(asked),
            // As in Prow, the others do not suffer from it.
            Err(PlanError::Failed(why)) => {
                let number = found.number;
                tracing::warn!(%repo, number, why, "nobody is asked to review it");
                failed = Some(PlanError::Failed(why));
            }
            Err(error) => return Err(error),
        }
    }
    match failed {
        Some(error) if decision.is_idle() => Err(error),
        _ => Ok(decision),
    }
}

/// Asks for reviews of one that was found, as it is by now: searches lag behind, and do not tell whose review is requested.
async fn ask_about(
    cx: &Planning<'_>,
    settings: &Settings,
    found: &SearchedPullRequest,
    sha: &str,
) -> Result<Decision, PlanError> {
    let pr = cx.forge.pull_request(&found.repo, found.number).await?;
    let author = &pr.author.login;
    let is_asked = !pr.requested_reviewers.is_empty();
    if pr.head.sha != sha || is_asked || settings.leaves_out(pr.draft, author) {
        return Ok(Decision::nothing());
    }
    let on = Target::new(&found.repo, pr.number);
    ask(cx, settings, &on, author, &pr.base.branch).await
}

async fn ask(
    cx: &Planning<'_>,
    settings: &Settings,
    on: &Target,
    author: &str,
    base: &str,
) -> Result<Decision, PlanError> {
    let owners = cx.owners(&on.repo, base).await?;
    let files = cx.forge.changed_files(&on.repo, on.number).await?;
    let files: Vec<String> = files.into_iter().map(|file| file.path).collect();
    let mut busy: BTreeMap<String, bool> = BTreeMap::new();
    loop {
        let ask_them = settings.use_status_availability && busy.len() < MAX_ASKED;
        let picked = {
            let mut draw = Draw::of(&format!("{}/{}", cx.guid, on.number));
            let mut picker = Picker {
                choose: &mut |count| draw.below(count),
                busy: settings.use_status_availability.then_some(&busy),
                unknown_are_available: !ask_them,
            };
            pick::reviewers(&owners, settings, author, &files, &mut picker)
        };
        match picked {
            Ok(logins) if logins.is_empty() => return Ok(Decision::nothing()),
            Ok(logins) => return Ok(vec![on.request_review(logins)].into()),
            Err(Unknown(login)) => {
                let is = is_busy(cx, &on.repo.org, &login).await?;
                busy.insert(login, is);
            }
        }
    }
}

/// Who cannot be asked about is available, unless the forge is down.
async fn is_busy(cx: &Planning<'_>, org: &str, login: &str) -> Result<bool, PlanError> {
    match cx.forge.has_limited_availability(org, login).await {
        Err(error) if !error.is_outage() => {
            tracing::info!(%error, login, "cannot see whether somebody is busy");
            Ok(false)
        }
        answer => Ok(answer?),
    }
}

#[cfg(test)]
mod tests {
    use trireme_forge::{CommitStatus, StatusState, User};

    use super::*;
    use crate::testing::{comment_event, concerns_under, pull_request_event, repository};

    fn read(mut settings: Settings) -> (Settings, Vec<String>) {
        let problems = settings.complete();
        let told = problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message));
        let told = told.collect();
        (settings, told)
    }

    fn status(context: &str, state: StatusState, description: &str) -> StatusEvent {
        StatusEvent {
            id: 1,
            sha: "a".repeat(40),
            status: CommitStatus {
                context: context.into(),
                state,
                description: description.into(),
                target_url: String::new(),
            },
            branches: vec![],
            repository: repository(),
            sender: User::new("bot"),
        }
    }

    #[test]
    fn plg_blunderbuss_001_when_nobody_was_named() {
        for (action, body, expected) in [
            ("opened", "Fixes #1", true),
            ("ready_for_review", "", true),
            ("opened", "text\n/cc @bob", false),
            ("opened", "/uncc", false),
            ("reopened", "", false),
            ("synchronize", "", false),
        ] {
            let mut event = pull_request_event(action);
            event.pull_request.body = body.into();
            assert_eq!(begins(&event), expected, "{action} {body:?}");
        }
        let settings = Settings {
            ignore_drafts: true,
            ignore_authors: vec!["bot".into()],
            ..Settings::default()
        };
        assert!(settings.leaves_out(true, "a"));
        assert!(settings.leaves_out(false, "bot"));
        assert!(!settings.leaves_out(false, "Bot"));
        assert!(!Settings::default().leaves_out(true, "bot"));
    }

    #[test]
    fn plg_blunderbuss_002_a_command_has_no_exceptions() {
        assert!(commanded(&comment_event("a", "x\n/AUTO-cc\r\n")).is_some());
        assert!(commanded(&comment_event("a", "/auto-cc bob")).is_none());
        let Event::IssueComment(mut closed) = comment_event("a", "/auto-cc") else {
            unreachable!()
        };
        closed.issue.state = State::Closed;
        assert!(commanded(&Event::IssueComment(closed.clone())).is_none());
        closed.issue.state = State::Open;
        closed.issue.is_pull_request = false;
        assert!(commanded(&Event::IssueComment(closed)).is_none());
        let mut opened = pull_request_event("opened");
        opened.pull_request.body = "/cc bob\n/auto-cc".into();
        assert!(crate::testing::concerns(
            &Blunderbuss,
            &Event::PullRequest(Box::new(opened))
        ));
    }

    #[test]
    fn plg_blunderbuss_003_the_status_to_wait_for() {
        let (settings, problems) = read(Settings {
            wait_for_status: Some(ContextMatch::default()),
            ..Settings::default()
        });
        assert_eq!(problems, Vec::<String>::new());
        let wait_for = settings.wait_for_status.unwrap();
        for (context, state, description, expected) in [
            (
                "tide",
                StatusState::Pending,
                "Not mergeable. Needs lgtm label.",
                true,
            ),
            (
                "tide",
                StatusState::Pending,
                "Not mergeable. Needs approved, lgtm labels.",
                true,
            ),
            (
                "tide",
                StatusState::Pending,
                "Not mergeable. PullRequest is missing sufficient approving GitHub review(s)",
                true,
            ),
            (
                "tide",
                StatusState::Pending,
                "Not mergeable. Needs other label.",
                false,
            ),
            (
                "tide",
                StatusState::Success,
                "Not mergeable. Needs lgtm label.",
                false,
            ),
            (
                "Tide",
                StatusState::Pending,
                "Not mergeable. Needs lgtm label.",
                false,
            ),
        ] {
            let event = status(context, state, description);
            assert_eq!(wait_for.matches(&event), expected, "{description}");
        }
        // What its section rules out costs nothing.
        let event = |description: &str| {
            Event::Status(Box::new(status("tide", StatusState::Pending, description)))
        };
        let opened = Event::PullRequest(Box::new(pull_request_event("opened")));
        for (section, on_status, on_opened) in [
            ("{}", false, true),
            ("{wait_for_status: {context: tide}}", true, false),
            ("{wait_for_status: {context: other}}", false, false),
            ("{ignore_authors: [author]}", false, false),
        ] {
            let yaml = format!("blunderbuss: {section}");
            let asked = |event: &Event| concerns_under(&yaml, &Blunderbuss, event);
            assert_eq!(
                asked(&event("Not mergeable. Needs lgtm label.")),
                on_status,
                "{section}"
            );
            assert!(!asked(&event("In merge pool.")), "{section}");
            assert_eq!(asked(&opened), on_opened, "{section}");
        }
    }

    #[test]
    fn hook_057_nobody_is_too_few() {
        for count in [0, -1] {
            let (_, problems) = read(Settings {
                request_count: Some(count),
                ..Settings::default()
            });
            assert_eq!(
                problems,
                [format!(
                    "request_count: invalid request_count: {count} (needs to be positive)"
                )]
            );
        }
        assert_eq!(Settings::default().request_count(), 2);
        assert_eq!(Settings::default().max_request_count(), None);
    }

    #[test]
    fn hook_061_a_description_has_to_compile() {
        let (_, problems) = read(Settings {
            wait_for_status: Some(ContextMatch {
                description: "(".into(),
                ..ContextMatch::default()
            }),
            ..Settings::default()
        });
        insta::assert_snapshot!(problems[0], @r#"wait_for_status.description: failed to compile blunderbuss wait for context description regular expression: "(", error: error parsing regexp: missing closing ): `(`"#);
    }
}
