//! What many jobs have in common, made once: tens of thousands of jobs have a few thousand expressions and a few
//! hundred decorations.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use trireme_prowjob::{DecorationConfig, ProwJobDefault};

use crate::go_regex::{GoRegex, RegexError};

/// Bytes that all expressions of a configuration's jobs may take once they are compiled. A configuration of 73,731 jobs has
/// MEASURED of it.
pub const MAX_EXPRESSIONS: u64 = 2 << 30;
/// The same for the jobs that stand in one repository: whoever opens a pull request may write them.
pub(crate) const MAX_EXPRESSIONS_OF_REPOSITORY: u64 = 64 << 20;
/// What a text that is no expression counts for: to find that out takes time as well.
const WEIGHT_OF_NONE: u64 = 1 << 20;
/// An expression of this size takes a while to compile: it is not compiled twice.
const LARGE: u64 = 10_000;
/// How the reason begins for which an expression is refused that is too much with the others.
const TOO_MANY: &str = "the expressions of all jobs together take more than";

/// Values by what they were made from. As large as what is different in one configuration.
#[derive(Debug)]
pub(crate) struct Shared {
    regexes: Memo<Result<GoRegex, RegexError>>,
    /// Of the expressions.
    weight: AtomicU64,
    /// No expression is taken beyond this.
    most: u64,
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
        self.get_or_add(key, make, |_| {})
    }

    fn get_or_add(&self, key: &str, make: impl FnOnce() -> T, added: impl FnOnce(&T)) -> T {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(key) {
            return value.clone();
        }
        drop(known);
        // Made twice when two threads ask at once; the first one counts, so that both share it.
        let made = make();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.entry(key.to_owned()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(free) => {
                added(&made);
                free.insert(made).clone()
            }
        }
    }
}

impl<T> Memo<T> {
    fn retain(&self, used: impl Fn(&T) -> bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, value| used(value));
    }
}

/// What an expression, or a text that is none, counts for.
pub(super) fn weight(of: &Result<GoRegex, RegexError>) -> u64 {
    of.as_ref().map_or(WEIGHT_OF_NONE, GoRegex::weight)
}

pub(super) fn too_many(source: &str, most: u64) -> RegexError {
    RegexError {
        reason: format!(
            "{TOO_MANY} {most} bytes of memory once they are compiled; use fewer of them, or smaller ones"
        ),
        fragment: source.chars().take(40).collect(),
    }
}

/// Whether that is what a message says.
pub(crate) fn is_too_many(message: &str) -> bool {
    message.contains(TOO_MANY)
}

impl Default for Shared {
    /// For a configuration: what it shares with the one before it counts once, what only that one had counts as well.
    fn default() -> Self {
        Self::with_most(2 * MAX_EXPRESSIONS)
    }
}

impl Shared {
    pub(crate) fn with_most(most: u64) -> Self {
        Self {
            regexes: Memo::default(),
            weight: AtomicU64::new(0),
            most,
            decorations: Memo::default(),
            defaults: Memo::default(),
            matching: Mutex::default(),
        }
    }

    /// Bytes of all expressions once they are compiled.
    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

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
        let weighed = known.values().map(weight).sum();
        self.weight.store(weighed, Ordering::Relaxed);
        let mut matching = self.matching.lock().unwrap_or_else(PoisonError::into_inner);
        matching.retain(|(trigger, _)| known.contains_key(trigger));
    }

    pub(crate) fn regex(&self, source: &str) -> Result<GoRegex, RegexError> {
        if self.weight() > self.most {
            return Err(too_many(source, self.most));
        }
        self.regexes.get_or_add(
            source,
            || GoRegex::new(source),
            |made| {
                self.weight.fetch_add(weight(made), Ordering::Relaxed);
            },
        )
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

    /// Whether a trigger matches a command. A small expression is not kept compiled: most are never
    /// used.
    pub(crate) fn matches(&self, trigger: &str, command: &str) -> bool {
        let pair = (trigger.to_owned(), command.to_owned());
        let matching = || self.matching.lock().unwrap_or_else(PoisonError::into_inner);
        if matching().contains(&pair) {
            return true;
        }
        let matches = self.regex(trigger).is_ok_and(|regex| {
            if regex.size() > LARGE {
                regex.is_match(command)
            } else {
                GoRegex::new(trigger).is_ok_and(|regex| regex.is_match(command))
            }
        });
        if matches {
            matching().insert(pair);
        }
        matches
    }
}
