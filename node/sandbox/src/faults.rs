//! Faults on demand: which calls and webhooks go wrong, how, and how often. Matching and counting stand here; the
//! server and the deliverer make them happen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Rules at once; more are refused.
pub const MAX_RULES: usize = 1000;

/// Which calls a fault concerns. Absent parts match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallMatch {
    /// HTTP method in capitals.
    pub method: Option<String>,
    /// Path with `*` for any run of characters: `/repos/*/pulls/*/merge`.
    pub path: Option<String>,
    /// Login of who calls.
    pub actor: Option<String>,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CallEffect {
    /// The call starts so much later.
    Latency { millis: u64 },
    /// Answered with this status; nothing takes effect.
    Status { code: u16 },
    /// 403 with `Retry-After` and GitHub's words for its secondary limit; nothing takes effect.
    SecondaryRateLimit { retry_after_seconds: u64 },
    /// 403 with nothing remaining until the reset; nothing takes effect.
    PrimaryRateLimit { reset_in_seconds: u64 },
    /// The connection is cut; nothing takes effect.
    Refused,
    /// The call takes effect, then the connection is cut instead of an answer.
    AnswerLost,
    /// The call takes effect, its answer comes so much later.
    AnswerDelayed { millis: u64 },
    /// The call takes effect, its answer is held at the barrier of this name until released.
    AnswerHeld { barrier: String },
}

/// Which webhooks a fault concerns. Absent parts match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookMatch {
    /// `X-GitHub-Event`.
    pub event: Option<String>,
    /// The payload's `action`.
    pub action: Option<String>,
    /// Issue or pull request concerned.
    pub number: Option<u64>,
}

/// What goes wrong with a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HookEffect {
    /// Never sent, recorded as failed: it can be redelivered.
    Lost,
    /// Sent so many times more, with the same GUID.
    Duplicated { extra: u32 },
    /// Sent so much later; what comes after overtakes it.
    Delayed { millis: u64 },
    /// Sent right after the next delivery of its hook, or after five seconds when none comes.
    Reordered,
}

/// How often a fault applies; none means always.
pub type Times = Option<u64>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Kind {
    Call { on: CallMatch, effect: CallEffect },
    Hook { on: HookMatch, effect: HookEffect },
}

#[derive(Debug, Clone)]
struct Rule {
    id: u64,
    left: Times,
    kind: Kind,
}

#[derive(Debug, Default)]
struct Rules {
    rules: Vec<Rule>,
    last_id: u64,
    barriers: BTreeMap<String, Barrier>,
}

/// Cannot hold any more faults.
#[derive(Debug, thiserror::Error)]
#[error("there are {MAX_RULES} faults set already: clear some first")]
pub struct TooMany;

/// The faults that are set. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Rules>>,
}

/// Where answers are held. Clones share it.
#[derive(Debug, Clone)]
pub struct Barrier {
    arrived: Arc<watch::Sender<u64>>,
    released: Arc<watch::Sender<bool>>,
}

impl Default for Barrier {
    fn default() -> Self {
        Self {
            arrived: Arc::new(watch::Sender::new(0)),
            released: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Barrier {
    /// Waits until `calls` calls have taken effect and their answers are held here (or were).
    pub async fn arrived(&self, calls: u64) {
        let mut arrived = self.arrived.subscribe();
        // Fails only when the sender is gone, and this handle has it.
        let _ = arrived.wait_for(|n| *n >= calls).await;
    }

    /// Calls that have come here so far.
    pub fn count(&self) -> u64 {
        *self.arrived.borrow()
    }

    /// Lets every held answer go, and those that come later too.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    pub(crate) async fn hold(&self) {
        self.arrived.send_modify(|n| *n += 1);
        let mut released = self.released.subscribe();
        let _ = released.wait_for(|r| *r).await;
    }
}

impl Faults {
    fn with<R>(&self, f: impl FnOnce(&mut Rules) -> R) -> R {
        f(&mut self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, kind: Kind, times: Times) -> Result<u64, TooMany> {
        self.with(|rules| {
            if rules.rules.len() >= MAX_RULES {
                return Err(TooMany);
            }
            rules.last_id += 1;
            rules.rules.push(Rule {
                id: rules.last_id,
                left: times,
                kind,
            });
            Ok(rules.last_id)
        })
    }

    /// Makes matching calls go wrong and gives the fault's id. The oldest fault that matches a call applies.
    ///
    /// # Errors
    /// When [`MAX_RULES`] are set.
    pub fn on_call(&self, on: CallMatch, effect: CallEffect, times: Times) -> Result<u64, TooMany> {
        self.add(Kind::Call { on, effect }, times)
    }

    /// Makes matching webhooks go wrong and gives the fault's id.
    ///
    /// # Errors
    /// When [`MAX_RULES`] are set.
    pub fn on_hook(&self, on: HookMatch, effect: HookEffect, times: Times) -> Result<u64, TooMany> {
        self.add(Kind::Hook { on, effect }, times)
    }

    /// Holds the answers of the next `times` merge calls, after they took effect, at a barrier.
    ///
    /// # Errors
    /// When [`MAX_RULES`] are set.
    pub fn hold_merge_answers(&self, barrier: &str, times: Times) -> Result<Barrier, TooMany> {
        let handle = self.barrier(barrier);
        let effect = CallEffect::AnswerHeld {
            barrier: barrier.to_owned(),
        };
        self.on_call(CallMatch::merges(), effect, times)?;
        Ok(handle)
    }

    /// The barrier of that name, made when first asked for.
    pub fn barrier(&self, name: &str) -> Barrier {
        self.with(|rules| rules.barriers.entry(name.to_owned()).or_default().clone())
    }

    /// Takes one fault back.
    pub fn clear(&self, id: u64) {
        self.with(|rules| rules.rules.retain(|r| r.id != id));
    }

    /// Takes all faults back and releases every barrier.
    pub fn clear_all(&self) {
        self.with(|rules| {
            rules.rules.clear();
            for barrier in std::mem::take(&mut rules.barriers).into_values() {
                barrier.release();
            }
        });
    }

    /// Faults that still apply.
    pub fn count(&self) -> usize {
        self.with(|rules| rules.rules.len())
    }

    fn take<E: Clone>(&self, mut pick: impl FnMut(&Kind) -> Option<E>) -> Option<E> {
        self.with(|rules| {
            let at = rules.rules.iter().position(|r| pick(&r.kind).is_some())?;
            let rule = rules.rules.get_mut(at)?;
            let effect = pick(&rule.kind);
            if let Some(left) = &mut rule.left {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    rules.rules.remove(at);
                }
            }
            effect
        })
    }

    pub(crate) fn for_call(
        &self,
        method: &str,
        path: &str,
        actor: Option<&str>,
    ) -> Option<CallEffect> {
        self.take(|kind| match kind {
            Kind::Call { on, effect } if on.matches(method, path, actor) => Some(effect.clone()),
            _ => None,
        })
    }

    pub(crate) fn for_hook(
        &self,
        event: &str,
        action: Option<&str>,
        number: Option<u64>,
    ) -> Option<HookEffect> {
        self.take(|kind| match kind {
            Kind::Hook { on, effect } if on.matches(event, action, number) => Some(effect.clone()),
            _ => None,
        })
    }
}

impl CallMatch {
    /// Every merge call.
    pub fn merges() -> Self {
        Self {
            method: Some("PUT".into()),
            path: Some("/repos/*/pulls/*/merge".into()),
            actor: None,
        }
    }

    /// Every call of a path, `*` standing for any run of characters.
    pub fn path(pattern: &str) -> Self {
        Self {
            path: Some(pattern.to_owned()),
            ..Self::default()
        }
    }

    fn matches(&self, method: &str, path: &str, actor: Option<&str>) -> bool {
        let same = |want: &Option<String>, have: Option<&str>| {
            want.as_ref()
                .is_none_or(|w| have.is_some_and(|h| w.eq_ignore_ascii_case(h)))
        };
        same(&self.method, Some(method))
            && same(&self.actor, actor)
            && self.path.as_ref().is_none_or(|p| glob(p, path))
    }
}

impl HookMatch {
    /// Webhooks of that event.
    pub fn event(name: &str) -> Self {
        Self {
            event: Some(name.to_owned()),
            ..Self::default()
        }
    }

    fn matches(&self, event: &str, action: Option<&str>, number: Option<u64>) -> bool {
        self.event.as_ref().is_none_or(|e| e == event)
            && self
                .action
                .as_ref()
                .is_none_or(|a| Some(a.as_str()) == action)
            && self.number.is_none_or(|n| Some(n) == number)
    }
}

impl CallEffect {
    pub(crate) fn delay(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
}

/// `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, expected) in [
            ("/repos/*/pulls/*/merge", "/repos/o/r/pulls/7/merge", true),
            ("/repos/*/pulls/*/merge", "/repos/o/r/pulls/7", false),
            ("/user", "/user", true),
            ("/user", "/users", false),
            ("*", "/anything", true),
            ("/a*a", "/a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_fault_applies_as_often_as_asked_and_the_oldest_first() {
        let faults = Faults::default();
        faults
            .on_call(
                CallMatch::path("/user"),
                CallEffect::Status { code: 500 },
                Some(2),
            )
            .unwrap();
        faults
            .on_call(CallMatch::default(), CallEffect::Refused, None)
            .unwrap();
        let codes: Vec<_> = (0..3)
            .map(|_| faults.for_call("GET", "/user", None).unwrap())
            .collect();
        assert_eq!(
            codes,
            [
                CallEffect::Status { code: 500 },
                CallEffect::Status { code: 500 },
                CallEffect::Refused
            ]
        );
        assert_eq!(faults.count(), 1);
    }
}
