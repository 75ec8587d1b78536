//! Pull requests: opening, moving heads, drafts, review requests, merging. Git's part (do the branches exist, do they
//! merge, what is the merge commit) was asked by the caller.

use jiff::Timestamp;
use serde_json::json;

use super::issues::{check_text, has};
use super::{
    Forge, Happening, HeadFacts, IssueChange, IssueEventKind, MergeMethod, Mergeability, Merged,
    OpenState, Permission, Pull, PullAction, Push, Refusal, Repo, RepoName, StatusState,
};

/// What opening a pull request takes.
#[derive(Debug, Clone)]
pub struct NewPull {
    /// From [`Forge::reserve_number`].
    pub number: u64,
    pub title: String,
    pub body: Option<String>,
    pub draft: bool,
    pub maintainer_can_modify: bool,
    pub base_branch: String,
    pub base_sha: String,
    pub head_repo: RepoName,
    pub head_branch: String,
    pub head_sha: String,
    pub head: HeadFacts,
}

/// Where a head moved to.
#[derive(Debug, Clone)]
pub struct NewHead {
    pub sha: String,
    /// Tip of the base branch at that time.
    pub base_sha: String,
    pub facts: HeadFacts,
}

/// What a `PATCH` on a pull request asks for; absent fields stay.
#[derive(Debug, Clone, Default)]
pub struct PullChange {
    pub title: Option<String>,
    pub body: Option<String>,
    pub state: Option<OpenState>,
    pub base: Option<String>,
}

impl Forge {
    /// Is there an open pull request from that head into that base? GitHub allows one.
    pub fn open_pull_from(
        &self,
        repo: &RepoName,
        base: &str,
        head_repo: &RepoName,
        head_branch: &str,
    ) -> Option<u64> {
        let record = self.repo(repo).ok()?;
        record.issues.values().find_map(|issue| {
            let pull = issue.pull.as_ref()?;
            (issue.state == OpenState::Open
                && pull.base_branch == base
                && pull.head_repo.key() == head_repo.key()
                && pull.head_branch == head_branch)
                .then_some(issue.number)
        })
    }

    /// Opens a pull request and gives its number.
    ///
    /// # Errors
    /// 404 for who may not see the repository; 422 for a blank title, a second one between the same branches, or one
    /// without commits.
    pub fn open_pull(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        new: NewPull,
    ) -> Result<u64, Refusal> {
        self.require(repo, Some(actor), Permission::Read)?;
        check_text("PullRequest", Some(&new.title), new.body.as_deref())?;
        if self
            .open_pull_from(repo, &new.base_branch, &new.head_repo, &new.head_branch)
            .is_some()
        {
            return Err(Refusal::validation_custom(
                "PullRequest",
                &format!(
                    "A pull request already exists for {}:{}.",
                    new.head_repo.owner, new.head_branch
                ),
            ));
        }
        if new.head.commits.is_empty() {
            return Err(Refusal::validation_custom(
                "PullRequest",
                &format!(
                    "No commits between {} and {}",
                    new.base_branch, new.head_branch
                ),
            ));
        }
        let head_repo = self.repo(&new.head_repo)?.name.clone();
        let number = new.number;
        self.insert_issue(now, actor, repo, number, &new.title, new.body)?;
        let id = self.next_id();
        self.issue_mut(repo, number)?.pull = Some(Pull {
            id,
            draft: new.draft,
            base_branch: new.base_branch,
            base_sha: new.base_sha,
            head_repo,
            head_branch: new.head_branch,
            head_sha: new.head_sha,
            head: new.head,
            mergeability: None,
            unknown_reads: 0,
            merged: None,
            requested_reviewers: Vec::new(),
            requested_teams: Vec::new(),
            reviews: Vec::new(),
            review_comments: Vec::new(),
            maintainer_can_modify: new.maintainer_can_modify,
        });
        self.emit_pull(now, actor, repo, number, PullAction::Opened);
        Ok(number)
    }

    fn emit_pull(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        action: PullAction,
    ) {
        self.emit(now, actor, repo, Happening::PullRequest { number, action });
    }

    /// Records that a branch or tag moved and tells it by a push event.
    ///
    /// # Errors
    /// 404 when the repository does not exist.
    pub fn branch_moved(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        push: Push,
        tip: Option<String>,
    ) -> Result<(), Refusal> {
        let record = self.repo_mut(repo)?;
        let refs = if push.is_tag {
            &mut record.tags
        } else {
            &mut record.branches
        };
        match tip {
            Some(tip) => refs.insert(push.branch.clone(), tip),
            None => refs.remove(&push.branch),
        };
        record.pushed_at = now;
        record.updated_at = now;
        self.emit(now, actor, repo, Happening::Push(Box::new(push)));
        Ok(())
    }

    /// Open pull requests whose head is that branch, in any repository: (repository, number, base branch).
    pub fn pulls_from(&self, head_repo: &RepoName, branch: &str) -> Vec<(RepoName, u64, String)> {
        let mut found = Vec::new();
        for record in self.repos() {
            for issue in record.issues.values() {
                if let Some(pull) = &issue.pull
                    && issue.state == OpenState::Open
                    && pull.head_branch == branch
                    && pull.head_repo.key() == head_repo.key()
                {
                    found.push((record.name.clone(), issue.number, pull.base_branch.clone()));
                }
            }
        }
        found
    }

    /// Open pull requests into that branch: (number, head).
    pub fn pulls_into(&self, repo: &RepoName, branch: &str) -> Vec<(u64, String)> {
        let Ok(record) = self.repo(repo) else {
            return Vec::new();
        };
        let open = record
            .issues
            .values()
            .filter(|i| i.state == OpenState::Open);
        open.filter_map(|issue| {
            let pull = issue.pull.as_ref()?;
            (pull.base_branch == branch).then(|| (issue.number, pull.head_sha.clone()))
        })
        .collect()
    }

    /// The head branch moved under an open pull request.
    ///
    /// # Errors
    /// 404.
    pub fn synchronize(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        to: NewHead,
    ) -> Result<(), Refusal> {
        let pull = self.pull_mut(repo, number)?;
        let after = to.sha.clone();
        let before = std::mem::replace(&mut pull.head_sha, to.sha);
        pull.base_sha = to.base_sha;
        pull.head = to.facts;
        pull.mergeability = None;
        self.issue_mut(repo, number)?.updated_at = now;
        let action = PullAction::Synchronize { before, after };
        self.emit_pull(now, actor, repo, number, action);
        Ok(())
    }

    /// Lets the next reads over REST find mergeability not computed yet.
    ///
    /// # Errors
    /// 404.
    pub fn forget_mergeability(
        &mut self,
        repo: &RepoName,
        number: u64,
        reads: u32,
    ) -> Result<(), Refusal> {
        let pull = self.pull_mut(repo, number)?;
        pull.unknown_reads = reads;
        pull.mergeability = None;
        Ok(())
    }

    /// Counts a read; whether it is one that finds nothing computed.
    pub(crate) fn reads_unknown(&mut self, repo: &RepoName, number: u64) -> Result<bool, Refusal> {
        let pull = self.pull_mut(repo, number)?;
        let unknown = pull.unknown_reads > 0;
        pull.unknown_reads = pull.unknown_reads.saturating_sub(1);
        Ok(unknown)
    }

    /// Keeps the answer of a trial merge. No event: GitHub tells none either.
    ///
    /// # Errors
    /// 404.
    pub fn set_mergeability(
        &mut self,
        repo: &RepoName,
        number: u64,
        mergeability: Mergeability,
    ) -> Result<(), Refusal> {
        self.pull_mut(repo, number)?.mergeability = Some(mergeability);
        Ok(())
    }

    /// Changes title, body, state or base branch.
    ///
    /// # Errors
    /// 403 for who is neither author nor triager, 404, 422 for a base that does not exist or reopening what is merged.
    pub fn edit_pull(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        change: PullChange,
        new_base: Option<(String, HeadFacts)>,
    ) -> Result<(), Refusal> {
        self.pull(repo, number)?;
        let title_body_state = IssueChange {
            title: change.title,
            body: change.body,
            state: change.state,
            ..IssueChange::default()
        };
        self.edit_issue(now, actor, repo, number, title_body_state)?;
        if let (Some(base), Some((base_sha, head))) = (change.base, new_base) {
            let pull = self.pull_mut(repo, number)?;
            if pull.base_branch != base {
                let from_ref = std::mem::replace(&mut pull.base_branch, base);
                let from_sha = std::mem::replace(&mut pull.base_sha, base_sha);
                pull.head = head;
                pull.mergeability = None;
                self.issue_mut(repo, number)?.updated_at = now;
                let changes =
                    json!({"base": {"ref": {"from": from_ref}, "sha": {"from": from_sha}}});
                self.emit_pull(now, actor, repo, number, PullAction::Edited { changes });
            }
        }
        Ok(())
    }

    /// Turns a pull request into a draft or back.
    ///
    /// # Errors
    /// 403, 404.
    pub fn set_draft(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        draft: bool,
    ) -> Result<(), Refusal> {
        let (_, issue, pull) = self.pull(repo, number)?;
        if !issue.author.eq_ignore_ascii_case(actor) {
            self.require(repo, Some(actor), Permission::Write)?;
        }
        if pull.draft != draft {
            self.pull_mut(repo, number)?.draft = draft;
            self.issue_mut(repo, number)?.updated_at = now;
            let action = if draft {
                PullAction::ConvertedToDraft
            } else {
                PullAction::ReadyForReview
            };
            self.emit_pull(now, actor, repo, number, action);
        }
        Ok(())
    }

    /// Asks people and teams (by slug) for reviews.
    ///
    /// # Errors
    /// 403, 404, 422 when one of them is the author, no collaborator, or a team without access.
    pub fn request_reviewers(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        logins: &[String],
        teams: &[String],
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Triage)?;
        let (record, issue, _) = self.pull(repo, number)?;
        let author = issue.author.clone();
        let name = record.name.clone();
        let no_collaborator = || {
            Refusal::invalid(format!(
                "Reviews may only be requested from collaborators. One or more of the users or teams you specified \
                 is not a collaborator of the {name} repository."
            ))
        };
        for login in logins {
            if author.eq_ignore_ascii_case(login) {
                return Err(Refusal::invalid(
                    "Review cannot be requested from pull request author.",
                ));
            }
            if self.account(login).is_err() || !self.is_collaborator(repo, login)? {
                return Err(no_collaborator());
            }
        }
        for slug in teams {
            let team = self
                .org(&name.owner)
                .ok()
                .and_then(|org| org.teams.get(slug));
            if !team.is_some_and(|team| team.repos.contains_key(&name.name.to_lowercase())) {
                return Err(no_collaborator());
            }
        }
        for login in logins {
            let login = self.account(login)?.login.clone();
            let pull = self.pull_mut(repo, number)?;
            if !has(&pull.requested_reviewers, &login) {
                pull.requested_reviewers.push(login.clone());
                self.issue_mut(repo, number)?.updated_at = now;
                let requested = IssueEventKind::ReviewRequested(login.clone());
                self.remember(now, actor, repo, number, requested);
                self.emit_pull(now, actor, repo, number, PullAction::ReviewRequested(login));
            }
        }
        for slug in teams {
            let pull = self.pull_mut(repo, number)?;
            if !pull.requested_teams.contains(slug) {
                pull.requested_teams.push(slug.clone());
                self.issue_mut(repo, number)?.updated_at = now;
                let action = PullAction::TeamReviewRequested(slug.clone());
                self.emit_pull(now, actor, repo, number, action);
            }
        }
        Ok(())
    }

    /// Takes review requests back.
    ///
    /// # Errors
    /// 403, 404.
    pub fn unrequest_reviewers(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        logins: &[String],
        teams: &[String],
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Triage)?;
        for login in logins {
            let pull = self.pull_mut(repo, number)?;
            let place = pull
                .requested_reviewers
                .iter()
                .position(|r| r.eq_ignore_ascii_case(login));
            if let Some(place) = place {
                let login = pull.requested_reviewers.remove(place);
                self.issue_mut(repo, number)?.updated_at = now;
                let removed = IssueEventKind::ReviewRequestRemoved(login.clone());
                self.remember(now, actor, repo, number, removed);
                let action = PullAction::ReviewRequestRemoved(login);
                self.emit_pull(now, actor, repo, number, action);
            }
        }
        for slug in teams {
            let pull = self.pull_mut(repo, number)?;
            if let Some(place) = pull.requested_teams.iter().position(|team| team == slug) {
                pull.requested_teams.remove(place);
                self.issue_mut(repo, number)?.updated_at = now;
                let action = PullAction::TeamReviewRequestRemoved(slug.clone());
                self.emit_pull(now, actor, repo, number, action);
            }
        }
        Ok(())
    }

    /// May a closed pull request be opened again, in GitHub's words?
    pub(super) fn check_reopening(&self, repo: &Repo, pull: &Pull) -> Result<(), Refusal> {
        let refuse = |why: &str| {
            Err(Refusal::validation_custom(
                "PullRequest",
                &format!("state cannot be changed. {why}"),
            ))
        };
        if pull.merged.is_some() {
            return refuse("The pull request cannot be reopened.");
        }
        let Ok(head) = self.repo(&pull.head_repo) else {
            return refuse("The repository that submitted this pull request has been deleted.");
        };
        if !head.branches.contains_key(&pull.head_branch) {
            let branch = &pull.head_branch;
            return refuse(&format!("The {branch} branch has been deleted."));
        }
        let (base, from) = (&pull.base_branch, &pull.head_branch);
        if self
            .open_pull_from(&repo.name, base, &pull.head_repo, from)
            .is_some()
        {
            let (owner, into) = (&pull.head_repo.owner, &repo.name.owner);
            return refuse(&format!(
                "There is already an open pull request from {owner}:{from} to {into}:{base}."
            ));
        }
        Ok(())
    }

    /// May `actor` merge this pull request now by that method, as far as the forge's rules go? Conflicts are git's to say.
    ///
    /// # Errors
    /// 403 without write access, 404, 405 when it is merged, closed, a draft, lacks a required context or the method is
    /// not allowed, 409 when `sha` is not the head.
    pub fn check_merge(
        &self,
        actor: &str,
        repo: &RepoName,
        number: u64,
        sha: Option<&str>,
        method: MergeMethod,
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        let (record, issue, pull) = self.pull(repo, number)?;
        if issue.state == OpenState::Closed || record.archived {
            return Err(Refusal::not_allowed("Pull Request is not mergeable"));
        }
        if pull.draft {
            return Err(Refusal::not_allowed(
                "Pull Request is still a work in progress",
            ));
        }
        if sha.is_some_and(|sha| sha != pull.head_sha) {
            return Err(Refusal::conflict(
                "Head branch was modified. Review and try the merge again.",
            ));
        }
        if !record.allowed_methods.contains(&method) {
            return Err(Refusal::not_allowed(match method {
                MergeMethod::Merge => "Merge commits are not allowed on this repository.",
                MergeMethod::Squash => "Squash merges are not allowed on this repository.",
                MergeMethod::Rebase => "Rebase merges are not allowed on this repository.",
            }));
        }
        let current = self.current_statuses(repo, &pull.head_sha);
        for context in record
            .required_contexts
            .get(&pull.base_branch)
            .into_iter()
            .flatten()
        {
            let state = current.iter().find(|s| s.context == *context);
            if state.is_none_or(|s| s.state != StatusState::Success) {
                let how = match state.map(|s| s.state) {
                    None => "expected",
                    Some(StatusState::Pending) => "pending",
                    Some(_) => "failing",
                };
                return Err(Refusal::not_allowed(format!(
                    "Required status check \"{context}\" is {how}."
                )));
            }
        }
        Ok(())
    }

    /// Records that a pull request was merged by `commit`.
    ///
    /// # Errors
    /// 404; 405 when it is merged already.
    pub fn merged(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        commit: &str,
    ) -> Result<(), Refusal> {
        let by = self.account(actor)?.login.clone();
        let issue = self.issue_mut(repo, number)?;
        let pull = issue.pull.as_mut().ok_or_else(Refusal::not_found)?;
        if pull.merged.is_some() {
            return Err(Refusal::not_allowed("Pull Request is not mergeable"));
        }
        pull.merged = Some(Merged {
            at: now,
            by,
            commit: commit.to_owned(),
        });
        let commit = commit.to_owned();
        self.remember(now, actor, repo, number, IssueEventKind::Merged { commit });
        self.set_state(now, actor, repo, number, OpenState::Closed, None)
    }

    /// Closes a pull request whose head branch is gone.
    ///
    /// # Errors
    /// 404.
    pub fn head_branch_deleted(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
    ) -> Result<(), Refusal> {
        self.set_state(now, actor, repo, number, OpenState::Closed, None)
    }
}
