//! Signs under issues, pull requests and comments.

use jiff::Timestamp;

use super::{Forge, Id, Permission, Reaction, Refusal, RepoName};

/// The signs that GitHub knows.
pub const REACTIONS: [&str; 8] = [
    "+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes",
];

impl Forge {
    /// Puts a sign under an issue or pull request. Gives it, and whether it is new.
    ///
    /// # Errors
    /// 404, 422 for a sign that GitHub does not know.
    pub fn react_to_issue(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        content: &str,
    ) -> Result<(Reaction, bool), Refusal> {
        self.require(repo, Some(actor), Permission::Read)?;
        self.issue(repo, number)?;
        let new = self.reaction(now, actor, content)?;
        Ok(put(&mut self.issue_mut(repo, number)?.reactions, new))
    }

    /// Puts a sign under a comment.
    ///
    /// # Errors
    /// As [`Forge::react_to_issue`].
    pub fn react_to_comment(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        comment: Id,
        content: &str,
    ) -> Result<(Reaction, bool), Refusal> {
        self.require(repo, Some(actor), Permission::Read)?;
        self.comment_by_id(repo, comment)?;
        let new = self.reaction(now, actor, content)?;
        let comment = self.repo_mut(repo)?.comments.get_mut(&comment);
        let comment = comment.ok_or_else(Refusal::not_found)?;
        Ok(put(&mut comment.reactions, new))
    }

    fn reaction(
        &mut self,
        now: Timestamp,
        actor: &str,
        content: &str,
    ) -> Result<Reaction, Refusal> {
        if !REACTIONS.contains(&content) {
            return Err(Refusal::validation("Reaction", "content", "invalid"));
        }
        Ok(Reaction {
            id: self.next_id(),
            user: self.account(actor)?.login.clone(),
            content: content.to_owned(),
            created_at: now,
        })
    }
}

fn put(reactions: &mut Vec<Reaction>, new: Reaction) -> (Reaction, bool) {
    let mut known = reactions.iter();
    match known.find(|known| known.user == new.user && known.content == new.content) {
        Some(known) => (known.clone(), false),
        None => {
            reactions.push(new.clone());
            (new, true)
        }
    }
}
