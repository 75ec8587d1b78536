//! Webhooks and the record of what was sent. Sending is the skin's.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Forge, Id, Refusal, RepoName};

/// Deliveries remembered per hook; the oldest go first.
pub const MAX_DELIVERIES: usize = 10_000;

/// Whose events a hook hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookScope {
    Repo(RepoName),
    Org(String),
}

/// Which of a hook's URLs a delivery goes to. GitHub knows one URL; several stand for a load balancer before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookPolicy {
    /// The first that accepts the connection, in the order given.
    #[default]
    FirstThatAccepts,
    /// Each delivery starts one further along, then as above.
    RoundRobin,
}

/// A webhook as it is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookConfig {
    pub scope: HookScope,
    /// At least one.
    pub targets: Vec<Url>,
    #[serde(default)]
    pub policy: HookPolicy,
    /// Signs the payloads; none sends them unsigned.
    #[serde(default)]
    pub secret: Option<String>,
    /// Event names, or `*`.
    pub events: Vec<String>,
}

/// What a `PATCH` on a webhook asks for; absent fields stay.
#[derive(Debug, Clone, Default)]
pub struct HookChange {
    /// URL and secret: GitHub takes the configuration as a whole, so that one without a secret has none.
    pub config: Option<(Url, Option<String>)>,
    pub events: Option<Vec<String>>,
    pub active: Option<bool>,
}

#[derive(Debug, Clone)]
pub struct Hook {
    pub id: Id,
    pub config: HookConfig,
    pub active: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub deliveries: VecDeque<Delivery>,
    /// Deliveries ever sent; says where the round robin stands.
    pub sent: u64,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status; 502 and 504 when there was none (not connected, timed out), as GitHub shows it.
    pub status_code: u16,
    /// `OK`, or why not.
    pub status: String,
    pub url: String,
    pub duration: Duration,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// One attempt to deliver one event to one hook.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: Id,
    /// `X-GitHub-Delivery`: the same for every attempt of one event.
    pub guid: String,
    pub event: String,
    pub action: Option<String>,
    pub repo: Option<RepoName>,
    /// Issue or pull request concerned: deliveries about one are sent in order.
    pub number: Option<u64>,
    pub delivered_at: Timestamp,
    pub redelivery: bool,
    pub request_headers: Vec<(String, String)>,
    pub payload: Bytes,
    /// None while in flight.
    pub answer: Option<Answer>,
}

impl Hook {
    /// Does the hook ask for that event?
    pub fn hears(&self, event: &str) -> bool {
        self.active && self.config.events.iter().any(|e| e == "*" || e == event)
    }

    /// The URLs to try, in order, for the next delivery.
    pub fn next_targets(&mut self) -> Vec<Url> {
        let mut targets = self.config.targets.clone();
        if self.config.policy == HookPolicy::RoundRobin && !targets.is_empty() {
            let turn = usize::try_from(self.sent).unwrap_or(0) % targets.len();
            targets.rotate_left(turn);
        }
        self.sent += 1;
        targets
    }
}

impl Forge {
    /// Sets a webhook up and gives its id. No ping is sent.
    ///
    /// # Errors
    /// 404 when the repository or organization does not exist, 422 without a target or event.
    pub fn add_hook(&mut self, now: Timestamp, config: HookConfig) -> Result<Id, Refusal> {
        match &config.scope {
            HookScope::Repo(repo) => {
                self.repo(repo)?;
            }
            HookScope::Org(org) => {
                self.org(org)?;
            }
        }
        if config.targets.is_empty() || config.events.is_empty() {
            return Err(Refusal::validation("Hook", "config", "missing_field"));
        }
        let id = self.next_id();
        let hook = Hook {
            id,
            config,
            active: true,
            created_at: now,
            updated_at: now,
            deliveries: VecDeque::new(),
            sent: 0,
        };
        self.hooks.insert(id, hook);
        Ok(id)
    }

    /// Sets a webhook up as its admin; gives its id.
    ///
    /// # Errors
    /// As [`Forge::add_hook`]; 422 when the scope has one to that URL.
    pub fn create_hook(&mut self, now: Timestamp, config: HookConfig) -> Result<Id, Refusal> {
        let mut known = self.hooks_of(&config.scope);
        if known.any(|hook| hook.config.targets == config.targets) {
            return Err(Refusal::validation_custom(
                "Hook",
                "Hook already exists on this repository",
            ));
        }
        drop(known);
        self.add_hook(now, config)
    }

    /// Replaces what is given of a webhook.
    ///
    /// # Errors
    /// 404.
    pub fn edit_hook(&mut self, now: Timestamp, id: Id, change: HookChange) -> Result<(), Refusal> {
        let hook = self.hook_mut(id)?;
        if let Some((url, secret)) = change.config {
            hook.config.targets = vec![url];
            hook.config.secret = secret;
        }
        if let Some(events) = change.events {
            hook.config.events = events;
        }
        if let Some(active) = change.active {
            hook.active = active;
        }
        hook.updated_at = now;
        Ok(())
    }

    /// # Errors
    /// 404.
    pub fn delete_hook(&mut self, id: Id) -> Result<(), Refusal> {
        let gone = self.hooks.remove(&id);
        gone.map(|_| ()).ok_or_else(Refusal::not_found)
    }

    /// Hooks that hear what happens in the repository.
    pub fn hooks_for(&self, repo: &RepoName) -> impl Iterator<Item = &Hook> {
        let repo = repo.clone();
        self.hooks.values().filter(move |h| match &h.config.scope {
            HookScope::Repo(name) => name.key() == repo.key(),
            HookScope::Org(org) => org.eq_ignore_ascii_case(&repo.owner),
        })
    }

    /// Hooks of exactly that scope.
    pub fn hooks_of<'a>(&'a self, scope: &'a HookScope) -> impl Iterator<Item = &'a Hook> {
        self.hooks
            .values()
            .filter(move |h| same(&h.config.scope, scope))
    }

    /// Every hook.
    pub fn hooks(&self) -> impl Iterator<Item = &Hook> {
        self.hooks.values()
    }

    /// # Errors
    /// 404.
    pub fn hook(&self, id: Id) -> Result<&Hook, Refusal> {
        self.hooks.get(&id).ok_or_else(Refusal::not_found)
    }

    /// # Errors
    /// 404.
    pub fn hook_mut(&mut self, id: Id) -> Result<&mut Hook, Refusal> {
        self.hooks.get_mut(&id).ok_or_else(Refusal::not_found)
    }

    /// # Errors
    /// 404, also when the delivery has been forgotten.
    pub fn delivery(&self, hook: Id, delivery: Id) -> Result<&Delivery, Refusal> {
        let mut deliveries = self.hook(hook)?.deliveries.iter();
        deliveries
            .find(|d| d.id == delivery)
            .ok_or_else(Refusal::not_found)
    }

    /// Records a delivery about to be sent.
    ///
    /// # Errors
    /// 404.
    pub fn record_delivery(&mut self, hook: Id, delivery: Delivery) -> Result<(), Refusal> {
        let hook = self.hook_mut(hook)?;
        if hook.deliveries.len() >= MAX_DELIVERIES {
            hook.deliveries.pop_front();
        }
        hook.deliveries.push_back(delivery);
        Ok(())
    }

    /// Records what came of it.
    pub fn answer_delivery(&mut self, hook: Id, delivery: Id, answer: Answer) {
        let found = self.hook_mut(hook).ok().and_then(|h| {
            // Answers concern recent deliveries: look from the back.
            h.deliveries.iter_mut().rev().find(|d| d.id == delivery)
        });
        if let Some(record) = found {
            record.answer = Some(answer);
        }
    }

    /// Deliveries in flight, over all hooks.
    pub fn deliveries_in_flight(&self) -> usize {
        self.hooks
            .values()
            .flat_map(|h| &h.deliveries)
            .filter(|d| d.answer.is_none())
            .count()
    }
}

fn same(a: &HookScope, b: &HookScope) -> bool {
    match (a, b) {
        (HookScope::Repo(a), HookScope::Repo(b)) => a.key() == b.key(),
        (HookScope::Org(a), HookScope::Org(b)) => a.eq_ignore_ascii_case(b),
        _ => false,
    }
}
