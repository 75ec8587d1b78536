//! What is expected to follow. `until_…` wait and say what they saw in vain; `expect_…` do the same and panic.

use super::pr::comment_texts;
use super::{CommentText, Pr, World, done};
use crate::forge::{Forge, Issue, OpenState, Pull, Repo, StatusState};
use crate::sandbox::Unmet;

impl World {
    /// Waits until the pull request gives a value.
    ///
    /// # Errors
    /// [`Unmet`], with how the pull request looked when the bound ran out.
    pub async fn until_pr<R>(
        &self,
        pr: &Pr,
        what: &str,
        mut f: impl FnMut(&Forge, &Repo, &Issue, &Pull) -> Option<R>,
    ) -> Result<R, Unmet> {
        let what = format!("{what} on {}#{}", pr.repo, pr.number);
        let look = |forge: &Forge| {
            let (repo, issue, pull) = forge.pull(&pr.repo, pr.number).ok()?;
            f(forge, repo, issue, pull)
        };
        let seen = |forge: &Forge| describe(forge, pr);
        self.sandbox.until(&what, self.bound, look, seen).await
    }

    /// Waits until the issue, or the issue side of the pull request, gives a value.
    ///
    /// # Errors
    /// [`Unmet`], with how it looked when the bound ran out.
    pub async fn until_issue<R>(
        &self,
        pr: &Pr,
        what: &str,
        mut f: impl FnMut(&Repo, &Issue) -> Option<R>,
    ) -> Result<R, Unmet> {
        let what = format!("{what} on {}#{}", pr.repo, pr.number);
        let look = |forge: &Forge| {
            let (repo, issue) = forge.issue(&pr.repo, pr.number).ok()?;
            f(repo, issue)
        };
        let seen = |forge: &Forge| describe(forge, pr);
        self.sandbox.until(&what, self.bound, look, seen).await
    }

    /// # Errors
    /// [`Unmet`] when it does not carry the label in time.
    pub async fn until_label(&self, pr: &Pr, name: &str) -> Result<(), Unmet> {
        self.until_issue(pr, &format!("label {name:?}"), |_, issue| {
            has(issue, name).then_some(())
        })
        .await
    }

    /// # Errors
    /// [`Unmet`] when it still carries the label.
    pub async fn until_no_label(&self, pr: &Pr, name: &str) -> Result<(), Unmet> {
        self.until_issue(pr, &format!("no label {name:?}"), |_, issue| {
            (!has(issue, name)).then_some(())
        })
        .await
    }

    /// # Errors
    /// [`Unmet`] when no comment contains the text.
    pub async fn until_comment(&self, pr: &Pr, text: &str) -> Result<CommentText, Unmet> {
        let what = format!("a comment containing {text:?}");
        self.until_issue(pr, &what, |repo, issue| {
            let mut comments = comment_texts(repo, issue).into_iter();
            comments.find(|comment| comment.body.contains(text))
        })
        .await
    }

    /// Waits for a status of the head; gives its description.
    ///
    /// # Errors
    /// [`Unmet`] when the context does not get there.
    pub async fn until_status(
        &self,
        pr: &Pr,
        context: &str,
        state: StatusState,
    ) -> Result<String, Unmet> {
        let what = format!("status {context:?} {}", state.as_str());
        self.until_pr(pr, &what, |forge, repo, _, pull| {
            let statuses = forge.current_statuses(&repo.name, &pull.head_sha);
            let mut statuses = statuses.into_iter();
            let found = statuses.find(|s| s.context == context && s.state == state);
            found.map(|s| s.description.clone().unwrap_or_default())
        })
        .await
    }

    /// Waits for the merge; gives the commit it made.
    ///
    /// # Errors
    /// [`Unmet`] when it is not merged in time.
    pub async fn until_merged(&self, pr: &Pr) -> Result<String, Unmet> {
        self.until_pr(pr, "the merge", |_, _, _, pull| {
            pull.merged.as_ref().map(|merged| merged.commit.clone())
        })
        .await
    }

    /// # Errors
    /// [`Unmet`] when it stays open.
    pub async fn until_closed(&self, pr: &Pr) -> Result<(), Unmet> {
        self.until_issue(pr, "being closed", |_, issue| {
            (issue.state == OpenState::Closed).then_some(())
        })
        .await
    }

    /// # Panics
    /// When it does not carry the label in time.
    pub async fn expect_label(&self, pr: &Pr, name: &str) {
        done("go on", self.until_label(pr, name).await);
    }

    /// # Panics
    /// When it still carries the label.
    pub async fn expect_no_label(&self, pr: &Pr, name: &str) {
        done("go on", self.until_no_label(pr, name).await);
    }

    /// # Panics
    /// When no comment contains the text.
    pub async fn expect_comment(&self, pr: &Pr, text: &str) -> CommentText {
        done("go on", self.until_comment(pr, text).await)
    }

    /// Gives the status's description.
    ///
    /// # Panics
    /// When the context does not get to the state.
    pub async fn expect_status(&self, pr: &Pr, context: &str, state: StatusState) -> String {
        done("go on", self.until_status(pr, context, state).await)
    }

    /// Gives the commit that the merge made.
    ///
    /// # Panics
    /// When it is not merged in time, or more than once.
    pub async fn expect_merged(&self, pr: &Pr) -> String {
        let commit = done("go on", self.until_merged(pr).await);
        let times = self.sandbox.merges_of(&self.head(pr));
        assert!(times <= 1, "{pr:?} was merged {times} times");
        commit
    }

    /// # Panics
    /// When it stays open.
    pub async fn expect_closed(&self, pr: &Pr) {
        done("go on", self.until_closed(pr).await);
    }

    /// Waits until no webhook is in flight.
    ///
    /// # Panics
    /// When one still is.
    pub async fn expect_delivered(&self) {
        done("go on", self.sandbox.until_delivered(self.bound).await);
    }

    /// How the pull request looks, for messages and snapshots.
    pub fn describe(&self, pr: &Pr) -> String {
        self.sandbox.read(|forge| describe(forge, pr))
    }
}

fn has(issue: &Issue, name: &str) -> bool {
    issue.labels.iter().any(|l| l.eq_ignore_ascii_case(name))
}

fn describe(forge: &Forge, pr: &Pr) -> String {
    use std::fmt::Write as _;
    let Ok((repo, issue)) = forge.issue(&pr.repo, pr.number) else {
        return format!(
            "there is no issue or pull request {}#{}",
            pr.repo, pr.number
        );
    };
    let mut text = String::new();
    let pull = issue.pull.as_ref();
    let state = if pull.is_some_and(|pull| pull.merged.is_some()) {
        "merged"
    } else {
        issue.state.as_str()
    };
    let draft = if pull.is_some_and(|pull| pull.draft) {
        ", draft"
    } else {
        ""
    };
    let _ = writeln!(
        text,
        "{}#{} {:?} by {} ({state}{draft})",
        pr.repo, pr.number, issue.title, issue.author
    );
    let _ = writeln!(text, "  labels: {}", issue.labels.join(", "));
    let statuses = pull.map(|pull| forge.current_statuses(&repo.name, &pull.head_sha));
    for status in statuses.unwrap_or_default() {
        let _ = writeln!(
            text,
            "  status {}: {} ({})",
            status.context,
            status.state.as_str(),
            status.description.as_deref().unwrap_or_default()
        );
    }
    for comment in comment_texts(repo, issue) {
        let _ = writeln!(text, "  {}: {}", comment.author, comment.body);
    }
    text
}
