//! `blockade`: keeps pull requests that touch protected files from merging.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::GoRegex;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::webhook::Event;
use trireme_forge::{BotUser, ChangedFile, PullRequest, has_label};

use crate::changes;
use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::label_names::BLOCKED_PATHS;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::{reply, stale};

const SECTION: &str = "blockades";
const BLOCKED: &str =
    "Adding label: `do-not-merge/blocked-paths` because PR changes a protected file.";

pub(crate) struct Blockades;

/// Files that are protected in some repositories.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Blockade {
    /// `org` or `org/repo`.
    repos: Vec<String>,
    /// Of base branches; absent = all.
    #[serde(rename = "branchregexp")]
    branch: Option<String>,
    #[serde(rename = "blockregexps")]
    block: Vec<String>,
    #[serde(rename = "exceptionregexps")]
    exception: Vec<String>,
    explanation: String,
    #[serde(skip)]
    compiled: Compiled,
}

#[derive(Debug, Clone, Default)]
struct Compiled {
    branch: Option<GoRegex>,
    block: Vec<GoRegex>,
    exception: Vec<GoRegex>,
}

impl Blockade {
    /// HOOK-061: an expression for branches must compile; of those for paths, bad ones are left out.
    fn complete(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(branch) = &self.branch {
            match GoRegex::new(branch) {
                Ok(regex) => self.compiled.branch = Some(regex),
                Err(error) => problems.push(Problem::error(
                    "branchregexp",
                    format!("failed to compile blockade branchregexp: {branch:?}, error: {error}"),
                )),
            }
        }
        let mut compile = |list: &[String], field: &str| {
            let mut compiled = Vec::new();
            for (at, text) in list.iter().enumerate() {
                match GoRegex::new(text) {
                    Ok(regex) => compiled.push(regex),
                    Err(error) => problems.push(Problem::advice(
                        format!("{field}.{at}"),
                        format!("this expression is left out: {error}"),
                    )),
                }
            }
            compiled
        };
        self.compiled.block = compile(&self.block, "blockregexps");
        self.compiled.exception = compile(&self.exception, "exceptionregexps");
        problems
    }

    fn is_of(&self, org: &str, full: &str) -> bool {
        self.repos.iter().any(|repo| repo == org || repo == full)
    }

    fn concerns(&self, pr: &PullRequest) -> bool {
        self.is_of(&pr.repo.org, &pr.repo.to_string())
            && !self.compiled.block.is_empty()
            && self
                .compiled
                .branch
                .as_ref()
                .is_none_or(|regex| regex.is_match(&pr.base.branch))
    }

    fn blocks(&self, path: &str) -> bool {
        let any = |list: &[GoRegex]| list.iter().any(|regex| regex.is_match(path));
        any(&self.compiled.block) && !any(&self.compiled.exception)
    }

    fn reason(&self) -> &str {
        match self.explanation.as_str() {
            "" => "Files are protected",
            reason => reason,
        }
    }
}

#[async_trait]
impl Plugin for Blockades {
    fn name(&self) -> &'static str {
        "blockade"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        matches!(event, Event::PullRequest(event) if event.action.brings_commits())
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        if !event.action.brings_commits() {
            return Ok(Decision::nothing());
        }
        let pr = &event.pull_request;
        let all: &Vec<Blockade> = cx.section(SECTION)?;
        let concerned: Vec<&Blockade> = all.iter().filter(|one| one.concerns(pr)).collect();
        let labels = cx.forge.labels(&pr.repo, pr.number).await?;
        let labelled = has_label(&labels, BLOCKED_PATHS);
        if concerned.is_empty() && !labelled {
            return Ok(Decision::nothing());
        }
        let files = match concerned.as_slice() {
            [] => Vec::new(),
            _ => changes::files(cx, pr).await?,
        };
        let why = reasons(&concerned, &files);
        let comments = match (&why, labelled) {
            (None, true) => cx.forge.comments(&pr.repo, pr.number).await?,
            _ => Vec::new(),
        };
        let obsolete = obsolete(cx.bot, &comments);
        let decision = decide(pr, why.as_deref(), labelled, obsolete);
        Ok(decision.for_head(&pr.head.sha))
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let all = scope.plugins.section::<Vec<Blockade>>(SECTION);
        let config = scope.per_repo(|repo| {
            let mut told = "The following blockades apply in this repository:".to_owned();
            let full = repo.to_string();
            let of_repo = all.into_iter().flatten();
            for one in of_repo.filter(|one| one.is_of(&repo.org, &full)) {
                let space = match &one.branch {
                    Some(branch) => {
                        format!("BranchRegexp: '{branch}'<br>&nbsp&nbsp&nbsp&nbsp")
                    }
                    None => String::new(),
                };
                let list = |list: &[String]| {
                    let quoted = list.iter().map(|text| format!("{text:?}"));
                    quoted.collect::<Vec<_>>().join(" ")
                };
                let indent = "<br>&nbsp&nbsp&nbsp&nbsp";
                let (explanation, block) = (&one.explanation, list(&one.block));
                let exception = list(&one.exception);
                let _ = write!(
                    told,
                    "<br>{space}Block reason: '{explanation}'{indent}Block regexps: [{block}]{indent}Exception regexps: [{exception}]<br>"
                );
            }
            Some(told)
        });
        PluginHelp {
            description: "The blockade plugin blocks pull requests from merging if they touch specific files. The plugin applies the 'do-not-merge/blocked-paths' label to pull requests that touch files that match a blockade's block regular expression and none of the corresponding exception regular expressions.".to_owned(),
            config,
            snippet: SNIPPET.to_owned(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |all: &mut Vec<Blockade>| {
            let completed = all.iter_mut().map(Blockade::complete);
            let problems = completed.enumerate().flat_map(|(at, problems)| {
                problems.into_iter().map(move |problem| Problem {
                    path: format!("{at}.{}", problem.path),
                    ..problem
                })
            });
            problems.collect()
        }))
    }
}

/// Why it is blocked, with the files of each reason; `None` if it is not (PLG-BLOCKADE-001).
fn reasons(concerned: &[&Blockade], files: &[ChangedFile]) -> Option<String> {
    let mut told = String::new();
    let mut seen = BTreeSet::new();
    for reason in concerned.iter().map(|one| one.reason()) {
        if !seen.insert(reason) {
            continue;
        }
        let same = concerned.iter().filter(|one| one.reason() == reason);
        let same: Vec<_> = same.collect();
        let blocked = files
            .iter()
            .filter(|file| same.iter().any(|one| one.blocks(&file.path)));
        let lines: Vec<String> = blocked
            .map(|file| format!("- [{}]({})\n\n", file.path, file.blob_url))
            .collect();
        if !lines.is_empty() {
            let _ = write!(told, "[{reason}]\n{}", lines.concat());
        }
    }
    (!told.is_empty()).then(|| format!("#### Reasons for blocking this PR:\n{told}"))
}

fn obsolete(bot: &BotUser, comments: &[trireme_forge::IssueComment]) -> Vec<u64> {
    stale(bot, comments, |body| body.contains(BLOCKED))
}

/// PLG-BLOCKADE-002
fn decide(pr: &PullRequest, why: Option<&str>, labelled: bool, obsolete: Vec<u64>) -> Decision {
    let on = Target::new(&pr.repo, pr.number);
    match (why, labelled) {
        (Some(why), false) => vec![
            on.add_label(BLOCKED_PATHS),
            on.comment(reply(&pr.author.login, BLOCKED, why)),
        ]
        .into(),
        (None, true) => {
            let mut effects = vec![on.remove_label(BLOCKED_PATHS)];
            effects.extend(on.prune(obsolete));
            effects.into()
        }
        _ => Decision::nothing(),
    }
}

const SNIPPET: &str = "\
blockades:
    - # Where, by org or org/repo.
      repos:
        - ORGANIZATION
        - ORGANIZATION/REPOSITORY
      # Of base branches; without it all.
      branchregexp: ^release-*
      # Paths that are protected, but for the exceptions.
      blockregexps:
        - ^examples*
      exceptionregexps:
        - ^examples-keep/
      # Said to whoever touches them.
      explanation: examples have moved elsewhere
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot_comment, plugins_yaml, pull_request, pull_request_event};
    use trireme_forge::FileStatus;

    const YAML: &str = "
blockades:
- {repos: [org], blockregexps: [^docs/, ^api/], exceptionregexps: [README], explanation: Ask docs}
- {repos: [org/repo], branchregexp: ^main$, blockregexps: ['(', \\.secret$]}
- {repos: [org/repo], branchregexp: ^release, blockregexps: ['.*'], explanation: Frozen}
- {repos: [other], blockregexps: ['.*']}
- {repos: [org], blockregexps: ['(']}
";

    fn file(path: &str) -> ChangedFile {
        ChangedFile {
            path: path.to_owned(),
            previous_path: None,
            status: FileStatus::Modified,
            additions: 1,
            deletions: 0,
            patch: None,
            blob_url: format!("https://f/{path}"),
        }
    }

    fn why(pr: &PullRequest, paths: &[&str]) -> Option<String> {
        let config = plugins_yaml(YAML).unwrap();
        let all = config.section::<Vec<Blockade>>(SECTION).unwrap();
        let concerned: Vec<&Blockade> = all.iter().filter(|one| one.concerns(pr)).collect();
        let files: Vec<ChangedFile> = paths.iter().map(|path| file(path)).collect();
        reasons(&concerned, &files)
    }

    #[test]
    fn plg_blockade_001_all_entries_of_org_and_repo_apply() {
        let pr = pull_request();
        for (path, expected) in [
            ("docs/a", true),
            ("docs/README", false),
            ("a.secret", true),
            ("docs/README.secret", true),
            ("src/a", false),
        ] {
            assert_eq!(why(&pr, &[path]).is_some(), expected, "{path}");
        }
        let mut release = pull_request();
        release.base.branch = "release-1".into();
        assert!(why(&release, &["src/a"]).is_some());
        let mut elsewhere = pull_request();
        elsewhere.repo.repo = "else".into();
        assert!(why(&elsewhere, &["a.secret"]).is_none());
        assert!(why(&elsewhere, &["api/x"]).is_some());
        for (action, expected) in [
            ("opened", true),
            ("reopened", true),
            ("synchronize", true),
            ("edited", false),
        ] {
            assert_eq!(pull_request_event(action).action.brings_commits(), expected);
        }
    }

    #[test]
    fn hook_061_only_bad_expressions_for_branches_are_refused() {
        let bad = plugins_yaml("blockades: [{repos: [o], branchregexp: '('}]").unwrap_err();
        assert!(
            bad.contains("failed to compile blockade branchregexp"),
            "{bad}"
        );
        assert!(plugins_yaml(YAML).is_ok());
        assert!(plugins_yaml(SNIPPET).is_ok());
    }

    #[test]
    fn plg_blockade_002_label_and_reply_follow_the_files() {
        let pr = pull_request();
        let why = why(&pr, &["docs/a", "x.secret", "api/b"]);
        insta::assert_snapshot!(decide(&pr, why.as_deref(), false, vec![]).to_string(), @r"
        +do-not-merge/blocked-paths
        comment: @author: Adding label: `do-not-merge/blocked-paths` because PR changes a protected file.

        <details>

        #### Reasons for blocking this PR:
        [Ask docs]
        - [docs/a](https://f/docs/a)

        - [api/b](https://f/api/b)

        [Files are protected]
        - [x.secret](https://f/x.secret)



        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        assert!(decide(&pr, why.as_deref(), true, vec![]).is_idle());
        assert!(decide(&pr, None, false, vec![]).is_idle());
        let said = [
            bot_comment(1, &format!("@author: {BLOCKED}\n")),
            bot_comment(2, "x"),
        ];
        let gone = decide(&pr, None, true, obsolete(&crate::testing::bot(), &said));
        assert_eq!(gone.to_string(), "-do-not-merge/blocked-paths\ndelete [1]");
    }
}
