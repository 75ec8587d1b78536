//! `require-matching-label`: marks issues and pull requests that lack any label of a kind.

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::GoRegex;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::webhook::{Event, GenericAction, PullRequestAction};
use trireme_forge::{BotUser, IssueComment, Label, RepoId, State};
use trireme_prowjob::GoDuration;

use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::{simple_reply, stale};
use crate::text::commands;

commands! {
    CHECK = r"(?mi)^/check-required-labels\s*$";
}

const SECTION: &str = "require_matching_label";
const GRACE_PERIOD: &str = "5s";

pub(crate) struct RequireMatchingLabel;

/// What must be labelled.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Requirement {
    org: String,
    /// Empty = all of the org.
    repo: String,
    /// Of pull requests; empty = any.
    branch: String,
    prs: bool,
    issues: bool,
    regexp: String,
    missing_label: String,
    /// Empty = nothing is said.
    missing_comment: String,
    /// For how long others may still set labels, as Go writes durations.
    grace_period: String,
    #[serde(skip)]
    compiled: Option<GoRegex>,
    #[serde(skip)]
    grace: GoDuration,
}

impl Requirement {
    /// HOOK-058, HOOK-061
    fn complete(&mut self) -> Result<(), (&'static str, String)> {
        if self.grace_period.is_empty() {
            GRACE_PERIOD.clone_into(&mut self.grace_period);
        }
        let wrong = |field, why: &str| Err((field, why.to_owned()));
        if self.org.is_empty() {
            return wrong("org", "must specify 'org'");
        }
        if self.repo.contains('/') {
            let why = "'repo' may not contain '/'; specify the organization with 'org'";
            return wrong("repo", why);
        }
        if self.regexp.is_empty() {
            return wrong("regexp", "must specify 'regexp'");
        }
        if self.missing_label.is_empty() {
            return wrong("missing_label", "must specify 'missing_label'");
        }
        if !self.prs && !self.issues {
            return wrong("", "must specify 'prs: true' and/or 'issues: true'");
        }
        if !self.prs && !self.branch.is_empty() {
            return wrong("branch", "branch cannot be specified without 'prs: true'");
        }
        let compiled = GoRegex::new(&self.regexp).map_err(|why| ("regexp", why.to_string()))?;
        if compiled.is_match(&self.missing_label) {
            return wrong("regexp", "'regexp' must not match 'missing_label'");
        }
        self.compiled = Some(compiled);
        let grace = self.grace_period.parse::<GoDuration>();
        self.grace = grace.map_err(|why| ("grace_period", why.to_string()))?;
        Ok(())
    }

    fn matches(&self, label: &str) -> bool {
        self.compiled
            .as_ref()
            .is_some_and(|regex| regex.is_match(label))
    }

    fn concerns(&self, about: &About<'_>, branch: Option<&str>) -> bool {
        let of_kind = match branch {
            None => self.issues,
            Some(branch) => self.prs && (self.branch.is_empty() || self.branch == branch),
        };
        of_kind
            && self.org == about.repo.org
            && (self.repo.is_empty() || self.repo == about.repo.repo)
            && about.label.is_none_or(|label| self.matches(label))
    }

    /// Whether it concerns what is known by the event alone.
    fn may_concern(&self, about: &About<'_>) -> bool {
        match about.kind {
            Kind::Issue => self.concerns(about, None),
            Kind::PullRequest { branch } => self.concerns(about, Some(branch)),
            Kind::SomePullRequest => self.concerns(about, Some(&self.branch)),
        }
    }

    fn describe(&self) -> String {
        let and = match self.missing_comment.as_str() {
            "" => "to ",
            _ => "and comments on ",
        };
        let issues = match (self.issues, self.prs) {
            (true, true) => "Issues and ",
            (true, false) => "Issues ",
            (false, _) => "",
        };
        let branch = match self.branch.as_str() {
            "" => String::new(),
            branch => format!("'{branch}' branch "),
        };
        let prs = match self.prs {
            true => format!("{branch}PRs "),
            false => String::new(),
        };
        let place = match self.repo.as_str() {
            "" => format!("in the '{}' GitHub org", self.org),
            repo => format!("in the '{}/{repo}' GitHub repo", self.org),
        };
        format!(
            "Applies the '{}' label {and}{issues}{prs}{place} that have no labels matching the regular expression '{}'.",
            self.missing_label, self.regexp
        )
    }
}

/// What an event is about.
struct About<'a> {
    repo: &'a RepoId,
    number: u64,
    kind: Kind<'a>,
    /// That was set or removed.
    label: Option<&'a str>,
    /// As the event tells them after that.
    labels: Option<&'a [Label]>,
}

enum Kind<'a> {
    Issue,
    PullRequest {
        branch: &'a str,
    },
    /// A command on a pull request does not tell the branch.
    SomePullRequest,
}

/// What an event asks to look at (PLG-REQUIRELABEL-001).
fn about(event: &Event) -> Option<About<'_>> {
    match event {
        Event::Issue(event) => {
            let is_label = matches!(event.action.as_str(), "labeled" | "unlabeled");
            (is_label || matches!(event.action.as_str(), "opened" | "reopened")).then(|| About {
                repo: &event.issue.repo,
                number: event.issue.number,
                kind: Kind::Issue,
                label: event.label.as_ref().map(|label| label.name.as_str()),
                labels: is_label.then_some(&event.issue.labels),
            })
        }
        Event::PullRequest(event)
            if matches!(
                event.action,
                PullRequestAction::Opened
                    | PullRequestAction::Reopened
                    | PullRequestAction::Labeled
                    | PullRequestAction::Unlabeled
            ) =>
        {
            Some(About {
                repo: &event.pull_request.repo,
                number: event.pull_request.number,
                kind: Kind::PullRequest {
                    branch: &event.pull_request.base.branch,
                },
                label: event.label.as_ref().map(|label| label.name.as_str()),
                labels: None,
            })
        }
        _ => {
            let comment = event.generic_comment()?;
            let counts = comment.issue_state == State::Open
                && comment.action == GenericAction::Created
                && CHECK.is_match(&comment.body);
            counts.then_some(())?;
            Some(About {
                repo: event.repo()?,
                number: comment.number,
                kind: match comment.is_pr {
                    true => Kind::SomePullRequest,
                    false => Kind::Issue,
                },
                label: None,
                labels: None,
            })
        }
    }
}

#[async_trait]
impl Plugin for RequireMatchingLabel {
    fn name(&self) -> &'static str {
        "require-matching-label"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Issue, EventKind::PullRequest, EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let all = cx.section::<Vec<Requirement>>(SECTION);
        about(event).is_some_and(|about| {
            all.is_none_or(|all| all.iter().any(|one| one.may_concern(&about)))
        })
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(about) = about(event) else {
            return Ok(Decision::nothing());
        };
        let (repo, number) = (about.repo, about.number);
        let branch = match about.kind {
            Kind::Issue => None,
            Kind::PullRequest { branch } => Some(branch.to_owned()),
            Kind::SomePullRequest => {
                let known = cx.state.pull_request(&repo.org, &repo.repo, number);
                Some(match known.map(|pr| pr.base_ref.clone()) {
                    Some(branch) => branch,
                    None => cx.forge.pull_request(repo, number).await?.base.branch,
                })
            }
        };
        let all: &Vec<Requirement> = cx.section(SECTION)?;
        let concerned = all
            .iter()
            .filter(|requirement| requirement.concerns(&about, branch.as_deref()));
        let concerned: Vec<&Requirement> = concerned.collect();
        if concerned.is_empty() {
            return Ok(Decision::nothing());
        }
        if about.label.is_none() {
            let grace = concerned.iter().map(|requirement| requirement.grace).max();
            cx.settled_for(grace.unwrap_or_default().to_std())?;
        }
        let labels = match about.labels {
            Some(labels) => labels.to_vec(),
            None => cx.forge.labels(repo, number).await?,
        };
        let comments = match concerned.iter().any(|one| one.prunes(&labels)) {
            true => cx.forge.comments(repo, number).await?,
            false => Vec::new(),
        };
        let on = Target::new(repo, number);
        Ok(decide(&on, &concerned, &labels, &comments, cx.bot))
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let all = scope.plugins.section::<Vec<Requirement>>(SECTION);
        let told = all.into_iter().flatten().map(Requirement::describe);
        let told = told.collect::<Vec<_>>().join("</li><li>");
        let told =
            format!("The plugin has the following configurations:\n<ul><li>{told}</li></ul>");
        PluginHelp {
            description: "The require-matching-label plugin is a configurable plugin that applies a label to issues and/or PRs that do not have any labels matching a regular expression. An example of this is applying a 'needs-sig' label to all issues that do not have a 'sig/*' label. This plugin can have multiple configurations to provide this kind of behavior for multiple different label sets. The configuration allows issue type, PR branch, and an optional explanation comment to be specified.".to_owned(),
            config: Some([(String::new(), told)].into()),
            snippet: SNIPPET.to_owned(),
            commands: vec![Command {
                usage: "/check-required-labels",
                featured: true,
                description: "Checks for required labels.",
                examples: &["/check-required-labels"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |all: &mut Vec<Requirement>| {
            let wrong = all.iter_mut().enumerate().filter_map(|(at, requirement)| {
                let (field, why) = requirement.complete().err()?;
                let path = match field {
                    "" => at.to_string(),
                    field => format!("{at}.{field}"),
                };
                Some(Problem::error(path, why))
            });
            wrong.collect()
        }))
    }
}

impl Requirement {
    /// Whether it is met, and marked as missing.
    fn standing(&self, labels: &[Label]) -> (bool, bool) {
        let met = labels.iter().any(|label| self.matches(&label.name));
        let marked = labels.iter().any(|label| label.name == self.missing_label);
        (met, marked)
    }

    /// Whether what was said has to be looked for.
    fn prunes(&self, labels: &[Label]) -> bool {
        !self.missing_comment.is_empty() && self.standing(labels) == (true, true)
    }
}

/// PLG-REQUIRELABEL-002
fn decide(
    on: &Target,
    concerned: &[&Requirement],
    labels: &[Label],
    comments: &[IssueComment],
    bot: &BotUser,
) -> Decision {
    let mut effects = Vec::new();
    for requirement in concerned {
        let comment = requirement.missing_comment.as_str();
        match requirement.standing(labels) {
            (true, true) => {
                effects.push(on.remove_label(&requirement.missing_label));
                if !comment.is_empty() {
                    effects.extend(on.prune(stale(bot, comments, |body| body.contains(comment))));
                }
            }
            (false, false) => {
                effects.push(on.add_label(&requirement.missing_label));
                if !comment.is_empty() {
                    effects.push(on.comment(simple_reply(comment)));
                }
            }
            _ => {}
        }
    }
    effects.into()
}

const SNIPPET: &str = "\
require_matching_label:
    - # Labels what has no label that matches, in an org or in one repository of it.
      org: org
      repo: repo
      # Of pull requests alone.
      branch: master
      prs: true
      issues: true
      regexp: ^kind/
      missing_label: needs-kind
      # Said when the label is set, if there is something to say.
      missing_comment: Please add a label referencing the kind.
      # How long others may still set labels on what was just opened.
      grace_period: 5s
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        bot, bot_comment, comment_event, concerns_under, labels, plugins_yaml, pull_request_event,
    };

    const YAML: &str = "require_matching_label:\n- {org: org, repo: repo, branch: main, prs: true, regexp: ^kind/, missing_label: needs-kind, missing_comment: Say the kind.}\n- {org: org, issues: true, regexp: ^sig/, missing_label: needs-sig, grace_period: 1m}\n";

    fn requirements() -> Vec<Requirement> {
        let config = plugins_yaml(YAML).unwrap();
        config.section::<Vec<Requirement>>(SECTION).unwrap().clone()
    }

    #[test]
    fn hook_058_what_cannot_be_required_is_refused() {
        let read = |fields: &str| {
            let yaml = format!("require_matching_label: [{{{fields}}}]");
            plugins_yaml(&yaml).map(|_| ()).unwrap_err()
        };
        let good = "org: o, prs: true, regexp: ^kind/, missing_label: needs-kind";
        assert!(plugins_yaml(&format!("require_matching_label: [{{{good}}}]")).is_ok());
        for (fields, expected) in [
            (
                "prs: true, regexp: a, missing_label: b",
                "must specify 'org'",
            ),
            ("org: o, repo: o/r", "'repo' may not contain '/'"),
            (
                "org: o, prs: true, missing_label: b",
                "must specify 'regexp'",
            ),
            (
                "org: o, prs: true, regexp: a",
                "must specify 'missing_label'",
            ),
            (
                "org: o, regexp: a, missing_label: b",
                "must specify 'prs: true' and/or 'issues: true'",
            ),
            (
                "org: o, issues: true, branch: x, regexp: a, missing_label: b",
                "branch cannot be specified without",
            ),
            (
                "org: o, prs: true, regexp: a, missing_label: bab",
                "'regexp' must not match 'missing_label'",
            ),
            (
                "org: o, prs: true, regexp: a, missing_label: b, grace_period: 5",
                "5",
            ),
            // HOOK-061
            (
                "org: o, prs: true, regexp: '(', missing_label: b",
                "error parsing regexp",
            ),
        ] {
            let told = read(fields);
            assert!(told.contains(expected), "{fields}: {told}");
        }
    }

    #[test]
    fn plg_requirelabel_001_only_what_applies_is_looked_at() {
        let requirements = requirements();
        let concerned = |event: &Event, branch: Option<&str>| {
            let about = about(event).unwrap();
            let concerned = requirements
                .iter()
                .filter(|one| one.concerns(&about, branch));
            concerned
                .map(|one| one.missing_label.clone())
                .collect::<Vec<_>>()
        };
        let pull = |action: &str, label: Option<&str>| {
            let mut event = pull_request_event(action);
            event.label = label.and_then(|label| labels(&[label]).pop());
            Event::PullRequest(Box::new(event))
        };
        assert_eq!(
            concerned(&pull("opened", None), Some("main")),
            ["needs-kind"]
        );
        assert!(concerned(&pull("opened", None), Some("other")).is_empty());
        assert_eq!(
            concerned(&pull("labeled", Some("kind/bug")), Some("main")),
            ["needs-kind"]
        );
        assert!(concerned(&pull("unlabeled", Some("needs-kind")), Some("main")).is_empty());
        assert_eq!(concerned(&pull("opened", None), None), ["needs-sig"]);
        for (action, expected) in [
            ("reopened", true),
            ("unlabeled", true),
            ("synchronize", false),
            ("edited", false),
        ] {
            assert_eq!(
                concerns_under(YAML, &RequireMatchingLabel, &pull(action, None)),
                expected
            );
        }
        let other = pull("labeled", Some("area/x"));
        assert!(
            !concerns_under(YAML, &RequireMatchingLabel, &other),
            "it matches nothing"
        );
        for (body, expected) in [
            ("/check-required-labels", true),
            ("x\n/Check-Required-Labels \r\n", true),
            ("/check-required-labels now", false),
            ("hello", false),
        ] {
            let event = comment_event("a", body);
            assert_eq!(
                concerns_under(YAML, &RequireMatchingLabel, &event),
                expected,
                "{body:?}"
            );
        }
    }

    #[test]
    fn plg_requirelabel_002_what_is_missing_is_marked_and_unmarked() {
        let requirements = requirements();
        let on = Target::new(&RepoId::new("org", "repo"), 5);
        let told = |had: &[&str]| {
            let said = [
                bot_comment(3, "Say the kind. More"),
                bot_comment(4, "other"),
            ];
            let concerned: Vec<&Requirement> = requirements.iter().collect();
            decide(&on, &concerned, &labels(had), &said, &bot()).to_string()
        };
        insta::assert_snapshot!(told(&[]), @r"
        +needs-kind
        comment: Say the kind.

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        +needs-sig
        ");
        assert_eq!(told(&["needs-kind", "needs-sig"]), "nothing");
        assert_eq!(
            told(&["kind/bug", "needs-kind", "sig/x", "needs-sig"]),
            "-needs-kind\ndelete [3]\n-needs-sig"
        );
        assert_eq!(told(&["kind/bug", "sig/x"]), "nothing");
        assert!(requirements[0].prunes(&labels(&["kind/a", "needs-kind"])));
        assert!(!requirements[0].prunes(&labels(&["needs-kind"])));
        assert!(!requirements[1].prunes(&labels(&["sig/a", "needs-sig"])));
    }

    #[test]
    fn plg_requirelabel_002_the_grace_period_is_five_seconds_unless_set() {
        let grace: Vec<_> = requirements()
            .iter()
            .map(|one| one.grace.to_std().as_secs())
            .collect();
        assert_eq!(grace, [5, 60]);
    }

    #[test]
    fn hook_080_help_describes_what_is_required() {
        insta::assert_snapshot!(requirements()[0].describe(), @"Applies the 'needs-kind' label and comments on 'main' branch PRs in the 'org/repo' GitHub repo that have no labels matching the regular expression '^kind/'.");
        insta::assert_snapshot!(requirements()[1].describe(), @"Applies the 'needs-sig' label to Issues in the 'org' GitHub org that have no labels matching the regular expression '^sig/'.");
        assert!(plugins_yaml(SNIPPET).is_ok());
    }
}
