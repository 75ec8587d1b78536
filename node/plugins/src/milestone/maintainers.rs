//! The `repo_milestone` section of `plugins.yaml`: who may set milestones and what stands beside them.

use std::collections::BTreeMap;

use serde::Deserialize;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::webhook::GenericComment;
use trireme_forge::{ForgeError, RepoId, norm_login};

use crate::help::HelpScope;
use crate::plugin::{PlanError, Planning};

const SECTION: &str = "repo_milestone";
/// Who is asked to name further people, unless the section says.
const LEADS: &str = "SIG Chairs/TLs";

/// By `org/repo`; `""` for all others.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
struct RepoMilestone(BTreeMap<String, Team>);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Team {
    /// Deprecated; 0 = unset.
    maintainers_id: i64,
    /// Its slug.
    maintainers_team: String,
    maintainers_friendly_name: String,
}

impl RepoMilestone {
    fn of(&self, repo: &RepoId) -> Option<&Team> {
        self.0.get(&repo.to_string()).or_else(|| self.0.get(""))
    }

    fn check(&self) -> Vec<Problem> {
        let by_id = self.0.iter().filter(|(_, team)| team.maintainers_id != 0);
        let warn = |(repo, _): (&String, &Team)| {
            let path = format!("{repo}.maintainers_id");
            Problem {
                help: "name the team by its slug in maintainers_team".to_owned(),
                ..Problem::advice(
                    path.trim_start_matches('.'),
                    "deprecated field: maintainers_id is configured for repo_milestone, maintainers_team should be used instead",
                )
            }
        };
        by_id.map(warn).collect()
    }
}

pub(super) fn section() -> Section {
    Section::new(SECTION, |section: &mut RepoMilestone| section.check())
}

/// The team of one repository.
pub(crate) struct Maintainers {
    repo: RepoId,
    team: Team,
}

impl Maintainers {
    /// # Errors
    /// The configuration names nobody.
    pub(crate) fn of(cx: &Planning<'_>, repo: &RepoId) -> Result<Self, PlanError> {
        let section: &RepoMilestone = cx.section(SECTION)?;
        let named = section
            .of(repo)
            .filter(|team| team.maintainers_id > 0 || !team.maintainers_team.is_empty());
        let Some(team) = named else {
            return Err(PlanError::Failed(format!(
                "plugins.yaml names no team for milestones of {repo}: set {SECTION}[{:?}].maintainers_team",
                repo.to_string()
            )));
        };
        Ok(Self {
            repo: repo.clone(),
            team: team.clone(),
        })
    }

    /// Whether the author of a text is one of them.
    ///
    /// # Errors
    /// The forge could not tell, or there is no such team: that is for an operator to mend, and none of the author's.
    pub(crate) async fn include(
        &self,
        cx: &Planning<'_>,
        comment: &GenericComment,
    ) -> Result<bool, PlanError> {
        let (org, team) = (&self.repo.org, &self.team);
        let members = match team.maintainers_team.as_str() {
            "" => {
                let id = u64::try_from(team.maintainers_id).unwrap_or_default();
                cx.forge.team_members_by_id(org, id).await
            }
            slug => cx.forge.team_members(org, slug).await,
        };
        let members = self.found(members)?;
        let login = norm_login(&comment.user.login);
        Ok(members.iter().any(|member| norm_login(member) == login))
    }

    fn found(&self, members: Result<Vec<String>, ForgeError>) -> Result<Vec<String>, PlanError> {
        members.map_err(|error| {
            if !error.is_not_found() {
                return error.into();
            }
            let (org, team) = (&self.repo.org, &self.team);
            let (field, team) = match team.maintainers_team.as_str() {
                "" => ("maintainers_id", team.maintainers_id.to_string()),
                slug => ("maintainers_team", slug.to_owned()),
            };
            PlanError::Failed(format!(
                "{org} has no team {team} that we may see: set {SECTION}'s {field} in plugins.yaml to one that is there ({error})"
            ))
        })
    }

    /// What others are told.
    pub(crate) fn only_they_may(&self, what: &str, command: &str) -> String {
        let (org, team) = (&self.repo.org, &self.team.maintainers_team);
        let leads = match self.team.maintainers_friendly_name.as_str() {
            "" => LEADS,
            leads => leads,
        };
        format!(
            "You must be a member of the [{org}/{team}](https://github.com/orgs/{org}/teams/{team}/members) GitHub team to {what}. If you believe you should be able to issue the {command} command, please contact your {leads} and have them propose you as an additional delegate for this responsibility."
        )
    }
}

/// What `about` says of the team of every repository that has its own, and of that of all others.
pub(crate) fn per_repo(
    scope: &HelpScope<'_>,
    about: impl Fn(&str, i64) -> String,
) -> BTreeMap<String, String> {
    let section = scope.plugins.section::<RepoMilestone>(SECTION);
    let section = section.cloned().unwrap_or_default();
    let about = |team: &Team| about(&team.maintainers_team, team.maintainers_id);
    let own = scope.repos.iter().filter_map(|repo| {
        let repo = repo.to_string();
        let told = about(section.0.get(&repo)?);
        Some((repo, told))
    });
    let mut told: BTreeMap<String, String> = own.collect();
    let others = section.0.get("").cloned().unwrap_or_default();
    told.insert(String::new(), about(&others));
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trireme_config::plugins::ProblemKind;

    use super::*;

    #[test]
    fn plg_milestone_001_a_repository_may_have_its_own_team() {
        let section: RepoMilestone = serde_json::from_value(json!({
            "": {"maintainers_team": "all", "maintainers_friendly_name": "leads"},
            "org/repo": {"maintainers_team": "own"},
            "org/old": {"maintainers_id": 7},
        }))
        .unwrap();
        let team = |repo: &str| section.of(&RepoId::new("org", repo)).cloned().unwrap();
        assert_eq!(team("repo").maintainers_team, "own");
        assert_eq!(team("other").maintainers_team, "all");
        assert_eq!(team("old").maintainers_id, 7);
        let told = |repo: &str| {
            let maintainers = Maintainers {
                repo: RepoId::new("org", repo),
                team: team(repo),
            };
            maintainers.only_they_may("set the milestone", "/milestone")
        };
        insta::assert_snapshot!(told("other"), @"You must be a member of the [org/all](https://github.com/orgs/org/teams/all/members) GitHub team to set the milestone. If you believe you should be able to issue the /milestone command, please contact your leads and have them propose you as an additional delegate for this responsibility.");
        assert!(told("repo").contains("please contact your SIG Chairs/TLs and"));
        let missing = |repo: &str| {
            let maintainers = Maintainers {
                repo: RepoId::new("org", repo),
                team: team(repo),
            };
            let gone = ForgeError::NotFound {
                request: "GET it".to_owned(),
                message: "Not Found".to_owned(),
            };
            maintainers.found(Err(gone)).unwrap_err()
        };
        for (repo, expected) in [
            (
                "own",
                "org has no team all that we may see: set repo_milestone's maintainers_team ",
            ),
            (
                "old",
                "org has no team 7 that we may see: set repo_milestone's maintainers_id ",
            ),
        ] {
            let error = missing(repo);
            assert!(matches!(error, PlanError::Failed(_)), "{error:?}");
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        let problems = section.check();
        assert_eq!(problems.len(), 1);
        assert_eq!(
            (problems[0].path.as_str(), problems[0].kind),
            ("org/old.maintainers_id", ProblemKind::Advice)
        );
        assert!(
            RepoMilestone::default()
                .of(&RepoId::new("org", "repo"))
                .is_none()
        );
    }
}
