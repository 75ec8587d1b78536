//! GitHub as commands ask it: anonymously unless told otherwise, by the flags that Prow's programs have.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use trireme_forge::github::{Credentials, GitHub, GitHubOptions, fixed_secret};
use url::Url;

use crate::exit::{USAGE, coded};

/// Where GitHub is, and who asks.
#[derive(Debug, Clone, Args)]
pub struct GitHubArgs {
    /// GitHub's API; may be given several times as with Prow, the first one is asked.
    #[arg(long, default_value = "https://api.github.com", value_name = "URL")]
    pub github_endpoint: Vec<Url>,
    /// GitHub's GraphQL API, if it is not beside the other one.
    #[arg(long, value_name = "URL")]
    pub github_graphql_endpoint: Option<Url>,
    /// A file with a token; without one GitHub is asked anonymously.
    #[arg(long, value_name = "FILE", conflicts_with = "github_app_id")]
    pub github_token_path: Option<PathBuf>,
    /// Id of a GitHub App to ask as.
    #[arg(long, value_name = "ID", requires = "github_app_private_key_path")]
    pub github_app_id: Option<u64>,
    /// The App's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "github_app_id")]
    pub github_app_private_key_path: Option<PathBuf>,
}

impl GitHubArgs {
    /// A client; asks nothing yet.
    ///
    /// # Errors
    /// A file that cannot be read, or an address that GitHub cannot be at.
    pub fn client(&self) -> anyhow::Result<GitHub> {
        let api = self
            .github_endpoint
            .first()
            .ok_or_else(|| coded(USAGE, "--github-endpoint: no address was given"))?;
        let mut options = GitHubOptions::new(api.clone(), self.credentials()?);
        if let Some(graphql) = &self.github_graphql_endpoint {
            options.graphql.clone_from(graphql);
        }
        Ok(GitHub::new(options)?)
    }

    fn credentials(&self) -> anyhow::Result<Credentials> {
        Ok(
            match (
                &self.github_token_path,
                self.github_app_id,
                &self.github_app_private_key_path,
            ) {
                (Some(path), ..) => {
                    Credentials::Token(fixed_secret(secret("--github-token-path", path)?))
                }
                (None, Some(id), Some(path)) => Credentials::App {
                    id,
                    key: fixed_secret(secret("--github-app-private-key-path", path)?),
                },
                _ => Credentials::Anonymous,
            },
        )
    }
}

fn secret(flag: &str, path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))?;
    let text = text.trim();
    anyhow::ensure!(!text.is_empty(), "{flag} {} is empty", path.display());
    Ok(text.to_owned())
}
