//! Milestones of a repository, and what is put into them.

use jiff::Timestamp;

use super::{Forge, IssueAction, Milestone, OpenState, Permission, Refusal, RepoName};

impl Forge {
    /// Creates a milestone and gives its number.
    ///
    /// # Errors
    /// 403 without write access, 404, 422 when there is one of that title.
    pub fn create_milestone(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        title: &str,
    ) -> Result<u64, Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        let mut known = self.repo(repo)?.milestones.values();
        if known.any(|milestone| milestone.title == title) {
            return Err(Refusal::validation("Milestone", "title", "already_exists"));
        }
        let id = self.next_id();
        let record = self.repo_mut(repo)?;
        let number = record.milestones.len() as u64 + 1;
        let milestone = Milestone {
            id,
            number,
            title: title.to_owned(),
            state: OpenState::Open,
            creator: actor.to_owned(),
            created_at: now,
        };
        record.milestones.insert(number, milestone);
        Ok(number)
    }

    /// Closes or reopens a milestone.
    ///
    /// # Errors
    /// 403 without write access, 404.
    pub fn set_milestone_state(
        &mut self,
        actor: &str,
        repo: &RepoName,
        number: u64,
        state: OpenState,
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        let milestone = self.repo_mut(repo)?.milestones.get_mut(&number);
        milestone.ok_or_else(Refusal::not_found)?.state = state;
        Ok(())
    }

    /// Puts an issue or pull request into a milestone, or out of any.
    ///
    /// # Errors
    /// 403 without triage access, 404, 422 when there is no such milestone.
    pub fn set_milestone(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        milestone: Option<u64>,
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Triage)?;
        let (record, issue) = self.issue(repo, number)?;
        let find = |number: u64| record.milestones.get(&number).cloned();
        let to = match milestone {
            None => None,
            Some(number) => Some(
                find(number).ok_or_else(|| Refusal::validation("Issue", "milestone", "invalid"))?,
            ),
        };
        let from = issue.milestone.and_then(find);
        if issue.milestone == milestone {
            return Ok(());
        }
        let issue = self.issue_mut(repo, number)?;
        issue.milestone = milestone;
        issue.updated_at = now;
        if let Some(from) = from {
            self.emit_shared(now, actor, repo, number, IssueAction::Demilestoned(from));
        }
        if let Some(to) = to {
            self.emit_shared(now, actor, repo, number, IssueAction::Milestoned(to));
        }
        Ok(())
    }
}
