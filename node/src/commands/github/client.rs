//! GitHub at one or more addresses, asked no faster than the flags allow.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use trireme_forge::ForgeError;
use trireme_forge::github::{
    Credentials, GitHub, GitHubOptions, RetryPolicy, SetupError, fixed_secret,
};

use super::{GitHubArgs, throttle, usage};
use crate::commands::ask::note;
use crate::secrets::Censor;

/// Whoever waits longer than this is told what for.
const PATIENCE: Duration = Duration::from_secs(5);

/// GitHub at one or more addresses.
pub struct Client {
    /// Never empty.
    endpoints: Vec<GitHub>,
    is_anonymous: bool,
    throttle: Option<Mutex<Throttle>>,
    by_org: BTreeMap<String, Mutex<Throttle>>,
}

impl Client {
    pub(super) fn new(args: &GitHubArgs) -> anyhow::Result<Self> {
        let credentials = credentials(args)?;
        let retry = RetryPolicy {
            tries: args.max_retries.saturating_add(1),
            tries_not_found: args.max_404_retries.saturating_add(1),
            first_wait: args.initial_delay,
            longest_wait: args.backoff_timeout,
            ..RetryPolicy::default()
        };
        let endpoints = args.addresses()?.into_iter().map(|api| {
            let options = GitHubOptions {
                retry: retry.clone(),
                ..GitHubOptions::new(api, credentials.clone())
            };
            GitHub::new(options)
        });
        let throttled = |hourly: u32, burst: u32| {
            (hourly > 0).then(|| Mutex::new(Throttle::new(hourly, burst, Instant::now())))
        };
        let by_org = args.github_throttle_org.iter().filter_map(|limit| {
            let (org, hourly, burst) = throttle(limit).ok()?;
            Some((org.to_owned(), throttled(hourly, burst)?))
        });
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, SetupError>>()?,
            is_anonymous: args.is_anonymous(),
            throttle: throttled(args.github_hourly_tokens, args.github_allowed_burst),
            by_org: by_org.collect(),
        })
    }

    /// Asks one address after the other until one is there. `org` is empty where none is asked about.
    ///
    /// # Errors
    /// Those of the last address that was asked.
    pub async fn ask<T>(
        &self,
        org: &str,
        ask: impl AsyncFn(&GitHub) -> Result<T, ForgeError>,
    ) -> Result<T, ForgeError> {
        let asking = std::pin::pin!(self.ask_in_turn(org, ask));
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

    async fn ask_in_turn<T>(
        &self,
        org: &str,
        ask: impl AsyncFn(&GitHub) -> Result<T, ForgeError>,
    ) -> Result<T, ForgeError> {
        if let Some(throttle) = self.by_org.get(org).or(self.throttle.as_ref()) {
            let at = throttle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .admit(Instant::now());
            sleep_until(at).await;
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

/// Questions that may be asked at once, and how fast more become possible.
struct Throttle {
    per_question: Duration,
    burst: u32,
    /// When the next question could be asked if none were saved up.
    due: Instant,
}

impl Throttle {
    /// `hourly` is above zero.
    fn new(hourly: u32, burst: u32, now: Instant) -> Self {
        Self {
            per_question: Duration::from_secs(3600) / hourly.max(1),
            burst,
            due: now,
        }
    }

    /// When a question that is to be asked now may be asked.
    fn admit(&mut self, now: Instant) -> Instant {
        let saved = self.per_question * self.burst.saturating_sub(1);
        let at = self.due.checked_sub(saved).unwrap_or(now).max(now);
        self.due = self.due.max(now) + self.per_question;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
