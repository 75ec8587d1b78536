//! What a pull request changes, told by git itself: its files and its commits, however many there are (GHC-025).

use jiff::Timestamp;

use super::GitError;
use super::command::Output;
use super::mirrors::{InUse, Mirrors};
use super::read::Commit;
use crate::types::{Commit as CommitFacts, FileStatus, RepoId, Signature};

/// Commits between two others are told up to this many.
pub const MAX_COMMITS: usize = 10_000;

/// Beyond so many files on either side, git looks for exact renames only; its own default.
const RENAME_LIMIT: &str = "-l1000";

/// What a commit is told by, each field ended by a zero byte.
const FIELDS: &str =
    "--format=tformat:%H%x00%T%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%ct%x00%B";
const FIELD_COUNT: usize = 10;

/// A file that differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedPath {
    /// From the repository's root. Bytes that are not UTF-8 become U+FFFD.
    pub path: String,
    /// Where it was before, if it was renamed.
    pub previous_path: Option<String>,
    pub status: FileStatus,
    /// Lines; 0 for binary files.
    pub additions: u64,
    pub deletions: u64,
}

impl Mirrors {
    /// What `head` changed since it left `base`: against their merge base, as a forge shows a pull request, but all of
    /// it. Sorted by path. Both commits must be in the mirror.
    pub async fn changed_files(
        &self,
        repo: &RepoId,
        base: &str,
        head: &str,
    ) -> Result<Vec<ChangedPath>, GitError> {
        let from = self.fork_point(repo, base, head).await?;
        self.diff(repo, &from, head).await
    }

    /// The unified diff of one of [`Mirrors::changed_files`], without headers: from its first `@@` on. `None` for binary
    /// files and those that only moved.
    pub async fn patch(
        &self,
        repo: &RepoId,
        base: &str,
        head: &str,
        file: &ChangedPath,
    ) -> Result<Option<String>, GitError> {
        let from = self.fork_point(repo, base, head).await?;
        let in_use = self.inner.in_use(repo).await?;
        let paths: Vec<String> = [Some(&file.path), file.previous_path.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| format!(":(literal){path}"))
            .collect();
        let mut args = vec!["diff-tree", "-r", "--patch", "--find-renames", RENAME_LIMIT];
        args.extend([
            "--no-commit-id",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
        ]);
        args.extend([&from, head, "--"]);
        args.extend(paths.iter().map(String::as_str));
        let output = self.inner.local(repo, &in_use.mirror, &args).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(hunks(&text, file.previous_path.is_some()))
    }

    /// How the tree of `to` differs from the tree of `from`. Sorted by path.
    pub async fn diff(
        &self,
        repo: &RepoId,
        from: &str,
        to: &str,
    ) -> Result<Vec<ChangedPath>, GitError> {
        let in_use = self.inner.in_use(repo).await?;
        self.must_have(repo, &in_use, [from, to]).await?;
        let mut args = vec!["diff-tree", "-r", "-z", "--raw", "--numstat"];
        args.extend([
            "--find-renames",
            RENAME_LIMIT,
            "--no-commit-id",
            "--no-abbrev",
        ]);
        args.extend(["--no-ext-diff", "--no-textconv", from, to]);
        let output = self.inner.local(repo, &in_use.mirror, &args).await?;
        changed_paths(&output).ok_or_else(|| unreadable(repo, "git diff-tree"))
    }

    /// The commits of `head` that are not in `base`, oldest first (a commit never comes before one of its parents), all
    /// of them. `author_login` is not git's to know. Both must be in the mirror.
    ///
    /// # Errors
    /// `TooMany` beyond [`MAX_COMMITS`]: a part of them is never told.
    pub async fn commits_between(
        &self,
        repo: &RepoId,
        base: &str,
        head: &str,
    ) -> Result<Vec<CommitFacts>, GitError> {
        let in_use = self.inner.in_use(repo).await?;
        self.must_have(repo, &in_use, [base, head]).await?;
        let at_most = format!("--max-count={}", MAX_COMMITS + 1);
        let range = format!("{base}..{head}");
        let args = [
            "log",
            "-z",
            "--topo-order",
            "--reverse",
            "--encoding=UTF-8",
            "--no-show-signature",
            "--no-notes",
            FIELDS,
            &at_most,
            "--end-of-options",
            &range,
        ];
        let output = self.inner.local(repo, &in_use.mirror, &args).await?;
        let commits = commits(&output).ok_or_else(|| unreadable(repo, "git log"))?;
        if commits.len() > MAX_COMMITS {
            return Err(GitError::TooMany {
                repo: repo.clone(),
                what: format!("commits between {base} and {head}"),
                limit: MAX_COMMITS as u64,
            });
        }
        Ok(commits)
    }

    /// Those of [`Mirrors::commits_between`] that are merges.
    pub async fn merge_commits_between(
        &self,
        repo: &RepoId,
        base: &str,
        head: &str,
    ) -> Result<Vec<CommitFacts>, GitError> {
        let mut commits = self.commits_between(repo, base, head).await?;
        commits.retain(|commit| commit.parents.len() > 1);
        Ok(commits)
    }

    /// Where `head` left `base`; `base` itself if they have nothing in common.
    async fn fork_point(&self, repo: &RepoId, base: &str, head: &str) -> Result<String, GitError> {
        let common = self.merge_base(repo, base, head).await?;
        Ok(common.unwrap_or_else(|| base.to_owned()))
    }

    /// git complains of what is missing in words that nobody should have to read.
    async fn must_have(
        &self,
        repo: &RepoId,
        in_use: &InUse,
        ids: [&str; 2],
    ) -> Result<(), GitError> {
        let [one, two] = [Commit::new(repo, ids[0])?, Commit::new(repo, ids[1])?];
        in_use
            .read(repo, "looking for commits", move |repository| {
                one.tree(repository)?;
                two.tree(repository)?;
                Ok(())
            })
            .await
    }
}

fn unreadable(repo: &RepoId, action: &str) -> GitError {
    GitError::Failed {
        repo: repo.clone(),
        action: action.to_owned(),
        reason: "it said something that cannot be read".to_owned(),
    }
}

/// First all files as `:<mode> <mode> <id> <id> <status>`, path, and for renames the new path; then all again as
/// `<additions>\t<deletions>\t<path>`, for renames with both paths behind. Every part ends in a zero byte.
fn changed_paths(output: &Output) -> Option<Vec<ChangedPath>> {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut parts = text.split_terminator('\0').peekable();
    let mut files = Vec::new();
    while let Some(raw) = parts.next_if(|part| part.starts_with(':')) {
        let mut words = raw[1..].split(' ');
        let (modes, ids) = (
            [words.next()?, words.next()?],
            [words.next()?, words.next()?],
        );
        let letter = words.next()?.chars().next()?;
        let path = parts.next()?.to_owned();
        let status = match letter {
            'A' => FileStatus::Added,
            'D' => FileStatus::Removed,
            'R' => FileStatus::Renamed,
            'C' => FileStatus::Copied,
            'M' if ids[0] != ids[1] && modes[0].starts_with("10") == modes[1].starts_with("10") => {
                FileStatus::Modified
            }
            // Its mode or its type alone.
            'M' | 'T' => FileStatus::Changed,
            _ => return None,
        };
        let moved = matches!(letter, 'R' | 'C');
        let (path, previous_path) = if moved {
            (parts.next()?.to_owned(), Some(path))
        } else {
            (path, None)
        };
        files.push(ChangedPath {
            path,
            previous_path,
            status,
            additions: 0,
            deletions: 0,
        });
    }
    for file in &mut files {
        let mut columns = parts.next()?.splitn(3, '\t');
        // A dash for binary files.
        file.additions = columns.next()?.parse().unwrap_or(0);
        file.deletions = columns.next()?.parse().unwrap_or(0);
        let path = columns.next()?;
        let path = if path.is_empty() {
            parts.next()?;
            parts.next()?
        } else {
            path
        };
        if path != file.path {
            return None;
        }
    }
    if parts.next().is_some() {
        return None;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Some(files)
}

/// The hunks of the file that was asked for. There are others beside it if a directory took the place of a file, or a
/// file that of a directory.
fn hunks(text: &str, moved: bool) -> Option<String> {
    let sections = format!("\n{text}");
    let mut sections = sections
        .split("\ndiff --git ")
        .skip(1)
        .map(|section| section.split_once("\n@@ ").unwrap_or((section, "")));
    let (_, hunks) = sections.find(|(header, _)| {
        let is_moved = header.contains("\nrename from ") || header.contains("\ncopy from ");
        is_moved == moved
    })?;
    if hunks.is_empty() {
        return None;
    }
    Some(format!("@@ {}", hunks.trim_end_matches('\n')))
}

fn commits(output: &Output) -> Option<Vec<CommitFacts>> {
    let text = String::from_utf8_lossy(&output.stdout);
    let fields: Vec<&str> = text.split_terminator('\0').collect();
    let commits = fields.chunks(FIELD_COUNT).map(|fields| {
        let &[id, tree, parents, an, ae, at, cn, ce, ct, message] = fields else {
            return None;
        };
        Some(CommitFacts {
            sha: id.to_owned(),
            tree_sha: tree.to_owned(),
            parents: parents.split_whitespace().map(str::to_owned).collect(),
            message: message.trim_end_matches('\n').to_owned(),
            author: signature(an, ae, at),
            committer: signature(cn, ce, ct),
            author_login: None,
        })
    });
    commits.collect()
}

fn signature(name: &str, email: &str, seconds: &str) -> Signature {
    Signature {
        name: name.to_owned(),
        email: email.to_owned(),
        at: seconds
            .parse()
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok()),
    }
}
