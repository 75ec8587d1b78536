//! Making repositories, commits without a clone, and refs.

use std::fmt::Write as _;

use super::{Git, GitError};
use crate::forge::Signature;

/// Configuration of every repository: what GitHub's servers allow and refuse, and no durability, since nothing here
/// outlives the process.
const CONFIG: &str = "
[uploadpack]
	allowAnySHA1InWant = true
	allowFilter = true
[transfer]
	hideRefs = refs/sandbox
[receive]
	hideRefs = refs/pull
	autogc = false
	advertisePushOptions = true
[gc]
	auto = 0
[maintenance]
	auto = false
[core]
	logAllRefUpdates = false
	fsync = none
";

/// One path of a commit.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub(crate) path: String,
    /// None deletes.
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) executable: bool,
}

impl Git {
    pub(crate) async fn init(&self, default_branch: &str) -> Result<(), GitError> {
        let start = |source| GitError::Start {
            command: "init".into(),
            source,
        };
        tokio::fs::create_dir_all(self.dir()).await.map_err(start)?;
        self.text(&["init", "-q", "--bare", "-b", default_branch, "."])
            .await?;
        self.configure().await
    }

    async fn configure(&self) -> Result<(), GitError> {
        let start = |source| GitError::Start {
            command: "init".into(),
            source,
        };
        let path = self.dir().join("config");
        let mut config = tokio::fs::read_to_string(&path).await.map_err(start)?;
        config.push_str(CONFIG);
        tokio::fs::write(&path, config).await.map_err(start)
    }

    /// Makes this repository a fork of `parent`: its branches, not its pull requests.
    pub(crate) async fn fork_from(
        &self,
        parent: &Git,
        default_branch: &str,
    ) -> Result<(), GitError> {
        self.init(default_branch).await?;
        let parent = parent.dir().to_string_lossy().into_owned();
        self.text(&[
            "fetch",
            "-q",
            "--no-write-fetch-head",
            parent.as_str(),
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ])
        .await?;
        Ok(())
    }

    /// Brings a commit of another repository here and names it by `reference`.
    pub(crate) async fn fetch(
        &self,
        from: &Git,
        sha: &str,
        reference: &str,
    ) -> Result<(), GitError> {
        if from.dir() == self.dir() {
            return self.set_ref(reference, sha, None).await;
        }
        let from = from.dir().to_string_lossy().into_owned();
        let refspec = format!("+{sha}:{reference}");
        self.text(&[
            "fetch",
            "-q",
            "--no-tags",
            "--no-write-fetch-head",
            from.as_str(),
            refspec.as_str(),
        ])
        .await?;
        Ok(())
    }

    /// Moves a ref; with `expected`, only from that value.
    pub(crate) async fn set_ref(
        &self,
        reference: &str,
        sha: &str,
        expected: Option<&str>,
    ) -> Result<(), GitError> {
        let mut args = vec!["update-ref", reference, sha];
        args.extend(expected);
        self.text(&args).await?;
        Ok(())
    }

    pub(crate) async fn delete_ref(&self, reference: &str) -> Result<(), GitError> {
        self.text(&["update-ref", "-d", reference]).await?;
        Ok(())
    }

    /// Commits `edits` on top of `parent` (none: a root commit) and moves the branch there, wherever it was.
    pub(crate) async fn commit_on(
        &self,
        branch: &str,
        parent: Option<&str>,
        edits: &[Edit],
        message: &str,
        author: &Signature,
    ) -> Result<String, GitError> {
        let mut stream: Vec<u8> = Vec::new();
        let mut head = String::new();
        let who = |role: &str| {
            format!(
                "{role} {} <{}> {} +0000\n",
                author.name,
                author.email,
                author.at.as_second()
            )
        };
        let _ = write!(head, "feature done\ncommit refs/heads/{branch}\nmark :1\n");
        head.push_str(&who("author"));
        head.push_str(&who("committer"));
        let _ = writeln!(head, "data {}\n{message}", message.len());
        if let Some(parent) = parent {
            let _ = writeln!(head, "from {parent}");
        }
        stream.extend_from_slice(head.as_bytes());
        for edit in edits {
            match &edit.content {
                Some(content) => {
                    let mode = if edit.executable { "100755" } else { "100644" };
                    let line = format!("M {mode} inline {}\n", quoted(&edit.path));
                    stream.extend_from_slice(line.as_bytes());
                    stream.extend_from_slice(format!("data {}\n", content.len()).as_bytes());
                    stream.extend_from_slice(content);
                    stream.push(b'\n');
                }
                None => {
                    stream.extend_from_slice(format!("D {}\n", quoted(&edit.path)).as_bytes());
                }
            }
        }
        stream.extend_from_slice(b"\nget-mark :1\ndone\n");
        let args = ["fast-import", "--quiet", "--force", "--done"];
        let answer = self.run(&args, &[], &stream).await?;
        sha_in("fast-import", &answer)
    }

    /// Makes a commit object; no ref moves.
    pub(crate) async fn commit_tree(
        &self,
        tree: &str,
        parents: &[&str],
        message: &str,
        author: &Signature,
        committer: &Signature,
    ) -> Result<String, GitError> {
        let mut args = vec!["commit-tree", tree];
        for parent in parents {
            args.extend(["-p", parent]);
        }
        let date = |s: &Signature| format!("{} +0000", s.at.as_second());
        let env = [
            ("GIT_AUTHOR_NAME", author.name.clone()),
            ("GIT_AUTHOR_EMAIL", author.email.clone()),
            ("GIT_AUTHOR_DATE", date(author)),
            ("GIT_COMMITTER_NAME", committer.name.clone()),
            ("GIT_COMMITTER_EMAIL", committer.email.clone()),
            ("GIT_COMMITTER_DATE", date(committer)),
        ];
        let answer = self.run(&args, &env, message.as_bytes()).await?;
        sha_in("commit-tree", &answer)
    }
}

/// A path in fast-import's C-style quotes.
fn quoted(path: &str) -> String {
    format!(
        "\"{}\"",
        path.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    )
}

/// The commit or tree id that a git command answered in its first line.
pub(super) fn sha_in(command: &str, answer: &[u8]) -> Result<String, GitError> {
    let text = String::from_utf8_lossy(answer);
    let sha = text.lines().next().unwrap_or_default().trim();
    if sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(sha.to_owned())
    } else {
        Err(GitError::Unexpected {
            command: command.into(),
            answer: text.into_owned(),
        })
    }
}
