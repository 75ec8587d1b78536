//! Who we are to GitHub: nobody, the owner of a token, or a GitHub App with an installation per organisation.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;
use octocrab::auth::AppAuth;
use octocrab::models::AppId;

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

    pub(super) fn tell(&self, token: &str, expires_at: Timestamp) {
        if let Some(told) = &self.0 {
            told(token, expires_at);
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
