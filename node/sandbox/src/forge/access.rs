//! Who may do what, and how the answer is told to somebody who may not.

use super::{APP_BOT, AccountKind, Forge, Permission, Refusal, RepoName};

impl Forge {
    /// What `login` may do in `repo`: the most of ownership, organization, teams and collaboration.
    ///
    /// # Errors
    /// 404 when the repository does not exist.
    pub fn permission(&self, repo: &RepoName, login: Option<&str>) -> Result<Permission, Refusal> {
        let record = self.repo(repo)?;
        let public = if record.private {
            Permission::None
        } else {
            Permission::Read
        };
        let Some(login) = login.map(str::to_lowercase) else {
            return Ok(public);
        };
        if record.name.owner.eq_ignore_ascii_case(&login) {
            return Ok(Permission::Admin);
        }
        if login == APP_BOT && self.org(&record.name.owner).is_ok() {
            return Ok(Permission::Write);
        }
        let mut most = public;
        if let Ok(org) = self.org(&record.name.owner) {
            match org.members.get(&login) {
                Some(true) => return Ok(Permission::Admin),
                Some(false) => most = most.max(org.base_permission),
                None => {}
            }
            for team in org.teams.values().filter(|t| t.members.contains(&login)) {
                if let Some(permission) = team.repos.get(&record.name.name.to_lowercase()) {
                    most = most.max(*permission);
                }
            }
        }
        if let Some(permission) = record.collaborators.get(&login) {
            most = most.max(*permission);
        }
        Ok(most)
    }

    /// # Errors
    /// 404 when the repository does not exist or may not be seen; 403 when it may be seen but `login` has less than
    /// `least` there.
    pub fn require(
        &self,
        repo: &RepoName,
        login: Option<&str>,
        least: Permission,
    ) -> Result<(), Refusal> {
        let has = self.permission(repo, login)?;
        if has >= least && has > Permission::None {
            Ok(())
        } else if has == Permission::None {
            Err(Refusal::not_found())
        } else {
            Err(Refusal::must_have_rights())
        }
    }

    /// Is `login` a member of the organization?
    pub fn is_member(&self, org: &str, login: &str) -> bool {
        self.org(org)
            .is_ok_and(|org| org.members.contains_key(&login.to_lowercase()))
    }

    /// May `login` be counted as collaborator: a direct one, or a member whose organization gives access.
    ///
    /// # Errors
    /// 404 when the repository does not exist.
    pub fn is_collaborator(&self, repo: &RepoName, login: &str) -> Result<bool, Refusal> {
        let record = self.repo(repo)?;
        let login = login.to_lowercase();
        Ok(record.name.owner.eq_ignore_ascii_case(&login)
            || record
                .collaborators
                .get(&login)
                .is_some_and(|p| *p > Permission::None)
            || self.org(&record.name.owner).is_ok_and(|org| {
                org.members
                    .get(&login)
                    .is_some_and(|owner| *owner || org.base_permission > Permission::None)
                    || org.teams.values().any(|t| {
                        t.members.contains(&login)
                            && t.repos.contains_key(&record.name.name.to_lowercase())
                    })
            }))
    }

    /// `author_association` of `login` in `repo`.
    pub fn association(&self, repo: &RepoName, login: &str) -> &'static str {
        let Ok(record) = self.repo(repo) else {
            return "NONE";
        };
        if record.name.owner.eq_ignore_ascii_case(login) {
            return "OWNER";
        }
        if self.is_member(&record.name.owner, login) {
            return "MEMBER";
        }
        if record.collaborators.contains_key(&login.to_lowercase()) {
            return "COLLABORATOR";
        }
        let contributed = record.issues.values().any(|issue| {
            issue.author.eq_ignore_ascii_case(login)
                && issue.pull.as_ref().is_some_and(|p| p.merged.is_some())
        });
        if contributed { "CONTRIBUTOR" } else { "NONE" }
    }

    /// Is the account an organization?
    pub fn is_org(&self, login: &str) -> bool {
        self.account(login)
            .is_ok_and(|a| a.kind == AccountKind::Organization)
    }
}
