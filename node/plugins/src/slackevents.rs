//! `slackevents`: tells channels of Slack of pushes by hand and of SIGs that were mentioned (PLG-SLACKEVENTS).

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::{Section, narrowest};
use trireme_forge::webhook::{Event, GenericAction, GenericComment, PushEvent};
use trireme_forge::{RepoId, norm_login};

use crate::decision::{Decision, tell_slack};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;

commands! {
    SIG = r"(?m)@kubernetes/sig-([\w-]*)-(misc|test-failures|bugs|feature-requests|proposals|pr-reviews|api-reviews)";
}

pub(crate) struct SlackEvents;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    #[serde(rename = "mentionchannels")]
    mention_channels: Vec<String>,
    #[serde(rename = "mergewarnings")]
    merge_warnings: Vec<MergeWarning>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MergeWarning {
    repos: Vec<String>,
    channels: Vec<String>,
    exempt_users: Vec<String>,
    exempt_branches: BTreeMap<String, Vec<String>>,
}

impl Settings {
    /// HOOK-055
    fn of(&self, repo: &RepoId) -> Option<&MergeWarning> {
        let all = &self.merge_warnings;
        narrowest(all, |warning| &warning.repos, &repo.org, &repo.repo)
    }
}

#[async_trait]
impl Plugin for SlackEvents {
    fn name(&self) -> &'static str {
        "slackevents"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Push, EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let settings = cx.section::<Settings>("slack");
        if let Event::Push(push) = event {
            return settings.is_none_or(|settings| !pushed(settings, push).is_idle());
        }
        event.generic_comment().is_some_and(|comment| {
            comment.action == GenericAction::Created
                && SIG.is_match(&comment.body)
                && settings.is_none_or(|settings| !mentioned(settings, &comment).is_idle())
        })
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let settings: &Settings = cx.section("slack")?;
        if let Event::Push(push) = event {
            return Ok(pushed(settings, push));
        }
        Ok(match event.generic_comment() {
            Some(comment) if !cx.bot.is(&comment.user.login) => mentioned(settings, &comment),
            _ => Decision::nothing(),
        })
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let none = Settings::default();
        let settings = scope.plugins.section("slack").unwrap_or(&none);
        let mut config = scope
            .per_repo(|repo| Some(about(settings, repo)))
            .unwrap_or_default();
        config.insert(
            String::new(),
            format!(
                "SIG mentions on GitHub are reiterated for the following SIG Slack channels: {}.",
                settings.mention_channels.join(", ")
            ),
        );
        PluginHelp {
            description: "The slackevents plugin reacts to various GitHub events by commenting in Slack channels.\n<ol><li>The plugin can create comments to alert on manual merges. Manual merges are merges made by a normal user instead of a bot or trusted user.</li>\n<li>The plugin can create comments to reiterate SIG mentions like '@kubernetes/sig-testing-bugs' from GitHub.</li></ol>".to_owned(),
            config: Some(config),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new("slack", |_: &mut Settings| vec![]))
    }
}

fn about(settings: &Settings, repo: &RepoId) -> String {
    let Some(warning) = settings.of(repo) else {
        return "There are no manual merge warnings configured for this repo.".to_owned();
    };
    format!(
        "In this repo merges are considered manual and trigger manual merge warnings if the user who merged is not a member of this universal exemption list: {} or merged to a branch they are not specifically exempted for: {}.<br>Warnings are sent to the following Slack channels: {}.",
        warning.exempt_users.join(", "),
        as_go(&warning.exempt_branches),
        warning.channels.join(", ")
    )
}

/// As Go's `%#v` writes such a map.
fn as_go(branches: &BTreeMap<String, Vec<String>>) -> String {
    if branches.is_empty() {
        return "map[string][]string(nil)".to_owned();
    }
    let entries = branches.iter().map(|(branch, users)| {
        let users: Vec<String> = users.iter().map(|user| format!("{user:?}")).collect();
        format!("{branch:?}:[]string{{{}}}", users.join(", "))
    });
    let entries: Vec<String> = entries.collect();
    format!("map[string][]string{{{}}}", entries.join(", "))
}

/// PLG-SLACKEVENTS-001
fn pushed(settings: &Settings, push: &PushEvent) -> Decision {
    let Some(warning) = settings.of(&push.repository.id) else {
        return Decision::nothing();
    };
    let branch = push.branch();
    let of_branch = warning.exempt_branches.get(branch).into_iter().flatten();
    let exempt: Vec<String> = warning
        .exempt_users
        .iter()
        .chain(of_branch)
        .map(|login| norm_login(login))
        .collect();
    let login = push.sender.login.as_str();
    if [login, &push.pusher]
        .iter()
        .any(|who| exempt.contains(&norm_login(who)))
    {
        return Decision::nothing();
    }
    let commits = push.commits.len();
    let what = if push.created {
        format!("pushed a new branch ({branch})")
    } else if push.deleted {
        format!("deleted a branch ({branch})")
    } else if push.forced {
        format!("*force* merged {commits} commit(s) into {branch}")
    } else {
        format!("manually merged {commits} commit(s) into {branch}")
    };
    let text = format!(
        "*Warning:* {login} (<@{login}>) {what}: {}",
        push.compare_url
    );
    let channels = warning.channels.iter();
    let tell: Vec<_> = channels
        .map(|channel| tell_slack(channel, text.as_str()))
        .collect();
    tell.into()
}

/// PLG-SLACKEVENTS-002
fn mentioned(settings: &Settings, comment: &GenericComment) -> Decision {
    if comment.action != GenericAction::Created {
        return Decision::nothing();
    }
    let login = &comment.user.login;
    let mentions = SIG.captures_iter(&comment.body);
    let channels = mentions.map(|mention| format!("sig-{}", &mention[1]));
    let wanted = channels.filter(|sig| settings.mention_channels.contains(sig));
    let tell: Vec<_> = wanted
        .map(|sig| {
            let text = format!(
                "{sig} was mentioned by {login} (<@{login}>) on GitHub. ({})\n>>>{}",
                comment.html_url, comment.body
            );
            tell_slack(&sig, text)
        })
        .collect();
    tell.into()
}

#[cfg(test)]
mod tests {
    use trireme_forge::User;
    use trireme_forge::webhook::PushedCommit;

    use super::*;
    use crate::testing::{comment, comment_event, repository};

    fn push() -> PushEvent {
        PushEvent {
            git_ref: "refs/heads/main".into(),
            before: "a".repeat(40),
            after: "b".repeat(40),
            created: false,
            deleted: false,
            forced: false,
            compare_url: "https://github.com/org/repo/compare/a...b".into(),
            commits: vec![PushedCommit::default(); 2],
            head_commit: None,
            pusher: "ann".into(),
            sender: User::new("Ann"),
            repository: repository(),
        }
    }

    fn settings(repos: &[&str], exempt: &[&str]) -> Settings {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Settings {
            mention_channels: vec!["sig-testing".into()],
            merge_warnings: vec![MergeWarning {
                repos: owned(repos),
                channels: owned(&["ops", "dev"]),
                exempt_users: owned(exempt),
                exempt_branches: [("dev".to_owned(), vec!["@ANN".to_owned()])].into(),
            }],
        }
    }

    /// PLG-SLACKEVENTS-001
    #[test]
    fn plg_slackevents_001_a_push_by_hand_is_told() {
        let told = |settings: &Settings, change: fn(&mut PushEvent)| {
            let mut push = push();
            change(&mut push);
            pushed(settings, &push).to_string()
        };
        let of_org = settings(&["org"], &["bob"]);
        insta::assert_snapshot!(told(&of_org, |_| {}), @r"
        tell ops: *Warning:* Ann (<@Ann>) manually merged 2 commit(s) into main: https://github.com/org/repo/compare/a...b
        tell dev: *Warning:* Ann (<@Ann>) manually merged 2 commit(s) into main: https://github.com/org/repo/compare/a...b
        ");
        let first = |change| {
            let told = told(&of_org, change);
            told.lines()
                .next()
                .unwrap()
                .replace("tell ops: *Warning:* Ann (<@Ann>) ", "")
        };
        let url = "https://github.com/org/repo/compare/a...b";
        assert_eq!(
            first(|push| push.created = true),
            format!("pushed a new branch (main): {url}")
        );
        assert_eq!(
            first(|push| push.deleted = true),
            format!("deleted a branch (main): {url}")
        );
        assert_eq!(
            first(|push| push.forced = true),
            format!("*force* merged 2 commit(s) into main: {url}")
        );
        // Who may, may; by branch too.
        assert_eq!(
            first(|push| push.git_ref = "refs/heads/dev".into()),
            "nothing"
        );
        assert_eq!(first(|push| push.pusher = "bob".into()), "nothing");
        assert_eq!(told(&settings(&["org/other"], &[]), |_| {}), "nothing");
        // Of the repository, not of its org, and never both.
        let mut both = settings(&["org"], &[]);
        both.merge_warnings
            .extend(settings(&["org/repo"], &["ann"]).merge_warnings);
        assert_eq!(told(&both, |_| {}), "nothing");
    }

    /// PLG-SLACKEVENTS-002
    #[test]
    fn plg_slackevents_002_mentions_of_sigs_are_echoed() {
        let settings = settings(&[], &[]);
        let body = "@kubernetes/sig-testing-bugs and @kubernetes/sig-node-bugs\nlook";
        insta::assert_snapshot!(mentioned(&settings, &comment("ann", body)), @r"
        tell sig-testing: sig-testing was mentioned by ann (<@ann>) on GitHub. (https://github.com/org/repo/pull/5#issuecomment-9)
        >>>@kubernetes/sig-testing-bugs and @kubernetes/sig-node-bugs
        look
        ");
        let yaml = "slack: {mentionchannels: [sig-testing]}";
        assert!(crate::testing::concerns_under(
            yaml,
            &SlackEvents,
            &comment_event("ann", body)
        ));
        assert!(!crate::testing::concerns(
            &SlackEvents,
            &comment_event("ann", body)
        ));
        let other = comment_event("ann", "@kubernetes/sig-testing");
        assert!(!crate::testing::concerns_under(yaml, &SlackEvents, &other));
    }

    #[test]
    fn help_tells_of_exemptions_as_prow_does() {
        let repo = RepoId::new("org", "repo");
        assert_eq!(
            about(&settings(&["org"], &["bob"]), &repo),
            "In this repo merges are considered manual and trigger manual merge warnings if the user who merged is not a member of this universal exemption list: bob or merged to a branch they are not specifically exempted for: map[string][]string{\"dev\":[]string{\"@ANN\"}}.<br>Warnings are sent to the following Slack channels: ops, dev."
        );
        assert_eq!(
            about(&Settings::default(), &repo),
            "There are no manual merge warnings configured for this repo."
        );
    }
}
