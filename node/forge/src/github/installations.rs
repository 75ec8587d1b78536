//! A GitHub App's installations: which org has which, their tokens, and what one lacks (GHC-012, GHC-024, GHC-027).
//!
//! An org whose installation is missing, suspended or too weak fails alone: nothing here is waited for by another org.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;

use super::GitHub;
use super::call::{Call, Effect};
use super::client::Client;
use super::credentials::Behalf;
use super::server::Server;
use super::wire::nullable;
use crate::error::{ForgeError, Result};

/// An installation that is missing or suspended is not looked up again sooner than this.
const LIST_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// An installation token is renewed this long before it expires.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// Reasons for which an org fails, as its gauge has them.
pub(super) const MISSING: &str = "missing";
pub(super) const SUSPENDED: &str = "suspended";
pub(super) const LACKS_RIGHT: &str = "lacks-right";

/// What is known about the app's installations on one server.
#[derive(Debug, Default)]
pub(super) struct Installations {
    state: Mutex<State>,
    /// Held while asking for a list, so that many waiting requests ask once.
    listing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By lower-case login of the account.
    known: BTreeMap<String, Known>,
    listed: Option<Instant>,
    /// Counts lists.
    lists: u64,
    slug: Option<String>,
    /// Held while asking for a token; as many as orgs are asked for right now.
    asking: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
    failing: BTreeSet<(String, &'static str)>,
}

#[derive(Debug)]
struct Known {
    id: u64,
    suspended: bool,
    token: Option<InstallationToken>,
}

#[derive(Clone, Deserialize)]
pub(super) struct InstallationToken {
    pub(super) token: String,
    pub(super) expires_at: Timestamp,
}

impl fmt::Debug for InstallationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstallationToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl InstallationToken {
    fn usable(&self, now: Timestamp) -> bool {
        self.expires_at
            .checked_sub(RENEW_BEFORE)
            .is_ok_and(|renew_at| now < renew_at)
    }
}

/// One entry of `GET /app/installations`.
#[derive(Debug, Deserialize)]
struct WireInstallation {
    id: u64,
    account: Option<WireAccount>,
    #[serde(default)]
    app_slug: Option<String>,
    #[serde(default)]
    suspended_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "nullable")]
    permissions: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    events: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct WireAccount {
    #[serde(default)]
    login: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Installed(u64),
    Suspended,
    Missing,
}

impl Installations {
    /// The token to use for an organisation, if one is known and fresh.
    fn token(&self, org: &str, now: Timestamp) -> Option<InstallationToken> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.known.get(&org.to_lowercase())?;
        known.token.clone().filter(|token| token.usable(now))
    }

    fn find(&self, org: &str) -> Found {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.known.get(&org.to_lowercase()) {
            None => Found::Missing,
            Some(known) if known.suspended => Found::Suspended,
            Some(known) => Found::Installed(known.id),
        }
    }

    fn may_list(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .listed
            .is_none_or(|listed| listed.elapsed() >= LIST_AGAIN_AFTER)
    }

    fn lists(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.lists
    }

    /// The app's name in URLs, once a list was read.
    pub(super) fn slug(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.slug.clone()
    }

    fn listed(&self, installations: &[WireInstallation]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut former = std::mem::take(&mut state.known);
        for installation in installations {
            let Some(account) = &installation.account else {
                continue;
            };
            let org = account.login.to_lowercase();
            // A token is that of an installation: another one needs another.
            let token = former
                .remove(&org)
                .filter(|known| known.id == installation.id);
            let suspended = installation.suspended_at.is_some();
            let known = Known {
                id: installation.id,
                suspended,
                token: token.and_then(|known| known.token).filter(|_| !suspended),
            };
            state.known.insert(org, known);
        }
        let slug = installations.iter().find_map(|one| one.app_slug.clone());
        state.slug = slug.or(state.slug.take());
        state.listed = Some(Instant::now());
        state.lists += 1;
    }

    fn got_token(&self, org: &str, id: u64, token: InstallationToken) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = state.known.get_mut(&org.to_lowercase())
            && known.id == id
        {
            known.token = Some(token);
        }
    }

    /// GitHub refused this token: the installation may have been removed or re-created. If it was replaced meanwhile,
    /// nothing is to be done.
    pub(super) fn refused(&self, org: &str, token: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let org = org.to_lowercase();
        let used = state.known.get(&org).and_then(|known| known.token.as_ref());
        if used.is_none_or(|used| used.token == token) {
            state.known.remove(&org);
            state.listed = None;
        }
    }

    /// GitHub knows no installation of this id.
    fn gone(&self, org: &str, id: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let org = org.to_lowercase();
        if state.known.get(&org).is_some_and(|known| known.id == id) {
            state.known.remove(&org);
            state.listed = None;
        }
    }

    fn suspended(&self, org: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = state.known.get_mut(&org.to_lowercase()) {
            known.suspended = true;
            known.token = None;
        }
    }

    fn asking(&self, org: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asking.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(state.asking.entry(org.to_lowercase()).or_default())
    }

    /// Whether this is news.
    pub(super) fn fails(&self, org: &str, reason: &'static str) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failing.insert((org.to_lowercase(), reason))
    }

    /// The reasons for which it failed until now.
    fn works(&self, org: &str) -> Vec<&'static str> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let org = org.to_lowercase();
        let reasons = [MISSING, SUSPENDED, LACKS_RIGHT];
        let mut former = reasons.to_vec();
        former.retain(|reason| state.failing.remove(&(org.clone(), *reason)));
        former
    }
}

impl Client {
    async fn list_installations(&self, server: &Server) -> Result<()> {
        let before = server.installations.lists();
        let _one = server.installations.listing.lock().await;
        if server.installations.lists() != before {
            return Ok(());
        }
        let list = Call::read("/app/installations".to_owned(), Behalf::Ourselves);
        let found: Vec<WireInstallation> = self.at(server.index).all(list).await?;
        server.installations.listed(&found);
        Ok(())
    }

    /// The token with which the app acts in an organisation.
    pub(super) async fn installation_token(
        &self,
        server: &Server,
        org: &str,
    ) -> Result<InstallationToken> {
        let installations = &server.installations;
        if let Some(token) = installations.token(org, self.now()) {
            return Ok(token);
        }
        let asking = installations.asking(org);
        let _one = asking.lock().await;
        if let Some(token) = installations.token(org, self.now()) {
            return Ok(token);
        }
        let mut is_new = false;
        loop {
            let mut found = installations.find(org);
            if !matches!(found, Found::Installed(_)) && installations.may_list() {
                self.list_installations(server).await?;
                found = installations.find(org);
                is_new = true;
            }
            let id = match found {
                Found::Installed(id) => id,
                Found::Suspended => return Err(self.org_fails(server, org, SUSPENDED)),
                Found::Missing => return Err(self.org_fails(server, org, MISSING)),
            };
            match self.new_token(server, id).await {
                Ok(token) => {
                    self.observe(&token.token, token.expires_at);
                    installations.got_token(org, id, token.clone());
                    for reason in installations.works(org) {
                        self.metrics().works(&server.host, org, reason);
                    }
                    return Ok(token);
                }
                // Installed anew: it has another id now. Once is enough: a list that was just read is the newest.
                Err(error) if error.is_not_found() => {
                    installations.gone(org, id);
                    if is_new {
                        return Err(self.org_fails(server, org, MISSING));
                    }
                }
                Err(ForgeError::Forbidden { message, .. }) if message.contains("suspended") => {
                    installations.suspended(org);
                    return Err(self.org_fails(server, org, SUSPENDED));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn new_token(&self, server: &Server, id: u64) -> Result<InstallationToken> {
        let call = Call::change(
            Method::POST,
            format!("/app/installations/{id}/access_tokens"),
            Behalf::Ourselves,
            Effect::Idempotent,
            None,
        );
        self.at(server.index).json(&call).await
    }

    fn org_fails(&self, server: &Server, org: &str, reason: &'static str) -> ForgeError {
        self.note_failing(server, org, reason);
        let message = if reason == SUSPENDED {
            format!("the installation of the GitHub App in organization {org} is suspended")
        } else {
            format!("the GitHub App is not installed in organization {org}")
        };
        ForgeError::Forbidden {
            request: "GET /app/installations".to_owned(),
            message,
        }
    }

    pub(super) fn note_failing(&self, server: &Server, org: &str, reason: &'static str) {
        self.metrics().failing(&server.host, org, reason);
        if server.installations.fails(org, reason) {
            tracing::warn!(
                host = server.host,
                org,
                reason,
                "the GitHub App cannot do its work in this organisation; others go on"
            );
        }
    }
}

/// What an installation lacks of what Prow's plugins need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallationGap {
    pub host: String,
    pub org: String,
    pub suspended: bool,
    /// `statuses: write`
    pub permissions: Vec<String>,
    /// Events that are not sent.
    pub events: Vec<String>,
}

/// What a GitHub App needs for all of Prow (GHC-024); `true` where it must write.
const PERMISSIONS: [(&str, bool); 9] = [
    ("actions", false),
    ("administration", false),
    ("checks", false),
    ("contents", true),
    ("issues", true),
    ("members", false),
    ("pull_requests", true),
    ("statuses", true),
    ("workflows", true),
];

/// Those without which a plugin or Tide misses something.
const EVENTS: [&str; 8] = [
    "check_run",
    "issue_comment",
    "issues",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "push",
    "status",
];

fn gap(host: &str, installation: WireInstallation) -> Option<InstallationGap> {
    let has = |name: &str, write: bool| match installation.permissions.get(name) {
        Some(right) => right == "admin" || right == "write" || !write,
        None => false,
    };
    let permissions: Vec<String> = PERMISSIONS
        .into_iter()
        .filter(|(name, write)| !has(name, *write))
        .map(|(name, write)| format!("{name}: {}", if write { "write" } else { "read" }))
        .collect();
    let events: Vec<String> = EVENTS
        .into_iter()
        .filter(|event| !installation.events.iter().any(|sent| sent == event))
        .map(str::to_owned)
        .collect();
    let suspended = installation.suspended_at.is_some();
    (suspended || !permissions.is_empty() || !events.is_empty()).then_some(InstallationGap {
        host: host.to_owned(),
        org: installation.account?.login,
        suspended,
        permissions,
        events,
    })
}

impl GitHub {
    /// Looks at every installation of our apps, and tells what those lack that lack something (GHC-024). Nothing where
    /// we are no app.
    ///
    /// # Errors
    /// When GitHub does not answer.
    pub async fn installation_gaps(&self) -> Result<Vec<InstallationGap>> {
        let mut gaps = Vec::new();
        for server in self.client.servers() {
            if !server.is_app() {
                continue;
            }
            let list = Call::read("/app/installations".to_owned(), Behalf::Ourselves);
            let found: Vec<WireInstallation> = self.client.at(server.index).all(list).await?;
            server.installations.listed(&found);
            gaps.extend(found.into_iter().filter_map(|one| gap(&server.host, one)));
        }
        // What another lacks need not be missed: its gauge is raised when GitHub refuses something.
        for gap in gaps.iter().filter(|gap| gap.suspended) {
            let server = self.client.server_of(&gap.org);
            self.client.note_failing(server, &gap.org, SUSPENDED);
        }
        Ok(gaps)
    }
}
