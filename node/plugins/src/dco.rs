//! `dco`: whether every commit is signed off, as labels, a status and a comment.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::webhook::{Event, GenericComment, PullRequestAction};
use trireme_forge::{BotUser, CombinedStatus, Commit, Label, PullRequest, RepoId, StatusState};
use trireme_office::TrustRule;
use trireme_proto::state::{Context, ContextState};

use crate::changes::{self, sha_list};
use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing, gather_up_to};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::{ABOUT_THIS_BOT, stale};
use crate::text::commands;

commands! {
    CHECK = r"(?mi)^/check-dco\s*$";
    SIGNED_OFF = r"(?mi)^signed-off-by:";
}

const SECTION: &str = "dco";
const CONTEXT: &str = "dco";
/// What [`unexcused`] may have to know: every commit may be somebody else's.
const MAX_FACTS: usize = changes::TOLD_COMMITS * TrustRule::MAX_QUESTIONS;
const YES: &str = "dco-signoff: yes";
const NO: &str = "dco-signoff: no";
const MARKER: &str = "Thanks for your pull request. Before we can look at it, you'll need to add a 'DCO signoff' to your commits.";

pub(crate) struct Dco;

type Sections = BTreeMap<String, Option<Settings>>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    skip_dco_check_for_members: bool,
    /// Logins of apps, without `[bot]`.
    trusted_apps: Vec<String>,
    trusted_org: String,
    skip_dco_check_for_collaborators: bool,
    contributing_repo: String,
    contributing_branch: String,
    contributing_path: String,
}

impl Settings {
    fn excuses(&self) -> bool {
        self.skip_dco_check_for_members
            || self.skip_dco_check_for_collaborators
            || !self.trusted_apps.is_empty()
    }

    fn guide(&self, repo: &RepoId) -> String {
        let or = |text: &str, default: &str| match text {
            "" => default.to_owned(),
            text => text.to_owned(),
        };
        format!(
            "https://github.com/{}/blob/{}/{}",
            or(&self.contributing_repo, &repo.to_string()),
            or(&self.contributing_branch, "master"),
            or(&self.contributing_path, "CONTRIBUTING.md")
        )
    }
}

/// HOOK-055: the repository's entry, else its org's, else that of `*`.
fn narrowest(all: &Sections, repo: &RepoId) -> Settings {
    let keys = [repo.to_string(), repo.org.clone(), "*".to_owned()];
    let found = keys.iter().find_map(|key| all.get(key)?.clone());
    found.unwrap_or_default()
}

#[async_trait]
impl Plugin for Dco {
    fn name(&self) -> &'static str {
        "dco"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest, EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::PullRequest(event) if event.action.brings_commits() => true,
            _ => event
                .generic_comment()
                .is_some_and(|comment| is_check(&comment)),
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        if let Event::PullRequest(event) = event
            && event.action.brings_commits()
        {
            let says = event.action != PullRequestAction::Reopened;
            return look(cx, &event.pull_request, says).await;
        }
        let Some(comment) = event.generic_comment().filter(is_check) else {
            return Ok(Decision::nothing());
        };
        let found = cx.forge.pull_request(&comment.repo, comment.number);
        look(cx, &found.await?, true).await
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let all = scope.plugins.section::<Sections>(SECTION);
        let config = scope.per_repo(|repo| {
            let settings = narrowest(all?, repo);
            let skips =
                settings.skip_dco_check_for_members || settings.skip_dco_check_for_collaborators;
            skips.then(|| {
                let repo = repo.to_string();
                format!("The trusted GitHub organization for this repository is {repo:?}.")
            })
        });
        PluginHelp {
            description: "The dco plugin checks pull request commits for 'DCO sign off' and maintains the 'dco' status context, as well as the 'dco' label.".to_owned(),
            config,
            snippet: SNIPPET.to_owned(),
            commands: vec![Command {
                usage: "/check-dco",
                featured: true,
                description: "Forces rechecking of the DCO status.",
                examples: &["/check-dco"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |_: &mut Sections| vec![]))
    }
}

fn is_check(comment: &GenericComment) -> bool {
    comment.is_new_on_open_pull_request() && CHECK.is_match(&comment.body)
}

async fn look(cx: &Planning<'_>, pr: &PullRequest, says: bool) -> Result<Decision, PlanError> {
    let all: &Sections = cx.section(SECTION)?;
    let settings = narrowest(all, &pr.repo);
    let commits = changes::commits(cx, pr).await?;
    let unsigned: Vec<&Commit> = commits.iter().filter(|commit| !is_signed(commit)).collect();
    let on = Target::new(&pr.repo, pr.number);
    let bad = match settings.excuses() {
        true => {
            let choose = |facts: &Facts| unexcused(&unsigned, &pr.repo, &settings, cx.bot, facts);
            gather_up_to(MAX_FACTS, cx, &on, Facts::default(), choose).await?
        }
        false => unsigned,
    };
    let statuses = cx.forge.combined_status(&pr.repo, &pr.head.sha).await?;
    let labels = cx.forge.labels(&pr.repo, pr.number).await?;
    let comments = match bad.is_empty() || says {
        true => cx.forge.comments(&pr.repo, pr.number).await?,
        false => Vec::new(),
    };
    let seen = Seen {
        status: shown(&statuses),
        labels: &labels,
        ours: stale(cx.bot, &comments, |body| body.contains(MARKER)),
    };
    let decision = decide(pr, &settings.guide(&pr.repo), &bad, &seen, says);
    Ok(decision.for_head(&pr.head.sha))
}

/// Merges need no signature.
fn is_signed(commit: &Commit) -> bool {
    commit.parents.len() > 1 || SIGNED_OFF.is_match(&commit.message)
}

/// Those whose author is not trusted (PLG-TRIGGER-010), or unknown.
fn unexcused<'c>(
    commits: &[&'c Commit],
    repo: &RepoId,
    settings: &Settings,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Vec<&'c Commit>, Missing> {
    let rule = TrustRule {
        trusted_apps: &settings.trusted_apps,
        trusted_org: &settings.trusted_org,
        only_org_members: !settings.skip_dco_check_for_collaborators,
    };
    let mut bad = Vec::new();
    for commit in commits {
        let trusted = match commit.author_login.as_deref() {
            None | Some("") => false,
            Some(login) if bot.is(login) => true,
            Some(login) => {
                let is_member = |org: &str, login: &str| facts.is_member(org, login);
                let is_collaborator = |login: &str| facts.is_collaborator(login);
                rule.trusts(login, &repo.org, is_member, is_collaborator)?
            }
        };
        if !trusted {
            bad.push(*commit);
        }
    }
    Ok(bad)
}

fn shown(statuses: &CombinedStatus) -> Option<StatusState> {
    let mut statuses = statuses.statuses.iter();
    let shown = statuses.find(|status| status.context == CONTEXT);
    shown.map(|status| status.state)
}

/// What the pull request shows already.
struct Seen<'a> {
    status: Option<StatusState>,
    labels: &'a [Label],
    /// Comments of ours that list commits.
    ours: Vec<u64>,
}

/// PLG-DCO-002
fn decide(pr: &PullRequest, guide: &str, bad: &[&Commit], seen: &Seen<'_>, says: bool) -> Decision {
    let on = Target::new(&pr.repo, pr.number);
    let has = |name: &str| seen.labels.iter().any(|label| label.name == name);
    let signed = bad.is_empty();
    let mut effects = Vec::new();
    if signed && has(NO) {
        effects.push(on.remove_label(NO));
    }
    let wanted = if signed { YES } else { NO };
    if !has(wanted) {
        effects.push(on.add_label(wanted));
    }
    if !signed && has(YES) {
        effects.push(on.remove_label(YES));
    }
    let (state, shown, description) = match signed {
        true => (
            ContextState::Success,
            StatusState::Success,
            "All commits have Signed-off-by",
        ),
        false => (
            ContextState::Failure,
            StatusState::Failure,
            "Commits in PR missing Signed-off-by",
        ),
    };
    if seen.status != Some(shown) {
        let status = Context {
            context: CONTEXT.to_owned(),
            state: state.into(),
            description: description.to_owned(),
            target_url: guide.to_owned(),
            ..Context::default()
        };
        effects.push(on.status(&pr.head.sha, status));
    }
    if signed || says {
        effects.extend(on.prune(seen.ours.clone()));
    }
    if !signed && says {
        let list = sha_list(&pr.repo, bad.iter().copied());
        effects.push(on.comment(format!("{MARKER}\n\n:memo: **Please follow instructions in the [contributing guide]({guide}) to update your commits with the DCO**\n\nFull details of the Developer Certificate of Origin can be found at [developercertificate.org](https://developercertificate.org/).\n\n**The list of commits missing DCO signoff**:\n\n{list}\n\n<details>\n\n{ABOUT_THIS_BOT}\n</details>\n")));
    }
    effects.into()
}

const SNIPPET: &str = "\
dco:
    # By org/repo, org or *.
    org/repo:
        # Whose commits need no signature.
        skip_dco_check_for_members: true
        skip_dco_check_for_collaborators: true
        trusted_org: org
        # The guide that people are sent to.
        contributing_repo: other-org/other-repo
        contributing_branch: main
        contributing_path: docs/CONTRIBUTING.md
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, comment_event, commit, labels, plugins_yaml, pull_request};

    const SIGNED: &str = "Fix\n\nSigned-off-by: A <a@b>";

    #[test]
    fn plg_dco_001_every_commit_but_merges_is_signed() {
        for (message, expected) in [
            (SIGNED, true),
            ("signed-OFF-by:", true),
            ("Fix\n Signed-off-by: A", false),
            ("Fix", false),
        ] {
            assert_eq!(is_signed(&commit("a", message)), expected, "{message:?}");
        }
        let mut merge = commit("a", "Merge");
        merge.parents = vec!["1".into(), "2".into()];
        assert!(is_signed(&merge));
        for (body, expected) in [("/check-dco", true), ("/check-dco x", false), ("hi", false)] {
            assert_eq!(
                crate::testing::concerns(&Dco, &comment_event("a", body)),
                expected,
                "{body:?}"
            );
        }
    }

    #[test]
    fn plg_dco_001_trusted_authors_are_excused() {
        let by = |login: Option<&str>| Commit {
            author_login: login.map(str::to_owned),
            ..commit("a", "Fix")
        };
        let facts = Facts {
            members: [("member", true), ("friend", false), ("app[bot]", false)]
                .map(|(login, is)| (("org".to_owned(), login.to_owned()), is))
                .into(),
            collaborators: [("friend", true), ("app[bot]", false)]
                .map(|(login, is)| (login.to_owned(), is))
                .into(),
            ..Facts::default()
        };
        let repo = RepoId::new("org", "repo");
        let members = Settings {
            skip_dco_check_for_members: true,
            ..Settings::default()
        };
        let collaborators = Settings {
            skip_dco_check_for_collaborators: true,
            ..Settings::default()
        };
        let apps = Settings {
            trusted_apps: vec!["app".into()],
            ..Settings::default()
        };
        for (settings, login, expected) in [
            (&members, Some("member"), true),
            (&members, Some("friend"), false),
            (&members, Some("k8s-ci-robot"), true),
            (&members, None, false),
            (&collaborators, Some("friend"), true),
            (&apps, Some("app[bot]"), true),
            (&members, Some("app[bot]"), false),
        ] {
            let commit = by(login);
            let bad = unexcused(&[&commit], &repo, settings, &bot(), &facts).unwrap();
            assert_eq!(bad.is_empty(), expected, "{login:?} {settings:?}");
            assert!(settings.excuses());
        }
        assert!(!Settings::default().excuses());
    }

    fn told(bad: &[&Commit], had: &[&str], status: Option<StatusState>, says: bool) -> String {
        let labels = labels(had);
        let seen = Seen {
            status,
            labels: &labels,
            ours: vec![4],
        };
        decide(&pull_request(), "https://guide", bad, &seen, says).to_string()
    }

    /// PLG-DCO-002, PLG-DCO-003
    #[test]
    fn plg_dco_002_labels_status_and_comment_follow_the_commits() {
        let bad = commit(&"1".repeat(40), "Fix it");
        insta::assert_snapshot!(told(&[&bad], &[YES], None, true), @r"
        +dco-signoff: no
        -dco-signoff: yes
        status dco on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: failure, Commits in PR missing Signed-off-by
        delete [4]
        comment: Thanks for your pull request. Before we can look at it, you'll need to add a 'DCO signoff' to your commits.

        :memo: **Please follow instructions in the [contributing guide](https://guide) to update your commits with the DCO**

        Full details of the Developer Certificate of Origin can be found at [developercertificate.org](https://developercertificate.org/).

        **The list of commits missing DCO signoff**:

        - [1111111](https://github.com/org/repo/commits/1111111111111111111111111111111111111111) Fix it

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository. I understand the commands that are listed [here](https://go.k8s.io/bot-commands).
        </details>
        ");
        let failure = Some(StatusState::Failure);
        assert_eq!(told(&[&bad], &[NO], failure, false), "nothing");
        insta::assert_snapshot!(told(&[], &[NO], failure, false), @r"
        -dco-signoff: no
        +dco-signoff: yes
        status dco on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: success, All commits have Signed-off-by
        delete [4]
        ");
    }

    #[test]
    fn plg_dco_003_the_prune_marker_is_prows() {
        assert!(told(&[&commit("a", "x")], &[], None, true).contains(MARKER));
        assert_eq!(
            MARKER,
            "Thanks for your pull request. Before we can look at it, you'll need to add a 'DCO signoff' to your commits."
        );
    }

    #[test]
    fn hook_055_the_narrowest_entry_counts() {
        let config = plugins_yaml("dco:\n  '*': {contributing_branch: a}\n  org: {contributing_branch: b}\n  org/repo: {contributing_path: c.md}\n  org/none:\n").unwrap();
        let all = config.section::<Sections>(SECTION).unwrap();
        let guide = |repo: &str| {
            let repo: RepoId = repo.parse().unwrap();
            narrowest(all, &repo).guide(&repo)
        };
        assert_eq!(
            guide("org/repo"),
            "https://github.com/org/repo/blob/master/c.md"
        );
        assert_eq!(
            guide("org/x"),
            "https://github.com/org/x/blob/b/CONTRIBUTING.md"
        );
        assert_eq!(
            guide("org/none"),
            "https://github.com/org/none/blob/b/CONTRIBUTING.md"
        );
        assert_eq!(
            guide("else/x"),
            "https://github.com/else/x/blob/a/CONTRIBUTING.md"
        );
        assert!(plugins_yaml(SNIPPET).is_ok());
    }
}
