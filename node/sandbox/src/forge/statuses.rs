//! Commit statuses and check runs.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    AccountKind, CheckRun, Commit, Forge, Happening, Id, Permission, Refusal, RepoName, Status,
    StatusState,
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

/// What a `POST …/check-runs` asks for.
#[derive(Debug, Clone, Default)]
pub struct NewCheckRun {
    pub name: String,
    pub sha: String,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    pub conclusion: Option<String>,
    pub details_url: Option<String>,
    /// Title and summary.
    pub output: Option<(String, String)>,
}

/// What ends a check run.
const CONCLUSIONS: [&str; 8] = [
    "action_required",
    "cancelled",
    "failure",
    "neutral",
    "skipped",
    "stale",
    "success",
    "timed_out",
];

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

    /// Makes a check run, as an app; only bots are apps here.
    ///
    /// # Errors
    /// 404 when the repository does not exist or may not be seen, 403 for people and without write access, 422 for a
    /// conclusion that GitHub does not know.
    pub fn create_check_run(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        new: NewCheckRun,
    ) -> Result<CheckRun, Refusal> {
        self.require(repo, Some(actor), Permission::Read)?;
        if self.account(actor)?.kind != AccountKind::Bot {
            return Err(Refusal::forbidden(
                "You must authenticate via a GitHub App.",
            ));
        }
        if self.permission(repo, Some(actor))? < Permission::Write {
            return Err(Refusal::forbidden("Resource not accessible by integration"));
        }
        let known = |conclusion: &String| CONCLUSIONS.contains(&conclusion.as_str());
        if new.name.is_empty() || !new.conclusion.as_ref().is_none_or(known) {
            return Err(Refusal::invalid(
                "Invalid request.\n\nName or conclusion is not one that a check run has.",
            ));
        }
        let app = actor.strip_suffix("[bot]").unwrap_or(actor).to_owned();
        self.insert_check_run(now, repo, new, Some(app))
    }

    /// Records a check run of some app.
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
        let new = NewCheckRun {
            name: name.to_owned(),
            sha: sha.to_owned(),
            status: status.to_owned(),
            conclusion: conclusion.map(str::to_owned),
            ..NewCheckRun::default()
        };
        Ok(self.insert_check_run(now, repo, new, None)?.id)
    }

    /// The latest of each name and app is kept.
    fn insert_check_run(
        &mut self,
        now: Timestamp,
        repo: &RepoName,
        new: NewCheckRun,
        app: Option<String>,
    ) -> Result<CheckRun, Refusal> {
        let id = self.next_id();
        let runs = &mut self.repo_mut(repo)?.check_runs;
        let runs = runs.entry(new.sha.clone()).or_default();
        runs.retain(|known| known.name != new.name || known.app != app);
        let run = CheckRun {
            id,
            sha: new.sha,
            name: new.name,
            status: new.status,
            completed_at: new.conclusion.as_ref().map(|_| now),
            conclusion: new.conclusion,
            app,
            output: new.output,
            details_url: new.details_url,
            started_at: now,
        };
        runs.push(run.clone());
        Ok(run)
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
