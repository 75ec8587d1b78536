//! Commit statuses and check runs.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    CheckRun, Commit, Forge, Happening, Id, Permission, Refusal, RepoName, Status, StatusState,
};

/// GitHub's bound on statuses per commit and context.
const MAX_STATUSES_PER_CONTEXT: usize = 1000;
/// GitHub's bound on a description.
const MAX_DESCRIPTION_CHARS: usize = 140;

/// What a `POST …/statuses/{sha}` asks for.
#[derive(Debug, Clone)]
pub struct NewStatus {
    pub state: StatusState,
    /// `default` when GitHub is told none.
    pub context: String,
    pub description: Option<String>,
    pub target_url: Option<String>,
}

impl Forge {
    /// Sets a status on a commit, as git describes it.
    ///
    /// # Errors
    /// 404 without write access, 422 for a description over 140 characters or the 1001st status of a context.
    pub fn set_status(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        commit: Commit,
        new: NewStatus,
    ) -> Result<Status, Refusal> {
        if self.permission(repo, Some(actor))? < Permission::Write {
            return Err(Refusal::not_found());
        }
        if new
            .description
            .as_ref()
            .is_some_and(|d| d.chars().count() > MAX_DESCRIPTION_CHARS)
        {
            return Err(Refusal::validation_custom(
                "Status",
                "description is too long (maximum is 140 characters)",
            ));
        }
        let creator = self.account(actor)?.login.clone();
        let id = self.next_id();
        let record = self.repo_mut(repo)?;
        let statuses = record.statuses.entry(commit.sha.clone()).or_default();
        if statuses.iter().filter(|s| s.context == new.context).count() >= MAX_STATUSES_PER_CONTEXT
        {
            return Err(Refusal::validation_custom(
                "Status",
                "This SHA and context has reached the maximum number of statuses.",
            ));
        }
        let status = Status {
            id,
            sha: commit.sha.clone(),
            context: new.context,
            state: new.state,
            description: new.description,
            target_url: new.target_url,
            creator,
            created_at: now,
            updated_at: now,
        };
        statuses.push(status.clone());
        let what = Happening::Status {
            status: status.clone(),
            commit: Box::new(commit),
        };
        self.emit(now, actor, repo, what);
        Ok(status)
    }

    /// The newest status of every context of a commit, oldest context first.
    pub fn current_statuses(&self, repo: &RepoName, sha: &str) -> Vec<&Status> {
        let Ok(record) = self.repo(repo) else {
            return Vec::new();
        };
        let mut newest: BTreeMap<&str, &Status> = BTreeMap::new();
        for status in record.statuses.get(sha).into_iter().flatten() {
            newest.insert(&status.context, status);
        }
        let mut statuses: Vec<&Status> = newest.into_values().collect();
        statuses.sort_by_key(|s| s.id);
        statuses
    }

    /// Records a check run, as an app would.
    ///
    /// # Errors
    /// 404 when the repository does not exist.
    pub fn set_check_run(
        &mut self,
        now: Timestamp,
        repo: &RepoName,
        sha: &str,
        name: &str,
        status: &str,
        conclusion: Option<&str>,
    ) -> Result<Id, Refusal> {
        let id = self.next_id();
        let runs = self
            .repo_mut(repo)?
            .check_runs
            .entry(sha.to_owned())
            .or_default();
        runs.retain(|r| r.name != name);
        runs.push(CheckRun {
            id,
            sha: sha.to_owned(),
            name: name.to_owned(),
            status: status.to_owned(),
            conclusion: conclusion.map(str::to_owned),
            started_at: now,
            completed_at: conclusion.map(|_| now),
        });
        Ok(id)
    }
}

/// GitHub's combination: any failure or error fails, else anything pending (or nothing at all) is pending.
pub fn combined_state<'a>(statuses: impl IntoIterator<Item = &'a Status>) -> StatusState {
    let mut state = None;
    for status in statuses {
        let one = match status.state {
            StatusState::Error => StatusState::Failure,
            other => other,
        };
        state = state.max(Some(one));
    }
    state.unwrap_or(StatusState::Pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: StatusState) -> Status {
        Status {
            id: 1,
            sha: String::new(),
            context: String::new(),
            state,
            description: None,
            target_url: None,
            creator: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_commit_without_statuses_is_pending_and_the_worst_state_wins() {
        use StatusState::{Error, Failure, Pending, Success};
        for (states, expected) in [
            (vec![], Pending),
            (vec![Success, Success], Success),
            (vec![Success, Pending], Pending),
            (vec![Pending, Failure], Failure),
            (vec![Success, Error], Failure),
        ] {
            let statuses: Vec<Status> = states.into_iter().map(status).collect();
            assert_eq!(combined_state(&statuses), expected);
        }
    }
}
