//! Reading: commits, changed files, trees and blobs.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Git, GitError, MAX_PUSHED_COMMITS, ZERO};
use crate::forge::{Commit, PushedCommit, Signature};

/// Fields of one commit: NUL between them, and the record separator (which text does not contain) before each commit.
const FORMAT: &str =
    "--format=%x1e%H%x00%T%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%ct%x00%B%x00";
/// Commits read at once, GitHub's bound on the commits of a pull request.
const MAX_COMMITS: usize = 250;
/// GitHub's bound on the files of a pull request.
const MAX_FILES: usize = 3000;

/// A file that a pull request changes.
#[derive(Debug, Clone)]
pub(crate) struct ChangedFile {
    pub(crate) path: String,
    pub(crate) previous: Option<String>,
    /// `added`, `removed`, `modified` or `renamed`.
    pub(crate) status: &'static str,
    pub(crate) sha: String,
    pub(crate) additions: u64,
    pub(crate) deletions: u64,
    /// The hunks; none for binary files.
    pub(crate) patch: Option<String>,
}

/// Something in a tree.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) sha: String,
    /// `blob`, `tree` or `commit`.
    pub(crate) kind: String,
    pub(crate) size: u64,
}

impl Git {
    /// The commit that a name means, if it means one.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Option<String>, GitError> {
        if name.starts_with('-') || name.is_empty() {
            return Ok(None);
        }
        for candidate in [
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}"),
            name.to_owned(),
        ] {
            let spec = format!("{candidate}^{{commit}}");
            let args = ["rev-parse", "--verify", "-q", "--end-of-options", &spec];
            let output = self.output(&args, &[], b"").await?;
            if output.status == 0 {
                let sha = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                return Ok(Some(sha));
            }
        }
        Ok(None)
    }

    /// Branch tips.
    pub(crate) async fn branches(&self) -> Result<Vec<(String, String)>, GitError> {
        self.refs("refs/heads").await
    }

    /// What tags name; for an annotated one the tag itself.
    pub(crate) async fn tags(&self) -> Result<Vec<(String, String)>, GitError> {
        self.refs("refs/tags").await
    }

    async fn refs(&self, below: &str) -> Result<Vec<(String, String)>, GitError> {
        let format = "--format=%(objectname) %(refname:lstrip=2)";
        let text = self.text(&["for-each-ref", format, below]).await?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(sha, name)| (name.to_owned(), sha.to_owned()))
            .collect())
    }

    /// One commit.
    pub(crate) async fn commit(&self, sha: &str) -> Result<Commit, GitError> {
        let found = self.log(&["-1", sha]).await?;
        found
            .into_iter()
            .next()
            .map(|pushed| pushed.commit)
            .ok_or_else(|| GitError::Unexpected {
                command: format!("log -1 {sha}"),
                answer: String::new(),
            })
    }

    /// The commits that `head` has and `base` lacks, oldest first.
    pub(crate) async fn commits_between(
        &self,
        base: &str,
        head: &str,
    ) -> Result<Vec<Commit>, GitError> {
        let range = format!("{base}..{head}");
        let commits = self
            .log(&["--reverse", "--topo-order", range.as_str()])
            .await?;
        Ok(commits
            .into_iter()
            .map(|pushed| pushed.commit)
            .take(MAX_COMMITS)
            .collect())
    }

    /// The best common ancestor, if there is one.
    pub(crate) async fn merge_base(&self, a: &str, b: &str) -> Result<Option<String>, GitError> {
        let output = self.output(&["merge-base", a, b], &[], b"").await?;
        let sha = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output.status == 0 && !sha.is_empty()).then_some(sha))
    }

    /// How many commits `head` has and `base` lacks.
    pub(crate) async fn count_between(&self, base: &str, head: &str) -> Result<u64, GitError> {
        let range = format!("{base}..{head}");
        let text = self.text(&["rev-list", "--count", &range]).await?;
        text.parse().map_err(|_| GitError::Unexpected {
            command: format!("rev-list --count {range}"),
            answer: text,
        })
    }

    /// The commits that a push brought to a branch: new on it, or for a new branch new to the repository.
    pub(crate) async fn pushed_commits(
        &self,
        before: &str,
        after: &str,
        other_tips: &[String],
    ) -> Result<Vec<PushedCommit>, GitError> {
        let cut = format!("-{MAX_PUSHED_COMMITS}");
        let mut args = vec![
            "--name-status",
            "--no-renames",
            cut.as_str(),
            after,
            "--not",
        ];
        if before == ZERO {
            args.extend(other_tips.iter().map(String::as_str));
        } else {
            args.push(before);
        }
        let mut commits = self.log(&args).await?;
        commits.reverse();
        Ok(commits)
    }

    /// One commit with the paths it touches.
    pub(crate) async fn pushed_commit(&self, sha: &str) -> Result<Option<PushedCommit>, GitError> {
        let found = self
            .log(&["--name-status", "--no-renames", "-1", sha])
            .await?;
        Ok(found.into_iter().next())
    }

    async fn log(&self, args: &[&str]) -> Result<Vec<PushedCommit>, GitError> {
        let mut all = vec!["log", "-z", FORMAT];
        all.extend(args);
        all.push("--");
        let bytes = self.run(&all, &[], b"").await?;
        let text = String::from_utf8_lossy(&bytes);
        text.split('\u{1e}')
            .filter(|record| !record.trim_matches(['\0', '\n']).is_empty())
            .map(|record| {
                parse_commit(record).ok_or_else(|| GitError::Unexpected {
                    command: all.join(" "),
                    answer: record.to_owned(),
                })
            })
            .collect()
    }

    /// What changed between the merge base and `head`, as a pull request shows it.
    pub(crate) async fn changed_files(
        &self,
        base: &str,
        head: &str,
    ) -> Result<Arc<Vec<ChangedFile>>, GitError> {
        let is_sha = |name: &str| name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_sha(base) || !is_sha(head) {
            return self.diff(base, head).await.map(Arc::new);
        }
        let key = (self.dir().to_owned(), base.to_owned(), head.to_owned());
        if let Some(known) = self.diffs.get(&key) {
            return Ok(known);
        }
        let files = Arc::new(self.diff(base, head).await?);
        self.diffs.put(key, files.clone());
        Ok(files)
    }

    async fn diff(&self, base: &str, head: &str) -> Result<Vec<ChangedFile>, GitError> {
        let range = format!("{base}...{head}");
        let raw = self
            .run(
                &[
                    "diff",
                    "-M",
                    "--raw",
                    "--numstat",
                    "-z",
                    "--abbrev=40",
                    &range,
                ],
                &[],
                b"",
            )
            .await?;
        let unexpected = |answer: &[u8]| GitError::Unexpected {
            command: "diff --raw --numstat".into(),
            answer: String::from_utf8_lossy(answer).into_owned(),
        };
        let mut files = parse_raw_and_numstat(&String::from_utf8_lossy(&raw))
            .ok_or_else(|| unexpected(&raw))?;
        let patch = self.run(&["diff", "-M", "-p", &range], &[], b"").await?;
        let patch = String::from_utf8_lossy(&patch);
        let sections = format!("\n{patch}");
        for (file, section) in files
            .iter_mut()
            .zip(sections.split("\ndiff --git ").skip(1))
        {
            file.patch = section
                .find("\n@@ ")
                .map(|at| section[at + 1..].trim_end_matches('\n').to_owned());
        }
        files.truncate(MAX_FILES);
        Ok(files)
    }

    /// What a pull request changes as text: one difference, or its commits as patches for mail.
    pub(crate) async fn text_of(
        &self,
        base: &str,
        head: &str,
        as_patch: bool,
    ) -> Result<Vec<u8>, GitError> {
        if as_patch {
            let range = format!("{base}..{head}");
            return self
                .run(&["format-patch", "--stdout", &range], &[], b"")
                .await;
        }
        self.run(&["diff", "-M", "-p", &format!("{base}...{head}")], &[], b"")
            .await
    }

    /// What a path of a commit is; for a directory, what it contains. The root is the empty path.
    pub(crate) async fn entries(
        &self,
        commit: &str,
        path: &str,
    ) -> Result<Option<(Vec<Entry>, bool)>, GitError> {
        let path = path.trim_matches('/');
        let is_dir = if path.is_empty() {
            true
        } else {
            let found = self.ls_tree(commit, path).await?;
            match found.into_iter().next() {
                None => return Ok(None),
                Some(entry) if entry.kind == "tree" => true,
                Some(entry) => return Ok(Some((vec![entry], false))),
            }
        };
        let inside = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        Ok(Some((self.ls_tree(commit, &inside).await?, is_dir)))
    }

    async fn ls_tree(&self, commit: &str, path: &str) -> Result<Vec<Entry>, GitError> {
        let mut args = vec!["--literal-pathspecs", "ls-tree", "-z", "-l", commit];
        if !path.is_empty() {
            args.extend(["--", path]);
        }
        let bytes = self.run(&args, &[], b"").await?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.split('\0').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                parse_tree_line(line).ok_or_else(|| GitError::Unexpected {
                    command: "ls-tree".into(),
                    answer: line.to_owned(),
                })
            })
            .collect()
    }

    /// A blob's bytes.
    pub(crate) async fn blob(&self, sha: &str) -> Result<Vec<u8>, GitError> {
        self.run(&["cat-file", "blob", sha], &[], b"").await
    }
}

fn parse_commit(record: &str) -> Option<PushedCommit> {
    let mut fields = record.splitn(11, '\0');
    let mut next = || fields.next();
    let sha = next()?.to_owned();
    let tree = next()?.to_owned();
    let parents = next()?.split_whitespace().map(str::to_owned).collect();
    let author = parse_signature(next()?, next()?, next()?)?;
    let committer = parse_signature(next()?, next()?, next()?)?;
    let message = next()?.trim_end_matches('\n').to_owned();
    let mut pushed = PushedCommit {
        commit: Commit {
            sha,
            tree,
            parents,
            author,
            committer,
            message,
        },
        added: Vec::new(),
        removed: Vec::new(),
        modified: Vec::new(),
    };
    let rest = fields.next().unwrap_or_default();
    let mut names = rest
        .split('\0')
        .map(|part| part.trim_start_matches('\n'))
        .filter(|part| !part.is_empty());
    while let (Some(status), Some(path)) = (names.next(), names.next()) {
        let list = match status.as_bytes().first() {
            Some(b'A') => &mut pushed.added,
            Some(b'D') => &mut pushed.removed,
            _ => &mut pushed.modified,
        };
        list.push(path.to_owned());
    }
    Some(pushed)
}

fn parse_signature(name: &str, email: &str, seconds: &str) -> Option<Signature> {
    Some(Signature {
        name: name.to_owned(),
        email: email.to_owned(),
        at: Timestamp::from_second(seconds.parse().ok()?).ok()?,
    })
}

/// `git diff --raw --numstat -z`: first all raw records, then all counts, in the same order.
fn parse_raw_and_numstat(text: &str) -> Option<Vec<ChangedFile>> {
    let mut parts = text.split('\0').peekable();
    let mut files = Vec::new();
    while let Some(part) = parts.peek() {
        let Some(raw) = part.strip_prefix(':') else {
            break;
        };
        let columns: Vec<&str> = raw.split(' ').collect();
        let (old, new, letter) = (*columns.get(2)?, *columns.get(3)?, *columns.get(4)?);
        parts.next();
        let first = parts.next()?.to_owned();
        let (status, path, previous, sha) = match letter.as_bytes().first()? {
            b'A' => ("added", first, None, new),
            b'D' => ("removed", first, None, old),
            b'R' => ("renamed", parts.next()?.to_owned(), Some(first), new),
            _ => ("modified", first, None, new),
        };
        files.push(ChangedFile {
            path,
            previous,
            status,
            sha: sha.to_owned(),
            additions: 0,
            deletions: 0,
            patch: None,
        });
    }
    for file in &mut files {
        let line = parts.next()?;
        let mut columns = line.split('\t');
        file.additions = columns.next()?.parse().unwrap_or(0);
        file.deletions = columns.next()?.parse().unwrap_or(0);
        if columns.next()?.is_empty() {
            // A rename prints its two paths as parts of their own.
            parts.next()?;
            parts.next()?;
        }
    }
    Some(files)
}

fn parse_tree_line(line: &str) -> Option<Entry> {
    let (meta, path) = line.split_once('\t')?;
    let mut columns = meta.split_whitespace();
    let _mode = columns.next()?;
    let kind = columns.next()?.to_owned();
    let sha = columns.next()?.to_owned();
    let size = columns.next()?.parse().unwrap_or(0);
    Some(Entry {
        path: path.to_owned(),
        sha,
        kind,
        size,
    })
}
