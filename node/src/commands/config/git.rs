//! A commit of a repository on this machine, read with the git program: nothing is checked out.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
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
use crate::exit::{NOT_FOUND, coded};

/// Beside config.yaml it tells the version; in a job tree it hides files.
const VERSION: &str = "VERSION";
const IGNORE: &str = ".prowignore";

pub(super) struct Commit {
    repo: std::path::PathBuf,
    id: String,
    /// Regular files: path to object.
    files: BTreeMap<String, String>,
    /// Symbolic links, which are not followed.
    links: BTreeSet<String>,
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
            id,
            files,
            links,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The paths that a layout names; none of them may be a link, of which a commit has only the name.
    fn wanted(&self, layout: &Layout) -> anyhow::Result<Vec<&str>> {
        if let Some(link) = self.links.iter().find(|path| is_wanted(layout, path)) {
            anyhow::bail!(
                "commit {}: {link:?} is a symbolic link (mode 120000), and links of a commit are not followed: commit the file \
                 itself in its place, or check the commit out and apply the checkout",
                self.id
            );
        }
        let named = [Some(&layout.config), layout.plugins.as_ref()];
        for path in named.into_iter().flatten() {
            anyhow::ensure!(
                self.is_file(path),
                coded(
                    NOT_FOUND,
                    format!("commit {} has no file {path:?}", self.id)
                )
            );
        }
        if let Some(jobs) = &layout.jobs {
            anyhow::ensure!(
                self.is_file(jobs) || self.is_dir(jobs),
                coded(
                    NOT_FOUND,
                    format!("commit {} has no file or directory {jobs:?}", self.id)
                )
            );
        }
        let paths = self.files.keys().map(String::as_str);
        Ok(paths.filter(|path| is_wanted(layout, path)).collect())
    }

    /// Reads what a layout names.
    ///
    /// # Errors
    /// When a file is not there, or git fails.
    pub(super) async fn read(&self, layout: Layout) -> anyhow::Result<FileSet> {
        let paths = self.wanted(&layout)?;
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
            .filter_map(|path| self.files.get(*path))
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
        if let Some(jobs) = layout.jobs.filter(|jobs| self.is_dir(jobs)) {
            // An empty tree is valid, and a set knows directories by their files only.
            let prefix = format!("{jobs}/");
            if !set.iter().any(|(path, _)| path.starts_with(&prefix)) {
                set.insert(format!("{jobs}/{IGNORE}"), Vec::new());
            }
        }
        Ok(set)
    }
}

fn is_wanted(layout: &Layout, path: &str) -> bool {
    let dir = layout.config.rsplit_once('/').map(|(dir, _)| dir);
    let version = dir.map_or_else(|| VERSION.to_owned(), |dir| format!("{dir}/{VERSION}"));
    let ends = |suffix: &str| path.ends_with(suffix);
    let is_job = layout.jobs.as_deref().is_some_and(|root| {
        let name = path.rsplit('/').next().unwrap_or(path);
        path == root || below(path, root) && (ends(".yaml") || ends(".yml") || name == IGNORE)
    });
    is_job
        || path == layout.config
        || layout.plugins.as_deref() == Some(path)
        || path == version
        || layout.is_supplemental(path)
        || layout.is_plugin_supplemental(path)
}

fn below(path: &str, dir: &str) -> bool {
    dir.is_empty()
        || path
            .strip_prefix(dir.trim_end_matches('/'))
            .is_some_and(|rest| rest.starts_with('/'))
}

impl Tree for Commit {
    fn is_file(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    fn is_dir(&self, path: &str) -> bool {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let first = self.files.range::<str, _>(from).next();
        first.is_some_and(|(path, _)| path.starts_with(&prefix))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Left out without a word, the jobs of a linked file would be retired.
    #[test]
    fn a_link_in_the_place_of_a_wanted_file_is_refused_by_its_path() {
        let object = |path: &str| (path.to_owned(), "object".to_owned());
        let commit = |links: &[&str]| Commit {
            repo: "/repo".into(),
            id: "c0ffee".to_owned(),
            files: ["config.yaml", "jobs/a.yaml"].map(object).into(),
            links: links.iter().map(|path| (*path).to_owned()).collect(),
        };
        let layout = Layout {
            config: "config.yaml".into(),
            jobs: Some("jobs".into()),
            ..Layout::default()
        };
        let elsewhere = commit(&["README.md", "jobs/OWNERS"]);
        assert_eq!(
            elsewhere.wanted(&layout).unwrap(),
            ["config.yaml", "jobs/a.yaml"]
        );
        let linked = commit(&["jobs/b.yaml"]);
        insta::assert_snapshot!(linked.wanted(&layout).unwrap_err(), @r#"commit c0ffee: "jobs/b.yaml" is a symbolic link (mode 120000), and links of a commit are not followed: commit the file itself in its place, or check the commit out and apply the checkout"#);
    }
}
