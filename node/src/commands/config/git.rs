//! A commit of a repository on this machine, read with the git program: nothing is checked out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Stdio,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};
use trireme_config::{FileSet, Layout};
use trireme_state::limits::MAX_CONFIG_BYTES;

use super::find::Tree;
use crate::{
    configuration::Listing,
    exit::{NOT_FOUND, coded},
};

pub(super) struct Commit {
    repo: std::path::PathBuf,
    listing: Listing,
}

impl Commit {
    /// Finds the commit and lists its files.
    ///
    /// # Errors
    /// When there is no git, no repository, or no such commit.
    pub(super) async fn open(repo: &Path, name: &str) -> anyhow::Result<Self> {
        let commit = format!("{name}^{{commit}}");
        let id = git(
            repo,
            &[
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                &commit,
            ],
        )
        .await
        .map_err(|why| {
            coded(
                NOT_FOUND,
                format!("{}: no commit {name:?}: {why:#}", repo.display()),
            )
        })?;
        let id = String::from_utf8_lossy(&id).trim().to_owned();
        let listed = git(repo, &["ls-tree", "-r", "-z", "--full-tree", &id]).await?;
        let (mut files, mut links) = (BTreeMap::new(), BTreeSet::new());
        for line in String::from_utf8_lossy(&listed).split('\0') {
            let Some((head, path)) = line.split_once('\t') else {
                continue;
            };
            let mut head = head.split(' ');
            let (mode, _, object) = (head.next(), head.next(), head.next());
            match (mode, object) {
                (Some("100644" | "100755" | "100664"), Some(object)) => {
                    files.insert(path.to_owned(), object.to_owned());
                }
                (Some("120000"), _) => {
                    links.insert(path.to_owned());
                }
                // Submodules.
                _ => {}
            }
        }
        Ok(Self {
            repo: repo.to_owned(),
            listing: Listing { id, files, links },
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.listing.id
    }

    /// Reads what a layout names.
    ///
    /// # Errors
    /// When a file is not there, or git fails.
    pub(super) async fn read(&self, layout: Layout) -> anyhow::Result<FileSet> {
        let paths = self.listing.wanted(&layout)?;
        let mut set = FileSet::new(layout.clone());
        let mut child = command(&self.repo, &["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("git cannot be started")?;
        let mut asked = child.stdin.take().context("git takes no input")?;
        let answered = child.stdout.take().context("git gives no output")?;
        let names: String = paths
            .iter()
            .filter_map(|path| self.listing.files.get(*path))
            .map(|object| format!("{object}\n"))
            .collect();
        let asking = async move {
            asked.write_all(names.as_bytes()).await?;
            asked.shutdown().await
        };
        let reading = async {
            let mut answered = BufReader::new(answered);
            let mut total = 0_u64;
            for path in &paths {
                let mut head = String::new();
                answered.read_line(&mut head).await?;
                // `<object> blob <size>`.
                let size = head.trim_end().rsplit(' ').next();
                let size: u64 = size
                    .and_then(|size| size.parse().ok())
                    .with_context(|| format!("{path}: git says {:?}", head.trim_end()))?;
                total = total.saturating_add(size);
                anyhow::ensure!(
                    total <= MAX_CONFIG_BYTES,
                    "the files are more than {MAX_CONFIG_BYTES} bytes, which a configuration may be at most"
                );
                let mut content = vec![0; usize::try_from(size)?];
                answered.read_exact(&mut content).await?;
                answered.read_u8().await?;
                set.insert(*path, content);
            }
            Ok(())
        };
        let (asked, read) = tokio::join!(asking, reading);
        read?;
        asked.context("git stopped reading")?;
        let status = child.wait().await?;
        anyhow::ensure!(status.success(), "git cat-file: {status}");
        self.listing.keep_empty_tree(&layout, &mut set);
        Ok(set)
    }
}

impl Tree for Commit {
    fn is_file(&self, path: &str) -> bool {
        self.listing.is_file(path)
    }

    fn is_dir(&self, path: &str) -> bool {
        self.listing.is_dir(path)
    }
}

fn command(repo: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(repo)
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn git(repo: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = command(repo, arguments)
        .output()
        .await
        .context("git cannot be started")?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match said.trim() {
        "" => Err(anyhow::anyhow!("there is none of that name")),
        said => Err(anyhow::anyhow!("{said}")),
    }
}
