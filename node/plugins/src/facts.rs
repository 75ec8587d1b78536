//! What decisions rest on besides the event: read from the forge when a decision first asks for it, never before.
//!
//! A decision is a pure function of the event, the configuration and the [`Facts`] known so far. If it needs one more
//! it says which ([`Missing`]); [`gather`] fetches that one and asks again.

use std::collections::BTreeMap;
use std::fmt;

use trireme_config::job::Contexts;
use trireme_forge::owners::RepoOwners;
use trireme_forge::{
    CombinedStatus, Commit, Forge, IssueComment, Label, PullRequest, RecordedChange, Review,
    ReviewComment, SearchRequest, StatusState, Team, WorkflowRun,
};

use crate::changes;
use crate::decision::Target;
use crate::plugin::{PlanError, Planning};

/// Facts that a decision may ask for if it does not say how many: it asks for each once, so more are a mistake in it.
const MAX_FACTS: usize = 64;

/// What is known about one issue or pull request and the people around it.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) pull_request: Option<PullRequest>,
    pub(crate) labels: Option<Vec<Label>>,
    /// All that the repository has.
    pub(crate) repo_labels: Option<Vec<Label>>,
    pub(crate) record: Option<Vec<RecordedChange>>,
    pub(crate) files: Option<Vec<String>>,
    pub(crate) comments: Option<Vec<IssueComment>>,
    pub(crate) reviews: Option<Vec<Review>>,
    pub(crate) review_comments: Option<Vec<ReviewComment>>,
    /// (organisation, login)
    pub(crate) members: BTreeMap<(String, String), bool>,
    pub(crate) collaborators: BTreeMap<String, bool>,
    /// (organisation, team's display name)
    pub(crate) teams: BTreeMap<(String, String), Vec<String>>,
    /// (organisation, team's slug, login)
    pub(crate) team_members: BTreeMap<(String, String, String), bool>,
    pub(crate) commits: BTreeMap<String, Commit>,
    /// By the sha they are on.
    pub(crate) contexts: BTreeMap<String, Contexts>,
    /// By branch.
    pub(crate) branch_heads: BTreeMap<String, String>,
    /// Numbers by (organisation, author).
    pub(crate) merged_pull_requests: BTreeMap<(String, String), u64>,
    /// By (head branch, head).
    pub(crate) workflow_runs: BTreeMap<(String, String), Vec<WorkflowRun>>,
    /// By base branch.
    pub(crate) owners: BTreeMap<String, RepoOwners>,
    /// What the forge does not tell although it is up, and why.
    pub(crate) refused: BTreeMap<Missing, String>,
}

/// The fact without which a decision cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Missing {
    PullRequest,
    Labels,
    RepoLabels,
    Record,
    Files,
    Comments,
    Reviews,
    ReviewComments,
    Member {
        org: String,
        login: String,
    },
    Collaborator(String),
    Team {
        org: String,
        name: String,
    },
    TeamMember {
        org: String,
        slug: String,
        login: String,
    },
    Commit(String),
    Contexts {
        sha: String,
    },
    BranchHead(String),
    MergedPullRequests {
        org: String,
        author: String,
    },
    WorkflowRuns {
        branch: String,
        sha: String,
    },
    Owners {
        branch: String,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

type Known<T> = Result<T, Missing>;

impl Facts {
    /// `None` for what the forge refuses to tell, for a decision that goes on without it as Prow's does; to any other
    /// the refusal is a failure.
    pub(crate) fn unless_refused<T>(&self, known: Known<T>) -> Known<Option<T>> {
        match known {
            Err(missing) if self.refused.contains_key(&missing) => Ok(None),
            known => known.map(Some),
        }
    }

    pub(crate) fn pull_request(&self) -> Known<&PullRequest> {
        self.pull_request.as_ref().ok_or(Missing::PullRequest)
    }

    pub(crate) fn labels(&self) -> Known<&[Label]> {
        self.labels.as_deref().ok_or(Missing::Labels)
    }

    /// All that the repository has.
    pub(crate) fn repo_labels(&self) -> Known<&[Label]> {
        self.repo_labels.as_deref().ok_or(Missing::RepoLabels)
    }

    pub(crate) fn record(&self) -> Known<&[RecordedChange]> {
        self.record.as_deref().ok_or(Missing::Record)
    }

    /// Paths of the changed files.
    pub(crate) fn files(&self) -> Known<&[String]> {
        self.files.as_deref().ok_or(Missing::Files)
    }

    /// Oldest first.
    pub(crate) fn comments(&self) -> Known<&[IssueComment]> {
        self.comments.as_deref().ok_or(Missing::Comments)
    }

    pub(crate) fn reviews(&self) -> Known<&[Review]> {
        self.reviews.as_deref().ok_or(Missing::Reviews)
    }

    pub(crate) fn review_comments(&self) -> Known<&[ReviewComment]> {
        self.review_comments
            .as_deref()
            .ok_or(Missing::ReviewComments)
    }

    pub(crate) fn is_member(&self, org: &str, login: &str) -> Known<bool> {
        let key = (org.to_owned(), login.to_owned());
        self.members.get(&key).copied().ok_or(Missing::Member {
            org: key.0,
            login: key.1,
        })
    }

    pub(crate) fn is_collaborator(&self, login: &str) -> Known<bool> {
        self.collaborators
            .get(login)
            .copied()
            .ok_or_else(|| Missing::Collaborator(login.to_owned()))
    }

    /// Logins of the team of that display name; empty if there is no such team.
    pub(crate) fn team(&self, org: &str, name: &str) -> Known<&[String]> {
        let key = (org.to_owned(), name.to_owned());
        self.teams
            .get(&key)
            .map(Vec::as_slice)
            .ok_or(Missing::Team {
                org: key.0,
                name: key.1,
            })
    }

    /// `false` if there is no such team.
    pub(crate) fn is_team_member(&self, org: &str, slug: &str, login: &str) -> Known<bool> {
        let key = (org.to_owned(), slug.to_owned(), login.to_owned());
        let known = self.team_members.get(&key).copied();
        known.ok_or(Missing::TeamMember {
            org: key.0,
            slug: key.1,
            login: key.2,
        })
    }

    pub(crate) fn commit(&self, sha: &str) -> Known<&Commit> {
        self.commits
            .get(sha)
            .ok_or_else(|| Missing::Commit(sha.to_owned()))
    }

    /// Status contexts of a commit.
    pub(crate) fn contexts(&self, sha: &str) -> Known<&Contexts> {
        let missing = || Missing::Contexts {
            sha: sha.to_owned(),
        };
        self.contexts.get(sha).ok_or_else(missing)
    }

    pub(crate) fn branch_head(&self, branch: &str) -> Known<&str> {
        self.branch_heads
            .get(branch)
            .map(String::as_str)
            .ok_or_else(|| Missing::BranchHead(branch.to_owned()))
    }

    pub(crate) fn merged_pull_requests(&self, org: &str, author: &str) -> Known<u64> {
        let key = (org.to_owned(), author.to_owned());
        let found = self.merged_pull_requests.get(&key).copied();
        found.ok_or(Missing::MergedPullRequests {
            org: key.0,
            author: key.1,
        })
    }

    /// Of GitHub's own, for a head.
    pub(crate) fn workflow_runs(&self, branch: &str, sha: &str) -> Known<&[WorkflowRun]> {
        let key = (branch.to_owned(), sha.to_owned());
        let found = self.workflow_runs.get(&key).map(Vec::as_slice);
        found.ok_or(Missing::WorkflowRuns {
            branch: key.0,
            sha: key.1,
        })
    }

    pub(crate) fn owners(&self, branch: &str) -> Known<&RepoOwners> {
        self.owners.get(branch).ok_or_else(|| Missing::Owners {
            branch: branch.to_owned(),
        })
    }
}

/// Decides about `target`, fetching what `decide` asks for.
///
/// # Errors
/// The forge could not tell, or `decide` asks without end.
pub(crate) async fn gather<T>(
    cx: &Planning<'_>,
    target: &Target,
    facts: Facts,
    decide: impl Fn(&Facts) -> Known<T> + Send + Sync,
) -> Result<T, PlanError> {
    gather_up_to(MAX_FACTS, cx, target, facts, decide).await
}

/// The same for a decision about many people or teams, which may ask for `most` facts.
pub(crate) async fn gather_up_to<T>(
    most: usize,
    cx: &Planning<'_>,
    target: &Target,
    mut facts: Facts,
    decide: impl Fn(&Facts) -> Known<T> + Send + Sync,
) -> Result<T, PlanError> {
    for _ in 0..most {
        let missing = match decide(&facts) {
            Ok(decision) => return Ok(decision),
            Err(missing) => missing,
        };
        if let Some(why) = facts.refused.remove(&missing) {
            return Err(PlanError::Failed(why));
        }
        match fetch(cx, target, &mut facts, missing.clone()).await {
            Err(PlanError::Failed(why)) => {
                let (repo, number) = (&target.repo, target.number);
                tracing::warn!(%repo, number, %missing, why, "not told what a decision asks for");
                facts.refused.insert(missing, why);
            }
            fetched => fetched?,
        }
    }
    decide(&facts).map_err(|missing| {
        PlanError::Failed(facts.refused.remove(&missing).unwrap_or_else(|| {
            format!(
                "no decision after {most} facts about {}#{}: it asks for {missing} besides",
                target.repo, target.number
            )
        }))
    })
}

pub(crate) async fn fetch(
    cx: &Planning<'_>,
    target: &Target,
    facts: &mut Facts,
    missing: Missing,
) -> Result<(), PlanError> {
    let (forge, repo, number) = (cx.forge, &target.repo, target.number);
    match missing {
        Missing::PullRequest => {
            facts.pull_request = Some(forge.pull_request(repo, number).await?);
        }
        Missing::Labels => facts.labels = Some(forge.labels(repo, number).await?),
        Missing::RepoLabels => facts.repo_labels = Some(forge.repo_labels(repo).await?),
        Missing::Record => {
            facts.record = Some(match forge.record(repo, number).await {
                // As in Prow: who cannot be told to be a person is none.
                Err(error) if !error.is_outage() => {
                    tracing::warn!(%error, %repo, number, "cannot see who set labels");
                    Vec::new()
                }
                events => events?,
            });
        }
        Missing::Files => {
            let mut files = forge.changed_files(repo, number).await?;
            if changes::may_be_cut(&files) {
                let pr = match facts.pull_request.take() {
                    Some(pr) => pr,
                    None => forge.pull_request(repo, number).await?,
                };
                files = changes::files_from_git(cx, &pr).await?;
                facts.pull_request = Some(pr);
            }
            facts.files = Some(files.into_iter().map(|file| file.path).collect());
        }
        Missing::Comments => facts.comments = Some(forge.comments(repo, number).await?),
        Missing::Reviews => facts.reviews = Some(forge.reviews(repo, number).await?),
        Missing::ReviewComments => {
            facts.review_comments = Some(forge.review_comments(repo, number).await?);
        }
        Missing::Member { org, login } => {
            let member = forge.is_org_member(&org, &login).await?;
            facts.members.insert((org, login), member);
        }
        Missing::Collaborator(login) => {
            let collaborator = forge.is_collaborator(repo, &login).await?;
            facts.collaborators.insert(login, collaborator);
        }
        Missing::Team { org, name } => {
            let members = members_of(forge, &org, &name).await?;
            facts.teams.insert((org, name), members);
        }
        Missing::TeamMember { org, slug, login } => {
            let member = forge.is_team_member(&org, &slug, &login).await?;
            facts.team_members.insert((org, slug, login), member);
        }
        Missing::Commit(sha) => {
            let commit = forge.commit(repo, &sha).await?;
            facts.commits.insert(sha, commit);
        }
        Missing::Contexts { sha } => {
            let combined = forge.combined_status(repo, &sha).await?;
            facts.contexts.insert(sha, contexts(&combined));
        }
        Missing::BranchHead(branch) => {
            let head = forge.branch_head(repo, &branch).await?;
            facts.branch_heads.insert(branch, head);
        }
        Missing::MergedPullRequests { org, author } => {
            let request = SearchRequest {
                query: format!("type:pr is:merged org:{org} author:{author}"),
                org: Some(org.clone()),
                page_size: 1,
                after: None,
            };
            // Only decides how a welcome is worded: not worth waiting for.
            let merged = match forge.search_pull_requests(&request).await {
                Ok(page) => page.total,
                Err(error) => {
                    tracing::info!(%error, %org, %author, "cannot count merged pull requests");
                    0
                }
            };
            facts.merged_pull_requests.insert((org, author), merged);
        }
        Missing::WorkflowRuns { branch, sha } => {
            let runs = match forge.workflow_runs(repo, &branch, &sha).await {
                // As in Prow: jobs do not wait for what only comes along with them.
                Err(error) if !error.is_outage() => {
                    tracing::warn!(%error, %repo, "cannot see the workflows of a head");
                    Vec::new()
                }
                runs => runs?,
            };
            facts.workflow_runs.insert((branch, sha), runs);
        }
        Missing::Owners { branch } => {
            let owners = cx.owners(repo, &branch).await?;
            facts.owners.insert(branch, owners);
        }
    }
    Ok(())
}

/// Whoever is in the team of exactly that display name.
async fn members_of(forge: &dyn Forge, org: &str, name: &str) -> Result<Vec<String>, PlanError> {
    match team_called(forge, org, name).await? {
        Some(team) => Ok(forge.team_members(org, &team.slug).await?),
        None => {
            tracing::warn!(%org, %name, "a configured team does not exist");
            Ok(Vec::new())
        }
    }
}

/// All teams are listed, and there may be hundreds, only where the one of the slug that GitHub would give a team of this
/// name is another: a team was renamed, or two names read alike.
async fn team_called(forge: &dyn Forge, org: &str, name: &str) -> Result<Option<Team>, PlanError> {
    let slug = usual_slug(name);
    if !slug.is_empty() {
        match forge.team(org, &slug).await {
            Ok(team) if team.name == name => return Ok(Some(team)),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut teams = forge.teams(org).await?.into_iter();
    Ok(teams.find(|team| team.name == name))
}

/// The slug that GitHub gives a new team of that display name.
fn usual_slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.to_lowercase().chars() {
        if letter.is_alphanumeric() || letter == '_' {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

pub(crate) fn contexts(combined: &CombinedStatus) -> Contexts {
    let failed = |state| matches!(state, StatusState::Failure | StatusState::Error);
    let names = |failed_only: bool| {
        combined
            .statuses
            .iter()
            .filter(|status| !failed_only || failed(status.state))
            .map(|status| status.context.clone())
            .collect()
    };
    Contexts {
        failed: names(true),
        all: names(false),
    }
}
