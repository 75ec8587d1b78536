//! The jobs that stand in the tested repository itself, as `trigger` asks for them, and what a pull request is told
//! when they cannot be known (CFG-082, CFG-087, CFG-088).
//!
//! Broken files do not drop the event, as they would drop them upstream: the configuration's jobs run, and the status
//! [`CONTEXT`] says what is wrong. It is set on heads that change the files, good or bad, and where something is wrong;
//! nowhere else. A head that breaks its own files gets a comment with all findings, known again by [`MARKER`].

use std::sync::Arc;

use trireme_config::Diagnostic;
use trireme_config::in_repo::InRepoJobs;
use trireme_forge::webhook::{GenericComment, PushEvent};
use trireme_forge::{BotUser, PullRequest, RepoId};
use trireme_in_repo::{CONTEXT, Commits, InRepoError, Own};
use trireme_proto::state::effect::Action;
use trireme_proto::state::{Context, ContextState};

use super::comment::is_relevant;
use crate::decision::Target;
use crate::facts::{Facts, Missing, fetch};
use crate::plugin::{PlanError, Planning};
use trireme_office::repo_page;

/// Ends the comment about broken files.
const MARKER: &str = "<!-- trireme: in-repo-config -->";
/// What GitHub takes at most for the description of a status.
const MAX_DESCRIPTION: usize = 140;
/// Findings in one comment; the rest is counted.
const MAX_FOUND: usize = 20;
/// Characters of one finding.
const MAX_LINE: usize = 300;

/// What is known about the own jobs of a repository at the commits that an event is about.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// Nobody needs to know.
    Unasked,
    /// In-repo configuration is not enabled for the repository.
    Off,
    Fine(Own),
    Wrong(Wrong),
}

/// Why own jobs are not known, although they should be.
#[derive(Debug, Clone)]
pub(super) enum Wrong {
    Conflict {
        paths: Vec<String>,
    },
    Broken {
        found: Arc<[Diagnostic]>,
        /// By the head, not by its base.
        changed: bool,
    },
    /// Tried often enough.
    Unreadable(String),
}

impl Standing {
    pub(super) fn jobs(&self) -> Arc<InRepoJobs> {
        match self {
            Self::Fine(own) => Arc::clone(&own.jobs),
            Self::Unasked | Self::Off | Self::Wrong(_) => Arc::default(),
        }
    }
}

/// Asks about commits.
///
/// # Errors
/// Outages pause the lane; other failures of git are tried again, the last one is told on the pull request.
pub(super) async fn at(
    cx: &Planning<'_>,
    repo: &RepoId,
    base: &str,
    heads: &[&str],
) -> Result<Standing, PlanError> {
    let identifier = repo.to_string();
    let config = &cx.running.config;
    if !config.prow.in_repo_config_enabled(&identifier) {
        return Ok(Standing::Off);
    }
    let wrong = match cx
        .in_repo
        .jobs(config, &identifier, Commits { base, heads })
        .await
    {
        Ok(own) => return Ok(Standing::Fine(own)),
        Err(InRepoError::Conflict { paths, .. }) => Wrong::Conflict { paths },
        Err(InRepoError::Broken { found, changed }) => Wrong::Broken { found, changed },
        Err(InRepoError::Git(error)) if error.is_outage() || !cx.last_try => {
            return Err(error.into());
        }
        Err(error) => Wrong::Unreadable(error.to_string()),
    };
    tracing::info!(%repo, base, ?heads, ?wrong, "a repository's own jobs are not known");
    Ok(Standing::Wrong(wrong))
}

/// Asks about a pull request's head on the tip of its base; that tip is then known to be a fact, so that what runs is
/// what was read.
pub(super) async fn of_pull_request(
    cx: &Planning<'_>,
    pr: &PullRequest,
    facts: &mut Facts,
) -> Result<Standing, PlanError> {
    if !cx
        .running
        .config
        .prow
        .in_repo_config_enabled(&pr.repo.to_string())
    {
        return Ok(Standing::Off);
    }
    let on = Target::new(&pr.repo, pr.number);
    let branch = &pr.base.branch;
    fetch(cx, &on, facts, Missing::BranchHead(branch.clone())).await?;
    let base = facts.branch_heads.get(branch).cloned().unwrap_or_default();
    at(cx, &pr.repo, &base, &[&pr.head.sha]).await
}

/// The same for a text, unless no job can listen to it; the pull request is then known, too.
pub(super) async fn of_comment(
    cx: &Planning<'_>,
    comment: &GenericComment,
    facts: &mut Facts,
) -> Result<Standing, PlanError> {
    let identifier = comment.repo.to_string();
    if !cx.running.config.prow.in_repo_config_enabled(&identifier) {
        return Ok(Standing::Off);
    }
    if !may_be_heard(cx, comment, &identifier) {
        return Ok(Standing::Unasked);
    }
    let on = Target::new(&comment.repo, comment.number);
    fetch(cx, &on, facts, Missing::PullRequest).await?;
    match facts.pull_request.clone() {
        Some(pr) => of_pull_request(cx, &pr, facts).await,
        None => Ok(Standing::Unasked),
    }
}

/// PLG-TRIGGER-006: people talk more than they command. What own jobs listen to is remembered from the push; a text that
/// looks like a command is looked into whatever is remembered, because the base may have moved since.
fn may_be_heard(cx: &Planning<'_>, comment: &GenericComment, identifier: &str) -> bool {
    let body = &comment.body;
    let commanding = body.lines().any(|line| line.trim_start().starts_with('/'));
    let central = cx.presubmits(&comment.repo);
    if commanding || is_relevant(body, central.iter().copied()) {
        return true;
    }
    let RepoId { org, repo } = &comment.repo;
    let known = cx.state.pull_request(org, repo, comment.number);
    let remembered = known.and_then(|pull| {
        cx.in_repo
            .remembered(&cx.running.config, identifier, &[&pull.head_sha])
    });
    remembered.is_none_or(|own| is_relevant(body, own.presubmits.iter()))
}

/// What the pull request shows already.
pub(super) fn shown<'a>(cx: &Planning<'a>, pr: &PullRequest) -> Option<&'a Context> {
    let RepoId { org, repo } = &pr.repo;
    cx.state
        .pull_request(org, repo, pr.number)
        .filter(|pull| pull.head_sha == pr.head.sha)
        .and_then(|pull| pull.contexts.get(CONTEXT))
}

/// What a pull request is to be told. `moved`: head or base are new, so that a comment may be about former ones.
pub(super) fn notice(
    standing: &Standing,
    pr: &PullRequest,
    moved: bool,
    shown: Option<&Context>,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Vec<Action>, Missing> {
    if matches!(standing, Standing::Unasked) {
        return Ok(Vec::new());
    }
    let failing = shown.is_some_and(|shown| shown.state() != ContextState::Success);
    let Some(wanted) = wanted(standing, pr, failing) else {
        return if failing || moved && !matches!(standing, Standing::Off) {
            prune(pr, bot, facts)
        } else {
            Ok(Vec::new())
        };
    };
    let on = Target::new(&pr.repo, pr.number);
    let same = shown.is_some_and(|shown| {
        (shown.state, &shown.description) == (wanted.state, &wanted.description)
    });
    if same && !moved {
        return Ok(Vec::new());
    }
    let mut effects = Vec::new();
    if !same {
        effects.push(on.status(&pr.head.sha, wanted));
    }
    let Standing::Wrong(Wrong::Broken {
        found,
        changed: true,
    }) = standing
    else {
        effects.extend(prune(pr, bot, facts)?);
        return Ok(effects);
    };
    let body = comment(found, &pr.base.branch);
    let mut former = ours(bot, facts)?;
    match former.next() {
        None => effects.push(on.comment(body)),
        Some((id, known)) if known.trim_end() != body.trim_end() => {
            effects.push(on.edit_comment(id, body));
        }
        Some(_) => {}
    }
    effects.extend(on.prune(former.map(|(id, _)| id).collect()));
    Ok(effects)
}

/// Our comments about broken files, oldest first.
fn ours<'f>(
    bot: &BotUser,
    facts: &'f Facts,
) -> Result<impl Iterator<Item = (u64, &'f str)>, Missing> {
    let comments = facts.comments()?.iter();
    let bot = bot.clone();
    Ok(comments
        .filter(move |comment| bot.is(&comment.author.login) && comment.body.contains(MARKER))
        .map(|comment| (comment.id, comment.body.as_str())))
}

fn prune(pr: &PullRequest, bot: &BotUser, facts: &Facts) -> Result<Vec<Action>, Missing> {
    let ids = ours(bot, facts)?.map(|(id, _)| id).collect();
    let on = Target::new(&pr.repo, pr.number);
    Ok(on.prune(ids).into_iter().collect())
}

/// The status that the head should have; none if it needs none. `failing`: one is there that needs an end.
fn wanted(standing: &Standing, pr: &PullRequest, failing: bool) -> Option<Context> {
    let good = |description: String| Context {
        context: CONTEXT.to_owned(),
        state: ContextState::Success.into(),
        description: cut(&description),
        ..Context::default()
    };
    match standing {
        Standing::Unasked => None,
        Standing::Off => failing.then(|| good("In-repo configuration is off.".to_owned())),
        Standing::Fine(own) => (own.changed || failing).then(|| good(in_order(own))),
        Standing::Wrong(wrong) => Some(wrong.status(&pr.base.branch, |finding| {
            let page = repo_page(pr);
            link(&page, &pr.head.sha, finding)
        })),
    }
}

fn in_order(own: &Own) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let jobs = format!(
        "In order: {}, {}.",
        count(own.jobs.presubmits.len(), "presubmit"),
        count(own.jobs.postsubmits.len(), "postsubmit")
    );
    match own.warnings.first() {
        Some(first) if own.changed => format!("{jobs} But {first}"),
        _ => jobs,
    }
}

/// Where people see what a finding is about; empty if it is in no file of theirs.
fn link(page: &str, sha: &str, finding: &Diagnostic) -> String {
    if page.is_empty() || finding.line == 0 || !finding.file.starts_with(".prow") {
        return String::new();
    }
    format!("{page}/blob/{sha}/{}#L{}", finding.file, finding.line)
}

impl Wrong {
    fn status(&self, branch: &str, link: impl Fn(&Diagnostic) -> String) -> Context {
        let (description, target_url) = match self {
            Self::Conflict { paths } => (
                format!("Conflicts with {branch} in {}", paths.join(", ")),
                String::new(),
            ),
            Self::Broken { found, changed } => {
                let first = found.first();
                let told = first.map(ToString::to_string).unwrap_or_default();
                let told = if *changed {
                    told
                } else {
                    format!("Not by this change: {told}")
                };
                (told, first.map(link).unwrap_or_default())
            }
            Self::Unreadable(why) => (
                format!("Not read, /test all tries again: {why}"),
                String::new(),
            ),
        };
        Context {
            context: CONTEXT.to_owned(),
            state: ContextState::Failure.into(),
            description: cut(&one_line(&description)),
            target_url,
            ..Context::default()
        }
    }
}

/// What a pushed commit is told: nothing, if all is well, or if it is the head of a pull request, which has its own.
pub(super) fn notice_of_push(
    standing: &Standing,
    event: &PushEvent,
    cx: &Planning<'_>,
) -> Vec<Action> {
    let Standing::Wrong(wrong) = standing else {
        return Vec::new();
    };
    let repo = &event.repository.id;
    let is_head = cx
        .state
        .pull_requests(&repo.org, &repo.repo)
        .any(|pull| pull.open && pull.head_sha == event.after);
    if is_head {
        return Vec::new();
    }
    let status = wrong.status(event.branch(), |finding| {
        link(&event.repository.html_url, &event.after, finding)
    });
    vec![Target::new(repo, 0).status(&event.after, status)]
}

/// The text lies in a block of code, so that it mentions nobody and commands nothing.
fn comment(found: &[Diagnostic], branch: &str) -> String {
    let mut lines: Vec<String> = found
        .iter()
        .take(MAX_FOUND)
        .map(|finding| {
            let line = one_line(&finding.to_string());
            match line.char_indices().nth(MAX_LINE) {
                Some((end, _)) => format!("{}...", &line[..end]),
                None => line,
            }
        })
        .collect();
    if found.len() > MAX_FOUND {
        lines.push(format!("and {} more", found.len() - MAX_FOUND));
    }
    let lines = lines.join("\n");
    let longest = lines
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!(
        "The jobs in this repository's own configuration are **not run** on this pull request, because they could not be used once it is merged into `{branch}`:\n\n\
         {fence}\n{lines}\n{fence}\n\n\
         All other jobs run as always. This comment goes away with the push that puts the files right.\n\n\
         {MARKER}"
    )
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn cut(description: &str) -> String {
    if description.len() <= MAX_DESCRIPTION {
        return description.to_owned();
    }
    let room = MAX_DESCRIPTION - "...".len();
    let end = description
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= room)
        .last()
        .unwrap_or_default();
    format!("{}...", &description[..end])
}

#[cfg(test)]
mod tests {
    use trireme_config::Rule;
    use trireme_forge::git::GitError;

    use super::*;
    use crate::decision::Decision;
    use crate::testing::{bot, bot_comment, pull_request};

    fn finding(line: u32, message: &str) -> Diagnostic {
        Diagnostic {
            line,
            ..Diagnostic::error(Rule::Type, ".prow.yaml", message)
        }
    }

    fn broken(changed: bool) -> Standing {
        Standing::Wrong(Wrong::Broken {
            found: [finding(3, "wrong")].into(),
            changed,
        })
    }

    fn fine(changed: bool) -> Standing {
        Standing::Fine(Own {
            changed,
            ..Own::default()
        })
    }

    fn context(state: ContextState, description: &str) -> Context {
        Context {
            context: CONTEXT.to_owned(),
            state: state.into(),
            description: description.to_owned(),
            ..Context::default()
        }
    }

    /// What is done where these comments stand; none were asked for unless they are given.
    fn told(
        standing: &Standing,
        moved: bool,
        shown: Option<&Context>,
        comments: Option<&[&str]>,
    ) -> String {
        let facts = Facts {
            comments: comments.map(|bodies| {
                let bodies = bodies.iter().enumerate();
                bodies
                    .map(|(n, body)| bot_comment(n as u64 + 1, body))
                    .collect()
            }),
            ..Facts::default()
        };
        match notice(standing, &pull_request(), moved, shown, &bot(), &facts) {
            Ok(effects) => Decision::from(effects)
                .to_string()
                .replace(&"a".repeat(40), "head"),
            Err(missing) => format!("asks for {missing}"),
        }
    }

    /// CFG-087, CFG-088: nothing is written, and nothing read, that nobody needs.
    #[test]
    fn cfg_088_what_is_as_it_should_be_is_left_alone() {
        assert_eq!(told(&fine(false), false, None, None), "nothing");
        assert_eq!(told(&Standing::Off, true, None, None), "nothing");
        assert_eq!(told(&Standing::Unasked, true, None, None), "nothing");
        let green = context(
            ContextState::Success,
            "In order: 0 presubmits, 0 postsubmits.",
        );
        assert_eq!(told(&fine(true), false, Some(&green), None), "nothing");
        let red = context(ContextState::Failure, ".prow.yaml:3: wrong");
        assert_eq!(told(&broken(true), false, Some(&red), None), "nothing");
        // A new head may have a comment of the former one.
        assert_eq!(told(&fine(false), true, None, None), "asks for Comments");
        assert_eq!(told(&fine(false), true, None, Some(&["hi"])), "nothing");
    }

    #[test]
    fn cfg_088_what_was_wrong_and_is_right_is_taken_back() {
        let red = context(ContextState::Failure, "x");
        let had = format!("old\n{MARKER}");
        let comments = ["hi", had.as_str()];
        insta::assert_snapshot!(told(&fine(false), false, Some(&red), Some(&comments)), @r"
        status in-repo-config on head: success, In order: 0 presubmits, 0 postsubmits.
        delete [2]
        ");
        insta::assert_snapshot!(told(&Standing::Off, false, Some(&red), Some(&comments)), @r"
        status in-repo-config on head: success, In-repo configuration is off.
        delete [2]
        ");
        assert_eq!(
            told(&fine(false), true, None, Some(&comments)),
            "delete [2]"
        );
    }

    #[test]
    fn cfg_088_one_comment_is_kept_and_edited() {
        let had = format!("old\n{MARKER}");
        let twice = told(&broken(true), true, None, Some(&[&had, "hi", &had]));
        let lines: Vec<&str> = twice.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "status in-repo-config on head: failure, .prow.yaml:3: wrong",
                "edit 1: The jobs in this repository's own configuration are **not run** on this pull request, because they could not be used once it is merged into `main`:"
            ]
        );
        assert_eq!(lines.last(), Some(&"delete [3]"));
        let same = comment(&[finding(3, "wrong")], "main");
        let red = context(ContextState::Failure, ".prow.yaml:3: wrong");
        assert_eq!(
            told(&broken(true), true, Some(&red), Some(&[&same])),
            "nothing"
        );
    }

    #[test]
    fn cfg_088_what_is_not_the_authors_fault_is_a_status_alone() {
        let conflict = Standing::Wrong(Wrong::Conflict {
            paths: vec!["a".into(), "b".into()],
        });
        insta::assert_snapshot!(told(&conflict, false, None, Some(&[])), @"status in-repo-config on head: failure, Conflicts with main in a, b");
        insta::assert_snapshot!(told(&broken(false), false, None, Some(&[])), @"status in-repo-config on head: failure, Not by this change: .prow.yaml:3: wrong");
        let gone = GitError::NotFound {
            repo: RepoId::new("org", "repo"),
            what: "commit".into(),
        };
        let unreadable = Standing::Wrong(Wrong::Unreadable(gone.to_string()));
        insta::assert_snapshot!(told(&unreadable, false, None, Some(&[])), @"status in-repo-config on head: failure, Not read, /test all tries again: org/repo: commit not found");
    }

    /// What strangers write into their files comes into a text of ours: it mentions nobody, ends no block and commands
    /// nothing.
    #[test]
    fn cfg_088_a_finding_cannot_break_out_of_its_block() {
        let nasty = finding(1, "unknown ``` @org/team\n/lgtm\n```` x");
        let text = comment(&vec![nasty; 25], "main");
        let fences: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("```"))
            .collect();
        assert_eq!(fences, ["`````", "`````"]);
        assert!(text.lines().all(|line| !line.starts_with('/')));
        assert!(text.contains("\nand 5 more\n"));
        let long = "é".repeat(200);
        let cut = cut(&long);
        assert!(cut.len() <= MAX_DESCRIPTION && cut.ends_with("é..."));
    }
}
