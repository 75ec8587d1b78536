//! The pure core: what GitHub remembers and the rules by which it changes. No I/O, no clock, no randomness:
//! time and git's answers are arguments, what happened comes out as [`Event`]s.

mod access;
mod actions;
mod event;
mod hooks;
mod issues;
mod milestones;
mod model;
mod moves;
mod pulls;
mod reactions;
mod refusal;
mod reviews;
mod statuses;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

pub use actions::NewWorkflowRun;
pub use event::{CommentAction, Event, Happening, IssueAction, PullAction, Push};
pub use hooks::{
    Answer, Delivery, Hook, HookChange, HookConfig, HookPolicy, HookScope, MAX_DELIVERIES,
};
pub use issues::{IssueChange, MAX_BODY_CHARS, NewIssue};
pub use model::*;
pub use moves::NodeKind;
pub use pulls::{NewHead, NewPull, PullChange};
pub use reactions::REACTIONS;
pub use refusal::Refusal;
pub use reviews::{LineComment, NewReview};
pub use statuses::{NewCheckRun, NewStatus, combined_state};

/// The GitHub App of every sandbox, and the account under which it acts.
pub const APP: &str = "trireme-app";
pub const APP_BOT: &str = "trireme-app[bot]";

/// The whole forge.
#[derive(Debug, Default)]
pub struct Forge {
    accounts: BTreeMap<String, Account>,
    orgs: BTreeMap<String, Org>,
    repos: BTreeMap<(String, String), Repo>,
    hooks: BTreeMap<Id, Hook>,
    last_id: Id,
    events: Vec<Event>,
}

impl Forge {
    /// The next id of any kind.
    pub fn next_id(&mut self) -> Id {
        self.last_id += 1;
        self.last_id
    }

    /// Takes what happened since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn emit(&mut self, at: Timestamp, actor: &str, repo: &RepoName, what: Happening) {
        self.events.push(Event {
            at,
            actor: actor.to_owned(),
            repo: repo.clone(),
            what,
        });
    }

    /// Creates an account, or gives the one that has the login.
    pub fn ensure_account(&mut self, now: Timestamp, login: &str, kind: AccountKind) -> &Account {
        let key = login.to_lowercase();
        if !self.accounts.contains_key(&key) {
            let id = self.next_id();
            self.accounts.insert(
                key.clone(),
                Account {
                    id,
                    login: login.to_owned(),
                    name: None,
                    email: format!("{login}@users.noreply.example"),
                    kind,
                    busy: false,
                    created_at: now,
                },
            );
            if kind == AccountKind::Organization {
                self.orgs.insert(
                    key.clone(),
                    Org {
                        members: BTreeMap::new(),
                        base_permission: Permission::Read,
                        teams: BTreeMap::new(),
                    },
                );
            }
        }
        &self.accounts[&key]
    }

    /// # Errors
    /// 404 when nobody has the login.
    pub fn account(&self, login: &str) -> Result<&Account, Refusal> {
        self.accounts
            .get(&login.to_lowercase())
            .ok_or_else(Refusal::not_found)
    }

    /// # Errors
    /// 404 when there is no such organization.
    pub fn org(&self, login: &str) -> Result<&Org, Refusal> {
        self.orgs
            .get(&login.to_lowercase())
            .ok_or_else(Refusal::not_found)
    }

    /// Adds a member, or changes whether they own the organization.
    ///
    /// # Errors
    /// 404 when the organization or the user does not exist.
    pub fn set_member(&mut self, org: &str, login: &str, owner: bool) -> Result<(), Refusal> {
        self.account(login)?;
        self.org_mut(org)?
            .members
            .insert(login.to_lowercase(), owner);
        Ok(())
    }

    /// # Errors
    /// 404 when the organization does not exist.
    pub fn remove_member(&mut self, org: &str, login: &str) -> Result<(), Refusal> {
        let org = self.org_mut(org)?;
        let login = login.to_lowercase();
        org.members.remove(&login);
        for team in org.teams.values_mut() {
            team.members.remove(&login);
        }
        Ok(())
    }

    /// Creates a team, or replaces its members.
    ///
    /// # Errors
    /// 404 when the organization or a user does not exist.
    pub fn set_team(&mut self, org: &str, name: &str, members: &[&str]) -> Result<(), Refusal> {
        let mut logins = BTreeSet::new();
        for login in members {
            self.account(login)?;
            logins.insert(login.to_lowercase());
        }
        self.org(org)?;
        let id = self.next_id();
        let slug = slug(name);
        let team = self
            .org_mut(org)?
            .teams
            .entry(slug.clone())
            .or_insert_with(|| Team {
                id,
                name: name.to_owned(),
                slug,
                description: String::new(),
                members: BTreeSet::new(),
                repos: BTreeMap::new(),
            });
        team.members = logins;
        Ok(())
    }

    /// Gives a team a permission in a repository of its organization.
    ///
    /// # Errors
    /// 404 when the organization or the team does not exist.
    pub fn set_team_repo(
        &mut self,
        org: &str,
        team: &str,
        repo: &str,
        permission: Permission,
    ) -> Result<(), Refusal> {
        self.org_mut(org)?
            .teams
            .get_mut(&slug(team))
            .ok_or_else(Refusal::not_found)?
            .repos
            .insert(repo.to_lowercase(), permission);
        Ok(())
    }

    /// The team of that number, with its organization's login.
    ///
    /// # Errors
    /// 404.
    pub fn team_by_id(&self, id: Id) -> Result<(&str, &Team), Refusal> {
        let mut teams = self
            .orgs()
            .flat_map(|(org, record)| record.teams.values().map(move |team| (org, team)));
        teams
            .find(|(_, team)| team.id == id)
            .ok_or_else(Refusal::not_found)
    }

    /// Sets whether somebody says of themselves that they have little time.
    ///
    /// # Errors
    /// 404.
    pub fn set_busy(&mut self, login: &str, busy: bool) -> Result<(), Refusal> {
        let account = self.accounts.get_mut(&login.to_lowercase());
        account.ok_or_else(Refusal::not_found)?.busy = busy;
        Ok(())
    }

    pub(crate) fn org_mut(&mut self, org: &str) -> Result<&mut Org, Refusal> {
        self.orgs
            .get_mut(&org.to_lowercase())
            .ok_or_else(Refusal::not_found)
    }

    /// Sets what every member of the organization may do.
    ///
    /// # Errors
    /// 404 when the organization does not exist.
    pub fn set_base_permission(
        &mut self,
        org: &str,
        permission: Permission,
    ) -> Result<(), Refusal> {
        self.org_mut(org)?.base_permission = permission;
        Ok(())
    }

    /// Creates an empty repository with GitHub's default labels.
    ///
    /// # Errors
    /// 404 when the owner does not exist, 422 when the repository does.
    pub fn create_repo(
        &mut self,
        now: Timestamp,
        name: &RepoName,
        default_branch: &str,
        fork_of: Option<RepoName>,
    ) -> Result<&mut Repo, Refusal> {
        let owner = self.account(&name.owner)?.login.clone();
        if self.repos.contains_key(&name.key()) {
            return Err(Refusal::validation_custom(
                "Repository",
                "name already exists on this account",
            ));
        }
        let id = self.next_id();
        let repo = Repo {
            id,
            name: RepoName::new(owner, name.name.clone()),
            description: None,
            private: false,
            archived: false,
            default_branch: default_branch.to_owned(),
            branches: BTreeMap::new(),
            tags: BTreeMap::new(),
            required_contexts: BTreeMap::new(),
            fork_of,
            allowed_methods: vec![MergeMethod::Merge, MergeMethod::Squash, MergeMethod::Rebase],
            collaborators: BTreeMap::new(),
            labels: BTreeMap::new(),
            milestones: BTreeMap::new(),
            issues: BTreeMap::new(),
            moved: BTreeMap::new(),
            pinned: Vec::new(),
            workflow_runs: BTreeMap::new(),
            comments: BTreeMap::new(),
            statuses: BTreeMap::new(),
            check_runs: BTreeMap::new(),
            created_at: now,
            updated_at: now,
            pushed_at: now,
            next_number: 1,
        };
        Ok(self.repos.entry(name.key()).or_insert(repo))
    }

    /// # Errors
    /// 404 when there is no such repository.
    pub fn repo(&self, name: &RepoName) -> Result<&Repo, Refusal> {
        self.repos.get(&name.key()).ok_or_else(Refusal::not_found)
    }

    /// # Errors
    /// 404 when there is no such repository.
    pub fn repo_mut(&mut self, name: &RepoName) -> Result<&mut Repo, Refusal> {
        self.repos
            .get_mut(&name.key())
            .ok_or_else(Refusal::not_found)
    }

    /// Every repository, by owner and name.
    pub fn repos(&self) -> impl Iterator<Item = &Repo> {
        self.repos.values()
    }

    /// Every organization's login, with the organization.
    pub fn orgs(&self) -> impl Iterator<Item = (&str, &Org)> {
        self.orgs.iter().map(|(login, org)| (login.as_str(), org))
    }

    /// Every account.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// # Errors
    /// 404 when the repository or the number does not exist.
    pub fn issue(&self, repo: &RepoName, number: u64) -> Result<(&Repo, &Issue), Refusal> {
        let repo = self.repo(repo)?;
        let issue = repo.issues.get(&number).ok_or_else(Refusal::not_found)?;
        Ok((repo, issue))
    }

    /// # Errors
    /// 404 when the repository does not exist or the number is no pull request's.
    pub fn pull(&self, repo: &RepoName, number: u64) -> Result<(&Repo, &Issue, &Pull), Refusal> {
        let (repo, issue) = self.issue(repo, number)?;
        let pull = issue.pull.as_ref().ok_or_else(Refusal::not_found)?;
        Ok((repo, issue, pull))
    }

    pub(crate) fn issue_mut(
        &mut self,
        repo: &RepoName,
        number: u64,
    ) -> Result<&mut Issue, Refusal> {
        self.repo_mut(repo)?
            .issues
            .get_mut(&number)
            .ok_or_else(Refusal::not_found)
    }

    pub(crate) fn pull_mut(&mut self, repo: &RepoName, number: u64) -> Result<&mut Pull, Refusal> {
        self.issue_mut(repo, number)?
            .pull
            .as_mut()
            .ok_or_else(Refusal::not_found)
    }
}

impl Repo {
    /// The label of that name, whatever its case.
    pub fn label(&self, name: &str) -> Option<&Label> {
        self.labels.get(&name.to_lowercase())
    }
}

/// A team's slug as GitHub derives it from the name.
fn slug(name: &str) -> String {
    name.to_lowercase()
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect()
}
