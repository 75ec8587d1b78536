//! A merge that was refused is not asked for again until something has changed (TIDE's users' first complaint): which
//! pull requests are passed over, and why.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use trireme_proto::state::{IntentState, MergeIntent};

use crate::pull::{Pull, TIDE_CONTEXT};

/// After a refusal on another base: doubled with each further one for the same head, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

/// Refusals whose inputs are remembered; beyond, one more try may be made than needed.
const MAX_REMEMBERED: usize = 10_000;

/// Kinds of refusal, as they stand in [`MergeIntent::refusal`].
pub(crate) mod refusal {
    pub(crate) const MODIFIED_HEAD: &str = "modified-head";
    pub(crate) const BASE_CHANGED: &str = "base-changed";
    pub(crate) const UNAUTHORIZED: &str = "unauthorized-to-push";
    pub(crate) const METHOD_FORBIDDEN: &str = "merge-commits-forbidden";
    pub(crate) const UNMERGEABLE: &str = "unmergeable";
    /// Refused in a way that says nothing about the pull request.
    pub(crate) const OTHER: &str = "other";
    /// Asked for as often as is sensible without an answer.
    pub(crate) const NO_ANSWER: &str = "no-answer";
}

/// What a refusal may depend on, other than head and base; equal as long as nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inputs(u64);

impl Inputs {
    #[must_use]
    pub(crate) fn of(pull: &Pull, method: &str, config: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        (&pull.labels, &pull.milestone, pull.draft, method, config).hash(&mut hasher);
        (pull.review, pull.mergeable, pull.merge_state).hash(&mut hasher);
        for context in &pull.contexts {
            if context.name != TIDE_CONTEXT {
                (&context.name, context.state).hash(&mut hasher);
            }
        }
        Self(hasher.finish())
    }
}

/// Intent id -> what its refusal depended on. Lost with the office, which costs one more try per pull request.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<String, Inputs>);

impl Refusals {
    pub(crate) fn remember(&mut self, intent: &str, inputs: Inputs) {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.pop_first();
        }
        self.0.insert(intent.to_owned(), inputs);
    }

    /// Why the pull request is to be passed over now, and for how long at most if time alone helps. `intents` are all
    /// of the pull request.
    #[must_use]
    pub(crate) fn hold<'a>(
        &self,
        intents: impl Iterator<Item = &'a MergeIntent>,
        pull: &Pull,
        base_sha: &str,
        inputs: Inputs,
        now_ms: i64,
    ) -> Option<(String, Option<Duration>)> {
        let refused: Vec<&MergeIntent> = intents
            .filter(|intent| {
                intent.state() == IntentState::Refused && intent.head_sha == pull.head_sha
            })
            .collect();
        let last = refused.iter().max_by_key(|intent| intent.settled_ms)?;
        let why = format!("Merge refused: {}", last.message);
        let unchanged = self.0.get(&last.id).is_none_or(|then| *then == inputs);
        if !unchanged {
            return None;
        }
        let by_itself = matches!(
            last.refusal.as_str(),
            refusal::BASE_CHANGED | refusal::NO_ANSWER | refusal::OTHER
        );
        let known = self.0.contains_key(&last.id);
        if last.base_sha == base_sha && !by_itself && known {
            return Some((why, None));
        }
        let doublings = u32::try_from(refused.len() - 1).unwrap_or(u32::MAX).min(16);
        let wait = FIRST.saturating_mul(1 << doublings).min(LONGEST);
        let since = u64::try_from(now_ms.saturating_sub(last.settled_ms)).unwrap_or(0);
        let left = wait.checked_sub(Duration::from_millis(since))?;
        (!left.is_zero()).then_some((why, Some(left)))
    }
}

#[cfg(test)]
mod tests {
    use trireme_forge::search::{MergeState, Mergeable};

    use super::*;

    fn pull() -> Pull {
        Pull {
            org: "o".into(),
            repo: "r".into(),
            number: 1,
            title: String::new(),
            body: String::new(),
            author: String::new(),
            author_is_bot: false,
            base_ref: "main".into(),
            head_ref: String::new(),
            head_sha: "head".into(),
            labels: vec!["lgtm".into()],
            milestone: None,
            draft: false,
            mergeable: Mergeable::Mergeable,
            merge_state: MergeState::Clean,
            can_be_rebased: true,
            review: None,
            contexts: Vec::new(),
        }
    }

    fn refused(id: &str, kind: &str, settled_ms: i64) -> MergeIntent {
        MergeIntent {
            id: id.into(),
            head_sha: "head".into(),
            base_sha: "base".into(),
            state: IntentState::Refused.into(),
            refusal: kind.into(),
            message: "no".into(),
            settled_ms,
            ..MergeIntent::default()
        }
    }

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_refusal_holds_until_an_input_changes() {
        let (pull, mut refusals) = (pull(), Refusals::default());
        let inputs = Inputs::of(&pull, "merge", 1);
        refusals.remember("a", inputs);
        let intents = [refused("a", refusal::UNMERGEABLE, 0)];
        let hold =
            |base: &str, inputs, now_ms| refusals.hold(intents.iter(), &pull, base, inputs, now_ms);
        assert_eq!(
            hold("base", inputs, HOUR_MS),
            Some(("Merge refused: no".to_owned(), None))
        );
        let reviewed = Pull {
            labels: vec![],
            ..pull.clone()
        };
        assert_eq!(hold("base", Inputs::of(&reviewed, "merge", 1), 0), None);
        assert_eq!(hold("base", Inputs::of(&pull, "merge", 2), 0), None);
        let pushed = Pull {
            head_sha: "new".into(),
            ..pull.clone()
        };
        assert_eq!(
            refusals.hold(intents.iter(), &pushed, "base", inputs, 0),
            None
        );
    }

    #[test]
    fn on_a_new_base_it_is_asked_again_after_a_growing_while() {
        let (pull, mut refusals) = (pull(), Refusals::default());
        let inputs = Inputs::of(&pull, "merge", 1);
        let intents = [
            refused("a", refusal::UNMERGEABLE, 0),
            refused("b", refusal::UNMERGEABLE, 1_000),
        ];
        refusals.remember("b", inputs);
        let left = |now_ms| {
            refusals
                .hold(intents.iter(), &pull, "newer", inputs, now_ms)
                .and_then(|(_, left)| left)
        };
        assert_eq!(left(1_000), Some(Duration::from_secs(120)));
        assert_eq!(left(100_000), Some(Duration::from_secs(21)));
        assert_eq!(left(121_000), None);
    }

    #[test]
    fn after_a_change_of_office_and_for_passing_reasons_time_alone_helps() {
        let pull = pull();
        let inputs = Inputs::of(&pull, "merge", 1);
        let forgotten = Refusals::default();
        let intents = [refused("a", refusal::UNMERGEABLE, 0)];
        assert!(
            forgotten
                .hold(intents.iter(), &pull, "base", inputs, 0)
                .is_some()
        );
        assert_eq!(
            forgotten.hold(intents.iter(), &pull, "base", inputs, 61_000),
            None
        );
        let mut refusals = Refusals::default();
        refusals.remember("a", inputs);
        let intents = [refused("a", refusal::BASE_CHANGED, 0)];
        assert!(
            refusals
                .hold(intents.iter(), &pull, "base", inputs, 0)
                .is_some()
        );
        assert_eq!(
            refusals.hold(intents.iter(), &pull, "base", inputs, 61_000),
            None
        );
    }
}
