//! Merging without a work tree: trial merges, merge commits, squashes, rebases.

use super::write::sha_in;
use super::{Git, GitError};
use crate::forge::{Commit, HeadFacts, MergeMethod, Mergeability, Signature};

/// GitHub's bound on the commits of a rebase merge.
const MAX_REBASED_COMMITS: usize = 100;

/// What a commit made by a merge says.
#[derive(Debug, Clone)]
pub(crate) struct MergeWords {
    pub(crate) message: String,
    pub(crate) author: Signature,
    pub(crate) committer: Signature,
}

/// The answer of an attempt to merge.
pub(crate) enum Outcome {
    /// The tip that the base branch should move to.
    Tip(String),
    Conflict,
}

impl Git {
    /// The tree of merging `theirs` into `ours`, or none when they conflict.
    async fn merge_tree(
        &self,
        merge_base: Option<&str>,
        ours: &str,
        theirs: &str,
    ) -> Result<Option<String>, GitError> {
        let base = merge_base.map(|b| format!("--merge-base={b}"));
        let mut args = vec!["merge-tree", "--write-tree", "--no-messages"];
        args.extend(base.as_deref());
        args.extend([ours, theirs]);
        let output = self.output(&args, &[], b"").await?;
        match output.status {
            0 => sha_in("merge-tree", &output.stdout).map(Some),
            1 => Ok(None),
            status => Err(GitError::Failed {
                command: args.join(" "),
                dir: self.dir().to_owned(),
                status: status.to_string(),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    /// Tries the merge of a pull request; leaves `refs/pull/N/merge` at the trial commit when it works.
    pub(crate) async fn mergeability(
        &self,
        number: u64,
        (base, head): (&str, &str),
        commits: &[Commit],
        words: &MergeWords,
    ) -> Result<Mergeability, GitError> {
        let tree = self.merge_tree(None, base, head).await?;
        let merge_commit = match tree {
            Some(tree) => {
                let commit = self
                    .commit_tree(
                        &tree,
                        &[base, head],
                        &words.message,
                        &words.author,
                        &words.committer,
                    )
                    .await?;
                let reference = format!("refs/pull/{number}/merge");
                self.set_ref(&reference, &commit, None).await?;
                Some(commit)
            }
            None => None,
        };
        // One commit merges or rebases alike; more may conflict on the way though their sum does not.
        let rebaseable = merge_commit.is_some()
            && (commits.len() == 1 || self.rebased(base, head, None).await?.is_some());
        Ok(Mergeability {
            base_sha: base.to_owned(),
            head_sha: head.to_owned(),
            merge_commit,
            rebaseable,
        })
    }

    /// Makes the commits of a merge; no ref moves.
    pub(crate) async fn merge(
        &self,
        method: MergeMethod,
        base: &str,
        head: &str,
        words: &MergeWords,
    ) -> Result<Outcome, GitError> {
        if method == MergeMethod::Rebase {
            let committer = Some(&words.committer);
            let tip = self.rebased(base, head, committer).await?;
            return Ok(tip.map_or(Outcome::Conflict, Outcome::Tip));
        }
        let Some(tree) = self.merge_tree(None, base, head).await? else {
            return Ok(Outcome::Conflict);
        };
        let parents: &[&str] = match method {
            MergeMethod::Merge => &[base, head],
            _ => &[base],
        };
        self.commit_tree(
            &tree,
            parents,
            &words.message,
            &words.author,
            &words.committer,
        )
        .await
        .map(Outcome::Tip)
    }

    /// Replays the head's commits onto the base, one by one. Without a committer it is a trial under the commits' own.
    async fn rebased(
        &self,
        base: &str,
        head: &str,
        committer: Option<&Signature>,
    ) -> Result<Option<String>, GitError> {
        let commits = self.commits_between(base, head).await?;
        if commits.len() > MAX_REBASED_COMMITS {
            return Ok(None);
        }
        let mut tip = base.to_owned();
        for commit in commits.iter().filter(|c: &&Commit| c.parents.len() == 1) {
            let parent = &commit.parents[0];
            let Some(tree) = self.merge_tree(Some(parent), &tip, &commit.sha).await? else {
                return Ok(None);
            };
            let committer = committer.unwrap_or(&commit.committer);
            tip = self
                .commit_tree(&tree, &[&tip], &commit.message, &commit.author, committer)
                .await?;
        }
        Ok(Some(tip))
    }

    /// Is `old` reachable from `new`?
    pub(crate) async fn is_ancestor(&self, old: &str, new: &str) -> Result<bool, GitError> {
        let args = ["merge-base", "--is-ancestor", old, new];
        let output = self.output(&args, &[], b"").await?;
        match output.status {
            0 => Ok(true),
            1 => Ok(false),
            status => Err(GitError::Failed {
                command: args.join(" "),
                dir: self.dir().to_owned(),
                status: status.to_string(),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    /// What a pull request from `base` to `head` amounts to.
    pub(crate) async fn head_facts(&self, base: &str, head: &str) -> Result<HeadFacts, GitError> {
        let mut facts = HeadFacts {
            commits: self.commits_between(base, head).await?,
            ..HeadFacts::default()
        };
        let range = format!("{base}...{head}");
        for line in self
            .text(&["diff", "--numstat", "-M", &range])
            .await?
            .lines()
        {
            let mut columns = line.split('\t');
            // Binary files count no lines: git prints a dash.
            let mut count = || columns.next().and_then(|c| c.parse::<u64>().ok());
            facts.additions += count().unwrap_or(0);
            facts.deletions += count().unwrap_or(0);
            facts.changed_files += 1;
        }
        Ok(facts)
    }
}
