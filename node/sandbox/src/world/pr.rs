//! Pull requests in a story: opening them, what people do to them, how they look.

use std::collections::BTreeMap;

use super::{World, done};
use crate::actor::{FileChange, NewCommit, PullRequestSpec};
use crate::forge::{
    Id, Issue, IssueChange, OpenState, Permission, Pull, PullChange, Refusal, Repo, RepoName,
    ReviewState, StatusState,
};

/// A pull request of the story, or an issue: both are numbered from one sequence, commented and labelled alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pr {
    pub repo: RepoName,
    pub number: u64,
}

/// A comment, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommentText {
    pub id: Id,
    pub author: String,
    pub body: String,
}

/// A pull request about to be opened.
#[derive(Debug, Clone)]
#[must_use]
pub struct PrBuilder {
    world: World,
    branch: String,
    title: String,
    body: Option<String>,
    base: String,
    draft: bool,
    files: Vec<FileChange>,
    message: Option<String>,
    from_fork: bool,
}

impl PrBuilder {
    /// The commit's message, other than the title.
    pub fn message(mut self, message: &str) -> Self {
        self.message = Some(message.to_owned());
        self
    }

    /// From a fork, even by who may push to the repository itself.
    pub fn from_fork(mut self) -> Self {
        self.from_fork = true;
        self
    }

    /// Adds `count` small files below a directory: `dir/00000.txt` and so on.
    pub fn many_files(mut self, dir: &str, count: usize) -> Self {
        let files = (0..count).map(|n| FileChange::write(format!("{dir}/{n:05}.txt"), "x\n"));
        self.files.extend(files);
        self
    }

    /// Other than the branch's name.
    pub fn title(mut self, title: &str) -> Self {
        self.title = title.to_owned();
        self
    }

    /// The description.
    pub fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    /// Other than `main`.
    pub fn base(mut self, branch: &str) -> Self {
        self.base = branch.to_owned();
        self
    }

    /// Opened as a draft.
    pub fn draft(mut self) -> Self {
        self.draft = true;
        self
    }

    /// A file of its commit, instead of `<branch>.txt`.
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push(FileChange::write(path, content));
        self
    }

    /// An executable file of its commit.
    pub fn executable(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push(FileChange::executable(path, content));
        self
    }

    /// A file that its commit deletes.
    pub fn delete(mut self, path: &str) -> Self {
        self.files.push(FileChange::delete(path));
        self
    }

    /// Commits and opens the pull request: from the repository itself for who may push there, else from a fork.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn opened_by(self, login: &str) -> Pr {
        done("open a pull request", self.try_opened_by(login).await)
    }

    /// As [`PrBuilder::opened_by`], with an error.
    ///
    /// # Errors
    /// The forge's refusal.
    pub async fn try_opened_by(self, login: &str) -> Result<Pr, Refusal> {
        let user = self.world.user(login);
        let repo = self.world.repo.clone();
        let sandbox = &self.world.sandbox;
        let has = sandbox.read(|forge| forge.permission(&repo, Some(login)))?;
        let (from, head) = if has >= Permission::Write && !self.from_fork {
            (repo.clone(), self.branch.clone())
        } else {
            let fork = user.fork(&repo).await?;
            (fork, format!("{login}:{}", self.branch))
        };
        let base_tip = sandbox.read(|forge| {
            let tip = forge.repo(&repo)?.branches.get(&self.base).cloned();
            tip.ok_or_else(Refusal::not_found)
        })?;
        let mut files = self.files;
        if files.is_empty() {
            let path = format!("{}.txt", self.branch.replace('/', "-"));
            files.push(FileChange::write(path, format!("{}\n", self.branch)));
        }
        if from != repo {
            user.sync_fork(&repo, &from, &self.base).await?;
        }
        let commit = NewCommit {
            branch: self.branch,
            message: self.message.unwrap_or_else(|| self.title.clone()),
            files,
            parent: Some(base_tip),
        };
        user.push_files(&from, commit).await?;
        let spec = PullRequestSpec {
            title: self.title,
            body: self.body,
            head,
            base: self.base,
            draft: self.draft,
            maintainer_can_modify: true,
        };
        let number = user.open_pull(&repo, spec).await?;
        Ok(Pr { repo, number })
    }
}

/// What people do.
impl World {
    /// A pull request from a branch of that name, which is also its title.
    pub fn pr(&self, branch: &str) -> PrBuilder {
        PrBuilder {
            world: self.clone(),
            branch: branch.to_owned(),
            title: branch.to_owned(),
            body: None,
            base: "main".into(),
            draft: false,
            files: Vec::new(),
            message: None,
            from_fork: false,
        }
    }

    /// The pull request of that number.
    pub fn pr_number(&self, number: u64) -> Pr {
        Pr {
            repo: self.repo.clone(),
            number,
        }
    }

    /// Comments, and gives the comment's id.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn comment(&self, login: &str, pr: &Pr, body: &str) -> Id {
        let said = self.user(login).comment(&pr.repo, pr.number, body);
        done("comment", said)
    }

    /// The author pushes one more commit to the pull request's branch; gives the new head.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn push_fix(&self, pr: &Pr, files: Vec<FileChange>) -> String {
        let head = self.pull(pr, |_, issue, pull| {
            let from = (pull.head_repo.clone(), pull.head_branch.clone());
            (issue.author.clone(), from)
        });
        let (author, (repo, branch)) = head;
        let commit = NewCommit {
            branch,
            message: "Fix".into(),
            files,
            parent: None,
        };
        done(
            "push a fix",
            self.user(&author).push_files(&repo, commit).await,
        )
    }

    /// The author replaces the pull request's commits by one on the base branch's tip; gives the new head.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn force_push(&self, pr: &Pr, files: Vec<FileChange>) -> String {
        let (author, title, repo, branch, base) = self.pull(pr, |record, issue, pull| {
            let base = record.branches.get(&pull.base_branch).cloned();
            let (repo, branch) = (pull.head_repo.clone(), pull.head_branch.clone());
            (
                issue.author.clone(),
                issue.title.clone(),
                repo,
                branch,
                base,
            )
        });
        let author = self.user(&author);
        if repo != pr.repo {
            let base_branch = self.pull(pr, |_, _, pull| pull.base_branch.clone());
            let synced = author.sync_fork(&pr.repo, &repo, &base_branch).await;
            done("bring the fork up to date", synced);
        }
        let commit = NewCommit {
            branch,
            message: title,
            files,
            parent: base,
        };
        done("push by force", author.push_files(&repo, commit).await)
    }

    /// Somebody with write access pushes to a branch of the repository; gives the new tip.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn push(&self, login: &str, branch: &str, files: Vec<FileChange>) -> String {
        let commit = NewCommit {
            branch: branch.to_owned(),
            message: "Push".into(),
            files,
            parent: None,
        };
        let pushed = self.user(login).push_files(&self.repo, commit).await;
        done("push", pushed)
    }

    /// Submits a review.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn review(&self, login: &str, pr: &Pr, state: ReviewState, body: &str) -> Id {
        let user = self.user(login);
        done("review", user.review(&pr.repo, pr.number, state, body, &[]))
    }

    /// Adds a label by hand.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn label(&self, login: &str, pr: &Pr, name: &str) {
        let user = self.user(login);
        let names = [name.to_owned()];
        done("label", user.add_labels(&pr.repo, pr.number, &names));
    }

    /// Removes a label by hand.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn unlabel(&self, login: &str, pr: &Pr, name: &str) {
        let user = self.user(login);
        done(
            "remove a label",
            user.remove_label(&pr.repo, pr.number, name),
        );
    }

    /// Retitles.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn retitle(&self, login: &str, pr: &Pr, title: &str) {
        let change = IssueChange {
            title: Some(title.to_owned()),
            ..IssueChange::default()
        };
        let user = self.user(login);
        done("retitle", user.edit_issue(&pr.repo, pr.number, change));
    }

    /// Closes without merging.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn close(&self, login: &str, pr: &Pr) {
        self.set_state(login, pr, OpenState::Closed).await;
    }

    /// Reopens.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn reopen(&self, login: &str, pr: &Pr) {
        self.set_state(login, pr, OpenState::Open).await;
    }

    async fn set_state(&self, login: &str, pr: &Pr, state: OpenState) {
        let user = self.user(login);
        let is_pull = self.issue_seen(pr, |_, issue| issue.pull.is_some());
        let set = if is_pull {
            let change = PullChange {
                state: Some(state),
                ..PullChange::default()
            };
            user.edit_pull(&pr.repo, pr.number, change).await
        } else {
            let change = IssueChange {
                state: Some(state),
                ..IssueChange::default()
            };
            user.edit_issue(&pr.repo, pr.number, change)
        };
        done("close or reopen", set);
    }

    /// Makes it a draft, or ready.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn set_draft(&self, login: &str, pr: &Pr, draft: bool) {
        let user = self.user(login);
        let set = user.set_draft(&pr.repo, pr.number, draft);
        done("change whether it is a draft", set);
    }
}

/// How it looks.
impl World {
    /// Looks at the pull request.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn pull<R>(&self, pr: &Pr, f: impl FnOnce(&Repo, &Issue, &Pull) -> R) -> R {
        let seen = self.sandbox.read(|forge| {
            let (repo, issue, pull) = forge.pull(&pr.repo, pr.number)?;
            Ok::<_, Refusal>(f(repo, issue, pull))
        });
        done("look at a pull request", seen)
    }

    /// Looks at the issue, or at the issue side of the pull request.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn issue_seen<R>(&self, pr: &Pr, f: impl FnOnce(&Repo, &Issue) -> R) -> R {
        let seen = self.sandbox.read(|forge| {
            let (repo, issue) = forge.issue(&pr.repo, pr.number)?;
            Ok::<_, Refusal>(f(repo, issue))
        });
        done("look at an issue", seen)
    }

    /// Who is assigned.
    pub fn assignees(&self, pr: &Pr) -> Vec<String> {
        self.issue_seen(pr, |_, issue| issue.assignees.clone())
    }

    /// Title of its milestone.
    pub fn milestone_of(&self, pr: &Pr) -> Option<String> {
        self.issue_seen(pr, |repo, issue| {
            let milestone = repo.milestones.get(&issue.milestone?)?;
            Some(milestone.title.clone())
        })
    }

    /// Whose review is asked for: logins, and teams as `org/slug`.
    pub fn requested_reviewers(&self, pr: &Pr) -> Vec<String> {
        self.pull(pr, |repo, _, pull| {
            let owner = &repo.name.owner;
            let teams = pull.requested_teams.iter();
            let teams = teams.map(|slug| format!("{owner}/{slug}"));
            pull.requested_reviewers
                .iter()
                .cloned()
                .chain(teams)
                .collect()
        })
    }

    /// Its head commit.
    pub fn head(&self, pr: &Pr) -> String {
        self.pull(pr, |_, _, pull| pull.head_sha.clone())
    }

    /// Its labels, sorted.
    pub fn labels(&self, pr: &Pr) -> Vec<String> {
        let mut labels = self.issue_seen(pr, |_, issue| issue.labels.clone());
        labels.sort();
        labels
    }

    /// Its comments, oldest first.
    pub fn comments(&self, pr: &Pr) -> Vec<CommentText> {
        self.issue_seen(pr, comment_texts)
    }

    /// The current statuses of its head: state and description by context.
    pub fn statuses(&self, pr: &Pr) -> BTreeMap<String, (StatusState, String)> {
        let head = self.head(pr);
        self.sandbox.read(|forge| {
            let statuses = forge.current_statuses(&pr.repo, &head).into_iter();
            statuses
                .map(|s| {
                    let description = s.description.clone().unwrap_or_default();
                    (s.context.clone(), (s.state, description))
                })
                .collect()
        })
    }

    /// Is it merged?
    pub fn is_merged(&self, pr: &Pr) -> bool {
        self.pull(pr, |_, _, pull| pull.merged.is_some())
    }
}

pub(super) fn comment_texts(repo: &Repo, issue: &Issue) -> Vec<CommentText> {
    let comments = issue.comments.iter().filter_map(|id| repo.comments.get(id));
    comments
        .map(|comment| CommentText {
            id: comment.id,
            author: comment.author.clone(),
            body: comment.body.clone(),
        })
        .collect()
}
