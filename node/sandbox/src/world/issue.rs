//! Issues in a story.

use super::{Pr, World, done};
use crate::forge::NewIssue;

/// An issue about to be opened.
#[derive(Debug, Clone)]
#[must_use]
pub struct IssueBuilder {
    world: World,
    new: NewIssue,
}

impl IssueBuilder {
    /// The description.
    pub fn body(mut self, body: &str) -> Self {
        self.new.body = Some(body.to_owned());
        self
    }

    /// Opened with a label; GitHub drops it unless the author may triage.
    pub fn label(mut self, name: &str) -> Self {
        self.new.labels.push(name.to_owned());
        self
    }

    /// Opened with an assignee; likewise.
    pub fn assignee(mut self, login: &str) -> Self {
        self.new.assignees.push(login.to_owned());
        self
    }

    /// Opens it; what is done to pull requests by a [`Pr`] is done to the issue as well.
    ///
    /// # Panics
    /// When the forge refuses.
    pub async fn opened_by(self, login: &str) -> Pr {
        let repo = self.world.repo.clone();
        let opened = self.world.user(login).open_issue_as(&repo, self.new);
        let number = done("open an issue", opened);
        Pr { repo, number }
    }
}

impl World {
    /// An issue of that title.
    pub fn issue(&self, title: &str) -> IssueBuilder {
        IssueBuilder {
            world: self.clone(),
            new: NewIssue {
                title: title.to_owned(),
                ..NewIssue::default()
            },
        }
    }
}
