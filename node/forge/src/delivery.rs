//! Webhooks as the forge remembers sending them: what lets a delivery that reached nobody be found and sent again.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::types::RepoId;

/// Whose webhook it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HookScope {
    Repo {
        repo: RepoId,
        hook: u64,
    },
    Org {
        org: String,
        hook: u64,
    },
    /// The webhook of the GitHub App as which we authenticate on this host.
    App {
        host: String,
    },
}

/// Whose events a webhook hears.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookOwner {
    Repo(RepoId),
    Org(String),
}

impl std::fmt::Display for HookOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Repo(repo) => repo.fmt(f),
            Self::Org(org) => f.write_str(org),
        }
    }
}

/// A webhook somebody configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub id: u64,
    /// Where it is sent to.
    pub url: String,
    pub active: bool,
    pub events: Vec<String>,
}

/// One attempt to deliver one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookDelivery {
    /// Names this attempt.
    pub id: u64,
    /// `X-GitHub-Delivery`: names the event; a redelivery has the same.
    pub guid: String,
    pub delivered_at: Timestamp,
    pub redelivery: bool,
    /// The receiver's HTTP status; 0 if it was not reached.
    pub status_code: u16,
    /// `X-GitHub-Event`.
    pub event: String,
    pub action: Option<String>,
}

impl HookDelivery {
    /// Whether the receiver took it.
    #[must_use]
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

/// A stretch of attempts, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPage {
    pub deliveries: Vec<HookDelivery>,
    /// Where older ones start; `None` if there are none.
    pub next: Option<String>,
}

/// What was sent in an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredRequest {
    pub headers: Vec<(String, String)>,
    /// The payload as JSON. Not byte for byte what was signed: re-sign or trust the forge's answer.
    pub payload: Bytes,
}
