//! What many jobs have in common, made once: tens of thousands of jobs have a few thousand expressions and a few
//! hundred decorations.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use trireme_prowjob::{DecorationConfig, ProwJobDefault};

use crate::go_regex::{GoRegex, RegexError};

/// Values by what they were made from. As large as what is different in one configuration.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    regexes: Memo<Result<GoRegex, RegexError>>,
    decorations: Memo<Arc<DecorationConfig>>,
    defaults: Memo<Arc<ProwJobDefault>>,
    /// Triggers with the commands that they match.
    matching: Mutex<HashSet<(String, String)>>,
}

#[derive(Debug)]
struct Memo<T>(Mutex<HashMap<String, T>>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Memo<T> {
    fn get(&self, key: &str, make: impl FnOnce() -> T) -> T {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(key) {
            return value.clone();
        }
        drop(known);
        // Made twice when two threads ask at once; the first one counts, so that both share it.
        let made = make();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(key.to_owned()).or_insert(made).clone()
    }
}

impl<T> Memo<T> {
    fn retain(&self, used: impl Fn(&T) -> bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, value| used(value));
    }
}

impl Shared {
    /// Drops what no job holds any more.
    pub(crate) fn prune(&self) {
        self.regexes
            .retain(|regex| regex.as_ref().is_ok_and(GoRegex::is_shared));
        self.decorations
            .retain(|value| Arc::strong_count(value) > 1);
        self.defaults.retain(|value| Arc::strong_count(value) > 1);
        let known = self
            .regexes
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut matching = self.matching.lock().unwrap_or_else(PoisonError::into_inner);
        matching.retain(|(trigger, _)| known.contains_key(trigger));
    }

    pub(crate) fn regex(&self, source: &str) -> Result<GoRegex, RegexError> {
        self.regexes.get(source, || GoRegex::new(source))
    }

    /// `key` says all that the value depends on.
    pub(crate) fn decoration(
        &self,
        key: &str,
        make: impl FnOnce() -> DecorationConfig,
    ) -> Arc<DecorationConfig> {
        self.decorations.get(key, || Arc::new(make()))
    }

    /// `key` says all that the value depends on.
    pub(crate) fn prowjob_default(
        &self,
        key: &str,
        make: impl FnOnce() -> ProwJobDefault,
    ) -> Arc<ProwJobDefault> {
        self.defaults.get(key, || Arc::new(make()))
    }

    /// Whether a trigger matches a command. The compiled expression is not kept: most are never used.
    pub(crate) fn matches(&self, trigger: &str, command: &str) -> bool {
        let pair = (trigger.to_owned(), command.to_owned());
        let matching = || self.matching.lock().unwrap_or_else(PoisonError::into_inner);
        if matching().contains(&pair) {
            return true;
        }
        let matches = GoRegex::new(trigger).is_ok_and(|regex| regex.is_match(command));
        if matches {
            matching().insert(pair);
        }
        matches
    }
}
