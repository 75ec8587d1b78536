//! `cherry-pick-approved`: a review of somebody who may approves a cherry-pick.

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::GoRegex;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::webhook::{Event, ReviewEvent};
use trireme_forge::{CombinedStatus, Label, RepoId, ReviewState, StatusState, has_label};

use crate::cherry_pick_unapproved::RELEASES;
use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::label_names::{
    APPROVED, BLOCKED_PATHS, CHERRY_PICK_APPROVED, CHERRY_PICK_NOT_APPROVED, CLA_NO,
    CONTAINS_MERGE_COMMITS, HOLD, INVALID_BUG, INVALID_OWNERS_FILE, LGTM, NEEDS_OK_TO_TEST,
    NEEDS_REBASE, RELEASE_NOTE_NEEDED, WORK_IN_PROGRESS,
};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};

const SECTION: &str = "cherry_pick_approved";

/// With any of these nothing is approved.
const VETOES: [&str; 10] = [
    BLOCKED_PATHS,
    CLA_NO,
    HOLD,
    INVALID_OWNERS_FILE,
    INVALID_BUG,
    CONTAINS_MERGE_COMMITS,
    NEEDS_OK_TO_TEST,
    NEEDS_REBASE,
    RELEASE_NOTE_NEEDED,
    WORK_IN_PROGRESS,
];

pub(crate) struct CherryPickApproved;

/// Who approves in one repository.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    org: String,
    repo: String,
    branchregexp: String,
    /// Logins, exactly as written.
    approvers: Vec<String>,
    allow_missing_approved_label: bool,
    allow_missing_lgtm_label: bool,
    #[serde(skip)]
    branches: Option<GoRegex>,
}

impl Settings {
    /// HOOK-061
    fn complete(&mut self) -> Result<(), String> {
        if self.branchregexp.is_empty() {
            RELEASES.clone_into(&mut self.branchregexp);
        }
        let branches = GoRegex::new(&self.branchregexp).map_err(|error| error.to_string())?;
        self.branches = Some(branches);
        Ok(())
    }

    /// Whether that review is one of theirs, on a release branch.
    fn accepts(&self, event: &ReviewEvent) -> bool {
        let branch = &event.pull_request.base.branch;
        let on_release = self
            .branches
            .as_ref()
            .is_some_and(|branches| branches.is_match(branch));
        on_release && self.approvers.contains(&event.review.author.login)
    }
}

/// The last entry for exactly that repository.
fn of_repo<'a>(all: &'a [Settings], repo: &RepoId) -> Option<&'a Settings> {
    let mut newest_first = all.iter().rev();
    newest_first.find(|settings| settings.org == repo.org && settings.repo == repo.repo)
}

#[async_trait]
impl Plugin for CherryPickApproved {
    fn name(&self) -> &'static str {
        "cherry-pick-approved"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Review]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let Event::Review(event) = event else {
            return false;
        };
        let all = cx.section::<Vec<Settings>>(SECTION);
        let accepted = |all: &Vec<Settings>| {
            of_repo(all, &event.pull_request.repo).is_some_and(|settings| settings.accepts(event))
        };
        approves(event) && all.is_none_or(accepted)
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::Review(event) = event else {
            return Ok(Decision::nothing());
        };
        let pr = &event.pull_request;
        let all: &Vec<Settings> = cx.section(SECTION)?;
        let settings = of_repo(all, &pr.repo).filter(|settings| settings.accepts(event));
        let Some(settings) = settings.filter(|_| approves(event)) else {
            return Ok(Decision::nothing());
        };
        let statuses = cx.forge.combined_status(&pr.repo, &pr.head.sha).await?;
        if has_failed(&statuses) {
            return Ok(Decision::nothing());
        }
        let labels = cx.forge.labels(&pr.repo, pr.number).await?;
        let on = Target::new(&pr.repo, pr.number);
        Ok(decide(&on, settings, &labels).for_head(&pr.head.sha))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        let config = "The cherry-pick-approved plugin treats PRs against branch names satisfying the `branchregexp` as cherry-pick PRs. There needs to be a defined `approvers` list for the plugin to be able to distinguish cherry-pick approvers from regular maintainers.";
        PluginHelp {
            description: "The cherry-pick-approved plugin helps a defined set of maintainers to approve cherry-picks by using GitHub reviews".to_owned(),
            config: Some([(String::new(), config.to_owned())].into()),
            snippet: SNIPPET.to_owned(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |all: &mut Vec<Settings>| {
            let wrong = all.iter_mut().enumerate().filter_map(|(at, settings)| {
                let why = settings.complete().err()?;
                Some(Problem::error(format!("{at}.branchregexp"), why))
            });
            wrong.collect()
        }))
    }
}

fn approves(event: &ReviewEvent) -> bool {
    event.action == "submitted" && event.review.state == ReviewState::Approved
}

fn has_failed(statuses: &CombinedStatus) -> bool {
    let mut states = statuses.statuses.iter().map(|status| status.state);
    states.any(|state| matches!(state, StatusState::Error | StatusState::Failure))
}

fn decide(on: &Target, settings: &Settings, labels: &[Label]) -> Decision {
    let has = |name: &str| has_label(labels, name);
    let reviewed = (has(LGTM) || settings.allow_missing_lgtm_label)
        && (has(APPROVED) || settings.allow_missing_approved_label);
    // PLG-CPAPPROVED-002
    if !reviewed || VETOES.into_iter().any(has) {
        return Decision::nothing();
    }
    let mut effects = Vec::new();
    if !has(CHERRY_PICK_APPROVED) {
        effects.push(on.add_label(CHERRY_PICK_APPROVED));
    }
    if has(CHERRY_PICK_NOT_APPROVED) {
        effects.push(on.remove_label(CHERRY_PICK_NOT_APPROVED));
    }
    effects.into()
}

const SNIPPET: &str = "\
cherry_pick_approved:
    - org: org
      repo: repo
      # Pull requests to these branches are cherry-picks.
      branchregexp: ^release-*
      # Whose approving review counts.
      approvers:
        - login
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{labels, plugins_yaml, review_event};
    use trireme_forge::CommitStatus;

    const YAML: &str = "cherry_pick_approved:\n- {org: org, repo: repo, approvers: [former]}\n- {org: org, repo: repo, approvers: [Boss]}\n- {org: org, approvers: [other]}\n";

    fn review(login: &str, state: ReviewState, branch: &str) -> ReviewEvent {
        let Event::Review(mut event) = review_event(login, "", state) else {
            unreachable!()
        };
        event.pull_request.base.branch = branch.into();
        *event
    }

    #[test]
    fn plg_cpapproved_001_only_approvers_on_release_branches_count() {
        let config = plugins_yaml(YAML).unwrap();
        let all = config.section::<Vec<Settings>>(SECTION).unwrap();
        let settings = of_repo(all, &RepoId::new("org", "repo")).unwrap();
        for (login, branch, expected) in [
            ("Boss", "release-1", true),
            ("boss", "release-1", false),
            ("former", "release-1", false),
            ("Boss", "main", false),
        ] {
            let event = review(login, ReviewState::Approved, branch);
            assert_eq!(settings.accepts(&event), expected, "{login} {branch}");
        }
        assert!(of_repo(all, &RepoId::new("org", "else")).is_none());
        assert!(approves(&review("a", ReviewState::Approved, "x")));
        assert!(!approves(&review("a", ReviewState::Commented, "x")));
        let mut edited = review("a", ReviewState::Approved, "x");
        edited.action = "edited".into();
        assert!(!approves(&edited));
        let of = |state| CombinedStatus {
            sha: String::new(),
            state,
            statuses: vec![CommitStatus {
                context: "unit".into(),
                state,
                description: String::new(),
                target_url: String::new(),
            }],
        };
        assert!(has_failed(&of(StatusState::Error)) && has_failed(&of(StatusState::Failure)));
        assert!(!has_failed(&of(StatusState::Pending)) && !has_failed(&of(StatusState::Success)));
    }

    fn told(settings: &Settings, had: &[&str]) -> String {
        let on = Target::new(&RepoId::new("org", "repo"), 5);
        decide(&on, settings, &labels(had)).to_string()
    }

    #[test]
    fn plg_cpapproved_001_the_labels_are_swapped() {
        let strict = Settings::default();
        assert_eq!(
            told(&strict, &[LGTM, APPROVED, CHERRY_PICK_NOT_APPROVED]),
            "+cherry-pick-approved\n-do-not-merge/cherry-pick-not-approved"
        );
        assert_eq!(
            told(&strict, &[LGTM, APPROVED, CHERRY_PICK_APPROVED]),
            "nothing"
        );
        assert_eq!(told(&strict, &[LGTM]), "nothing");
        assert_eq!(told(&strict, &[APPROVED]), "nothing");
        let lenient = Settings {
            allow_missing_approved_label: true,
            allow_missing_lgtm_label: true,
            ..Settings::default()
        };
        assert_eq!(told(&lenient, &[]), "+cherry-pick-approved");
    }

    #[test]
    fn plg_cpapproved_002_any_veto_stops_it() {
        for veto in VETOES {
            let told = told(&Settings::default(), &[LGTM, APPROVED, veto]);
            assert_eq!(told, "nothing", "{veto}");
        }
        let bad = plugins_yaml("cherry_pick_approved: [{org: o, branchregexp: '('}]").unwrap_err();
        assert!(bad.contains("error parsing regexp"), "{bad}");
        assert!(plugins_yaml(SNIPPET).is_ok());
    }
}
