//! `cherry-pick-unapproved`: marks pull requests to release branches that nobody has approved as cherry-picks.

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::GoRegex;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};
use trireme_forge::{BotUser, IssueComment, Label, PullRequest, has_label};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::label_names::{CHERRY_PICK_APPROVED, CHERRY_PICK_NOT_APPROVED};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::{simple_reply, stale};

const SECTION: &str = "cherry_pick_unapproved";
/// The branches that are releases unless configured otherwise.
pub(crate) const RELEASES: &str = "^release-.*$";
const COMMENT: &str = "This PR is not for the master branch but does not have the `cherry-pick-approved`  label. Adding the `do-not-merge/cherry-pick-not-approved`  label.";

pub(crate) struct CherryPickUnapproved;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    branchregexp: String,
    comment: String,
    #[serde(skip)]
    branches: Option<GoRegex>,
}

impl Settings {
    /// HOOK-061
    fn complete(&mut self) -> Vec<Problem> {
        if self.branchregexp.is_empty() {
            RELEASES.clone_into(&mut self.branchregexp);
        }
        if self.comment.is_empty() {
            COMMENT.clone_into(&mut self.comment);
        }
        match GoRegex::new(&self.branchregexp) {
            Ok(branches) => {
                self.branches = Some(branches);
                vec![]
            }
            Err(error) => vec![Problem::error("branchregexp", error.to_string())],
        }
    }

    fn is_release(&self, branch: &str) -> bool {
        self.branches
            .as_ref()
            .is_some_and(|branches| branches.is_match(branch))
    }
}

/// What an event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// One of the two labels.
    Mark,
    /// None of them.
    Unmark,
}

#[async_trait]
impl Plugin for CherryPickUnapproved {
    fn name(&self) -> &'static str {
        "cherry-pick-unapproved"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let settings = cx.section::<Settings>(SECTION);
        matches!(event, Event::PullRequest(event)
            if may_matter(event) && settings.is_none_or(|settings| wanted(event, settings).is_some()))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        let settings: &Settings = cx.section(SECTION)?;
        let Some(wanted) = wanted(event, settings) else {
            return Ok(Decision::nothing());
        };
        let pr = &event.pull_request;
        let labels = cx.forge.labels(&pr.repo, pr.number).await?;
        let comments = match wanted == Wanted::Unmark || has_label(&labels, CHERRY_PICK_APPROVED) {
            true => cx.forge.comments(&pr.repo, pr.number).await?,
            false => Vec::new(),
        };
        Ok(decide(pr, wanted, settings, &labels, &comments, cx.bot))
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let config = settings.map(|settings| {
            let told = format!(
                "The cherry-pick-unapproved plugin treats PRs against branch names satisfying the regular expression `{}` as cherry-pick PRs and adds the following comment:\n{}",
                settings.branchregexp, settings.comment
            );
            [(String::new(), told)].into()
        });
        PluginHelp {
            description: "Label PRs against a release branch which do not have the `cherry-pick-approved` label with the `do-not-merge/cherry-pick-not-approved` label.".to_owned(),
            config,
            snippet: SNIPPET.to_owned(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, Settings::complete))
    }
}

fn may_matter(event: &PullRequestEvent) -> bool {
    match event.action {
        PullRequestAction::Opened | PullRequestAction::Reopened => true,
        PullRequestAction::Labeled | PullRequestAction::Unlabeled => {
            event.label.as_ref().is_some_and(|label| {
                [CHERRY_PICK_APPROVED, CHERRY_PICK_NOT_APPROVED].contains(&label.name.as_str())
            })
        }
        PullRequestAction::Edited => event.changes.base_branch.is_some(),
        _ => false,
    }
}

fn wanted(event: &PullRequestEvent, settings: &Settings) -> Option<Wanted> {
    if !may_matter(event) {
        return None;
    }
    let is_release = settings.is_release(&event.pull_request.base.branch);
    match &event.changes.base_branch {
        Some(former) if event.action == PullRequestAction::Edited => {
            match (settings.is_release(former), is_release) {
                (false, true) => Some(Wanted::Mark),
                (true, false) => Some(Wanted::Unmark),
                _ => None,
            }
        }
        _ => is_release.then_some(Wanted::Mark),
    }
}

fn decide(
    pr: &PullRequest,
    wanted: Wanted,
    settings: &Settings,
    labels: &[Label],
    comments: &[IssueComment],
    bot: &BotUser,
) -> Decision {
    let on = Target::new(&pr.repo, pr.number);
    let approved = has_label(labels, CHERRY_PICK_APPROVED);
    let unapproved = has_label(labels, CHERRY_PICK_NOT_APPROVED);
    let ours = stale(bot, comments, |body| body.contains(&settings.comment));
    let mut effects = Vec::new();
    match wanted {
        Wanted::Mark if !approved && !unapproved => {
            effects.push(on.add_label(CHERRY_PICK_NOT_APPROVED));
            effects.push(on.comment(simple_reply(&settings.comment)));
        }
        Wanted::Mark if !approved => {}
        Wanted::Mark | Wanted::Unmark => {
            if wanted == Wanted::Unmark && approved {
                effects.push(on.remove_label(CHERRY_PICK_APPROVED));
            }
            if unapproved {
                effects.push(on.remove_label(CHERRY_PICK_NOT_APPROVED));
            }
            effects.extend(on.prune(ours));
        }
    }
    effects.into()
}

const SNIPPET: &str = "\
cherry_pick_unapproved:
    # Pull requests to these branches are cherry-picks.
    branchregexp: ^release-*
    # Said when the label is set.
    comment: This is why your cherry-pick cannot be approved.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, bot_comment, labels, plugins_yaml, pull_request_event};

    fn settings() -> Settings {
        let config = plugins_yaml("{}").unwrap();
        config.section::<Settings>(SECTION).unwrap().clone()
    }

    fn event(action: &str, branch: &str, label: &str, former: Option<&str>) -> PullRequestEvent {
        let mut event = pull_request_event(action);
        event.pull_request.base.branch = branch.into();
        event.label = labels(&[label])
            .pop()
            .filter(|label| !label.name.is_empty());
        event.changes.base_branch = former.map(str::to_owned);
        event
    }

    /// PLG-CPUNAPPROVED-001, PLG-CPUNAPPROVED-002
    #[test]
    fn plg_cpunapproved_001_only_release_branches_are_concerned() {
        let settings = settings();
        let (mark, unmark) = (Some(Wanted::Mark), Some(Wanted::Unmark));
        for (action, branch, label, former, expected) in [
            ("opened", "release-1.9", "", None, mark),
            ("reopened", "release-1.9", "", None, mark),
            ("opened", "main", "", None, None),
            ("synchronize", "release-1.9", "", None, None),
            ("labeled", "release-1.9", CHERRY_PICK_APPROVED, None, mark),
            (
                "unlabeled",
                "release-1.9",
                CHERRY_PICK_NOT_APPROVED,
                None,
                mark,
            ),
            ("labeled", "release-1.9", "lgtm", None, None),
            ("labeled", "main", CHERRY_PICK_APPROVED, None, None),
            ("edited", "release-1.9", "", None, None),
            ("edited", "release-1.9", "", Some("main"), mark),
            ("edited", "release-1.9", "", Some("release-1.8"), None),
            ("edited", "main", "", Some("release-1.9"), unmark),
            ("edited", "main", "", Some("other"), None),
        ] {
            let event = event(action, branch, label, former);
            assert_eq!(
                wanted(&event, &settings),
                expected,
                "{action} {branch} {label}"
            );
        }
    }

    fn told(wanted: Wanted, had: &[&str]) -> String {
        let event = event("opened", "release-1.9", "", None);
        let said = [bot_comment(1, &simple_reply(COMMENT)), bot_comment(2, "x")];
        let pr = &event.pull_request;
        decide(pr, wanted, &settings(), &labels(had), &said, &bot()).to_string()
    }

    #[test]
    fn plg_cpunapproved_001_one_of_the_labels_is_there() {
        insta::assert_snapshot!(told(Wanted::Mark, &[]), @r"
        +do-not-merge/cherry-pick-not-approved
        comment: This PR is not for the master branch but does not have the `cherry-pick-approved`  label. Adding the `do-not-merge/cherry-pick-not-approved`  label.

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        assert_eq!(told(Wanted::Mark, &[CHERRY_PICK_NOT_APPROVED]), "nothing");
        assert_eq!(told(Wanted::Mark, &[CHERRY_PICK_APPROVED]), "delete [1]");
        assert_eq!(
            told(
                Wanted::Mark,
                &[CHERRY_PICK_APPROVED, CHERRY_PICK_NOT_APPROVED]
            ),
            "-do-not-merge/cherry-pick-not-approved\ndelete [1]"
        );
        let bad = plugins_yaml("cherry_pick_unapproved: {branchregexp: '('}").unwrap_err();
        assert!(bad.contains("error parsing regexp"), "{bad}");
    }

    #[test]
    fn plg_cpunapproved_002_elsewhere_there_is_none() {
        assert_eq!(
            told(
                Wanted::Unmark,
                &[CHERRY_PICK_APPROVED, CHERRY_PICK_NOT_APPROVED]
            ),
            "-cherry-pick-approved\n-do-not-merge/cherry-pick-not-approved\ndelete [1]"
        );
    }
}
