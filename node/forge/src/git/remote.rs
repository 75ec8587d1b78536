//! What is asked of the git server: commits, whether a branch is there, and to take a commit onto one.

use std::path::Path;
use std::time::Duration;

use super::command::{Died, Output};
use super::mirrors::{Inner, Mirror, Mirrors, check_id, check_repo, failed};
use super::{GitError, GitSecret};
use crate::types::RepoId;

/// The first fetch of a large repository moves gigabytes.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A push moves a few commits.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Asking for a branch moves a few lines.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// What broke off is tried again so often, after these waits ±25 %.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// GitHub takes no longer ones.
const MAX_BRANCH: usize = 255;

/// A commit to put onto a branch of a repository: the one it was made in, or a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push<'a> {
    pub to: &'a RepoId,
    /// Without `refs/heads/`. Created if it is not there.
    pub branch: &'a str,
    /// A full object id.
    pub commit: &'a str,
    /// Also if it loses commits that are on the branch.
    pub force: bool,
}

/// What the server said to a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// The branch is at the commit now, or was before.
    Done,
    /// Not without losing what is on the branch, or against a rule of the repository; in the server's words.
    Rejected { reason: String },
}

impl Mirrors {
    /// Puts a commit of `repo`'s mirror onto a branch, as git itself would push it (GHC-065). Pushing the same again does
    /// nothing; what broke off is tried again a few times. In a dry run nothing is sent (GHC-010).
    ///
    /// # Errors
    /// `Forbidden` if we may not write there, `NotFound` if `push.to` or the commit does not exist.
    pub async fn push(&self, repo: &RepoId, push: &Push<'_>) -> Result<Pushed, GitError> {
        check_id(repo, push.commit)?;
        check_repo(push.to)?;
        check_branch(push.to, push.branch)?;
        // An own word for it: git's names a refspec.
        self.tree_of(repo, push.commit).await?;
        let credentials = self.inner.options.credentials.as_deref();
        if credentials.is_some_and(|credentials| !credentials.may_push()) {
            tracing::info!(%repo, to = %push.to, push.branch, push.commit, "dry run: not pushed");
            return Ok(Pushed::Done);
        }
        let in_use = self.inner.in_use(repo).await?;
        let url = self.inner.url(push.to);
        let refspec = format!("{}:refs/heads/{}", push.commit, push.branch);
        let mut args = vec!["push", "--porcelain", "--no-verify", "--no-follow-tags"];
        if push.force {
            args.push("--force");
        }
        args.extend(["--end-of-options", &url, &refspec]);
        let output = self
            .inner
            .ask(
                push.to,
                &in_use.mirror,
                &args,
                PUSH_TIMEOUT,
                |output| match rejection(output) {
                    Some(_) => Ok(()),
                    None => judge(push.to, &args, "repository", output),
                },
            )
            .await?;
        Ok(match rejection(&output) {
            Some(reason) => Pushed::Rejected { reason },
            None => Pushed::Done,
        })
    }

    /// The commit that a branch of the repository points at now; `None` if there is no such branch.
    ///
    /// # Errors
    /// The repository does not exist, or the server cannot be asked.
    pub async fn remote_branch(
        &self,
        repo: &RepoId,
        branch: &str,
    ) -> Result<Option<String>, GitError> {
        check_repo(repo)?;
        check_branch(repo, branch)?;
        let url = self.inner.url(repo);
        let name = format!("refs/heads/{branch}");
        let args = ["ls-remote", "--quiet", "--end-of-options", &url, &name];
        let output = self
            .inner
            .ask_anywhere(repo, &args, ASK_TIMEOUT, |output| {
                judge(repo, &args, "repository", output)
            })
            .await?;
        // A pattern matches at the end of names too: `refs/heads/x` also finds `refs/heads/refs/heads/x`.
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(found
            .filter(|(_, found)| *found == name)
            .map(|(id, _)| id.to_owned())
            .next())
    }
}

impl Inner {
    pub(super) async fn fetch(
        &self,
        repo: &RepoId,
        mirror: &Mirror,
        commits: &[String],
    ) -> Result<(), GitError> {
        let url = self.url(repo);
        let what = format!("commit {}", commits.join(" or "));
        let pins: Vec<String> = commits
            .iter()
            .map(|id| format!("+{id}:refs/trireme/{id}"))
            .collect();
        let head = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--end-of-options",
            &url,
        ];
        let mut args = head.to_vec();
        args.extend(pins.iter().map(String::as_str));
        let judge = |output: &Output| judge(repo, &args, &what, output);
        let error = match self.ask(repo, mirror, &args, FETCH_TIMEOUT, judge).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let no_repository =
            matches!(&error, GitError::NotFound { what, .. } if what == "repository");
        if !error.is_not_found() || no_repository {
            return Err(error);
        }
        // Some servers hand out only what a ref points at; what is asked for may be on a branch.
        let mut args = head.to_vec();
        args.push("+refs/heads/*:refs/heads/*");
        self.ask(repo, mirror, &args, FETCH_TIMEOUT, judge).await?;
        Ok(())
    }

    fn url(&self, repo: &RepoId) -> String {
        let credentials = self.options.credentials.as_deref();
        let elsewhere = credentials.and_then(|known| known.remote(repo));
        let base = elsewhere.unwrap_or(&self.options.remote);
        let base = base.as_str().trim_end_matches('/');
        format!("{base}/{}/{}", repo.org, repo.repo)
    }

    /// git in a mirror, speaking with the server of `repo`; again if that breaks off.
    async fn ask(
        &self,
        repo: &RepoId,
        mirror: &Mirror,
        args: &[&str],
        within: Duration,
        judge: impl Fn(&Output) -> Result<(), GitError>,
    ) -> Result<Output, GitError> {
        self.ask_in(repo, &mirror.path, args, within, judge).await
    }

    /// The same, where no mirror is needed.
    async fn ask_anywhere(
        &self,
        repo: &RepoId,
        args: &[&str],
        within: Duration,
        judge: impl Fn(&Output) -> Result<(), GitError>,
    ) -> Result<Output, GitError> {
        self.ask_in(repo, &self.options.dir, args, within, judge)
            .await
    }

    async fn ask_in(
        &self,
        repo: &RepoId,
        dir: &Path,
        args: &[&str],
        within: Duration,
        judge: impl Fn(&Output) -> Result<(), GitError>,
    ) -> Result<Output, GitError> {
        let mut waits = WAITS.iter();
        loop {
            // Anew for each try: what broke off may have lasted longer than the secret does.
            let secret = match &self.options.credentials {
                Some(credentials) => credentials.secret(repo).await?,
                None => None,
            };
            let once = self.ask_once(repo, dir, args, secret.as_ref(), within);
            let error = match once.await {
                Ok(output) => match judge(&output) {
                    Ok(()) => return Ok(output),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if error.is_outage() => {
                    tracing::debug!(%repo, %error, "asking the git server again");
                    tokio::time::sleep(wait.mul_f64(rand::random_range(0.75..=1.25))).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn ask_once(
        &self,
        repo: &RepoId,
        dir: &Path,
        args: &[&str],
        secret: Option<&GitSecret>,
        within: Duration,
    ) -> Result<Output, GitError> {
        let ran = self.git.run(dir, args, secret, within).await;
        ran.map_err(|died| match died {
            Died::NoStart(reason) => GitError::Failed {
                repo: repo.clone(),
                action: super::mirrors::action(args),
                reason,
            },
            died => GitError::Unavailable {
                repo: repo.clone(),
                reason: died.to_string(),
            },
        })
    }
}

/// Whether git is content; if not, reads off its complaint whether the server is down, refuses, or has not got `what`.
fn judge(repo: &RepoId, args: &[&str], what: &str, output: &Output) -> Result<(), GitError> {
    if output.success() {
        return Ok(());
    }
    let said = &output.stderr;
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
    if any(&[
        "Authentication failed",
        "could not read Username",
        "returned error: 401",
        "returned error: 403",
    ]) {
        return Err(GitError::Forbidden {
            repo: repo.clone(),
            reason: said.clone(),
        });
    }
    if any(&[
        "Repository not found",
        "returned error: 404",
        "does not appear to be a git repository",
        "repository '",
    ]) && !any(&["returned error: 5"])
    {
        return Err(GitError::NotFound {
            repo: repo.clone(),
            what: "repository".to_owned(),
        });
    }
    if any(&[
        "not our ref",
        "couldn't find remote ref",
        "Server does not allow request for unadvertised object",
        "no such remote ref",
    ]) {
        return Err(GitError::NotFound {
            repo: repo.clone(),
            what: what.to_owned(),
        });
    }
    if any(&[
        "Could not resolve host",
        "Failed to connect",
        "Connection",
        "timed out",
        "Timeout",
        "returned error: 5",
        "returned error: 429",
        "early EOF",
        "RPC failed",
        "unexpected disconnect",
        "hung up unexpectedly",
        "Operation too slow",
    ]) {
        return Err(GitError::Unavailable {
            repo: repo.clone(),
            reason: said.clone(),
        });
    }
    Err(failed(repo, args, output))
}

/// What `push --porcelain` says of the branch, if the server did not take it: `!`, the refspec and the reason, between
/// tabs.
fn rejection(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let refused = text.lines().find_map(|line| line.strip_prefix("!\t"))?;
    let reason = refused
        .split_once('\t')
        .map_or(refused, |(_, reason)| reason);
    Some(reason.to_owned())
}

/// The names that git takes for branches.
fn check_branch(repo: &RepoId, branch: &str) -> Result<(), GitError> {
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let bad_char = |c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c);
    let fine = branch.len() <= MAX_BRANCH
        && !branch.starts_with('-')
        && !branch.ends_with('.')
        && branch != "@"
        && !branch.contains("..")
        && !branch.contains("@{")
        && !branch.contains(bad_char)
        && !branch.split('/').any(bad_part);
    if fine {
        return Ok(());
    }
    Err(GitError::BadInput {
        repo: repo.clone(),
        what: format!("{branch:?} cannot be the name of a branch"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_have_the_names_that_git_takes() {
        let repo = RepoId::new("o", "r");
        for fine in [
            "main",
            "release-1.2",
            "cherry-pick-5-to-release/1.2",
            "a@b",
            "é",
        ] {
            assert_eq!(check_branch(&repo, fine), Ok(()), "{fine}");
        }
        for bad in [
            "", "-d", "a..b", "a b", "a:b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "@",
            "a@{0}", "a.", "a\nb", "+a^", "x*",
        ] {
            assert!(check_branch(&repo, bad).is_err(), "{bad}");
        }
        assert!(check_branch(&repo, &"x".repeat(256)).is_err());
    }
}
