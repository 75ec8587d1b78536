//! Where issues stand: transferring them to another repository and pinning them to the top of theirs.

use jiff::Timestamp;

use super::{
    Forge, Happening, Issue, IssueAction, MAX_PINNED, OpenState, Permission, Refusal, RepoName,
};

/// What an opaque id of GraphQL may name here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    Issue(RepoName, u64),
    PullRequest(RepoName, u64),
    Repository(RepoName),
}

impl Forge {
    /// Moves an issue to another repository of the same owner and gives its number there. Comments go along; so do
    /// labels and milestones that the other repository has by the same name, and assignees who can be assigned there.
    ///
    /// # Errors
    /// 404; 403 without write access to both; 422 for a pull request or a repository of somebody else.
    pub fn transfer_issue(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        to: &RepoName,
    ) -> Result<u64, Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        self.require(to, Some(actor), Permission::Write)?;
        let (record, issue) = self.issue(repo, number)?;
        let (repo, to) = (record.name.clone(), self.repo(to)?.name.clone());
        if issue.pull.is_some() {
            return Err(Refusal::invalid("Pull requests cannot be transferred"));
        }
        if repo.owner != to.owner || repo == to {
            return Err(Refusal::invalid(
                "The issue can only be transferred to another repository of the same owner",
            ));
        }
        let before = issue.clone();
        let milestone = issue.milestone.and_then(|n| record.milestones.get(&n));
        let milestone = milestone.map(|milestone| milestone.title.clone());
        let new_number = self.reserve_number(&to)?;
        let target = self.repo(&to)?;
        let labels = before.labels.iter().filter_map(|name| target.label(name));
        let mut milestones = target.milestones.values();
        let mut assignees = Vec::new();
        for login in &before.assignees {
            if self.is_collaborator(&to, login)? {
                assignees.push(login.clone());
            }
        }
        let moved = Issue {
            number: new_number,
            labels: labels.map(|label| label.name.clone()).collect(),
            milestone: milestones
                .find(|known| Some(&known.title) == milestone.as_ref())
                .map(|known| known.number),
            assignees,
            updated_at: now,
            ..before.clone()
        };
        let source = self.repo_mut(&repo)?;
        source.issues.remove(&number);
        source.pinned.retain(|pinned| *pinned != number);
        source.moved.insert(number, (to.clone(), new_number));
        let ids = before.comments.iter();
        let comments: Vec<_> = ids.filter_map(|id| source.comments.remove(id)).collect();
        let target = self.repo_mut(&to)?;
        for mut comment in comments {
            comment.issue = new_number;
            target.comments.insert(comment.id, comment);
        }
        target.issues.insert(new_number, moved);
        let left = IssueAction::Transferred {
            issue: Box::new(before.clone()),
            to: to.clone(),
            number: new_number,
        };
        let action = left;
        self.emit(now, actor, &repo, Happening::Issue { number, action });
        let action = IssueAction::Arrived {
            from: repo,
            issue: Box::new(before),
        };
        let number = new_number;
        self.emit(now, actor, &to, Happening::Issue { number, action });
        Ok(new_number)
    }

    /// Pins an open issue to the top of its repository.
    ///
    /// # Errors
    /// 403 without write access, 404, 422 for a pull request, a closed issue, or a fourth one.
    pub fn pin_issue(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        let (record, issue) = self.issue(repo, number)?;
        if issue.pull.is_some() || issue.state == OpenState::Closed {
            return Err(Refusal::invalid("Only open issues can be pinned"));
        }
        if record.pinned.contains(&number) {
            return Ok(());
        }
        if record.pinned.len() >= MAX_PINNED {
            return Err(Refusal::invalid(format!(
                "Maximum {MAX_PINNED} pinned issues per repository"
            )));
        }
        self.repo_mut(repo)?.pinned.push(number);
        self.emit_shared(now, actor, repo, number, IssueAction::Pinned);
        Ok(())
    }

    /// Takes it from there.
    ///
    /// # Errors
    /// 403 without write access, 404.
    pub fn unpin_issue(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        self.issue(repo, number)?;
        let pinned = &mut self.repo_mut(repo)?.pinned;
        if let Some(place) = pinned.iter().position(|pinned| *pinned == number) {
            pinned.remove(place);
            self.emit_shared(now, actor, repo, number, IssueAction::Unpinned);
        }
        Ok(())
    }

    /// What has that id, for who may see it.
    pub(crate) fn node(
        &self,
        actor: &str,
        wanted: &str,
        id_of: impl Fn(&str, u64) -> String,
    ) -> Option<NodeKind> {
        self.repos()
            .filter(|repo| {
                self.require(&repo.name, Some(actor), Permission::Read)
                    .is_ok()
            })
            .find_map(|repo| {
                let name = &repo.name;
                if id_of("Repository", repo.id) == wanted {
                    return Some(NodeKind::Repository(name.clone()));
                }
                repo.issues.values().find_map(|issue| {
                    let pull = issue.pull.as_ref();
                    let of_pull = pull.is_some_and(|p| id_of("PullRequest", p.id) == wanted);
                    let of_issue = id_of("Issue", issue.id) == wanted;
                    if of_pull || (of_issue && pull.is_some()) {
                        Some(NodeKind::PullRequest(name.clone(), issue.number))
                    } else {
                        of_issue.then(|| NodeKind::Issue(name.clone(), issue.number))
                    }
                })
            })
    }
}
