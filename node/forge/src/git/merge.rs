//! Trial merges in a mirror, by git itself, without a checkout: what would come of it, or the conflict (TIDE-075,
//! TIDE-076). The commits they make are on no branch and leave with the mirror.

use super::GitError;
use super::command::Output;
use super::mirrors::{InUse, Mirrors, check_id, failed};
use crate::types::{MergeMethod, RepoId};

/// A pull request with more commits is not tried by rebase.
const MAX_REBASED: usize = 250;

/// What became of putting one head on top of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeOutcome {
    Clean {
        /// The commit that was made; the base of a further merge. The same inputs give the same id.
        commit: String,
        tree: String,
    },
    Conflict {
        /// The paths that could not be merged, sorted; for a rebase, those of the first commit that failed.
        paths: Vec<String>,
    },
}

/// What became of putting several heads on top of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialMerge {
    Clean {
        commit: String,
        tree: String,
    },
    /// Which of the heads could not be put on top of the ones before it.
    Conflict {
        head: String,
        paths: Vec<String>,
    },
}

impl Mirrors {
    /// Puts one head on top of a commit. Both must be in the mirror.
    pub async fn merge_onto(
        &self,
        repo: &RepoId,
        onto: &str,
        head: &str,
        method: MergeMethod,
    ) -> Result<MergeOutcome, GitError> {
        check_id(repo, onto)?;
        check_id(repo, head)?;
        let in_use = self.inner.in_use(repo).await?;
        let trial = Trial {
            mirrors: self,
            repo,
            in_use: &in_use,
        };
        match method {
            MergeMethod::Merge => trial.merge(onto, head, &[onto, head]).await,
            MergeMethod::Squash => trial.merge(onto, head, &[onto]).await,
            MergeMethod::Rebase => trial.rebase(onto, head).await,
        }
    }

    /// Puts all heads on top of `base`, one after the other; ends at the first conflict.
    pub async fn merges_cleanly(
        &self,
        repo: &RepoId,
        base: &str,
        heads: &[&str],
        method: MergeMethod,
    ) -> Result<TrialMerge, GitError> {
        let mut commit = base.to_owned();
        let mut tree = self.tree_of(repo, base).await?;
        for &head in heads {
            match self.merge_onto(repo, &commit, head, method).await? {
                MergeOutcome::Clean {
                    commit: next,
                    tree: with_it,
                } => (commit, tree) = (next, with_it),
                MergeOutcome::Conflict { paths } => {
                    return Ok(TrialMerge::Conflict {
                        head: head.to_owned(),
                        paths,
                    });
                }
            }
        }
        Ok(TrialMerge::Clean { commit, tree })
    }
}

/// git at work on the objects of one mirror.
pub(super) struct Trial<'a> {
    pub(super) mirrors: &'a Mirrors,
    pub(super) repo: &'a RepoId,
    pub(super) in_use: &'a InUse,
}

/// Why two trees do not go together.
pub(super) struct Clash {
    /// Sorted.
    pub(super) paths: Vec<String>,
    /// git's words, a line for each conflict.
    pub(super) said: String,
}

impl Clash {
    /// The conflicting paths, an empty one, then messages: how many paths, those, a kind, a text. All end in a zero
    /// byte.
    fn read(text: &str) -> Self {
        let mut parts = text.split('\0');
        let mut paths: Vec<String> = parts
            .by_ref()
            .take_while(|path| !path.is_empty())
            .map(str::to_owned)
            .collect();
        paths.sort();
        paths.dedup();
        let mut said = String::new();
        while let Some(count) = parts.next().and_then(|count| count.parse::<usize>().ok()) {
            let message = parts.by_ref().skip(count).take(2).collect::<Vec<_>>();
            if let [kind, text] = message[..]
                && kind.starts_with("CONFLICT")
            {
                said.push_str(text);
            }
        }
        said.truncate(said.trim_end().len());
        Self { paths, said }
    }
}

impl Trial<'_> {
    async fn git(&self, args: &[&str]) -> Result<Output, GitError> {
        let inner = &self.mirrors.inner;
        inner.local(self.repo, &self.in_use.mirror, args).await
    }

    async fn id(&self, args: &[&str]) -> Result<String, GitError> {
        let output = self.git(args).await?;
        output.id().ok_or_else(|| failed(self.repo, args, &output))
    }

    /// The merged tree, or the conflict.
    pub(super) async fn merge_tree(
        &self,
        args: &[&str],
    ) -> Result<Result<String, Clash>, GitError> {
        let mut all = vec![
            "merge-tree",
            "--write-tree",
            "-z",
            "--name-only",
            "--messages",
        ];
        all.extend(args);
        let inner = &self.mirrors.inner;
        let output = inner
            .try_local(self.repo, &self.in_use.mirror, &all)
            .await?;
        // 0: clean, 1: conflicts.
        let text = String::from_utf8_lossy(&output.stdout);
        match (output.code, text.split_once('\0')) {
            (Some(0), Some((tree, _))) => Ok(Ok(tree.trim().to_owned())),
            (Some(1), Some((_, clash))) => Ok(Err(Clash::read(clash))),
            _ => Err(failed(self.repo, &all, &output)),
        }
    }

    async fn commit(&self, tree: &str, parents: &[&str]) -> Result<String, GitError> {
        let mut args = vec!["commit-tree", tree, "-m", "trial"];
        for parent in parents {
            args.extend(["-p", parent]);
        }
        self.id(&args).await
    }

    async fn merge(
        &self,
        onto: &str,
        head: &str,
        parents: &[&str],
    ) -> Result<MergeOutcome, GitError> {
        let tree = match self.merge_tree(&[onto, head]).await? {
            Ok(tree) => tree,
            Err(clash) => return Ok(MergeOutcome::Conflict { paths: clash.paths }),
        };
        let commit = self.commit(&tree, parents).await?;
        Ok(MergeOutcome::Clean { commit, tree })
    }

    /// The only parent of a commit; for one without, the empty tree, from which it changes everything.
    async fn parent(&self, commit: &str) -> Result<String, GitError> {
        let args = ["rev-list", "--parents", "--max-count=1", commit];
        let output = self.git(&args).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.split_whitespace().nth(1) {
            Some(parent) => Ok(parent.to_owned()),
            None => self.empty_tree().await,
        }
    }

    pub(super) async fn empty_tree(&self) -> Result<String, GitError> {
        self.id(&["hash-object", "-w", "-t", "tree", "/dev/null"])
            .await
    }

    /// Each commit of the head that is not in `onto`, as its own change, merges left out: what `git rebase` does.
    async fn rebase(&self, onto: &str, head: &str) -> Result<MergeOutcome, GitError> {
        let range = format!("{onto}...{head}");
        let list = [
            "rev-list",
            "--reverse",
            "--topo-order",
            "--no-merges",
            // Without those whose change is in `onto` already, by patch.
            "--cherry-pick",
            "--right-only",
            &range,
        ];
        let output = self.git(&list).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let commits: Vec<&str> = text.lines().collect();
        if commits.len() > MAX_REBASED {
            return Err(GitError::TooLarge {
                repo: self.repo.clone(),
                what: format!("the list of {head}'s commits to rebase"),
                limit: MAX_REBASED as u64,
            });
        }
        let mut tip = onto.to_owned();
        for commit in commits {
            let parent = self.parent(commit).await?;
            let base = format!("--merge-base={parent}");
            match self.merge_tree(&[&base, &tip, commit]).await? {
                Ok(tree) => tip = self.commit(&tree, &[&tip]).await?,
                Err(clash) => return Ok(MergeOutcome::Conflict { paths: clash.paths }),
            }
        }
        let tree = self.mirrors.tree_of(self.repo, &tip).await?;
        Ok(MergeOutcome::Clean { commit: tip, tree })
    }
}
