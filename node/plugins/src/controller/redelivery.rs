//! Lost webhooks: what the forge sent while nobody took it is asked for again (HOOK-043), each event once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use trireme_forge::{HookDelivery, HookScope};
use trireme_office::Work;
use trireme_proto::state::command::Body;
use trireme_proto::state::{Cursor, PutCursor};

use super::chores::{Chore, unable};
use super::{Session, not_recorded};
use crate::plugin::outage;

/// Attempts that are read in one round; the newest, if there were more.
const MAX_ATTEMPTS: usize = 5_000;
/// Events that are asked for in one round; the rest in the next ones.
const MAX_ASKED: usize = 200;
/// Attempts younger than this may still be under way.
const SETTLE: Duration = Duration::from_secs(30);
/// Events remembered as asked for.
const MAX_REMEMBERED: usize = 10_000;

/// Which webhooks lead here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OurHooks {
    /// None that we may look at.
    Unknown,
    /// That of the GitHub App we authenticate as.
    App,
    /// Those of the configured organisations and repositories that are sent to this address.
    At(String),
}

/// Events that were asked for in this stay in office.
#[derive(Debug, Default)]
pub(super) struct Asked {
    guids: Mutex<(BTreeSet<String>, VecDeque<String>)>,
}

impl Asked {
    fn contains(&self, guid: &str) -> bool {
        let guids = self.guids.lock().unwrap_or_else(PoisonError::into_inner);
        guids.0.contains(guid)
    }

    fn insert(&self, guid: &str) {
        let mut guids = self.guids.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *guids;
        if known.insert(guid.to_owned()) {
            order.push_back(guid.to_owned());
        }
        while order.len() > MAX_REMEMBERED {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
    }
}

/// The attempts to ask for again, oldest first: one for each event that no attempt brought home, that nobody asked for
/// before, and that is not known from elsewhere.
fn lost(attempts: &[HookDelivery], known: impl Fn(&str) -> bool) -> Vec<&HookDelivery> {
    let settled: BTreeSet<&str> = attempts
        .iter()
        .filter(|attempt| attempt.accepted() || attempt.redelivery)
        .map(|attempt| attempt.guid.as_str())
        .collect();
    let mut seen = BTreeSet::new();
    attempts
        .iter()
        .filter(|attempt| {
            let guid = attempt.guid.as_str();
            !settled.contains(guid) && !known(guid) && seen.insert(guid)
        })
        .collect()
}

fn cursor_key(scope: &HookScope) -> String {
    match scope {
        HookScope::Repo { repo, hook } => format!("plugins/hook/{repo}/{hook}"),
        HookScope::Org { org, hook } => format!("plugins/hook/{org}/{hook}"),
        HookScope::App => "plugins/hook/app".to_owned(),
    }
}

impl Session {
    pub(super) async fn recover_deliveries(&self, chore: &Chore) -> Result<(), Work> {
        for scope in self.our_hooks(chore).await? {
            self.recover(&scope).await?;
        }
        Ok(())
    }

    /// The webhooks of a repository or organisation that lead here.
    async fn our_hooks(&self, chore: &Chore) -> Result<Vec<HookScope>, Work> {
        let forge = self.tools.forge.as_ref();
        let (hooks, of) = match chore {
            Chore::RepoHooks(repo) => (forge.repo_hooks(repo).await, repo.to_string()),
            Chore::OrgHooks(org) => (forge.org_hooks(org).await, org.clone()),
            Chore::AppHook => return Ok(vec![HookScope::App]),
            Chore::Pulls(_) => return Ok(vec![]),
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
            .map(|hook| match chore {
                Chore::OrgHooks(org) => HookScope::Org {
                    org: org.clone(),
                    hook: hook.id,
                },
                Chore::RepoHooks(repo) => HookScope::Repo {
                    repo: repo.clone(),
                    hook: hook.id,
                },
                Chore::AppHook | Chore::Pulls(_) => HookScope::App,
            })
            .collect())
    }

    async fn recover(&self, scope: &HookScope) -> Result<(), Work> {
        let key = cursor_key(scope);
        let now_ms = self.office.now_ms();
        let settle_ms = i64::try_from(SETTLE.as_millis()).unwrap_or(i64::MAX);
        let until_ms = now_ms.saturating_sub(settle_ms);
        let Some(from) = self.office.view().cursor(&key).cloned() else {
            // What happened before we first looked was not sent to us.
            return self.move_cursor(key, until_ms).await;
        };
        if until_ms <= from.at_ms {
            return Ok(());
        }
        let failed = |error| unable(&format!("cannot list deliveries ({key})"), &error);
        let since = Timestamp::from_millisecond(from.at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let forge = self.tools.forge.as_ref();
        let (mut attempts, cut) = forge
            .hook_deliveries_since(scope, since, MAX_ATTEMPTS)
            .await
            .map_err(failed)?;
        if cut {
            tracing::warn!(
                key,
                "more than {MAX_ATTEMPTS} deliveries since the last look: older ones are left"
            );
        }
        // Young attempts may still succeed; those that did, or that are a second try, settle their event already.
        attempts.retain(|attempt| {
            attempt.delivered_at.as_millisecond() < until_ms
                || attempt.redelivery
                || attempt.accepted()
        });
        let view = self.office.view();
        let lost = lost(&attempts, |guid| {
            view.is_delivery_seen(guid) || self.asked_again.contains(guid)
        });
        for attempt in lost.iter().take(MAX_ASKED) {
            self.ask_again(scope, attempt).await?;
        }
        let next = lost.get(MAX_ASKED);
        let looked_ms = next.map_or(until_ms, |next| next.delivered_at.as_millisecond());
        self.move_cursor(key, looked_ms).await
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
                    tracing::warn!(guid, %error, "a lost delivery cannot be had again");
                }
                self.asked_again.insert(guid);
                Ok(())
            }
        }
    }

    async fn move_cursor(&self, key: String, at_ms: i64) -> Result<(), Work> {
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

    #[test]
    fn hook_043_each_lost_event_is_asked_for_once() {
        let attempts = [
            attempt(1, "lost", 503, false),
            attempt(2, "taken", 200, false),
            attempt(3, "unreached", 0, false),
            attempt(4, "retried", 503, false),
            attempt(5, "retried", 503, true),
            attempt(6, "taken later", 503, false),
            attempt(7, "taken later", 200, true),
            attempt(8, "known", 500, false),
            attempt(9, "lost", 503, false),
        ];
        let lost = lost(&attempts, |guid| guid == "known");
        let ids: Vec<u64> = lost.iter().map(|attempt| attempt.id).collect();
        assert_eq!(ids, [1, 3]);
    }

    #[test]
    fn what_was_asked_for_is_remembered_within_bounds() {
        let asked = Asked::default();
        for n in 0..=MAX_REMEMBERED {
            asked.insert(&n.to_string());
        }
        assert!(!asked.contains("0") && asked.contains("1"));
        assert!(asked.contains(&MAX_REMEMBERED.to_string()));
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
            cursor_key(&HookScope::App),
        ];
        assert_eq!(
            keys,
            [
                "plugins/hook/org/repo/1",
                "plugins/hook/org/1",
                "plugins/hook/app"
            ]
        );
    }
}
