//! Who we are to GitHub: nobody, the owner of a token, or a GitHub App with an installation per organisation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use octocrab::auth::AppAuth;
use octocrab::models::AppId;
use serde::Deserialize;
use tokio::time::Instant;

/// Hands out a secret whenever it is needed, so that a rotated file takes effect without a restart.
pub type SecretSource = Arc<dyn Fn() -> String + Send + Sync>;

/// A secret that never changes.
pub fn fixed_secret(secret: impl Into<String>) -> SecretSource {
    let secret = secret.into();
    Arc::new(move || secret.clone())
}

/// Told of each short-lived token and of when it ends, before the token is used: whoever keeps secrets out of logs.
#[derive(Clone, Default)]
pub struct TokenObserver(Option<Arc<Told>>);

type Told = dyn Fn(&str, Timestamp) + Send + Sync;

impl TokenObserver {
    pub fn new(told: impl Fn(&str, Timestamp) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }

    pub(super) fn tell(&self, token: &InstallationToken) {
        if let Some(told) = &self.0 {
            told(&token.token, token.expires_at);
        }
    }
}

impl fmt::Debug for TokenObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenObserver(…)")
    }
}

#[derive(Clone)]
pub enum Credentials {
    /// Reads of public data only.
    Anonymous,
    /// A personal access token or a machine user's.
    Token(SecretSource),
    /// A GitHub App: its id and its private key (RSA, PEM).
    App { id: u64, key: SecretSource },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::App { id, .. } => f
                .debug_struct("App")
                .field("id", id)
                .finish_non_exhaustive(),
        }
    }
}

/// On whose behalf a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behalf<'a> {
    /// An organisation's installation, or the token.
    Org(&'a str),
    /// The app itself, or the token.
    Ourselves,
}

/// An installation is not looked up again sooner than this.
const LIST_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// An installation token is renewed this long before it expires.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// What is known about the app's installations.
#[derive(Debug, Default)]
pub(super) struct Installations {
    state: Mutex<State>,
    /// Held while asking GitHub, so that many waiting requests ask once.
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By lower-case login of the account.
    ids: BTreeMap<String, u64>,
    listed: Option<Instant>,
    tokens: BTreeMap<u64, InstallationToken>,
}

#[derive(Clone, Deserialize)]
pub(super) struct InstallationToken {
    pub(super) token: String,
    expires_at: Timestamp,
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
pub(super) struct WireInstallation {
    id: u64,
    account: Option<WireAccount>,
}

#[derive(Debug, Deserialize)]
struct WireAccount {
    #[serde(default)]
    login: String,
}

impl Installations {
    /// The token to use for an organisation, if one is known and fresh.
    pub(super) fn token(&self, org: &str, now: Timestamp) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let id = state.ids.get(&org.to_lowercase())?;
        let token = state.tokens.get(id)?;
        token.usable(now).then(|| token.token.clone())
    }

    pub(super) fn id(&self, org: &str) -> Option<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ids.get(&org.to_lowercase()).copied()
    }

    pub(super) fn may_list(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .listed
            .is_none_or(|listed| listed.elapsed() >= LIST_AGAIN_AFTER)
    }

    pub(super) fn listed(&self, installations: Vec<WireInstallation>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ids = installations
            .into_iter()
            .filter_map(|installation| {
                let login = installation.account?.login.to_lowercase();
                Some((login, installation.id))
            })
            .collect();
        state.listed = Some(Instant::now());
        let State { ids, tokens, .. } = &mut *state;
        tokens.retain(|id, _| ids.values().any(|known| known == id));
    }

    pub(super) fn got_token(&self, id: u64, token: InstallationToken) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tokens.insert(id, token);
    }

    /// GitHub refused the token: the installation may have been removed or re-created.
    pub(super) fn forget(&self, org: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = state.ids.remove(&org.to_lowercase()) {
            state.tokens.remove(&id);
        }
        state.listed = None;
    }
}

/// `Authorization: Bearer …`; `None` for a text that cannot be a header.
pub(super) fn bearer(secret: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn signing_key(key: &str) -> Result<octocrab::EncodingKey, String> {
    octocrab::EncodingKey::from_rsa_pem(key.trim().as_bytes())
        .map_err(|error| format!("the GitHub App's private key is not an RSA key in PEM: {error}"))
}

/// Whether a text can be a GitHub App's private key.
///
/// # Errors
/// Why not.
pub fn check_app_key(key: &str) -> Result<(), String> {
    signing_key(key).map(drop)
}

/// The short-lived proof that we are the app, or why the key is no good.
pub(super) fn app_jwt(id: u64, key: &SecretSource) -> Result<String, String> {
    let key = signing_key(&key())?;
    let app = AppAuth {
        app_id: AppId(id),
        key,
    };
    app.generate_bearer_token()
        .map_err(|error| format!("cannot sign as the GitHub App: {error}"))
}
