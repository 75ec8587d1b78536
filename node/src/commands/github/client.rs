//! GitHub at one or more addresses, asked no faster than the flags allow.

use std::time::Duration;

use trireme_forge::ForgeError;
use trireme_forge::github::{Credentials, GitHub, GitHubOptions, RetryPolicy, fixed_secret};

use super::{GitHubArgs, usage};
use crate::commands::ask::note;
use crate::secrets::Censor;

/// Whoever waits longer than this is told what for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A change of ours would have to wait for less; a question of a tool has time.
const THROTTLE_WAIT: Duration = Duration::from_secs(2 * 3600);

/// GitHub, as the flags say where it is and how it is asked.
pub struct Client {
    github: GitHub,
    is_anonymous: bool,
}

impl Client {
    pub(super) fn new(args: &GitHubArgs) -> anyhow::Result<Self> {
        let mut addresses = args.addresses()?.into_iter();
        let Some(api) = addresses.next() else {
            return Err(usage("--github-endpoint must not be empty"));
        };
        let options = GitHubOptions::new(api, credentials(args)?);
        let options = GitHubOptions {
            fallbacks: addresses.collect(),
            graphql: args.graphql()?.unwrap_or(options.graphql),
            host: args.host(),
            retry: retry(args),
            rate: args.rate()?,
            org_rates: args.org_rates()?,
            ..options
        };
        Ok(Self {
            github: GitHub::new(options)?,
            is_anonymous: args.is_anonymous(),
        })
    }

    /// Asks, and tells whoever waits long what for.
    ///
    /// # Errors
    /// As what is asked.
    pub async fn ask<T>(
        &self,
        ask: impl AsyncFn(&GitHub) -> Result<T, ForgeError>,
    ) -> Result<T, ForgeError> {
        let asking = std::pin::pin!(ask(&self.github));
        let impatient = async {
            tokio::time::sleep(PATIENCE).await;
            note("still waiting for GitHub");
            std::future::pending().await
        };
        tokio::select! {
            biased;
            answer = asking => answer,
            never = impatient => never,
        }
    }

    /// What may be done about a failure; empty where nothing is known.
    #[must_use]
    pub fn advice(&self, why: &ForgeError) -> &'static str {
        match why {
            ForgeError::Unauthorized { .. } if self.is_anonymous => {
                "GitHub wants to know who asks: give --github-token-path, or the flags of an app"
            }
            ForgeError::Unauthorized { .. } => {
                "look whether the token, or the app's id and key, are still good"
            }
            ForgeError::NotFound { .. } | ForgeError::RateLimited { .. } if self.is_anonymous => {
                "GitHub was asked anonymously, which shows public repositories only, and few an hour: give --github-token-path"
            }
            ForgeError::NotFound { .. } => {
                "GitHub hides what the token or app may not read: look at its name and at what the token may do"
            }
            ForgeError::Forbidden { .. } => {
                "the token or app may not read it: give it the permission"
            }
            ForgeError::RateLimited { .. } => {
                "try again later, or have it ask more slowly with --github-hourly-tokens"
            }
            ForgeError::Unavailable { .. } => {
                "look at --github-endpoint and at the way there, or try again later"
            }
            ForgeError::Refused { .. } | ForgeError::Decode { .. } => {
                "look whether GitHub's API is at --github-endpoint"
            }
            ForgeError::DryRun { .. } => "leave the dry run out to have it done",
        }
    }

    /// A failure together with what may be done about it.
    #[must_use]
    pub fn failed(&self, why: ForgeError) -> anyhow::Error {
        let advice = self.advice(&why);
        anyhow::anyhow!("{why}; {advice}")
    }
}

fn credentials(args: &GitHubArgs) -> anyhow::Result<Credentials> {
    if args.is_app() {
        let id = args.github_app_id.parse().map_err(|_| {
            usage(format!(
                "--github-app-id={}: it is a number",
                args.github_app_id
            ))
        })?;
        let path = &args.github_app_private_key_path;
        let key = fixed_secret(secret("--github-app-private-key-path", path)?);
        return Ok(Credentials::App { id, key });
    }
    if args.is_anonymous() {
        return Ok(Credentials::Anonymous);
    }
    let token = secret("--github-token-path", &args.github_token_path)?;
    Ok(Credentials::Token(fixed_secret(token)))
}

fn secret(flag: &str, path: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|why| usage(format!("{flag}: cannot read {path}: {why}")))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(usage(format!("{flag}: {path} is empty")));
    }
    Censor::of_process().hide(flag, vec![text.as_bytes().to_vec()]);
    Ok(text.to_owned())
}

/// As the flags say. Prow counts all tries, and so do we.
fn retry(args: &GitHubArgs) -> RetryPolicy {
    RetryPolicy {
        tries: args.max_retries,
        tries_not_found: args.max_404_retries.saturating_add(1),
        first_wait: args.initial_delay,
        longest_wait: args.backoff_timeout,
        request_timeout: args.request_timeout,
        read_deadline: args.request_timeout.saturating_add(args.backoff_timeout),
        throttle_wait: THROTTLE_WAIT,
        ..RetryPolicy::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        github: GitHubArgs,
    }

    fn policy(line: &str) -> RetryPolicy {
        let words = std::iter::once("program").chain(line.split_whitespace());
        retry(&Program::try_parse_from(words).unwrap().github)
    }

    /// GHC-002, GHC-005: the flags count as Prow's do.
    #[test]
    fn ghc_002_flags_are_a_policy() {
        let usual = policy("");
        assert_eq!((usual.tries, usual.tries_not_found), (8, 3));
        let seconds = |policy: &RetryPolicy| {
            [
                policy.first_wait,
                policy.longest_wait,
                policy.request_timeout,
                policy.read_deadline,
            ]
            .map(|duration| duration.as_secs())
        };
        assert_eq!(seconds(&usual), [2, 120, 120, 240]);
        let told = policy(
            "--github-client.max-retries=2 --github-client.max-404-retries=0 --github-client.initial-delay=1s \
             --github-client.backoff-timeout=10s --github-client.request-timeout=20s",
        );
        assert_eq!((told.tries, told.tries_not_found), (2, 1));
        assert_eq!(seconds(&told), [1, 10, 20, 30]);
    }
}
