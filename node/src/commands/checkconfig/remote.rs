//! The checks that ask GitHub: whether OWNERS files are where plugins read them, whether the app is where it works.

use std::collections::BTreeSet;

use async_trait::async_trait;
use trireme_config::check::{
    Enabled, OrgRepos, Warning, about_owners, missing_installations, missing_owners,
    repos_using_owners,
};
use trireme_config::{Diagnostic, FileSet, Loaded, Rule, Severity};
use trireme_forge::{Contents as _, ForgeError, RepoId, Repositories as _};

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
    /// Whether there is such a repository, for us.
    async fn has_repository(&mut self, repo: &RepoId) -> Result<bool, ForgeError>;
    /// Whether a file is at the root of the default branch.
    async fn has_file(&mut self, repo: &RepoId, path: &str) -> Result<bool, ForgeError>;
    /// Logins of the accounts in which the app is installed.
    async fn installations(&mut self) -> Result<Vec<String>, ForgeError>;
    /// What may be done about a failure.
    fn advice(&self, why: &ForgeError) -> &'static str;
}

/// What is to be asked, and of whom.
pub(super) struct Asked {
    github: Option<Client>,
    owners: bool,
    installations: bool,
}

/// What was found out, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) found: Vec<Diagnostic>,
    /// For each check that could not be made, or not everywhere, why.
    pub(super) unmade: Vec<Diagnostic>,
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

    /// What GitHub does not answer is left out and told; everything else is there.
    pub(super) async fn answers(self, files: &FileSet, loaded: &Loaded) -> Answers {
        let mut answers = Answers::default();
        // What was not read has no repositories to ask about.
        if !loaded.errors.is_empty() {
            let asked = [
                (self.owners, Warning::VerifyOwnersPresence),
                (self.installations, Warning::ValidateGitHubAppInstallation),
            ];
            let message = "GitHub was not asked, as the configuration has errors";
            let unmade = asked.into_iter().filter(|(wanted, _)| *wanted);
            answers.unmade = unmade
                .map(|(_, warning)| Diagnostic {
                    severity: Severity::Note,
                    ..Diagnostic::error(Rule::Warning(warning), "", message)
                })
                .collect();
            return answers;
        }
        let mut github = self.github;
        if let Some(github) = github.as_mut().filter(|_| self.owners) {
            let wanted = repos_using_owners(&loaded.plugins);
            let looked = Owners::look(github, &wanted).await;
            answers.found.extend(missing_owners(&looked.missing, files));
            answers.found.extend(looked.odd(files));
            answers.unmade.extend(looked.unmade(github, files));
        }
        if self.installations {
            match github.as_mut() {
                Some(github) => match github.installations().await {
                    Ok(installed) => {
                        let installed: BTreeSet<String> = installed.into_iter().collect();
                        let missing = missing_installations(&loaded.config, &installed, files);
                        answers.found.extend(missing);
                    }
                    Err(why) => answers
                        .unmade
                        .push(no_installations(&why).help(github.advice(&why))),
                },
                None => answers.unmade.push(
                    no_installations("only an app may ask for them").help(
                        "give --github-app-id and --github-app-private-key-path, or leave the check out with \
                         --exclude-warning=validate-github-app-installation",
                    ),
                ),
            }
        }
        answers
    }
}

fn no_installations(why: impl std::fmt::Display) -> Diagnostic {
    let rule = Rule::Warning(Warning::ValidateGitHubAppInstallation);
    let message = format!("failed to list app installations from GitHub: {why}");
    Diagnostic::error(rule, "", message).warning()
}

/// What looking for OWNERS files found, and where it failed.
#[derive(Debug, Default)]
struct Owners {
    /// Repositories without the file.
    missing: BTreeSet<String>,
    /// Repositories that GitHub does not show.
    hidden: BTreeSet<String>,
    /// What is enabled under a name that no repository can have.
    misnamed: BTreeSet<String>,
    /// Orgs and repositories that could not be looked into, and why.
    failed: Vec<(String, ForgeError)>,
    /// Too many to be looked into.
    too_many: usize,
    /// Orgs and repositories that were not asked about once GitHub had failed for good.
    left: usize,
}

impl Owners {
    async fn look(github: &mut dyn Knows, wanted: &OrgRepos) -> Self {
        let mut looked = Self::default();
        let mut listed = Vec::new();
        let mut orgs = wanted.orgs.iter();
        for (org, excepted) in orgs.by_ref() {
            match github.repositories(org).await {
                Ok(repos) => {
                    let is_meant = |repo: &RepoId| !excepted.contains(&repo.to_string());
                    listed.extend(repos.into_iter().filter(is_meant));
                }
                Err(why) => {
                    if looked.fail(org.clone(), why) {
                        looked.left = orgs.count() + wanted.repos.len() + listed.len();
                        return looked;
                    }
                }
            }
        }
        let mut named = Vec::new();
        for name in &wanted.repos {
            match name.split_once('/').filter(|(_, repo)| !repo.contains('/')) {
                Some((org, repo)) => named.push(RepoId::new(org, repo)),
                None => {
                    looked.misnamed.insert(name.clone());
                }
            }
        }
        let count = listed.len() + named.len();
        if count > MAX_REPOSITORIES {
            looked.too_many = count;
            return looked;
        }
        let listed = listed.into_iter().map(|repo| (repo, true));
        let mut repos = listed.chain(named.into_iter().map(|repo| (repo, false)));
        while let Some((repo, is_listed)) = repos.next() {
            let name = repo.to_string();
            match has_owners(github, &repo, is_listed).await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => {
                    looked.missing.insert(name);
                }
                Ok(None) => {
                    looked.hidden.insert(name);
                }
                Err(why) => {
                    if looked.fail(name, why) {
                        looked.left = repos.count();
                        return looked;
                    }
                }
            }
        }
        looked
    }

    /// Whether there is no use in asking on.
    fn fail(&mut self, name: String, why: ForgeError) -> bool {
        let for_good = why.is_outage() || matches!(why, ForgeError::Unauthorized { .. });
        self.failed.push((name, why));
        for_good
    }

    /// Names without a repository.
    fn odd(&self, files: &FileSet) -> Vec<Diagnostic> {
        let misnamed = self.misnamed.iter().map(|name| {
            let message = format!("bad repository '{name}', expected org/repo format");
            (name.clone(), message, "")
        });
        let hidden = self.hidden.iter().map(|name| {
            let message = format!(
                "plugins that use OWNERS files are enabled for {name}, which GitHub does not show"
            );
            let help = "it has another name or is gone, or the token or app may not read it";
            (name.clone(), message, help)
        });
        about_owners(misnamed.chain(hidden), files)
    }

    fn unmade(&self, github: &dyn Knows, files: &FileSet) -> Vec<Diagnostic> {
        let last = self.failed.len().saturating_sub(1);
        let failed = self.failed.iter().enumerate().map(|(n, (name, why))| {
            let others = if n == last && self.left > 0 {
                format!(" and {} more orgs or repos", self.left)
            } else {
                String::new()
            };
            let message = format!("could not look for OWNERS files in {name}{others}: {why}");
            (name.clone(), message, github.advice(why))
        });
        let too_many = (self.too_many > 0).then(|| {
            let message = format!(
                "could not look for OWNERS files: {} repositories are more than the {MAX_REPOSITORIES} that are looked into",
                self.too_many
            );
            let help = "leave the check out with --exclude-warning=verify-owners-presence";
            (String::new(), message, help)
        });
        about_owners(failed.chain(too_many), files)
    }
}

/// None where GitHub shows no such repository. One that was listed is there.
async fn has_owners(
    github: &mut dyn Knows,
    repo: &RepoId,
    is_listed: bool,
) -> Result<Option<bool>, ForgeError> {
    if github.has_file(repo, "OWNERS").await? {
        return Ok(Some(true));
    }
    let is_there = is_listed || github.has_repository(repo).await?;
    Ok(is_there.then_some(false))
}

fn unless_not_found<T>(answer: Result<T, ForgeError>) -> Result<bool, ForgeError> {
    match answer {
        Ok(_) => Ok(true),
        Err(why) if why.is_not_found() => Ok(false),
        Err(why) => Err(why),
    }
}

#[async_trait(?Send)]
impl Knows for Client {
    async fn repositories(&mut self, org: &str) -> Result<Vec<RepoId>, ForgeError> {
        let repos = self
            .ask(async |github| github.org_repositories(org).await)
            .await?;
        Ok(repos
            .into_iter()
            .filter(|repo| !repo.archived)
            .map(|repo| repo.id)
            .collect())
    }

    async fn has_repository(&mut self, repo: &RepoId) -> Result<bool, ForgeError> {
        unless_not_found(self.ask(async |github| github.repository(repo).await).await)
    }

    async fn has_file(&mut self, repo: &RepoId, path: &str) -> Result<bool, ForgeError> {
        unless_not_found(
            self.ask(async |github| github.file(repo, path, "").await)
                .await,
        )
    }

    async fn installations(&mut self) -> Result<Vec<String>, ForgeError> {
        self.ask(async |github| github.app_installations().await)
            .await
    }

    fn advice(&self, why: &ForgeError) -> &'static str {
        Self::advice(self, why)
    }
}

#[cfg(test)]
mod tests {
    use trireme_config::Layout;

    use super::*;

    /// A GitHub with these repositories: name, whether it has an OWNERS file, or how asking for it fails.
    struct Github {
        repos: Vec<(&'static str, Result<bool, ForgeError>)>,
        asked: Vec<String>,
    }

    impl Github {
        fn new(repos: impl IntoIterator<Item = (&'static str, Result<bool, ForgeError>)>) -> Self {
            Self {
                repos: repos.into_iter().collect(),
                asked: Vec::new(),
            }
        }

        fn of(&self, repo: &RepoId) -> Option<&Result<bool, ForgeError>> {
            let name = repo.to_string();
            let known = self.repos.iter().find(|(known, _)| *known == name);
            known.map(|(_, has)| has)
        }
    }

    fn not_found() -> ForgeError {
        ForgeError::NotFound {
            request: "GET it".to_owned(),
            message: String::new(),
        }
    }

    fn forbidden() -> ForgeError {
        ForgeError::Forbidden {
            request: "GET it".to_owned(),
            message: "no".to_owned(),
        }
    }

    fn unavailable() -> ForgeError {
        ForgeError::Unavailable {
            request: "GET it".to_owned(),
            reason: "status 502".to_owned(),
            maybe_sent: false,
        }
    }

    #[async_trait(?Send)]
    impl Knows for Github {
        async fn repositories(&mut self, org: &str) -> Result<Vec<RepoId>, ForgeError> {
            self.asked.push(org.to_owned());
            let all = self
                .repos
                .iter()
                .filter_map(|(name, _)| name.split_once('/'));
            let of_org = all.filter(|(owner, _)| *owner == org);
            let repos: Vec<RepoId> = of_org.map(|(org, repo)| RepoId::new(org, repo)).collect();
            if repos.is_empty() {
                return Err(not_found());
            }
            Ok(repos)
        }

        async fn has_repository(&mut self, repo: &RepoId) -> Result<bool, ForgeError> {
            Ok(self.of(repo).is_some())
        }

        async fn has_file(&mut self, repo: &RepoId, path: &str) -> Result<bool, ForgeError> {
            assert_eq!(path, "OWNERS");
            self.asked.push(repo.to_string());
            self.of(repo).cloned().unwrap_or(Ok(false))
        }

        async fn installations(&mut self) -> Result<Vec<String>, ForgeError> {
            Ok(Vec::new())
        }

        fn advice(&self, _why: &ForgeError) -> &'static str {
            "do something"
        }
    }

    fn wanted(orgs: &[&str], repos: &[&str]) -> OrgRepos {
        let excepted = BTreeSet::from(["o/excepted".to_owned()]);
        OrgRepos {
            orgs: orgs
                .iter()
                .map(|org| ((*org).to_owned(), excepted.clone()))
                .collect(),
            repos: repos.iter().map(|repo| (*repo).to_owned()).collect(),
        }
    }

    fn files() -> FileSet {
        let mut files = FileSet::new(Layout {
            plugins: Some("plugins.yaml".to_owned()),
            ..Layout::default()
        });
        let text = "plugins:\n  o:\n    plugins: [approve]\n  p/r:\n    plugins: [approve]\n";
        files.insert("plugins.yaml", text.as_bytes());
        files
    }

    fn told(found: &[Diagnostic]) -> String {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[tokio::test]
    async fn cfg_115_verify_owners_presence() {
        let mut github = Github::new([
            ("o/with", Ok(true)),
            ("o/without", Ok(false)),
            ("o/excepted", Ok(false)),
            ("p/r", Ok(false)),
        ]);
        let wanted = wanted(&["o"], &["p/r", "p/gone", "a/b/c"]);
        let looked = Owners::look(&mut github, &wanted).await;
        assert_eq!(
            looked.missing,
            BTreeSet::from(["o/without", "p/r"].map(str::to_owned))
        );
        insta::assert_snapshot!(told(&looked.odd(&files())), @r#"
        bad repository 'a/b/c', expected org/repo format
        plugins that use OWNERS files are enabled for p/gone, which GitHub does not show; it has another name or is gone, or the token or app may not read it
        "#);
        assert!(looked.unmade(&github, &files()).is_empty());
    }

    /// One org that is not there or one repository that may not be read takes nothing away from the others.
    #[tokio::test]
    async fn cfg_115_what_cannot_be_looked_into_is_told_beside_what_was_found() {
        let mut github = Github::new([
            ("o/a", Ok(false)),
            ("o/b", Err(forbidden())),
            ("o/c", Ok(false)),
        ]);
        let looked = Owners::look(&mut github, &wanted(&["gone", "o"], &[])).await;
        assert_eq!(
            looked.missing,
            BTreeSet::from(["o/a", "o/c"].map(str::to_owned))
        );
        insta::assert_snapshot!(told(&looked.unmade(&github, &files())), @r#"
        could not look for OWNERS files in gone: GET it: not found; do something
        plugins.yaml:2:3: plugins.o: could not look for OWNERS files in o/b: GET it: forbidden: no; do something
        "#);
    }

    /// Where GitHub is down nobody waits for each repository in turn.
    #[tokio::test]
    async fn cfg_115_an_outage_ends_the_asking() {
        let mut github = Github::new([
            ("o/a", Ok(false)),
            ("o/b", Err(unavailable())),
            ("o/c", Ok(false)),
        ]);
        let looked = Owners::look(&mut github, &wanted(&["o"], &["p/r"])).await;
        assert_eq!(looked.missing, BTreeSet::from(["o/a".to_owned()]));
        assert_eq!(github.asked, ["o", "o/a", "o/b"]);
        insta::assert_snapshot!(told(&looked.unmade(&github, &files())), @"plugins.yaml:2:3: plugins.o: could not look for OWNERS files in o/b and 2 more orgs or repos: GET it: the forge is unavailable: status 502; do something");
    }
}
