//! Putting the changes of single commits onto a branch, without a checkout: each keeps its author, date and message, and
//! gets a committer (GHC-063, GHC-064: what `git am --3way` makes of a pull request's patch).

use gix::bstr::BString;
use gix::objs::Commit as CommitObject;

use super::GitError;
use super::merge::Trial;
use super::mirrors::{InUse, Mirrors, check_id};
use super::read::Commit;
use crate::types::{RepoId, Signature};

/// More commits are not picked at once.
pub const MAX_PICKED: usize = 250;

/// What became of picking commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CherryPick {
    Picked {
        /// The last commit that was made. What they were picked onto, if all of them were there already.
        commit: String,
        tree: String,
        /// How many commits were made. Merges, and changes that are there already, make none.
        made: usize,
    },
    Conflict {
        /// Which of the commits does not fit.
        commit: String,
        /// Sorted.
        paths: Vec<String>,
        /// In git's words, a line for each conflict.
        said: String,
    },
}

impl Mirrors {
    /// Puts the changes of `commits` (oldest first, full object ids) onto a commit, one after the other; ends at the
    /// first conflict. All must be in the mirror. Merge commits are left out, as patches leave them out. The same inputs
    /// give the same commit, so that doing it again after a crash does no harm; `committer.at` is what makes the time.
    ///
    /// # Errors
    /// A commit is missing (`NotFound`), or there are more than [`MAX_PICKED`] (`TooMany`).
    pub async fn cherry_pick(
        &self,
        repo: &RepoId,
        onto: &str,
        commits: &[&str],
        committer: &Signature,
    ) -> Result<CherryPick, GitError> {
        check_id(repo, onto)?;
        if commits.len() > MAX_PICKED {
            return Err(GitError::TooMany {
                repo: repo.clone(),
                what: "commits to pick".to_owned(),
                limit: MAX_PICKED as u64,
            });
        }
        let committer = signature(repo, committer)?;
        let mut tip = onto.to_owned();
        let mut tree = self.tree_of(repo, onto).await?;
        let mut made = 0;
        let in_use = self.inner.in_use(repo).await?;
        let trial = Trial {
            mirrors: self,
            repo,
            in_use: &in_use,
        };
        for &commit in commits {
            let original = read(&in_use, repo, commit).await?;
            if original.parents.len() > 1 {
                continue;
            }
            let from = match original.parents.first() {
                Some(parent) => parent.to_string(),
                None => trial.empty_tree().await?,
            };
            let base = format!("--merge-base={from}");
            let next = match trial.merge_tree(&[&base, &tip, commit]).await? {
                Ok(next) => next,
                Err(clash) => {
                    return Ok(CherryPick::Conflict {
                        commit: commit.to_owned(),
                        paths: clash.paths,
                        said: clash.said,
                    });
                }
            };
            if next == tree {
                continue;
            }
            tip = write(&in_use, repo, original, [&tip, &next], &committer).await?;
            tree = next;
            made += 1;
        }
        Ok(CherryPick::Picked {
            commit: tip,
            tree,
            made,
        })
    }
}

async fn read(in_use: &InUse, repo: &RepoId, id: &str) -> Result<CommitObject, GitError> {
    let commit = Commit::new(repo, id)?;
    in_use
        .read(repo, "reading a commit", move |repository| {
            commit.object(repository)
        })
        .await
}

/// Writes the commit anew on another parent, with another tree.
async fn write(
    in_use: &InUse,
    repo: &RepoId,
    original: CommitObject,
    [parent, tree]: [&str; 2],
    committer: &gix::actor::Signature,
) -> Result<String, GitError> {
    let (parent, tree) = (Commit::new(repo, parent)?, Commit::new(repo, tree)?);
    let copy = CommitObject {
        tree: tree.id(),
        parents: [parent.id()].into_iter().collect(),
        committer: committer.clone(),
        // Signatures are not for the copy; who wrote it, its words and their encoding are.
        extra_headers: Vec::new(),
        ..original
    };
    in_use
        .read(repo, "writing a commit", move |repository| {
            let id = repository.write_object(&copy);
            id.map(|id| id.to_string())
                .map_err(|error| parent.failed(error))
        })
        .await
}

fn signature(repo: &RepoId, who: &Signature) -> Result<gix::actor::Signature, GitError> {
    let breaks = |text: &str| text.contains(['<', '>', '\n', '\0']);
    if who.name.is_empty() || breaks(&who.name) || breaks(&who.email) {
        return Err(GitError::BadInput {
            repo: repo.clone(),
            what: format!("\"{} <{}>\" cannot be a committer", who.name, who.email),
        });
    }
    Ok(gix::actor::Signature {
        name: BString::from(who.name.as_str()),
        email: BString::from(who.email.as_str()),
        time: gix::date::Time {
            seconds: who.at.map_or(0, jiff::Timestamp::as_second),
            offset: 0,
        },
    })
}
