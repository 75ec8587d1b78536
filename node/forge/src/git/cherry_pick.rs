//! Putting the changes of single commits onto a branch, without a checkout: each keeps its author, date and message, and
//! gets a committer (GHC-063, GHC-064: what `git am --3way` makes of a pull request's patch).

use std::path::{Path, PathBuf};

use gix::bstr::BString;
use gix::objs::{Commit as CommitObject, WriteTo as _};
use jiff::Timestamp;

use super::GitError;
use super::merge::Trial;
use super::mirrors::{InUse, LOCAL_TIMEOUT, Mirrors, check_id};
use super::read::Commit;
use crate::types::RepoId;

/// More commits are not picked at once.
pub const MAX_PICKED: usize = 250;

/// Who puts commits where they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committer {
    pub name: String,
    pub email: String,
    /// When they are made, as the commits tell it: the same inputs at the same time give the same commits.
    pub at: Timestamp,
    /// A private SSH key without passphrase, with which they are signed (GHC-062).
    pub signing_key: Option<PathBuf>,
}

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
    /// give the same commit, so that doing it again after a crash does no harm.
    ///
    /// # Errors
    /// A commit is missing (`NotFound`), or there are more than [`MAX_PICKED`] (`TooMany`).
    pub async fn cherry_pick(
        &self,
        repo: &RepoId,
        onto: &str,
        commits: &[&str],
        committer: &Committer,
    ) -> Result<CherryPick, GitError> {
        check_id(repo, onto)?;
        if commits.len() > MAX_PICKED {
            return Err(GitError::TooMany {
                repo: repo.clone(),
                what: "commits to pick".to_owned(),
                limit: MAX_PICKED as u64,
            });
        }
        let who = signature(repo, committer)?;
        let key = committer.signing_key.as_deref();
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
            let copy = copied(repo, original, [&tip, &next], &who)?;
            tip = trial.write(copy, key).await?;
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

/// The same commit on another parent, with another tree.
fn copied(
    repo: &RepoId,
    original: CommitObject,
    [parent, tree]: [&str; 2],
    committer: &gix::actor::Signature,
) -> Result<CommitObject, GitError> {
    let (parent, tree) = (Commit::new(repo, parent)?, Commit::new(repo, tree)?);
    Ok(CommitObject {
        tree: tree.id(),
        parents: [parent.id()].into_iter().collect(),
        committer: committer.clone(),
        // Signatures are not for the copy; who wrote it, its words and their encoding are.
        extra_headers: Vec::new(),
        ..original
    })
}

impl Trial<'_> {
    /// Writes a commit into the mirror, signed if there is a key.
    async fn write(
        &self,
        mut commit: CommitObject,
        key: Option<&Path>,
    ) -> Result<String, GitError> {
        if let Some(key) = key {
            let signature = self.sign(&commit, key).await?;
            commit.extra_headers.push(("gpgsig".into(), signature));
        }
        let failed = self.failed("writing a commit");
        self.in_use
            .read(self.repo, "writing a commit", move |repository| {
                let id = repository.write_object(&commit);
                id.map(|id| id.to_string())
                    .map_err(|error| failed(error.to_string()))
            })
            .await
    }

    async fn sign(&self, commit: &CommitObject, key: &Path) -> Result<BString, GitError> {
        let failed = self.failed("signing a commit");
        let mut bytes = Vec::new();
        let written = commit.write_to(&mut bytes);
        written.map_err(|error| failed(error.to_string()))?;
        let (git, dir) = (&self.mirrors.inner.git, &self.in_use.mirror.path);
        let output = git
            .sign(dir, key, &bytes, LOCAL_TIMEOUT)
            .await
            .map_err(|died| failed(died.to_string()))?;
        if !output.success() {
            return Err(failed(format!(
                "ssh-keygen cannot sign with {}: {}",
                key.display(),
                output.stderr
            )));
        }
        Ok(BString::from(output.stdout.trim_ascii_end()))
    }

    fn failed(&self, action: &'static str) -> impl Fn(String) -> GitError + Send + 'static {
        let repo = self.repo.clone();
        move |reason| GitError::Failed {
            repo: repo.clone(),
            action: action.to_owned(),
            reason,
        }
    }
}

fn signature(repo: &RepoId, who: &Committer) -> Result<gix::actor::Signature, GitError> {
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
            seconds: who.at.as_second(),
            offset: 0,
        },
    })
}
