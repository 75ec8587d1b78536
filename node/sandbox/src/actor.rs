//! What a user does on the forge, whichever door they come through: REST, a form, git, or a test. Access is checked
//! by the core; here git and core are moved in step.

use std::sync::Arc;

use crate::engine::Engine;
use crate::forge::{
    Forge, HeadFacts, Id, IssueChange, MergeMethod, NewHead, NewPull, NewReview, NewStatus,
    OpenState, Permission, PullChange, Push, Refusal, RepoName, ReviewState, Signature, Status,
};
use crate::git::{Edit, Git, GitError, MergeWords, Outcome, ZERO};

/// Name and address under which GitHub itself commits.
const FORGE_NAME: &str = "GitHub";
const FORGE_EMAIL: &str = "noreply@github.com";

/// A signed-in user. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Actor {
    pub(crate) engine: Arc<Engine>,
    pub(crate) login: String,
}

/// One path of a commit made without a clone.
#[derive(Debug, Clone)]
pub struct FileChange {
    edit: Edit,
}

impl FileChange {
    /// Writes a file.
    pub fn write(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self::edit(path.into(), Some(content.into()), false)
    }

    /// Writes an executable file.
    pub fn executable(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self::edit(path.into(), Some(content.into()), true)
    }

    /// Deletes a file.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::edit(path.into(), None, false)
    }

    fn edit(path: String, content: Option<Vec<u8>>, executable: bool) -> Self {
        Self {
            edit: Edit {
                path,
                content,
                executable,
            },
        }
    }
}

/// A commit to make on a branch.
#[derive(Debug, Clone)]
pub struct NewCommit {
    pub branch: String,
    pub message: String,
    pub files: Vec<FileChange>,
    /// Commit to build on. None: the branch's tip, or the default branch's for a new branch. Any other than the
    /// branch's tip makes it a forced push.
    pub parent: Option<String>,
}

/// A pull request to open.
#[derive(Debug, Clone, Default)]
pub struct PullRequestSpec {
    pub title: String,
    pub body: Option<String>,
    /// `branch` of the same repository, or `owner:branch` of a fork.
    pub head: String,
    pub base: String,
    pub draft: bool,
}

/// A merge to make.
#[derive(Debug, Clone)]
pub struct MergeSpec {
    pub sha: Option<String>,
    pub method: MergeMethod,
    pub title: Option<String>,
    pub message: Option<String>,
}

impl Default for MergeSpec {
    fn default() -> Self {
        Self {
            sha: None,
            method: MergeMethod::Merge,
            title: None,
            message: None,
        }
    }
}

impl From<GitError> for Refusal {
    fn from(error: GitError) -> Self {
        tracing::error!(%error, "git failed in the sandbox");
        Self::internal(error.to_string())
    }
}

/// A branch that moved: name, tip before, tip after ([`ZERO`] for none).
pub(crate) type Moved = (String, String, String);

impl Actor {
    /// Who acts.
    pub fn login(&self) -> &str {
        &self.login
    }

    /// The user's token, for REST, GraphQL and git.
    pub fn token(&self) -> String {
        self.engine.token_for(&self.login)
    }

    fn act<R>(
        &self,
        f: impl FnOnce(&mut Forge, jiff::Timestamp, &str) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        self.engine.act(|forge, now| f(forge, now, &self.login))
    }

    pub(crate) fn git(&self, repo: &RepoName) -> Git {
        self.engine.git.repo(&repo.owner, &repo.name)
    }

    fn signature(&self, login: &str) -> Signature {
        let at = self.engine.clock.now();
        self.engine.read(|forge| match forge.account(login) {
            Ok(account) => Signature {
                name: account
                    .name
                    .clone()
                    .unwrap_or_else(|| account.login.clone()),
                email: account.email.clone(),
                at,
            },
            Err(_) => forge_signature(at),
        })
    }

    /// Opens an issue and gives its number.
    ///
    /// # Errors
    /// As [`Forge::open_issue`].
    pub fn open_issue(
        &self,
        repo: &RepoName,
        title: &str,
        body: Option<&str>,
        labels: &[String],
    ) -> Result<u64, Refusal> {
        let body = body.map(str::to_owned);
        self.act(|forge, now, me| forge.open_issue(now, me, repo, title, body, labels))
    }

    /// Comments and gives the comment's id.
    ///
    /// # Errors
    /// As [`Forge::comment`].
    pub fn comment(&self, repo: &RepoName, number: u64, body: &str) -> Result<Id, Refusal> {
        self.act(|forge, now, me| forge.comment(now, me, repo, number, body))
    }

    /// # Errors
    /// As [`Forge::edit_comment`].
    pub fn edit_comment(&self, repo: &RepoName, id: Id, body: &str) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.edit_comment(now, me, repo, id, body))
    }

    /// # Errors
    /// As [`Forge::delete_comment`].
    pub fn delete_comment(&self, repo: &RepoName, id: Id) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.delete_comment(now, me, repo, id))
    }

    /// # Errors
    /// As [`Forge::edit_issue`].
    pub fn edit_issue(
        &self,
        repo: &RepoName,
        number: u64,
        change: IssueChange,
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.edit_issue(now, me, repo, number, change))
    }

    /// # Errors
    /// As [`Forge::add_labels`].
    pub fn add_labels(
        &self,
        repo: &RepoName,
        number: u64,
        names: &[String],
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.add_labels(now, me, repo, number, names))
    }

    /// # Errors
    /// As [`Forge::remove_label`].
    pub fn remove_label(&self, repo: &RepoName, number: u64, name: &str) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.remove_label(now, me, repo, number, name))
    }

    /// # Errors
    /// As [`Forge::set_labels`].
    pub fn set_labels(
        &self,
        repo: &RepoName,
        number: u64,
        names: &[String],
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.set_labels(now, me, repo, number, names))
    }

    /// # Errors
    /// As [`Forge::assign`].
    pub fn assign(&self, repo: &RepoName, number: u64, logins: &[String]) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.assign(now, me, repo, number, logins))
    }

    /// # Errors
    /// As [`Forge::unassign`].
    pub fn unassign(&self, repo: &RepoName, number: u64, logins: &[String]) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.unassign(now, me, repo, number, logins))
    }

    /// # Errors
    /// As [`Forge::request_reviewers`].
    pub fn request_reviewers(
        &self,
        repo: &RepoName,
        number: u64,
        logins: &[String],
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.request_reviewers(now, me, repo, number, logins))
    }

    /// # Errors
    /// As [`Forge::unrequest_reviewers`].
    pub fn unrequest_reviewers(
        &self,
        repo: &RepoName,
        number: u64,
        logins: &[String],
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.unrequest_reviewers(now, me, repo, number, logins))
    }

    /// Submits a review; `comments` are (path, line, text). Gives its id.
    ///
    /// # Errors
    /// As [`Forge::review`].
    pub fn review(
        &self,
        repo: &RepoName,
        number: u64,
        state: ReviewState,
        body: &str,
        comments: &[(String, u64, String)],
    ) -> Result<Id, Refusal> {
        let new = NewReview {
            state,
            body: body.to_owned(),
            comments: comments.to_vec(),
        };
        self.act(|forge, now, me| forge.review(now, me, repo, number, new))
    }

    /// # Errors
    /// As [`Forge::dismiss_review`].
    pub fn dismiss_review(&self, repo: &RepoName, number: u64, review: Id) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.dismiss_review(now, me, repo, number, review))
    }

    /// # Errors
    /// As [`Forge::set_draft`].
    pub fn set_draft(&self, repo: &RepoName, number: u64, draft: bool) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.set_draft(now, me, repo, number, draft))
    }

    /// Sets a commit status.
    ///
    /// # Errors
    /// As [`Forge::set_status`]; 422 when the repository has no such commit.
    pub async fn set_status(
        &self,
        repo: &RepoName,
        sha: &str,
        new: NewStatus,
    ) -> Result<Status, Refusal> {
        self.engine.read(|forge| forge.repo(repo).map(|_| ()))?;
        let git = self.git(repo);
        let known = git.resolve(sha).await?.filter(|found| found == sha);
        let Some(sha) = known else {
            let message = format!("No commit found for SHA: {sha}");
            return Err(Refusal::invalid(message));
        };
        let commit = git.commit(&sha).await?;
        self.act(|forge, now, me| forge.set_status(now, me, repo, commit, new))
    }

    /// Commits files to a branch without a clone, as a push would, and gives the commit's id. Pull requests from the
    /// branch are synchronized.
    ///
    /// # Errors
    /// 404 or 403 without write access, 422 when nothing would change.
    pub async fn push_files(&self, repo: &RepoName, commit: NewCommit) -> Result<String, Refusal> {
        let _turn = self.engine.git_turn.lock().await;
        let (tip, default_tip) = self.engine.read(|forge| {
            forge.require(repo, Some(&self.login), Permission::Write)?;
            let record = forge.repo(repo)?;
            let tip = record.branches.get(&commit.branch).cloned();
            Ok::<_, Refusal>((tip, record.branches.get(&record.default_branch).cloned()))
        })?;
        if !valid_branch(&commit.branch) {
            let message = format!("{:?} is not a valid branch name", commit.branch);
            return Err(Refusal::invalid(message));
        }
        let parent = commit.parent.or_else(|| tip.clone()).or(default_tip);
        let edits: Vec<Edit> = commit.files.into_iter().map(|f| f.edit).collect();
        let sha = self
            .git(repo)
            .commit_on(
                &commit.branch,
                parent.as_deref(),
                &edits,
                &commit.message,
                &self.signature(&self.login),
            )
            .await?;
        let before = tip.unwrap_or_else(|| ZERO.to_owned());
        self.branches_moved(repo, vec![(commit.branch, before, sha.clone())])
            .await?;
        Ok(sha)
    }

    /// Moves a branch to a commit that the repository has, as a (forced) push would.
    ///
    /// # Errors
    /// 404 or 403 without write access, 422 when the commit does not exist.
    pub async fn set_branch(
        &self,
        repo: &RepoName,
        branch: &str,
        sha: &str,
    ) -> Result<(), Refusal> {
        let _turn = self.engine.git_turn.lock().await;
        let before = self.writable_tip(repo, branch)?;
        let git = self.git(repo);
        if !valid_branch(branch) || git.resolve(sha).await?.is_none() {
            return Err(Refusal::invalid("Object does not exist"));
        }
        git.set_ref(&format!("refs/heads/{branch}"), sha, None)
            .await?;
        let before = before.unwrap_or_else(|| ZERO.to_owned());
        self.branches_moved(repo, vec![(branch.to_owned(), before, sha.to_owned())])
            .await
    }

    /// Deletes a branch; open pull requests from it are closed.
    ///
    /// # Errors
    /// 404 or 403 without write access, 422 when there is no such branch.
    pub async fn delete_branch(&self, repo: &RepoName, branch: &str) -> Result<(), Refusal> {
        let _turn = self.engine.git_turn.lock().await;
        let Some(before) = self.writable_tip(repo, branch)? else {
            return Err(Refusal::invalid("Reference does not exist"));
        };
        self.git(repo)
            .delete_ref(&format!("refs/heads/{branch}"))
            .await?;
        self.branches_moved(repo, vec![(branch.to_owned(), before, ZERO.to_owned())])
            .await
    }

    fn writable_tip(&self, repo: &RepoName, branch: &str) -> Result<Option<String>, Refusal> {
        self.engine.read(|forge| {
            forge.require(repo, Some(&self.login), Permission::Write)?;
            Ok(forge.repo(repo)?.branches.get(branch).cloned())
        })
    }

    /// Records that git's branches moved: push events, heads of pull requests, pull requests merged by being pushed.
    /// The caller holds the git turn.
    pub(crate) async fn branches_moved(
        &self,
        repo: &RepoName,
        moved: Vec<Moved>,
    ) -> Result<(), Refusal> {
        for (branch, before, after) in moved {
            let push = self.describe_push(repo, &branch, &before, &after).await?;
            let tip = (after != ZERO).then(|| after.clone());
            self.act(|forge, now, me| forge.branch_moved(now, me, repo, push, tip))?;
            self.heads_moved(repo, &branch, &after).await?;
            if after != ZERO {
                self.settle_contained(repo, &branch, &after).await?;
            }
        }
        Ok(())
    }

    async fn describe_push(
        &self,
        repo: &RepoName,
        branch: &str,
        before: &str,
        after: &str,
    ) -> Result<Push, Refusal> {
        let git = self.git(repo);
        let mut push = Push {
            branch: branch.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
            forced: false,
            commits: Vec::new(),
            head: None,
        };
        if after == ZERO {
            return Ok(push);
        }
        let others = self.engine.read(|forge| {
            let record = forge.repo(repo)?;
            let others = record.branches.iter().filter(|(name, _)| *name != branch);
            Ok::<_, Refusal>(others.map(|(_, tip)| tip.clone()).collect::<Vec<_>>())
        })?;
        push.forced = before != ZERO && !git.is_ancestor(before, after).await?;
        push.commits = git.pushed_commits(before, after, &others).await?;
        push.head = git.pushed_commit(after).await?;
        Ok(push)
    }

    async fn heads_moved(
        &self,
        head_repo: &RepoName,
        branch: &str,
        after: &str,
    ) -> Result<(), Refusal> {
        let pulls = self
            .engine
            .read(|forge| forge.pulls_from(head_repo, branch));
        for (repo, number, base) in pulls {
            if after == ZERO {
                self.act(|forge, now, me| forge.head_branch_deleted(now, me, &repo, number))?;
                continue;
            }
            let base_sha = self.engine.read(|forge| {
                let tip = forge.repo(&repo)?.branches.get(&base).cloned();
                tip.ok_or_else(Refusal::not_found)
            })?;
            let facts = self
                .take_head(&repo, number, head_repo, &base_sha, after)
                .await?;
            let to = NewHead {
                sha: after.to_owned(),
                base_sha,
                facts,
            };
            self.act(|forge, now, me| forge.synchronize(now, me, &repo, number, to))?;
            try_merge(&self.engine, &repo, number).await?;
        }
        Ok(())
    }

    async fn take_head(
        &self,
        repo: &RepoName,
        number: u64,
        head_repo: &RepoName,
        base_sha: &str,
        head_sha: &str,
    ) -> Result<HeadFacts, Refusal> {
        let git = self.git(repo);
        let reference = format!("refs/pull/{number}/head");
        git.fetch(&self.git(head_repo), head_sha, &reference)
            .await?;
        Ok(git.head_facts(base_sha, head_sha).await?)
    }

    /// Pull requests whose head the base branch now contains are merged, however it came there.
    async fn settle_contained(
        &self,
        repo: &RepoName,
        branch: &str,
        tip: &str,
    ) -> Result<(), Refusal> {
        let git = self.git(repo);
        for (number, head) in self.engine.read(|forge| forge.pulls_into(repo, branch)) {
            if git.is_ancestor(&head, tip).await? {
                self.act(|forge, now, me| forge.merged(now, me, repo, number, tip))?;
            }
        }
        Ok(())
    }

    /// Opens a pull request and gives its number; `refs/pull/N/head` and `refs/pull/N/merge` exist by then.
    ///
    /// # Errors
    /// As [`Forge::open_pull`]; 422 when a branch does not exist.
    pub async fn open_pull(&self, repo: &RepoName, spec: PullRequestSpec) -> Result<u64, Refusal> {
        let _turn = self.engine.git_turn.lock().await;
        let new = self.engine.read(|forge| {
            forge.require(repo, Some(&self.login), Permission::Read)?;
            let record = forge.repo(repo)?;
            let (head_repo, head_branch) = match spec.head.split_once(':') {
                None => (record.name.clone(), spec.head.clone()),
                Some((owner, branch)) if owner.eq_ignore_ascii_case(&record.name.owner) => {
                    (record.name.clone(), branch.to_owned())
                }
                Some((owner, branch)) => {
                    let fork = forge.repos().find(|r| {
                        r.name.owner.eq_ignore_ascii_case(owner)
                            && r.fork_of.as_ref().is_some_and(|f| f.key() == repo.key())
                    });
                    let fork =
                        fork.ok_or_else(|| Refusal::validation("PullRequest", "head", "invalid"))?;
                    (fork.name.clone(), branch.to_owned())
                }
            };
            let base_sha = record
                .branches
                .get(&spec.base)
                .cloned()
                .ok_or_else(|| Refusal::validation("PullRequest", "base", "invalid"))?;
            let head_sha = forge
                .repo(&head_repo)?
                .branches
                .get(&head_branch)
                .cloned()
                .ok_or_else(|| Refusal::validation("PullRequest", "head", "invalid"))?;
            Ok::<_, Refusal>(NewPull {
                number: 0,
                title: spec.title,
                body: spec.body,
                draft: spec.draft,
                base_branch: spec.base,
                base_sha,
                head_repo,
                head_branch,
                head_sha,
                head: HeadFacts::default(),
            })
        })?;
        // The refs exist before anybody hears of the pull request.
        let number = self.engine.with_hooks(|forge| forge.reserve_number(repo))?;
        let head = self
            .take_head(repo, number, &new.head_repo, &new.base_sha, &new.head_sha)
            .await?;
        let new = NewPull {
            number,
            head,
            ..new
        };
        self.act(|forge, now, me| forge.open_pull(now, me, repo, new))?;
        try_merge(&self.engine, repo, number).await?;
        Ok(number)
    }

    /// Changes title, body, state or base.
    ///
    /// # Errors
    /// As [`Forge::edit_pull`].
    pub async fn edit_pull(
        &self,
        repo: &RepoName,
        number: u64,
        change: PullChange,
    ) -> Result<(), Refusal> {
        let _turn = self.engine.git_turn.lock().await;
        let new_base = match &change.base {
            None => None,
            Some(base) => {
                let (tip, head) = self.engine.read(|forge| {
                    let (record, _, pull) = forge.pull(repo, number)?;
                    let tip = record.branches.get(base).cloned();
                    let tip =
                        tip.ok_or_else(|| Refusal::validation("PullRequest", "base", "invalid"))?;
                    Ok::<_, Refusal>((tip, pull.head_sha.clone()))
                })?;
                let facts = self.git(repo).head_facts(&tip, &head).await?;
                Some((tip, facts))
            }
        };
        let reopened = change.state == Some(OpenState::Open);
        self.act(|forge, now, me| forge.edit_pull(now, me, repo, number, change, new_base))?;
        if reopened {
            self.catch_up(repo, number).await?;
        }
        Ok(())
    }

    /// A branch may have moved while its pull request was closed.
    async fn catch_up(&self, repo: &RepoName, number: u64) -> Result<(), Refusal> {
        let (head_repo, tip, base_sha) = self.engine.read(|forge| {
            let (record, _, pull) = forge.pull(repo, number)?;
            let head_repo = forge.repo(&pull.head_repo)?;
            let tip = head_repo.branches.get(&pull.head_branch).cloned();
            let tip = tip.filter(|tip| *tip != pull.head_sha);
            let base = record.branches.get(&pull.base_branch).cloned();
            Ok::<_, Refusal>((pull.head_repo.clone(), tip, base))
        })?;
        if let (Some(tip), Some(base_sha)) = (tip, base_sha) {
            let facts = self
                .take_head(repo, number, &head_repo, &base_sha, &tip)
                .await?;
            let to = NewHead {
                sha: tip,
                base_sha,
                facts,
            };
            self.act(|forge, now, me| forge.synchronize(now, me, repo, number, to))?;
        }
        Ok(())
    }

    /// Merges a pull request and gives the commit that the base branch is at then.
    ///
    /// # Errors
    /// As [`Forge::check_merge`]; 405 when git finds conflicts.
    pub async fn merge(
        &self,
        repo: &RepoName,
        number: u64,
        spec: MergeSpec,
    ) -> Result<String, Refusal> {
        let _turn = self.engine.git_turn.lock().await;
        let (branch, base, head, author, title, label) = self.engine.read(|forge| {
            forge.check_merge(&self.login, repo, number, spec.sha.as_deref(), spec.method)?;
            let (record, issue, pull) = forge.pull(repo, number)?;
            let base = record.branches.get(&pull.base_branch).cloned();
            Ok::<_, Refusal>((
                pull.base_branch.clone(),
                base.ok_or_else(Refusal::not_found)?,
                pull.head_sha.clone(),
                issue.author.clone(),
                issue.title.clone(),
                format!("{}/{}", pull.head_repo.owner, pull.head_branch),
            ))
        })?;
        let git = self.git(repo);
        let (default_title, default_message) = match spec.method {
            MergeMethod::Merge => (
                format!("Merge pull request #{number} from {label}"),
                title.clone(),
            ),
            _ => (
                format!("{title} (#{number})"),
                squash_message(&git.commits_between(&base, &head).await?),
            ),
        };
        let title = spec.title.unwrap_or(default_title);
        let message = spec.message.unwrap_or(default_message);
        let message = format!("{title}\n\n{message}").trim_end().to_owned();
        let me = self.signature(&self.login);
        let words = MergeWords {
            message,
            author: match spec.method {
                MergeMethod::Squash => self.signature(&author),
                _ => me.clone(),
            },
            committer: match spec.method {
                MergeMethod::Rebase => me.clone(),
                _ => forge_signature(me.at),
            },
        };
        let Outcome::Tip(tip) = git.merge(spec.method, &base, &head, &words).await? else {
            return Err(Refusal::not_allowed("Pull Request is not mergeable"));
        };
        git.set_ref(&format!("refs/heads/{branch}"), &tip, Some(&base))
            .await?;
        let push = self.describe_push(repo, &branch, &base, &tip).await?;
        self.act(|forge, now, me| {
            forge.branch_moved(now, me, repo, push, Some(tip.clone()))?;
            forge.merged(now, me, repo, number, &tip)
        })?;
        self.heads_moved(repo, &branch, &tip).await?;
        self.settle_contained(repo, &branch, &tip).await?;
        Ok(tip)
    }

    /// Brings a branch of the parent into the fork's objects, as "Sync fork" does, without moving the fork's branches.
    pub(crate) async fn sync_fork(
        &self,
        parent: &RepoName,
        fork: &RepoName,
        branch: &str,
    ) -> Result<(), Refusal> {
        let tip = self.engine.read(|forge| {
            let tip = forge.repo(parent)?.branches.get(branch).cloned();
            tip.ok_or_else(Refusal::not_found)
        })?;
        let reference = format!("refs/sandbox/upstream/{branch}");
        self.git(fork)
            .fetch(&self.git(parent), &tip, &reference)
            .await?;
        Ok(())
    }

    /// Forks a repository into the user's account and gives the fork's name; an existing fork is left as it is.
    ///
    /// # Errors
    /// 404 when there is no such repository.
    pub async fn fork(&self, repo: &RepoName) -> Result<RepoName, Refusal> {
        let _turn = self.engine.git_turn.lock().await;
        let fork = RepoName::new(self.login.clone(), repo.name.clone());
        let (name, default_branch, exists) = self.engine.read(|forge| {
            forge.require(repo, Some(&self.login), Permission::Read)?;
            let record = forge.repo(repo)?;
            let exists = forge.repo(&fork).is_ok();
            Ok::<_, Refusal>((record.name.clone(), record.default_branch.clone(), exists))
        })?;
        if exists {
            return Ok(fork);
        }
        let git = self.git(&fork);
        git.fork_from(&self.git(repo), &default_branch).await?;
        let branches = git.branches().await?;
        self.act(|forge, now, _| {
            let record = forge.create_repo(now, &fork, &default_branch, Some(name))?;
            record.branches = branches.into_iter().collect();
            Ok(())
        })?;
        Ok(fork)
    }
}

/// Tries the merge of an open pull request unless the answer for the current tips is known.
pub(crate) async fn ensure_mergeability(
    engine: &Engine,
    repo: &RepoName,
    number: u64,
) -> Result<(), Refusal> {
    let settled = engine.read(|forge| {
        let (record, issue, pull) = forge.pull(repo, number)?;
        let known = forge.current_mergeability(record, pull).is_some();
        Ok::<_, Refusal>(known || issue.state == OpenState::Closed)
    })?;
    if settled {
        return Ok(());
    }
    let _turn = engine.git_turn.lock().await;
    try_merge(engine, repo, number).await
}

/// As [`ensure_mergeability`], for who holds the git turn.
async fn try_merge(engine: &Engine, repo: &RepoName, number: u64) -> Result<(), Refusal> {
    let wanted = engine.read(|forge| {
        let (record, issue, pull) = forge.pull(repo, number)?;
        let known = forge.current_mergeability(record, pull).is_some();
        if issue.state == OpenState::Closed || known {
            return Ok(None);
        }
        let base = record.branches.get(&pull.base_branch).cloned();
        let commits = pull.head.commits.clone();
        Ok::<_, Refusal>(base.map(|base| (base, pull.head_sha.clone(), commits, issue.updated_at)))
    })?;
    let Some((base, head, commits, at)) = wanted else {
        return Ok(());
    };
    let words = MergeWords {
        message: format!("Merge {head} into {base}"),
        author: forge_signature(at),
        committer: forge_signature(at),
    };
    let git = engine.git.repo(&repo.owner, &repo.name);
    let answer = git
        .mergeability(number, (&base, &head), &commits, &words)
        .await?;
    engine.with_hooks(|forge| forge.set_mergeability(repo, number, answer))
}

fn forge_signature(at: jiff::Timestamp) -> Signature {
    Signature {
        name: FORGE_NAME.into(),
        email: FORGE_EMAIL.into(),
        at,
    }
}

/// What GitHub proposes for a squash: the message of the only commit, or a list of all.
fn squash_message(commits: &[crate::forge::Commit]) -> String {
    match commits {
        [only] => {
            let body = only.message.split_once('\n').map_or("", |(_, body)| body);
            body.trim().to_owned()
        }
        many => {
            let items = many.iter().map(|c| format!("* {}", c.message));
            items.collect::<Vec<_>>().join("\n\n")
        }
    }
}

/// The refnames that matter here: no component that git refuses, nothing that reads as an option.
pub(crate) fn valid_branch(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['-', '/'])
        && !name.ends_with(['/', '.'])
        && !name.ends_with(".lock")
        && !name.contains("..")
        && !name.contains("//")
        && !name.contains("@{")
        && !name
            .chars()
            .any(|c| c.is_control() || " ~^:?*[\\".contains(c))
}
