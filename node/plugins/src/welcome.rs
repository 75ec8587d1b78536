//! `welcome`: greets whose first pull request it is.

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::{Problem, Section, narrowest};
use trireme_config::{Template, TemplateError};
use trireme_forge::search::FoundIssues;
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};
use trireme_forge::{RepoId, UserKind};

use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::trigger;

const SECTION: &str = "welcome";
const DEFAULT_MESSAGE: &str =
    "Welcome @{{.AuthorLogin}}! It looks like this is your first PR to {{.Org}}/{{.Repo}} 🎉";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
struct Welcomes(Vec<Settings>);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// `org` or `org/repo`.
    repos: Vec<String>,
    /// Empty = Prow's own.
    message_template: String,
    always_post: bool,
}

impl Settings {
    fn template(&self) -> &str {
        match self.message_template.as_str() {
            "" => DEFAULT_MESSAGE,
            template => template,
        }
    }
}

impl Welcomes {
    /// The first that names the repository, else the first that names its org (HOOK-055).
    fn of(&self, repo: &RepoId) -> Option<&Settings> {
        narrowest(&self.0, |settings| &settings.repos, &repo.org, &repo.repo)
    }

    /// HOOK-057. A template that does not parse, or names what there is not, welcomes nobody, as in Prow.
    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut seen = Vec::new();
        for (n, settings) in self.0.iter().enumerate() {
            for (m, entry) in settings.repos.iter().enumerate() {
                if seen.contains(&entry) {
                    let kind = if entry.contains('/') { "repo" } else { "org" };
                    problems.push(Problem::error(
                        format!("{n}.repos.{m}"),
                        format!("The {kind} {entry:?} is duplicated in the 'welcome' plugin configuration."),
                    ));
                }
                seen.push(entry);
            }
            if let Err(error) = message(settings.template(), &RepoId::new("org", "repo"), "login") {
                problems.push(Problem {
                    help: "nobody is welcomed until it is put right".to_owned(),
                    ..Problem::advice(format!("{n}.message_template"), error.to_string())
                });
            }
        }
        problems
    }
}

pub(crate) struct Welcome;

#[async_trait]
impl Plugin for Welcome {
    fn name(&self) -> &'static str {
        "welcome"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        matches!(event, Event::PullRequest(event) if is_new(event))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        if !is_new(event) {
            return Ok(Decision::nothing());
        }
        let pr = &event.pull_request;
        let section: &Welcomes = cx.section(SECTION)?;
        let settings = section.of(&pr.repo).cloned().unwrap_or_default();
        if !settings.always_post {
            let on = Target::new(&pr.repo, pr.number);
            let login = &pr.author.login;
            let trusted = gather(cx, &on, Facts::default(), |facts| {
                trigger::trusts(cx.running, &pr.repo, login, cx.bot, facts)
            });
            if trusted.await? {
                return Ok(Decision::nothing());
            }
            let query = format!("is:pr repo:{} author:{login}", pr.repo);
            let org = Some(pr.repo.org.as_str());
            // Two tell whether there is another one.
            let found = cx.forge.find_issues(&query, org, 2).await?;
            if !is_first(&found, pr.number) {
                return Ok(Decision::nothing());
            }
        }
        let text = message(settings.template(), &pr.repo, &pr.author.login);
        let text = text.map_err(|error| PlanError::Failed(format!(
            "the template of plugins.yaml for welcoming people to {} is no template, put its message_template right: {error}",
            pr.repo
        )))?;
        Ok(vec![Target::new(&pr.repo, pr.number).comment(text)].into())
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let section = scope.plugins.section::<Welcomes>(SECTION);
        let config = scope.per_repo(|repo| {
            let settings = section.and_then(|section| section.of(repo)).cloned();
            Some(format!(
                "The welcome plugin is configured to post using following welcome template: {}.",
                settings.unwrap_or_default().template()
            ))
        });
        PluginHelp {
            description: "The welcome plugin greets incoming PRs with a welcoming message."
                .to_owned(),
            config,
            snippet: "welcome:\n- message_template: Welcome @{{.AuthorLogin}}!\n  repos:\n  - org/repo1\n  - org/repo2\n".to_owned(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |section: &mut Welcomes| {
            section.check()
        }))
    }
}

/// Opened by a person: what apps open cannot be searched for.
fn is_new(event: &PullRequestEvent) -> bool {
    let is_person = event.pull_request.author.kind == UserKind::User;
    event.action == PullRequestAction::Opened && is_person
}

/// Whether the search found nothing but this one; it may not have found it yet.
fn is_first(found: &FoundIssues, number: u64) -> bool {
    match found.issues.as_slice() {
        [] => true,
        [one] => one.number == number,
        _ => false,
    }
}

fn message(template: &str, repo: &RepoId, login: &str) -> Result<String, TemplateError> {
    let RepoId { org, repo } = repo;
    // Webhooks do not tell people's names.
    Template::parse(template)?.for_newcomer(org, repo, login, "")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;
    use trireme_forge::search::FoundIssue;
    use trireme_forge::{State, User};

    use super::*;
    use crate::testing::{pull_request, pull_request_event};

    fn found(numbers: &[u64]) -> FoundIssues {
        let issue = |number: &u64| FoundIssue {
            repo: RepoId::new("org", "repo"),
            number: *number,
            title: String::new(),
            body: String::new(),
            author: User::new("author"),
            state: State::Open,
            is_pull_request: true,
            labels: vec![],
            html_url: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
        };
        FoundIssues {
            issues: numbers.iter().map(issue).collect(),
            total: numbers.len() as u64,
            incomplete: false,
        }
    }

    #[test]
    fn plg_welcome_001_first_pull_requests_of_people() {
        assert!(is_new(&pull_request_event("opened")));
        assert!(!is_new(&pull_request_event("reopened")));
        let mut app = pull_request_event("opened");
        app.pull_request.author.kind = UserKind::Bot;
        assert!(!is_new(&app));
        for (numbers, expected) in [
            (&[][..], true),
            (&[5], true),
            (&[4], false),
            (&[5, 4], false),
        ] {
            assert_eq!(is_first(&found(numbers), 5), expected, "{numbers:?}");
        }
    }

    #[test]
    fn plg_welcome_001_the_template_knows_whom_it_greets() {
        let pr = pull_request();
        let told = |template: &str| match message(template, &pr.repo, &pr.author.login) {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        };
        insta::assert_snapshot!(told(DEFAULT_MESSAGE), @"Welcome @author! It looks like this is your first PR to org/repo 🎉");
        insta::assert_snapshot!(told("{{if .AuthorName}}{{.AuthorName}}{{else}}@{{.AuthorLogin}}{{end}}<br>"), @"@author<br>");
        insta::assert_snapshot!(told("{{.Number}}"), @"error: can't evaluate field Number in type PRInfo");
        insta::assert_snapshot!(told("{{"), @"error: line 1: unclosed action");
        // Prow's templates are HTML.
        insta::assert_snapshot!(told("<!-- for {{.Org}} -->Hi <b>@{{.AuthorLogin}}</b><!-- --><!---->!"), @"Hi <b>@author</b>!");
        insta::assert_snapshot!(told("Hi <!-- @{{.AuthorLogin}}"), @"error: it ends in a comment: there is a <!-- without its -->");
    }

    #[test]
    fn hook_055_the_narrowest_entry_greets() {
        let section: Welcomes = serde_json::from_value(json!([
            {"repos": ["org"], "message_template": "org"},
            {"repos": ["other", "org/repo"], "message_template": "repo", "always_post": true},
        ]))
        .unwrap();
        let of = |repo: &str| {
            section
                .of(&RepoId::new("org", repo))
                .map(Settings::template)
        };
        assert_eq!((of("repo"), of("else")), (Some("repo"), Some("org")));
        assert!(section.of(&RepoId::new("nobody", "x")).is_none());
        assert_eq!(section.check(), vec![]);
    }

    #[test]
    fn hook_057_nobody_is_greeted_by_two_entries() {
        let section: Welcomes = serde_json::from_value(json!([
            {"repos": ["org", "org/repo"]},
            {"repos": ["org/repo", "org"], "message_template": "{{"},
            {"message_template": "{{.Number}}"},
            {"message_template": "<!-- -->"},
        ]))
        .unwrap();
        let told = section.check().into_iter();
        let told: Vec<String> = told
            .map(|it| format!("{}: {} {:?}", it.path, it.message, it.kind))
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        1.repos.0: The repo "org/repo" is duplicated in the 'welcome' plugin configuration. Error
        1.repos.1: The org "org" is duplicated in the 'welcome' plugin configuration. Error
        1.message_template: line 1: unclosed action Advice
        2.message_template: can't evaluate field Number in type PRInfo Advice
        "#);
    }
}
