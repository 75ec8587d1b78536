//! The checks that ask GitHub: whether OWNERS files are where plugins read them, whether the app is where it works.

use std::collections::BTreeSet;

use async_trait::async_trait;
use trireme_config::check::{
    Enabled, OrgRepos, Warning, missing_installations, missing_owners, repos_using_owners,
};
use trireme_config::{Diagnostic, FileSet, Loaded, Rule};
use trireme_forge::{Contents as _, ForgeError, RepoId};

use super::args::CheckconfigArgs;
use crate::commands::github::Client;
use crate::exit::{USAGE, coded};

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
        if owners && args.github.is_anonymous() {
            return Err(coded(
                USAGE,
                "cannot verify OWNERS file presence without a GitHub token: give --github-token-path, or leave the check out \
                 with --exclude-warning=verify-owners-presence",
            ));
        }
        let asks = owners || (installations && args.github.is_app());
        let github = if asks {
            Some(args.github.client()?)
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
}
