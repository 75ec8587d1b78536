//! What the skin's parts share: the forge behind its lock, git, clock, faults, log, and the one way to change the
//! forge ([`Engine::act`]), which turns events into log lines and webhook deliveries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::clock::Clock;
use crate::deliver::Attempt;
use crate::exchange::{Exchange, MAX_EXCHANGES};
use crate::faults::Faults;
use crate::forge::{
    APP, APP_BOT, AccountKind, Answer, Delivery, Event, Forge, Happening, HookScope, Id,
    PullAction, Refusal,
};
use crate::git::GitStore;
use crate::log::{Log, Logged};
use crate::render::Render;

/// Deliveries waiting to be sent; beyond, they are recorded as failed.
pub(crate) const MAX_QUEUED_DELIVERIES: usize = 100_000;
/// GitHub's hourly budget of who is not signed in.
const ANONYMOUS_RATE_LIMIT: u64 = 60;
/// Length of a rate limit's window.
const RATE_WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// How much of a budget is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) reset: Timestamp,
}

impl Rate {
    pub(crate) fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

#[derive(Debug, Default)]
struct State {
    forge: Forge,
    log: Log,
    /// Login by token.
    tokens: BTreeMap<String, String>,
    /// By login (empty: anonymous) and resource.
    rates: BTreeMap<(String, &'static str), Rate>,
    guids: u64,
    exchanges: VecDeque<Exchange>,
}

#[derive(Debug)]
pub(crate) struct Engine {
    /// The sandbox's URL without a trailing slash.
    pub(crate) base: String,
    pub(crate) clock: Clock,
    pub(crate) git: GitStore,
    /// Held while refs move and what follows from it is recorded.
    pub(crate) git_turn: tokio::sync::Mutex<()>,
    pub(crate) faults: Faults,
    pub(crate) seed: String,
    pub(crate) rate_limit: u64,
    pub(crate) record_exchanges: bool,
    pub(crate) deliveries: mpsc::Sender<Attempt>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

pub(crate) struct Parts {
    pub(crate) base: String,
    pub(crate) clock: Clock,
    pub(crate) git: GitStore,
    pub(crate) seed: String,
    pub(crate) rate_limit: u64,
    pub(crate) record_exchanges: bool,
    pub(crate) deliveries: mpsc::Sender<Attempt>,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            base: parts.base,
            clock: parts.clock,
            git: parts.git,
            git_turn: tokio::sync::Mutex::new(()),
            faults: Faults::default(),
            seed: parts.seed,
            rate_limit: parts.rate_limit,
            record_exchanges: parts.record_exchanges,
            deliveries: parts.deliveries,
            state: Mutex::new(State::default()),
            changed: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the forge.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Forge) -> R) -> R {
        f(&self.state().forge)
    }

    /// Reads the forge to show it.
    pub(crate) fn show<R>(&self, f: impl FnOnce(Render<'_>) -> R) -> R {
        let state = self.state();
        f(Render {
            forge: &state.forge,
            base: &self.base,
        })
    }

    /// Changes the forge; what happened is logged and told to the hooks before anybody else can change it again.
    pub(crate) fn act<R>(&self, f: impl FnOnce(&mut Forge, Timestamp) -> R) -> R {
        let now = self.clock.now();
        let mut state = self.state();
        let result = f(&mut state.forge, now);
        for event in state.forge.take_events() {
            self.record(&mut state, &event);
            self.tell_hooks(&mut state, &event);
        }
        drop(state);
        self.touch();
        result
    }

    fn record(&self, state: &mut State, event: &Event) {
        let happened = Logged::Happened {
            repo: event.repo.clone(),
            event: event.what.event_name().to_owned(),
            action: event.what.action().map(str::to_owned),
            number: event.what.number(),
            actor: event.actor.clone(),
        };
        state.log.add(event.at, happened);
        if let Happening::PullRequest {
            number,
            action: PullAction::Closed,
        } = event.what
            && let Ok((_, _, pull)) = state.forge.pull(&event.repo, number)
            && let Some(merged) = &pull.merged
        {
            let merged = Logged::Merged {
                repo: event.repo.clone(),
                number,
                head_sha: pull.head_sha.clone(),
                commit: merged.commit.clone(),
                by: merged.by.clone(),
            };
            state.log.add(event.at, merged);
        }
    }

    fn tell_hooks(&self, state: &mut State, event: &Event) {
        let name = event.what.event_name();
        let hooks: Vec<Id> = state
            .forge
            .hooks_for(&event.repo)
            .filter(|hook| hook.hears(name))
            .map(|hook| hook.id)
            .collect();
        if hooks.is_empty() {
            return;
        }
        let render = Render {
            forge: &state.forge,
            base: &self.base,
        };
        let payload = match render.payload(event) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, event = name, "cannot write the payload of an event");
                return;
            }
        };
        let payload = Bytes::from(payload.to_string());
        for hook in hooks {
            let delivery = Delivery {
                id: state.forge.next_id(),
                guid: self.guid(state),
                event: name.to_owned(),
                action: event.what.action().map(str::to_owned),
                repo: Some(event.repo.clone()),
                number: event.what.number(),
                delivered_at: event.at,
                redelivery: false,
                request_headers: Vec::new(),
                payload: payload.clone(),
                answer: None,
            };
            self.queue(state, hook, delivery);
        }
    }

    /// Greets a new hook, as GitHub does.
    pub(crate) fn ping(&self, hook: Id, actor: &str) -> Result<(), Refusal> {
        let now = self.clock.now();
        let mut state = self.state();
        let payload = Render {
            forge: &state.forge,
            base: &self.base,
        }
        .ping(hook, actor)?;
        let repo = match &state.forge.hook(hook)?.config.scope {
            HookScope::Repo(repo) => Some(repo.clone()),
            HookScope::Org(_) => None,
        };
        let delivery = Delivery {
            id: state.forge.next_id(),
            guid: self.guid(&mut state),
            event: "ping".to_owned(),
            action: None,
            repo,
            number: None,
            delivered_at: now,
            redelivery: false,
            request_headers: Vec::new(),
            payload: Bytes::from(payload.to_string()),
            answer: None,
        };
        self.queue(&mut state, hook, delivery);
        drop(state);
        self.touch();
        Ok(())
    }

    fn queue(&self, state: &mut State, hook: Id, mut delivery: Delivery) {
        let attempt = Attempt {
            hook,
            delivery: delivery.id,
            repo: delivery.repo.clone(),
            number: delivery.number,
            event: delivery.event.clone(),
            action: delivery.action.clone(),
        };
        // Dropping the sandbox ends the deliverer; what is queued after that is never sent.
        if self.deliveries.try_send(attempt).is_err() {
            delivery.answer = Some(Answer {
                status_code: 0,
                status: "queue full".into(),
                url: String::new(),
                duration: Duration::ZERO,
                headers: Vec::new(),
                body: String::new(),
            });
        }
        if let Err(error) = state.forge.record_delivery(hook, delivery) {
            tracing::error!(%error, hook, "cannot record a delivery");
        }
    }

    /// Sends a recorded delivery again under its GUID and gives the new attempt's id.
    pub(crate) fn redeliver(&self, hook: Id, delivery: Id) -> Result<Id, Refusal> {
        let now = self.clock.now();
        let mut state = self.state();
        let mut again = state.forge.delivery(hook, delivery)?.clone();
        again.id = state.forge.next_id();
        again.redelivery = true;
        again.delivered_at = now;
        again.answer = None;
        let id = again.id;
        self.queue(&mut state, hook, again);
        drop(state);
        self.touch();
        Ok(id)
    }

    /// Records what came of an attempt.
    pub(crate) fn answered(&self, attempt: &Attempt, answer: Answer) {
        let now = self.clock.now();
        let mut state = self.state();
        let delivery = state.forge.delivery(attempt.hook, attempt.delivery).ok();
        let delivery = delivery.map(|d| (d.guid.clone(), d.redelivery));
        if let Some((guid, redelivery)) = delivery {
            let line = Logged::Delivered {
                hook: attempt.hook,
                guid,
                event: attempt.event.clone(),
                action: attempt.action.clone(),
                url: answer.url.clone(),
                status_code: answer.status_code,
                redelivery,
            };
            state.log.add(now, line);
        }
        state
            .forge
            .answer_delivery(attempt.hook, attempt.delivery, answer);
        drop(state);
        self.touch();
    }

    /// Changes hooks and deliveries, which tell no events.
    pub(crate) fn with_hooks<R>(&self, f: impl FnOnce(&mut Forge) -> R) -> R {
        f(&mut self.state().forge)
    }

    fn guid(&self, state: &mut State) -> String {
        state.guids += 1;
        let name = format!("{}/delivery/{}", self.seed, state.guids);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
    }

    pub(crate) fn log(&self, what: Logged) {
        let now = self.clock.now();
        self.state().log.add(now, what);
        self.touch();
    }

    pub(crate) fn read_log<R>(&self, f: impl FnOnce(&Log) -> R) -> R {
        f(&self.state().log)
    }

    fn touch(&self) {
        self.changed.send_modify(|revision| *revision += 1);
    }

    /// Wakes at every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The user's token; the same in every sandbox of one seed.
    pub(crate) fn token_for(&self, login: &str) -> String {
        let digest = Sha256::digest(format!("{}/token/{}", self.seed, login.to_lowercase()));
        let token = format!("ghp_{}", &hex::encode(digest)[..36]);
        let now = self.clock.now();
        let mut state = self.state();
        let login = state
            .forge
            .ensure_account(now, login, AccountKind::User)
            .login
            .clone();
        state.tokens.insert(token.clone(), login);
        token
    }

    /// A token with which the App acts in organizations, as its bot.
    pub(crate) fn app_token(&self) -> String {
        let digest = Sha256::digest(format!("{}/app", self.seed));
        let token = format!("ghs_{}", &hex::encode(digest)[..36]);
        let now = self.clock.now();
        let mut state = self.state();
        state.forge.ensure_account(now, APP_BOT, AccountKind::Bot);
        state.tokens.insert(token.clone(), APP_BOT.to_owned());
        token
    }

    pub(crate) fn login_of(&self, token: &str) -> Option<String> {
        // What an App proves itself with: a header, a payload and a signature.
        if token.starts_with("ey") && token.split('.').count() == 3 {
            return Some(APP.to_owned());
        }
        self.state().tokens.get(token).cloned()
    }

    /// Takes `cost` from a budget; gives where it stands, and whether there was enough.
    pub(crate) fn spend(
        &self,
        login: Option<&str>,
        resource: &'static str,
        cost: u64,
    ) -> (Rate, bool) {
        let now = self.clock.now();
        let limit = match login {
            Some(_) => self.rate_limit,
            None => self.rate_limit.min(ANONYMOUS_RATE_LIMIT),
        };
        let mut state = self.state();
        let key = (login.unwrap_or_default().to_lowercase(), resource);
        let fresh = Rate {
            limit,
            used: 0,
            reset: now.saturating_add(RATE_WINDOW).unwrap_or(now),
        };
        let rate = state.rates.entry(key).or_insert(fresh);
        if rate.reset <= now {
            *rate = fresh;
        }
        let enough = rate.used + cost <= rate.limit;
        if enough {
            rate.used += cost;
        }
        (*rate, enough)
    }

    pub(crate) fn record_exchange(&self, exchange: Exchange) {
        if self.record_exchanges {
            let mut state = self.state();
            if state.exchanges.len() >= MAX_EXCHANGES {
                state.exchanges.pop_front();
            }
            state.exchanges.push_back(exchange);
        }
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.state().exchanges.iter().cloned().collect()
    }
}
