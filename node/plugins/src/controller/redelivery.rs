//! Lost webhooks: what the forge sent while nobody took it is asked for again (HOOK-043), until it is home or given up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use trireme_forge::{HookDelivery, HookScope};
use trireme_office::Work;
use trireme_proto::state::command::Body;
use trireme_proto::state::{Alarm, Cursor, PutCursor, SetAlarm};

use super::chores::{Chore, unable};
use super::{Session, not_recorded};
use crate::plugin::outage;

/// Attempts that are read in one round; the newest, if there were more. An App of large organisations has a hundred a
/// minute: so many are those of a working day.
const MAX_ATTEMPTS: usize = 50_000;
/// Events that are asked for in one round; the rest in the next ones.
const MAX_ASKED: usize = 500;
/// Attempts younger than this may still be under way.
pub const SETTLE: Duration = Duration::from_secs(30);
/// Webhooks that are asked for one after the other have come within this, but for a large loss.
pub const ROUND: Duration = Duration::from_secs(60);
/// How often an event is asked for before it is given up; the wait doubles each time.
const MAX_TRIES: u32 = 5;
/// Events remembered as asked for.
const MAX_REMEMBERED: usize = 10_000;
/// The forge tells times in whole seconds, so an attempt may seem older than it is.
const FORGE_CLOCK_MS: i64 = 1_000;
/// Raised when an event is given up.
const ALARM: &str = "plugins/lost-deliveries";

/// Which webhooks lead here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OurHooks {
    /// None that we may look at.
    Unknown,
    /// Those of the GitHub Apps as which we authenticate, by host.
    Apps(Vec<String>),
    /// Those of the configured organisations and repositories that are sent to this address.
    At(String),
}

/// What was asked for in this stay in office: the forge lists a second attempt only some time later, and one that it
/// refuses to make not at all.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    /// How often, and when last.
    by_guid: BTreeMap<String, (u32, i64)>,
    order: VecDeque<String>,
}

impl Asked {
    fn of(&self, guid: &str) -> Option<(u32, i64)> {
        let requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        requests.by_guid.get(guid).copied()
    }

    fn insert(&self, guid: &str, now_ms: i64) {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match requests.by_guid.get_mut(guid) {
            Some((tries, at_ms)) => {
                *tries = tries.saturating_add(1);
                *at_ms = now_ms;
            }
            None => {
                requests.by_guid.insert(guid.to_owned(), (1, now_ms));
                requests.order.push_back(guid.to_owned());
            }
        }
        while requests.order.len() > MAX_REMEMBERED {
            if let Some(oldest) = requests.order.pop_front() {
                requests.by_guid.remove(&oldest);
            }
        }
    }
}

/// What is to be done about the events that no attempt brought home.
#[derive(Debug, Default, PartialEq, Eq)]
struct Review<'a> {
    /// First attempts of the events to ask for now, oldest first.
    ask: Vec<&'a HookDelivery>,
    /// Events that were asked for [`MAX_TRIES`] times in vain.
    given_up: Vec<&'a HookDelivery>,
    /// When the next of those that wait may be asked for.
    next_ms: Option<i64>,
    /// The oldest attempt of an event that is neither home nor given up.
    open_ms: Option<i64>,
}

/// One event's attempts.
struct Event<'a> {
    first: &'a HookDelivery,
    last_ms: i64,
    redeliveries: u32,
    home: bool,
}

/// `known`: events that came by another way. `asked`: how often and when an event was asked for by us.
fn review<'a>(
    attempts: &'a [HookDelivery],
    now_ms: i64,
    settle_ms: i64,
    known: impl Fn(&str) -> bool,
    asked: impl Fn(&str) -> Option<(u32, i64)>,
) -> Review<'a> {
    let mut events: BTreeMap<&str, Event<'_>> = BTreeMap::new();
    for attempt in attempts {
        let at_ms = attempt.delivered_at.as_millisecond();
        let event = events.entry(attempt.guid.as_str()).or_insert(Event {
            first: attempt,
            last_ms: at_ms,
            redeliveries: 0,
            home: false,
        });
        if (attempt.delivered_at, attempt.id) < (event.first.delivered_at, event.first.id) {
            event.first = attempt;
        }
        event.last_ms = event.last_ms.max(at_ms);
        event.redeliveries += u32::from(attempt.redelivery);
        event.home |= attempt.accepted();
    }
    let mut open: Vec<Event<'_>> = events
        .into_iter()
        .filter(|(guid, event)| !event.home && !known(guid))
        .map(|(_, event)| event)
        .collect();
    open.sort_by_key(|event| (event.first.delivered_at, event.first.id));
    let mut review = Review::default();
    for event in open {
        let (tries, asked_ms) = asked(&event.first.guid).unwrap_or((0, i64::MIN));
        let tries = tries.max(event.redeliveries);
        let last_ms = event.last_ms.max(asked_ms);
        let due_ms = last_ms.saturating_add(settle_ms.saturating_mul(1 << tries.min(MAX_TRIES)));
        if tries >= MAX_TRIES && due_ms <= now_ms {
            review.given_up.push(event.first);
            continue;
        }
        let first_ms = event.first.delivered_at.as_millisecond();
        review.open_ms = Some(review.open_ms.map_or(first_ms, |open| open.min(first_ms)));
        let next_ms = if due_ms > now_ms {
            due_ms
        } else if review.ask.len() < MAX_ASKED {
            review.ask.push(event.first);
            // Whether it came home shows then.
            now_ms.saturating_add(settle_ms.saturating_mul(1 << (tries + 1)))
        } else {
            now_ms.saturating_add(settle_ms)
        };
        review.next_ms = Some(review.next_ms.map_or(next_ms, |next| next.min(next_ms)));
    }
    review
}

fn cursor_key(scope: &HookScope) -> String {
    match scope {
        HookScope::Repo { repo, hook } => format!("plugins/hook/{repo}/{hook}"),
        HookScope::Org { org, hook } => format!("plugins/hook/{org}/{hook}"),
        HookScope::App { host } => format!("plugins/hook/app/{host}"),
    }
}

/// Where a cursor stood as long as there was one App.
const ONLY_APP: &str = "plugins/hook/app";

impl Session {
    /// Answers when to look again, if anything is still open.
    pub(super) async fn recover_deliveries(&self, chore: &Chore) -> Result<Option<Duration>, Work> {
        let mut next: Option<i64> = None;
        for scope in self.our_hooks(chore).await? {
            let again = self.recover(&scope).await?;
            next = [next, again].into_iter().flatten().min();
        }
        Ok(next.map(|next_ms| {
            let wait_ms = next_ms.saturating_sub(self.office.now_ms()).max(0);
            Duration::from_millis(wait_ms.unsigned_abs())
        }))
    }

    /// The webhooks of a repository or organisation that lead here.
    async fn our_hooks(&self, chore: &Chore) -> Result<Vec<HookScope>, Work> {
        let forge = self.tools.forge.as_ref();
        let (hooks, of) = match chore {
            Chore::RepoHooks(repo) => (forge.repo_hooks(repo).await, repo.to_string()),
            Chore::OrgHooks(org) => (forge.org_hooks(org).await, org.clone()),
            Chore::AppHook(host) => return Ok(vec![HookScope::App { host: host.clone() }]),
            Chore::Pulls(_) | Chore::ConfigMaps(_) | Chore::Rebase | Chore::BaseMoved { .. } => {
                return Ok(vec![]);
            }
        };
        let hooks = match hooks {
            // Users have no organisation's webhooks, and not every identity may see them.
            Err(error) if error.is_not_found() => return Ok(vec![]),
            hooks => hooks
                .map_err(|error| unable(&format!("cannot list the webhooks of {of}"), &error))?,
        };
        let OurHooks::At(url) = &self.tools.hooks else {
            return Ok(vec![]);
        };
        let ours = hooks
            .into_iter()
            .filter(|hook| hook.active && hook.url == *url);
        Ok(ours
            .filter_map(|hook| match chore {
                Chore::OrgHooks(org) => Some(HookScope::Org {
                    org: org.clone(),
                    hook: hook.id,
                }),
                Chore::RepoHooks(repo) => Some(HookScope::Repo {
                    repo: repo.clone(),
                    hook: hook.id,
                }),
                _ => None,
            })
            .collect())
    }

    /// Answers when to look again, if anything is still open.
    async fn recover(&self, scope: &HookScope) -> Result<Option<i64>, Work> {
        let key = cursor_key(scope);
        let now_ms = self.office.now_ms();
        let settle_ms = i64::try_from(self.tools.settle.as_millis()).unwrap_or(i64::MAX);
        let until_ms = now_ms.saturating_sub(settle_ms);
        let view = self.office.view();
        let former = matches!(scope, HookScope::App { .. })
            .then(|| view.cursor(ONLY_APP))
            .flatten();
        let Some(from) = view.cursor(&key).or(former).cloned() else {
            // What happened before we first looked was not sent to us.
            self.move_cursor(key, until_ms).await?;
            return Ok(None);
        };
        let failed = |error| unable(&format!("cannot list deliveries ({key})"), &error);
        let since_ms = from.at_ms.saturating_sub(FORGE_CLOCK_MS);
        let since = Timestamp::from_millisecond(since_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let forge = self.tools.forge.as_ref();
        let (attempts, cut) = forge
            .hook_deliveries_since(scope, since, MAX_ATTEMPTS)
            .await
            .map_err(failed)?;
        if cut {
            let message = format!(
                "more than {MAX_ATTEMPTS} webhooks were sent since the last look at {key}: what was lost among the older \
                 ones is not asked for again; find and redeliver them in the forge's webhook settings"
            );
            self.raise_lost(message).await?;
        }
        let view = self.office.view();
        let found = review(
            &attempts,
            now_ms,
            settle_ms,
            |guid| view.is_delivery_seen(guid),
            |guid| self.asked_again.of(guid),
        );
        self.give_up(&found.given_up).await?;
        for attempt in &found.ask {
            self.ask_again(scope, attempt).await?;
        }
        let looked_ms = found
            .open_ms
            .map_or(until_ms, |open_ms| open_ms.min(until_ms))
            .max(from.at_ms);
        if looked_ms > from.at_ms {
            self.move_cursor(key, looked_ms).await?;
        }
        Ok(found.next_ms)
    }

    async fn ask_again(&self, scope: &HookScope, attempt: &HookDelivery) -> Result<(), Work> {
        let HookDelivery { guid, event, .. } = attempt;
        tracing::info!(guid, event, "asking for a lost delivery again");
        self.office.assert_held().await.map_err(not_recorded)?;
        match self.tools.forge.redeliver(scope, attempt.id).await {
            Err(error) if outage(&error).is_some() => Err(unable(
                &format!("cannot ask for delivery {guid} again"),
                &error,
            )),
            asked => {
                if let Err(error) = asked {
                    tracing::warn!(guid, %error, "the forge does not send a lost delivery again");
                }
                self.asked_again.insert(guid, self.office.now_ms());
                Ok(())
            }
        }
    }

    /// An operator has to know what nobody will handle.
    async fn give_up(&self, lost: &[&HookDelivery]) -> Result<(), Work> {
        let Some(last) = lost.last() else {
            return Ok(());
        };
        let HookDelivery { guid, event, .. } = last;
        let message = format!(
            "{} lost webhook(s) could not be had again in {MAX_TRIES} tries, the last of them {event} delivery {guid}: see \
             what their answers say in the forge's webhook settings and redeliver them there",
            lost.len()
        );
        self.raise_lost(message).await
    }

    async fn raise_lost(&self, message: String) -> Result<(), Work> {
        tracing::error!(message);
        let alarm = Alarm {
            key: ALARM.to_owned(),
            message,
            ..Alarm::default()
        };
        let set = SetAlarm {
            alarm: Some(alarm),
            clear: false,
        };
        let set = self.office.propose(Body::SetAlarm(set)).await;
        set.map(|_| ()).map_err(not_recorded)
    }

    pub(super) async fn move_cursor(&self, key: String, at_ms: i64) -> Result<(), Work> {
        let put = PutCursor {
            cursors: vec![Cursor {
                key,
                at_ms,
                ..Cursor::default()
            }],
        };
        let put = self.office.propose(Body::PutCursor(put)).await;
        put.map(|_| ()).map_err(not_recorded)
    }
}

#[cfg(test)]
mod tests {
    use trireme_forge::RepoId;

    use super::*;

    fn attempt(id: u64, guid: &str, status_code: u16, redelivery: bool) -> HookDelivery {
        HookDelivery {
            id,
            guid: guid.to_owned(),
            delivered_at: Timestamp::UNIX_EPOCH,
            redelivery,
            status_code,
            event: "push".to_owned(),
            action: None,
        }
    }

    fn at(seconds: i64, attempt: HookDelivery) -> HookDelivery {
        HookDelivery {
            delivered_at: Timestamp::from_second(seconds).unwrap(),
            ..attempt
        }
    }

    fn ids(attempts: &[&HookDelivery]) -> Vec<u64> {
        attempts.iter().map(|attempt| attempt.id).collect()
    }

    /// HOOK-043: each lost event is asked for once, as long as that brings it home.
    #[test]
    fn hook_043_what_is_lost_is_asked_for_and_what_came_home_is_not() {
        let attempts = [
            attempt(1, "lost", 503, false),
            attempt(2, "taken", 200, false),
            attempt(3, "unreached", 0, false),
            attempt(6, "taken later", 503, false),
            attempt(7, "taken later", 200, true),
            attempt(8, "known", 500, false),
            attempt(9, "lost", 503, false),
        ];
        let found = review(&attempts, 30_000, 30_000, |guid| guid == "known", |_| None);
        assert_eq!(ids(&found.ask), [1, 3]);
        assert_eq!((found.open_ms, found.next_ms), (Some(0), Some(90_000)));
        let found = review(&attempts[1..2], 30_000, 30_000, |_| false, |_| None);
        assert_eq!(found, Review::default());
    }

    #[test]
    fn a_young_attempt_is_looked_at_again_as_soon_as_it_has_settled() {
        let attempts = [at(100, attempt(1, "young", 0, false))];
        let found = review(&attempts, 105_000, 30_000, |_| false, |_| None);
        assert_eq!(ids(&found.ask), [0; 0]);
        assert_eq!(
            (found.open_ms, found.next_ms),
            (Some(100_000), Some(130_000))
        );
    }

    #[test]
    fn a_second_attempt_that_fails_too_is_made_again_later_and_given_up_in_the_end() {
        let mut attempts = vec![at(0, attempt(1, "lost", 503, false))];
        let mut now_ms = 0;
        let mut asked = Vec::new();
        loop {
            let found = review(&attempts, now_ms, 30_000, |_| false, |_| None);
            if !found.given_up.is_empty() {
                assert_eq!(ids(&found.given_up), [1]);
                assert_eq!((found.open_ms, found.next_ms), (None, None));
                break;
            }
            let (asks, next_ms) = (!found.ask.is_empty(), found.next_ms.unwrap());
            if asks {
                asked.push(now_ms / 1000);
                let id = 2 + asked.len() as u64;
                attempts.push(at(now_ms / 1000, attempt(id, "lost", 503, true)));
            }
            now_ms = next_ms;
        }
        assert_eq!(asked, [30, 90, 210, 450, 930]);
    }

    #[test]
    fn what_the_forge_does_not_even_try_counts_as_tried() {
        let attempts = [at(0, attempt(1, "lost", 503, false))];
        let tried = |tries, at_ms, now_ms| {
            let asked = |_: &str| Some((tries, at_ms));
            let found = review(&attempts, now_ms, 30_000, |_| false, asked);
            (ids(&found.ask), ids(&found.given_up), found.next_ms)
        };
        assert_eq!(tried(1, 30_000, 40_000), (vec![], vec![], Some(90_000)));
        assert_eq!(tried(5, 0, 40_000), (vec![], vec![], Some(960_000)));
        assert_eq!(tried(5, 0, 960_000), (vec![], vec![1], None));
    }

    #[test]
    fn what_was_asked_for_is_remembered_within_bounds() {
        let asked = Asked::default();
        for n in 0..=MAX_REMEMBERED {
            asked.insert(&n.to_string(), 1);
        }
        assert_eq!(asked.of("0"), None);
        asked.insert("1", 2);
        assert_eq!(asked.of("1"), Some((2, 2)));
        assert_eq!(asked.of(&MAX_REMEMBERED.to_string()), Some((1, 1)));
    }

    #[test]
    fn cursors_are_kept_per_webhook() {
        let repo = RepoId::new("org", "repo");
        let keys = [
            cursor_key(&HookScope::Repo { repo, hook: 1 }),
            cursor_key(&HookScope::Org {
                org: "org".into(),
                hook: 1,
            }),
            cursor_key(&HookScope::App {
                host: "github.com".into(),
            }),
        ];
        assert_eq!(
            keys,
            [
                "plugins/hook/org/repo/1",
                "plugins/hook/org/1",
                "plugins/hook/app/github.com"
            ]
        );
    }
}
