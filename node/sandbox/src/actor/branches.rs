//! Pushing: commits without a clone, branches, forks, and what follows when branches move.

use super::Actor;
use super::pulls::try_merge;
use crate::forge::{NewHead, Permission, Push, Refusal, RepoName};
use crate::git::{Edit, ZERO};

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

/// A branch that moved: name, tip before, tip after ([`ZERO`] for none).
pub(crate) type Moved = (String, String, String);

impl Actor {
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

    /// Makes or moves a tag, or deletes it (no `sha`), as a push would.
    ///
    /// # Errors
    /// 404 or 403 without write access, 422 when the commit or the tag does not exist.
    pub async fn push_tag(
        &self,
        repo: &RepoName,
        tag: &str,
        sha: Option<&str>,
    ) -> Result<(), Refusal> {
        let _turn = self.engine.git_turn.lock().await;
        let before = self.engine.read(|forge| {
            forge.require(repo, Some(&self.login), Permission::Write)?;
            Ok::<_, Refusal>(forge.repo(repo)?.tags.get(tag).cloned())
        })?;
        let git = self.git(repo);
        let reference = format!("refs/tags/{tag}");
        let after = match sha {
            Some(sha) => {
                if !valid_branch(tag) || git.resolve(sha).await?.is_none() {
                    return Err(Refusal::invalid("Object does not exist"));
                }
                git.set_ref(&reference, sha, None).await?;
                sha.to_owned()
            }
            None => {
                if before.is_none() {
                    return Err(Refusal::invalid("Reference does not exist"));
                }
                git.delete_ref(&reference).await?;
                ZERO.to_owned()
            }
        };
        let before = before.unwrap_or_else(|| ZERO.to_owned());
        self.tags_moved(repo, vec![(tag.to_owned(), before, after)])
            .await
    }

    /// Records that git's tags moved. The push event of a tag lists no commits.
    pub(crate) async fn tags_moved(
        &self,
        repo: &RepoName,
        moved: Vec<Moved>,
    ) -> Result<(), Refusal> {
        for (tag, before, after) in moved {
            let gone = after == ZERO;
            let head = if gone {
                None
            } else {
                self.git(repo).pushed_commit(&after).await?
            };
            let push = Push {
                branch: tag,
                is_tag: true,
                forced: before != ZERO && !gone,
                before,
                after: after.clone(),
                commits: Vec::new(),
                head,
            };
            let tip = (!gone).then_some(after);
            self.act(|forge, now, me| forge.branch_moved(now, me, repo, push, tip))?;
        }
        Ok(())
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

    pub(super) async fn describe_push(
        &self,
        repo: &RepoName,
        branch: &str,
        before: &str,
        after: &str,
    ) -> Result<Push, Refusal> {
        let git = self.git(repo);
        let mut push = Push {
            branch: branch.to_owned(),
            is_tag: false,
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

    pub(super) async fn heads_moved(
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

    /// Pull requests whose head the base branch now contains are merged, however it came there.
    pub(super) async fn settle_contained(
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
        let (branches, tags) = (git.branches().await?, git.tags().await?);
        self.act(|forge, now, _| {
            let record = forge.create_repo(now, &fork, &default_branch, Some(name))?;
            record.branches = branches.into_iter().collect();
            record.tags = tags.into_iter().collect();
            Ok(())
        })?;
        Ok(fork)
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
