//! Opening, changing and merging pull requests.

use super::{Actor, forge_signature};
use crate::engine::Engine;
use crate::forge::{
    HeadFacts, MergeMethod, NewHead, NewPull, OpenState, Permission, PullChange, Refusal, RepoName,
};
use crate::git::{MergeWords, Outcome};

/// A pull request to open.
#[derive(Debug, Clone, Default)]
pub struct PullRequestSpec {
    pub title: String,
    pub body: Option<String>,
    /// `branch` of the same repository, or `owner:branch` of a fork.
    pub head: String,
    pub base: String,
    pub draft: bool,
    /// Who may push to the base repository may also push to the head branch.
    pub maintainer_can_modify: bool,
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

impl Actor {
    pub(super) async fn take_head(
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
                maintainer_can_modify: spec.maintainer_can_modify,
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
        if reopened {
            self.check_rewritten(repo, number).await?;
        }
        self.act(|forge, now, me| forge.edit_pull(now, me, repo, number, change, new_base))?;
        if reopened {
            self.catch_up(repo, number).await?;
        }
        Ok(())
    }

    /// A pull request whose branch was rewritten while it was closed cannot be reopened, as with GitHub.
    async fn check_rewritten(&self, repo: &RepoName, number: u64) -> Result<(), Refusal> {
        let (closed, head_repo, branch, head, tip) = self.engine.read(|forge| {
            let (_, issue, pull) = forge.pull(repo, number)?;
            let from = forge.repo(&pull.head_repo).ok();
            let tip = from.and_then(|from| from.branches.get(&pull.head_branch).cloned());
            Ok::<_, Refusal>((
                issue.state == OpenState::Closed,
                pull.head_repo.clone(),
                pull.head_branch.clone(),
                pull.head_sha.clone(),
                tip,
            ))
        })?;
        let Some(tip) = tip.filter(|tip| closed && *tip != head) else {
            return Ok(());
        };
        if self.git(&head_repo).is_ancestor(&head, &tip).await? {
            return Ok(());
        }
        Err(Refusal::validation_custom(
            "PullRequest",
            &format!("state cannot be changed. The {branch} branch was force-pushed or recreated."),
        ))
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
pub(super) async fn try_merge(
    engine: &Engine,
    repo: &RepoName,
    number: u64,
) -> Result<(), Refusal> {
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
