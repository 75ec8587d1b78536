//! The setting of a story: labels, milestones, teams and rules of its repository, runs and checks of its commits.

use super::{Pr, World, done};
use crate::forge::{
    Id, LineComment, NewReview, NewWorkflowRun, OpenState, Permission, Refusal, ReviewState,
};

/// Colour of labels that a story adds.
const LABEL_COLOR: &str = "0e8a16";

impl World {
    /// The owner of the default world's organization does it.
    fn by_owner<R>(
        &self,
        what: &str,
        f: impl FnOnce(&mut crate::forge::Forge, jiff::Timestamp, &str) -> Result<R, Refusal>,
    ) -> R {
        let now = self.sandbox.now();
        let owner = self.sandbox.read(|forge| {
            let org = forge.org(&self.repo.owner).ok()?;
            let mut members = org.members.iter();
            members
                .find(|(_, owner)| **owner)
                .map(|(login, _)| login.clone())
        });
        let owner = owner.unwrap_or_else(|| self.repo.owner.clone());
        done(what, self.sandbox.change(|forge| f(forge, now, &owner)))
    }

    /// Adds labels to the repository's set.
    ///
    /// # Panics
    /// When one is there already.
    pub fn repo_labels(&self, names: &[&str]) {
        for name in names {
            self.by_owner("add a label to the repository", |forge, _, me| {
                forge.create_label(me, &self.repo, name, LABEL_COLOR, None)
            });
        }
    }

    /// Adds a milestone and gives its number.
    ///
    /// # Panics
    /// When there is one of that title.
    pub fn milestone(&self, title: &str) -> u64 {
        self.by_owner("add a milestone", |forge, now, me| {
            forge.create_milestone(now, me, &self.repo, title)
        })
    }

    /// Closes a milestone.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn close_milestone(&self, number: u64) {
        self.by_owner("close a milestone", |forge, _, me| {
            forge.set_milestone_state(me, &self.repo, number, OpenState::Closed)
        });
    }

    /// Makes a team of the repository's organization that may read the repository; gives its number.
    ///
    /// # Panics
    /// When somebody does not exist.
    pub fn team(&self, name: &str, members: &[&str]) -> Id {
        let (org, repo) = (&self.repo.owner, &self.repo.name);
        self.by_owner("make a team", |forge, _, _| {
            forge.set_team(org, name, members)?;
            forge.set_team_repo(org, name, repo, Permission::Read)?;
            let mut teams = forge.org(org)?.teams.values();
            let team = teams.find(|team| team.name == name);
            team.map(|team| team.id).ok_or_else(Refusal::not_found)
        })
    }

    /// Demands that a context be successful before anything is merged into the branch, which it protects.
    ///
    /// # Panics
    /// Never in practice.
    pub fn require_context(&self, branch: &str, context: &str) {
        self.by_owner("require a context", |forge, _, _| {
            let required = &mut forge.repo_mut(&self.repo)?.required_contexts;
            let branch = required.entry(branch.to_owned()).or_default();
            branch.insert(context.to_owned());
            Ok(())
        });
    }

    /// Protects a branch without demanding any context.
    ///
    /// # Panics
    /// Never in practice.
    pub fn protect(&self, branch: &str) {
        self.by_owner("protect a branch", |forge, _, _| {
            let required = &mut forge.repo_mut(&self.repo)?.required_contexts;
            required.entry(branch.to_owned()).or_default();
            Ok(())
        });
    }

    /// Somebody sets themselves busy, or free again.
    ///
    /// # Panics
    /// When they do not exist.
    pub fn busy(&self, login: &str, busy: bool) {
        done(
            "set somebody busy",
            self.sandbox.change(|forge| forge.set_busy(login, busy)),
        );
    }

    /// The next reads of the pull request find GitHub still computing whether it merges.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn forget_mergeability(&self, pr: &Pr, reads: u32) {
        self.by_owner("forget whether it merges", |forge, _, _| {
            forge.forget_mergeability(&pr.repo, pr.number, reads)
        });
    }

    /// An app reports a check run on the pull request's head; without a conclusion it is in progress.
    ///
    /// # Panics
    /// Never in practice.
    pub fn check_run(&self, pr: &Pr, name: &str, conclusion: Option<&str>) -> Id {
        let status = if conclusion.is_some() {
            "completed"
        } else {
            "in_progress"
        };
        let head = self.head(pr);
        done(
            "report a check run",
            self.sandbox
                .set_check_run(&pr.repo, &head, name, status, conclusion),
        )
    }

    /// A workflow of GitHub Actions ran on the pull request's head, or runs still (no conclusion).
    ///
    /// # Panics
    /// Never in practice.
    pub fn workflow_run(&self, pr: &Pr, name: &str, conclusion: Option<&str>) -> Id {
        let new = self.pull(pr, |_, _, pull| NewWorkflowRun {
            name: name.to_owned(),
            event: "pull_request".into(),
            head_branch: pull.head_branch.clone(),
            head_sha: pull.head_sha.clone(),
            status: if conclusion.is_some() {
                "completed".into()
            } else {
                "in_progress".into()
            },
            conclusion: conclusion.map(str::to_owned),
        });
        self.by_owner("run a workflow", |forge, now, _| {
            forge.add_workflow_run(now, &pr.repo, new)
        })
    }

    /// Status and conclusion of a workflow run, and how often it was run again.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn workflow_run_seen(&self, id: Id) -> (String, Option<String>, u64) {
        let seen = self.sandbox.read(|forge| {
            let run = forge.repo(&self.repo)?.workflow_runs.get(&id);
            let run = run.ok_or_else(Refusal::not_found)?;
            Ok::<_, Refusal>((run.status.clone(), run.conclusion.clone(), run.reruns))
        });
        done("look at a workflow run", seen)
    }

    /// Somebody with write access pushes a tag.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn push_tag(&self, login: &str, tag: &str, sha: &str) {
        let pushed = self.user(login).push_tag(&self.repo, tag, Some(sha)).await;
        done("push a tag", pushed);
    }

    /// Somebody with write access deletes a tag.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn delete_tag(&self, login: &str, tag: &str) {
        let pushed = self.user(login).push_tag(&self.repo, tag, None).await;
        done("delete a tag", pushed);
    }

    /// Somebody with write access deletes a branch.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn delete_branch(&self, login: &str, branch: &str) {
        let deleted = self.user(login).delete_branch(&self.repo, branch).await;
        done("delete a branch", deleted);
    }

    /// Assigns somebody by hand.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn assign(&self, login: &str, pr: &Pr, whom: &[&str]) {
        let whom: Vec<String> = whom.iter().map(|login| (*login).to_owned()).collect();
        done(
            "assign",
            self.user(login).assign(&pr.repo, pr.number, &whom),
        );
    }

    /// Asks for reviews by hand: logins, or `org/team`.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn request_review(&self, login: &str, pr: &Pr, whom: &[&str]) {
        let (mut people, mut teams) = (Vec::new(), Vec::new());
        for name in whom {
            match name.split_once('/') {
                Some((_, team)) => teams.push(team.to_owned()),
                None => people.push((*name).to_owned()),
            }
        }
        let asked = self
            .user(login)
            .request_reviews(&pr.repo, pr.number, &people, &teams);
        done("ask for a review", asked);
    }

    /// Comments on a line of a file that the pull request adds.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn review_line(&self, login: &str, pr: &Pr, path: &str, line: u64, body: &str) -> Id {
        let new = NewReview {
            state: ReviewState::Commented,
            body: String::new(),
            commit: None,
            comments: vec![LineComment {
                path: path.to_owned(),
                line,
                position: line,
                diff_hunk: format!("@@ -0,0 +1,{line} @@"),
                body: body.to_owned(),
            }],
        };
        let said = self.user(login).submit_review(&pr.repo, pr.number, new);
        done("comment on a line", said)
    }

    /// Puts it into a milestone by hand, or out of any.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn set_milestone(&self, login: &str, pr: &Pr, milestone: Option<u64>) {
        let user = self.user(login);
        done(
            "set a milestone",
            user.set_milestone(&pr.repo, pr.number, milestone),
        );
    }

    /// Withdraws a review.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn dismiss_review(&self, login: &str, pr: &Pr, review: Id) {
        let user = self.user(login);
        done(
            "dismiss a review",
            user.dismiss_review(&pr.repo, pr.number, review),
        );
    }
}
