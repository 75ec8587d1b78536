//! `verify-owners`: keeps OWNERS files that cannot be read, or that name people who are not trusted, from merging.

mod files;
mod newcomers;
mod say;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use trireme_config::plugins::{Owners as OwnersSection, Trigger};
use trireme_forge::git::{ChangedPath, MergeOutcome};
use trireme_forge::owners::{Aliases, OwnersFile, OwnersOptions};
use trireme_forge::webhook::{Event, GenericComment};
use trireme_forge::{ChangedFile, FileStatus, MergeMethod, PullRequest, RepoId, has_label};
use trireme_office::TrustRule;

use crate::changes;
use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather_up_to};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::label_names::INVALID_OWNERS_FILE;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;
use newcomers::Newcomers;
use say::{Findings, Shown, Wrong};

commands! {
    VERIFY = r"(?mi)^/verify-owners\s*$";
}

pub(crate) struct VerifyOwners;

#[async_trait]
impl Plugin for VerifyOwners {
    fn name(&self) -> &'static str {
        "verify-owners"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest, EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::PullRequest(event) if event.action.brings_commits() => true,
            _ => event
                .generic_comment()
                .is_some_and(|comment| is_command(&comment)),
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        if let Event::PullRequest(event) = event
            && event.action.brings_commits()
        {
            return verify(cx, &event.pull_request, false).await;
        }
        let Some(comment) = event.generic_comment().filter(is_command) else {
            return Ok(Decision::nothing());
        };
        let found = cx.forge.pull_request(&comment.repo, comment.number);
        verify(cx, &found.await?, true).await
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let describe = |org: &str, repo: &str| {
            let names = scope.plugins.owners_filenames(org, repo);
            let (owners, aliases) = (names.owners, names.owners_aliases);
            let banned = match &scope.plugins.core.owners.labels_denylist {
                Some(banned) => format!(
                    " The verify-owners plugin will complain if {owners} files contain any of the following banned labels: {}.",
                    banned.join(", ")
                ),
                None => String::new(),
            };
            format!("{owners} and {aliases} files are validated.{banned}")
        };
        let usual = describe("", "");
        let mut config = scope
            .per_repo(|repo| {
                let own = describe(&repo.org, &repo.repo);
                (own != usual).then_some(own)
            })
            .unwrap_or_default();
        config.insert("default".to_owned(), usual);
        PluginHelp {
            description: "The verify-owners plugin validates OWNERS and OWNERS_ALIASES files (by default) and ensures that they always contain collaborators of the org, if they are modified in a PR. On validation failure it automatically adds the 'do-not-merge/invalid-owners-file' label to the PR, and a review comment on the incriminating file(s). Per-repo configuration for filenames is possible.".to_owned(),
            config: Some(config),
            commands: vec![Command {
                usage: "/verify-owners",
                featured: false,
                description: "do-not-merge/invalid-owners-file",
                examples: &["/verify-owners"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }
}

fn is_command(comment: &GenericComment) -> bool {
    comment.is_new_on_open_pull_request() && VERIFY.is_match(&comment.body)
}

/// What a pull request changes of what says who owns what.
#[derive(Debug, Default)]
struct Touched {
    owners: Vec<ChangedFile>,
    aliases: bool,
}

fn touched(files: Vec<ChangedFile>, options: &OwnersOptions) -> Touched {
    let is_aliases = |file: &ChangedFile| {
        options.is_aliases(&file.path)
            || file
                .previous_path
                .as_deref()
                .is_some_and(|path| options.is_aliases(path))
    };
    let aliases = files.iter().any(is_aliases);
    let is_owners =
        |file: &ChangedFile| options.is_owners(&file.path) && file.status != FileStatus::Removed;
    Touched {
        owners: files.into_iter().filter(is_owners).collect(),
        aliases,
    }
}

/// `asked`: somebody waits for an answer, even if it is the same as before.
async fn verify(cx: &Planning<'_>, pr: &PullRequest, asked: bool) -> Result<Decision, PlanError> {
    let repo = &pr.repo;
    let options = cx.owners_options(repo);
    let touched = touched(changes::files(cx, pr).await?, &options);
    let labels = cx.forge.labels(repo, pr.number).await?;
    let labelled = has_label(&labels, INVALID_OWNERS_FILE);
    if touched.owners.is_empty() && !touched.aliases && !labelled {
        return Ok(Decision::nothing());
    }
    let base = cx.forge.branch_head(repo, &pr.base.branch).await?;
    cx.mirrors.ensure(repo, &[&base, &pr.head.sha]).await?;
    let merged = cx
        .mirrors
        .merge_onto(repo, &base, &pr.head.sha, MergeMethod::Merge)
        .await?;
    let merged = match merged {
        MergeOutcome::Clean { commit, .. } => commit,
        // PLG-VERIFYOWNERS-002: others tell the author.
        MergeOutcome::Conflict { paths } => {
            tracing::info!(%repo, number = pr.number, ?paths, "conflicts: OWNERS are not verified");
            return Ok(Decision::nothing());
        }
    };
    let former = touched
        .owners
        .iter()
        .map(|file| former_path(file, &options));
    let before = Owners::read(cx, repo, &base, &options, former).await?;
    let paths = touched.owners.iter().map(|file| file.path.as_str());
    let after = Owners::read(cx, repo, &merged, &options, paths).await?;
    let trigger = cx.running.plugins.trigger_for(&repo.org, &repo.repo);
    let findings = find(cx, pr, &options, &trigger, &touched, &before, &after).await?;
    let comments = cx.forge.comments(repo, pr.number).await?;
    let mut on_lines = Vec::new();
    if !findings.wrong.is_empty() && !asked {
        let said = cx.forge.review_comments(repo, pr.number).await?;
        let ours = said
            .into_iter()
            .filter(|said| cx.bot.is(&said.author.login));
        on_lines.extend(ours.map(|said| (said.path, said.body)));
    }
    let shown = Shown {
        labelled,
        bot: cx.bot,
        comments: &comments,
        on_lines: &on_lines,
    };
    let join = match trigger.join_org_url.as_str() {
        "" => format!("https://github.com/orgs/{}/people", repo.org),
        url => url.to_owned(),
    };
    let decision = say::decide(pr, &options.owners, &join, &findings, &shown);
    Ok(decision.for_head(&pr.head.sha))
}

/// Where the file was that it is compared with. What was no OWNERS file before made nobody an owner.
fn former_path<'f>(file: &'f ChangedFile, options: &OwnersOptions) -> &'f str {
    let previous = file.previous_path.as_deref();
    let previous = previous.filter(|path| options.is_owners(path));
    previous.unwrap_or(&file.path)
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The touched files at one commit.
struct Owners {
    files: BTreeMap<String, Vec<u8>>,
    /// `None` if they cannot be read.
    aliases: Option<Aliases>,
}

impl Owners {
    async fn read(
        cx: &Planning<'_>,
        repo: &RepoId,
        commit: &str,
        options: &OwnersOptions,
        paths: impl Iterator<Item = &str>,
    ) -> Result<Self, PlanError> {
        let mut wanted: BTreeSet<String> = paths.map(str::to_owned).collect();
        wanted.retain(|path| !options.is_denied(directory(path)));
        wanted.insert(options.aliases.clone());
        let select = move |path: &str| wanted.contains(path);
        let files = cx.mirrors.read_files(repo, commit, select).await?;
        let mut files: BTreeMap<String, Vec<u8>> = files.into_iter().collect();
        let aliases = match files.remove(&options.aliases) {
            None => Some(Aliases::default()),
            Some(bytes) => Aliases::parse(&bytes).ok().map(|(aliases, _)| aliases),
        };
        Ok(Self { files, aliases })
    }
}

async fn find(
    cx: &Planning<'_>,
    pr: &PullRequest,
    options: &OwnersOptions,
    trigger: &Trigger,
    touched: &Touched,
    before: &Owners,
    after: &Owners,
) -> Result<Findings, PlanError> {
    let mut findings = Findings::default();
    let Some(aliases) = &after.aliases else {
        findings.aliases_are_invalid = true;
        return Ok(findings);
    };
    findings.aliases_are_empty = aliases.iter().any(|(_, members)| members.is_empty());
    let owners = &cx.running.plugins.core.owners;
    let banned = owners.labels_denylist.clone().unwrap_or_default();
    let mut newcomers = Newcomers::default();
    if touched.aliases {
        let none = Aliases::default();
        let former = before.aliases.as_ref().unwrap_or(&none);
        newcomers::of_aliases(&options.aliases, former, aliases, &mut newcomers);
    }
    for file in &touched.owners {
        let Some(bytes) = after.files.get(&file.path) else {
            continue;
        };
        match files::check(&file.path, bytes, &options.owners, &banned) {
            Ok(parsed) => {
                let former = before.files.get(former_path(file, options));
                let former = former.and_then(|bytes| OwnersFile::parse(bytes).ok());
                newcomers::of_file(
                    &file.path,
                    former.as_ref(),
                    &parsed,
                    aliases,
                    &mut newcomers,
                );
            }
            Err(message) => {
                let patch = patch(cx, pr, file).await?;
                findings.wrong.push(Wrong {
                    path: file.path.clone(),
                    position: files::position(&patch, &message),
                    message,
                });
            }
        }
    }
    if trusts_everybody(owners, &pr.repo) {
        return Ok(findings);
    }
    if newcomers.len() > newcomers::MAX_CHECKED {
        let (repo, many) = (&pr.repo, newcomers.len());
        tracing::warn!(%repo, number = pr.number, many, "too many new owners: not all are checked");
    }
    let rule = TrustRule {
        trusted_apps: &trigger.trusted_apps,
        trusted_org: &trigger.trusted_org,
        only_org_members: trigger.only_org_members,
    };
    let on = Target::new(&pr.repo, pr.number);
    let judge = |facts: &Facts| newcomers::untrusted(&newcomers, &pr.repo, &rule, cx.bot, facts);
    let most = newcomers::MAX_FACTS;
    findings.untrusted = gather_up_to(most, cx, &on, Facts::default(), judge).await?;
    Ok(findings)
}

/// Whether people are not looked at. An entry for the org does not count here.
fn trusts_everybody(owners: &OwnersSection, repo: &RepoId) -> bool {
    owners.skip_collaborators.contains(&repo.to_string())
}

/// The diff of a file; empty where there is none.
async fn patch(
    cx: &Planning<'_>,
    pr: &PullRequest,
    file: &ChangedFile,
) -> Result<String, PlanError> {
    if let Some(patch) = &file.patch {
        return Ok(patch.clone());
    }
    let path = ChangedPath {
        path: file.path.clone(),
        previous_path: file.previous_path.clone(),
        status: file.status,
        additions: file.additions,
        deletions: file.deletions,
    };
    cx.mirrors.ensure(&pr.repo, &[&pr.base.sha]).await?;
    let patch = cx
        .mirrors
        .patch(&pr.repo, &pr.base.sha, &pr.head.sha, &path)
        .await?;
    Ok(patch.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, plugins_yaml};

    #[test]
    fn plg_verifyowners_001_what_touches_owners() {
        let file = |path: &str, status, previous: Option<&str>| ChangedFile {
            path: path.to_owned(),
            previous_path: previous.map(str::to_owned),
            status,
            additions: 0,
            deletions: 0,
            patch: None,
            blob_url: String::new(),
        };
        use FileStatus::{Added, Modified, Removed, Renamed};
        for (file, expected) in [
            (file("OWNERS", Modified, None), (1, false)),
            (file("a/OWNERS", Added, None), (1, false)),
            (file("a/OWNERS", Renamed, Some("b/OWNERS")), (1, false)),
            (file("a/OWNERS", Renamed, Some("names")), (1, false)),
            (file("a/OWNERS", Removed, None), (0, false)),
            (file("a/MYOWNERS", Modified, None), (0, false)),
            (file("OWNERS_ALIASES", Modified, None), (0, true)),
            (file("OWNERS_ALIASES", Removed, None), (0, true)),
            (file("old", Renamed, Some("OWNERS_ALIASES")), (0, true)),
            (file("a/OWNERS_ALIASES", Modified, None), (0, false)),
        ] {
            let told = format!("{file:?}");
            let former = match file.previous_path.as_deref() {
                Some(path @ "b/OWNERS") => path,
                _ => file.path.as_str(),
            };
            assert_eq!(former_path(&file, &OwnersOptions::default()), former);
            let touched = touched(vec![file], &OwnersOptions::default());
            assert_eq!((touched.owners.len(), touched.aliases), expected, "{told}");
        }
        for (body, expected) in [
            ("/verify-owners", true),
            ("x\n/Verify-Owners \r\n", true),
            ("/verify-owners now", false),
        ] {
            assert_eq!(
                crate::testing::concerns(&VerifyOwners, &comment_event("a", body)),
                expected
            );
        }
    }

    #[test]
    fn plg_verifyowners_008_only_the_repository_itself_skips_the_check_of_people() {
        for (entries, expected) in [("org/repo", true), ("org", false), ("org/other", false)] {
            let yaml = format!("owners: {{skip_collaborators: [{entries}]}}");
            let config = plugins_yaml(&yaml).unwrap();
            let repo = RepoId::new("org", "repo");
            let trusts = trusts_everybody(&config.core.owners, &repo);
            assert_eq!(trusts, expected, "{entries}");
        }
    }

    #[test]
    fn plg_verifyowners_004_denied_directories_are_left_out() {
        let options = OwnersOptions::default();
        for (path, expected) in [
            ("OWNERS", false),
            ("vendor/a/OWNERS", false),
            ("vendor/a/b/OWNERS", true),
            ("x/_output/y/OWNERS", true),
        ] {
            assert_eq!(options.is_denied(directory(path)), expected, "{path}");
        }
    }
}
