//! The checks that ask GitHub: whether OWNERS files are where plugins read them, whether the app is where it works.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use trireme_config::check::{
    Enabled, OrgRepos, Warning, missing_installations, missing_owners, repos_using_owners,
};
use trireme_config::{Diagnostic, FileSet, Loaded, Rule};
use trireme_forge::github::{Credentials, GitHub, GitHubOptions, RetryPolicy, fixed_secret};
use trireme_forge::{Contents as _, ForgeError, RepoId};

use super::args::{CheckconfigArgs, GitHubArgs, throttle};
use crate::exit::{USAGE, coded};

/// Where GitHub is unless told otherwise.
const GITHUB: &str = "https://api.github.com";
/// More repositories are not looked into: at 3000 requests an hour it would take a working day.
const MAX_REPOSITORIES: usize = 20_000;

/// What the checks want to know of GitHub.
#[async_trait(?Send)]
trait Knows {
    /// Repositories (`org/repo`) of an org that are not archived.
    async fn repositories(&mut self, org: &str) -> Result<Vec<RepoId>, ForgeError>;
    /// Whether a file is at the root of the default branch.
    async fn has_file(&mut self, repo: &RepoId, path: &str) -> Result<bool, ForgeError>;
    /// Logins of the accounts in which the app is installed.
    async fn installations(&mut self) -> Result<Vec<String>, ForgeError>;
}

/// What is to be asked, and of whom.
pub(super) struct Asked {
    github: Option<Client>,
    owners: bool,
    installations: bool,
}

impl Asked {
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Credentials that are missing or cannot be read.
    pub(super) fn new(args: &CheckconfigArgs, enabled: &Enabled) -> anyhow::Result<Self> {
        let owners =
            enabled.has(Warning::VerifyOwnersPresence) && !args.files.plugin_config.is_empty();
        let installations = enabled.has(Warning::ValidateGitHubAppInstallation);
        let is_app = args.github.is_app();
        if owners && args.github.github_token_path.is_empty() && !is_app {
            return Err(coded(
                USAGE,
                "cannot verify OWNERS file presence without a GitHub token: give --github-token-path, or leave the check out \
                 with --exclude-warning=verify-owners-presence",
            ));
        }
        let asks = owners || (installations && is_app);
        let github = if asks {
            Some(Client::new(&args.github)?)
        } else {
            None
        };
        Ok(Self {
            github,
            owners,
            installations,
        })
    }

    /// # Errors
    /// When GitHub does not answer.
    pub(super) async fn findings(
        self,
        files: &FileSet,
        loaded: &Loaded,
    ) -> anyhow::Result<Vec<Diagnostic>> {
        let mut found = Vec::new();
        let Some(mut github) = self.github else {
            if self.installations {
                let message =
                    "failed to list app installations from GitHub: only an app may ask for them";
                let rule = Rule::Warning(Warning::ValidateGitHubAppInstallation);
                let finding = Diagnostic::error(rule, "", message).warning();
                found.push(finding.help("give --github-app-id and --github-app-private-key-path, or leave the check out"));
            }
            return Ok(found);
        };
        // What was not read has no repositories to ask about.
        if !loaded.errors.is_empty() {
            return Ok(found);
        }
        if self.owners {
            let missing = without_owners(&mut github, &repos_using_owners(&loaded.plugins)).await?;
            found.extend(missing_owners(&missing, files));
        }
        if self.installations {
            let installed = github.installations().await;
            let installed = installed.map_err(|why| {
                anyhow::anyhow!("failed to list app installations from GitHub: {why}")
            })?;
            let installed: BTreeSet<String> = installed.into_iter().collect();
            found.extend(missing_installations(&loaded.config, &installed, files));
        }
        Ok(found)
    }
}

/// Repositories without an OWNERS file at their root.
async fn without_owners(
    github: &mut dyn Knows,
    wanted: &OrgRepos,
) -> anyhow::Result<BTreeSet<String>> {
    let mut repos = Vec::new();
    for (org, excepted) in &wanted.orgs {
        let of_org = github.repositories(org).await?;
        repos.extend(
            of_org
                .into_iter()
                .filter(|repo| !excepted.contains(&repo.to_string())),
        );
    }
    for name in &wanted.repos {
        let Some((org, repo)) = name.split_once('/').filter(|(_, repo)| !repo.contains('/')) else {
            anyhow::bail!("bad repository '{name}', expected org/repo format");
        };
        repos.push(RepoId::new(org, repo));
    }
    if repos.len() > MAX_REPOSITORIES {
        anyhow::bail!(
            "{} repositories are more than the {MAX_REPOSITORIES} whose OWNERS files are looked for; leave the check out with \
             --exclude-warning=verify-owners-presence",
            repos.len()
        );
    }
    let mut missing = BTreeSet::new();
    for repo in repos {
        if !github.has_file(&repo, "OWNERS").await? {
            missing.insert(repo.to_string());
        }
    }
    Ok(missing)
}

/// Requests that may be made at once, and how fast more become possible.
struct Throttle {
    per_request: Duration,
    burst: u32,
    /// When the next request could be made if none were saved up.
    due: Instant,
}

impl Throttle {
    /// `hourly` is above zero.
    fn new(hourly: u32, burst: u32, now: Instant) -> Self {
        Self {
            per_request: Duration::from_secs(3600) / hourly.max(1),
            burst,
            due: now,
        }
    }

    /// When a request that is wanted now may be made.
    fn admit(&mut self, now: Instant) -> Instant {
        let saved = self.per_request * self.burst.saturating_sub(1);
        let at = self.due.checked_sub(saved).unwrap_or(now).max(now);
        self.due = self.due.max(now) + self.per_request;
        at
    }
}

/// GitHub at one or more addresses.
struct Client {
    /// Never empty.
    endpoints: Vec<GitHub>,
    throttle: Option<Throttle>,
    by_org: BTreeMap<String, Throttle>,
}

impl Client {
    fn new(args: &GitHubArgs) -> anyhow::Result<Self> {
        let secret = |path: &str| {
            std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|why| {
                    coded(
                        USAGE,
                        format!("cannot read the GitHub credentials in {path}: {why}"),
                    )
                })
        };
        let credentials = if args.is_app() {
            let id = args.github_app_id.parse().map_err(|_| {
                coded(
                    USAGE,
                    format!("--github-app-id={}: it is a number", args.github_app_id),
                )
            })?;
            let key = fixed_secret(secret(&args.github_app_private_key_path)?);
            Credentials::App { id, key }
        } else if args.github_token_path.is_empty() {
            Credentials::Anonymous
        } else {
            Credentials::Token(fixed_secret(secret(&args.github_token_path)?))
        };
        let retry = RetryPolicy {
            tries: args.max_retries.saturating_add(1),
            tries_not_found: args.max_404_retries.saturating_add(1),
            first_wait: args.initial_delay,
            longest_wait: args.backoff_timeout,
            ..RetryPolicy::default()
        };
        let given = args
            .github_endpoint
            .iter()
            .map(String::as_str)
            .filter(|url| !url.is_empty());
        let mut urls: Vec<&str> = given.collect();
        if urls.is_empty() {
            urls.push(GITHUB);
        }
        let endpoints: anyhow::Result<Vec<GitHub>> = urls
            .into_iter()
            .map(|url| {
                let wrong = |why: String| {
                    coded(
                        USAGE,
                        format!("invalid --github-endpoint URI: {url:?}: {why}"),
                    )
                };
                let api = url.parse().map_err(|why| wrong(format!("{why}")))?;
                let options = GitHubOptions {
                    retry: retry.clone(),
                    ..GitHubOptions::new(api, credentials.clone())
                };
                GitHub::new(options).map_err(|why| wrong(why.to_string()))
            })
            .collect();
        let throttled = |hourly: u32, burst: u32| {
            (hourly > 0).then(|| Throttle::new(hourly, burst, Instant::now()))
        };
        let by_org = args.github_throttle_org.iter().filter_map(|limit| {
            let (org, hourly, burst) = throttle(limit).ok()?;
            Some((org.to_owned(), Throttle::new(hourly, burst, Instant::now())))
        });
        Ok(Self {
            endpoints: endpoints?,
            throttle: throttled(args.github_hourly_tokens, args.github_allowed_burst),
            by_org: by_org.collect(),
        })
    }

    /// Asks one address after the other until one is there.
    async fn ask<T>(
        &mut self,
        org: &str,
        ask: impl AsyncFn(&GitHub) -> Result<T, ForgeError>,
    ) -> Result<T, ForgeError> {
        if let Some(throttle) = self.by_org.get_mut(org).or(self.throttle.as_mut()) {
            sleep_until(throttle.admit(Instant::now())).await;
        }
        let (last, others) = match self.endpoints.split_last() {
            Some(parts) => parts,
            None => unreachable!("there is always an endpoint"),
        };
        for github in others {
            match ask(github).await {
                Err(ForgeError::Unavailable { .. }) => {}
                answer => return answer,
            }
        }
        ask(last).await
    }
}

#[async_trait(?Send)]
impl Knows for Client {
    async fn repositories(&mut self, org: &str) -> Result<Vec<RepoId>, ForgeError> {
        let repos = self
            .ask(org, async |github| github.org_repositories(org).await)
            .await?;
        Ok(repos
            .into_iter()
            .filter(|repo| !repo.archived)
            .map(|repo| repo.id)
            .collect())
    }

    async fn has_file(&mut self, repo: &RepoId, path: &str) -> Result<bool, ForgeError> {
        let file = self
            .ask(&repo.org, async |github| github.file(repo, path, "").await)
            .await;
        match file {
            Ok(_) => Ok(true),
            Err(why) if why.is_not_found() => Ok(false),
            Err(why) => Err(why),
        }
    }

    async fn installations(&mut self) -> Result<Vec<String>, ForgeError> {
        self.ask("", async |github| github.app_installations().await)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GitHub with these repositories: name, whether it has an OWNERS file.
    struct Github(Vec<(&'static str, bool)>);

    #[async_trait(?Send)]
    impl Knows for Github {
        async fn repositories(&mut self, org: &str) -> Result<Vec<RepoId>, ForgeError> {
            let all = self.0.iter().filter_map(|(name, _)| name.split_once('/'));
            let of_org = all.filter(|(owner, _)| *owner == org);
            Ok(of_org.map(|(org, repo)| RepoId::new(org, repo)).collect())
        }

        async fn has_file(&mut self, repo: &RepoId, path: &str) -> Result<bool, ForgeError> {
            assert_eq!(path, "OWNERS");
            Ok(self.0.contains(&(repo.to_string().as_str(), true)))
        }

        async fn installations(&mut self) -> Result<Vec<String>, ForgeError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn cfg_115_verify_owners_presence() {
        let mut github = Github(vec![
            ("o/with", true),
            ("o/without", false),
            ("o/excepted", false),
            ("p/r", false),
        ]);
        let wanted = OrgRepos {
            orgs: [("o".to_owned(), BTreeSet::from(["o/excepted".to_owned()]))].into(),
            repos: BTreeSet::from(["p/r".to_owned(), "p/gone".to_owned()]),
        };
        let missing = without_owners(&mut github, &wanted).await.unwrap();
        assert_eq!(
            missing,
            BTreeSet::from(["o/without", "p/r", "p/gone"].map(str::to_owned))
        );
        let bad = OrgRepos {
            repos: BTreeSet::from(["a/b/c".to_owned()]),
            ..OrgRepos::default()
        };
        let why = without_owners(&mut github, &bad).await.unwrap_err();
        assert_eq!(
            why.to_string(),
            "bad repository 'a/b/c', expected org/repo format"
        );
    }

    #[test]
    fn cfg_118_a_burst_is_made_at_once_and_then_so_many_an_hour() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(3600, 3, begin);
        let waits: Vec<u64> = (0..5)
            .map(|_| (throttle.admit(begin) - begin).as_secs())
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2]);
        let later = begin + Duration::from_secs(60);
        assert_eq!([throttle.admit(later), throttle.admit(later)], [later; 2]);
    }
}
