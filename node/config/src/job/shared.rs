//! What many jobs have in common, made once: tens of thousands of jobs have a few thousand expressions and a few
//! hundred decorations.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use trireme_prowjob::{DecorationConfig, ProwJobDefault};

use crate::go_regex::{GoRegex, RegexError};

/// Bytes that all expressions of a configuration's jobs may take once they are compiled. A configuration of 73,731 jobs has
/// 64 MB of it, Kubernetes' own with 6,079 has 55.
pub const MAX_EXPRESSIONS: u64 = 2 << 30;
/// The same for the jobs that stand in one repository: whoever opens a pull request may write them.
pub(crate) const MAX_EXPRESSIONS_OF_REPOSITORY: u64 = 64 << 20;
/// Bytes that presets may add to the pods of all jobs.
pub(crate) const MAX_GROWTH: u64 = 1 << 30;
/// Bytes that decorations and defaults of all repositories and clusters may come to.
pub(crate) const MAX_LAYERS: u64 = 256 << 20;
/// What presets may add, and layers come to, for the jobs that stand in one repository.
const MAX_DEFAULTS_OF_REPOSITORY: u64 = 64 << 20;
/// What a text that is no expression counts for: to find that out takes time as well.
const WEIGHT_OF_NONE: u64 = 1 << 20;
/// An expression of this size takes a while to compile: it is not compiled twice.
const LARGE: u64 = 10_000;
/// What is said only of what is too much with all the rest.
const TOGETHER: &str = "of all jobs together";

/// Values by what they were made from. As large as what is different in one configuration.
#[derive(Debug)]
pub(crate) struct Shared {
    regexes: Memo<Result<GoRegex, RegexError>>,
    /// Of the expressions.
    weight: AtomicU64,
    /// No expression is taken beyond this.
    most: u64,
    /// Bytes that presets added since the last [`Self::begin`].
    grown: AtomicU64,
    /// Bytes of the decorations and defaults.
    layers: AtomicU64,
    /// Presets add no more than this.
    most_growth: u64,
    /// Twice as much is made of layers.
    most_layers: u64,
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

impl<T: Serialize> Memo<Arc<T>> {
    fn bytes(&self) -> u64 {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().map(|value| bytes_of(value.as_ref())).sum()
    }
}

/// About as many as a value takes.
pub(crate) fn bytes_of<T: Serialize + ?Sized>(value: &T) -> u64 {
    let mut counted = Counted(0);
    // A value that is no JSON takes no space in it.
    let _ = serde_json::to_writer(&mut counted, value);
    counted.0
}

struct Counted(u64);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
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
            "the expressions {TOGETHER} take more than {most} bytes of memory once they are compiled; use fewer of them, or \
             smaller ones"
        ),
        fragment: source.chars().take(40).collect(),
    }
}

pub(crate) fn presets_too_large(job: &str, most: u64) -> String {
    format!(
        "job {job} failed to merge presets for podspec: what presets add to the pods {TOGETHER} is more than {most} bytes; use \
         smaller presets, or for fewer jobs"
    )
}

pub(crate) fn layers_too_large(most: u64) -> String {
    format!(
        "what the default decorations and prowjob defaults {TOGETHER} come to is more than {most} bytes; use smaller defaults, or \
         for fewer repositories"
    )
}

/// Whether a message says that something is too much with all the rest.
pub(crate) fn is_too_many(message: &str) -> bool {
    message.contains(TOGETHER)
}

impl Default for Shared {
    /// For a configuration: what it shares with the one before it counts once, what only that one had counts as well.
    fn default() -> Self {
        Self::with_most(2 * MAX_EXPRESSIONS, MAX_GROWTH, MAX_LAYERS)
    }
}

impl Shared {
    /// For the jobs that stand in one repository.
    pub(crate) fn of_repository() -> Self {
        Self::with_most(
            MAX_EXPRESSIONS_OF_REPOSITORY,
            MAX_DEFAULTS_OF_REPOSITORY,
            MAX_DEFAULTS_OF_REPOSITORY,
        )
    }

    fn with_most(most: u64, most_growth: u64, most_layers: u64) -> Self {
        Self {
            regexes: Memo::default(),
            weight: AtomicU64::new(0),
            most,
            grown: AtomicU64::new(0),
            layers: AtomicU64::new(0),
            most_growth,
            most_layers,
            decorations: Memo::default(),
            defaults: Memo::default(),
            matching: Mutex::default(),
        }
    }

    /// Another configuration is read. Where presets would add more than they may, they add nothing.
    pub(crate) fn begin(&self, growth: u64) {
        let grown = if growth > self.most_growth { growth } else { 0 };
        self.grown.store(grown, Ordering::Relaxed);
    }

    /// Whether there is room for another configuration.
    pub(crate) fn has_room(&self) -> bool {
        self.weight() <= MAX_EXPRESSIONS && self.layers() <= MAX_LAYERS
    }

    /// Whether presets may add so many bytes.
    ///
    /// # Errors
    /// How many they may add at most.
    pub(crate) fn grow(&self, bytes: u64) -> Result<(), u64> {
        let grown = self.grown.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if grown > self.most_growth {
            return Err(self.most_growth);
        }
        Ok(())
    }

    /// Bytes of all decorations and defaults that are known.
    pub(crate) fn layers(&self) -> u64 {
        self.layers.load(Ordering::Relaxed)
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
        let layers = self.decorations.bytes() + self.defaults.bytes();
        self.layers.store(layers, Ordering::Relaxed);
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

    /// `key` says all that the value depends on. Beyond the bound nothing is made.
    pub(crate) fn decoration(
        &self,
        key: &str,
        make: impl FnOnce() -> DecorationConfig,
    ) -> Arc<DecorationConfig> {
        self.layer(&self.decorations, key, make)
    }

    /// As [`Self::decoration`].
    pub(crate) fn prowjob_default(
        &self,
        key: &str,
        make: impl FnOnce() -> ProwJobDefault,
    ) -> Arc<ProwJobDefault> {
        self.layer(&self.defaults, key, make)
    }

    fn layer<T: Default + Serialize>(
        &self,
        known: &Memo<Arc<T>>,
        key: &str,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        if self.layers() > 2 * self.most_layers {
            return Arc::default();
        }
        known.get_or_add(
            key,
            || Arc::new(make()),
            |made| {
                self.layers
                    .fetch_add(bytes_of(made.as_ref()), Ordering::Relaxed);
            },
        )
    }

    /// What is wrong with the layers; they are none any more then.
    pub(crate) fn layers_problem(&self) -> Option<String> {
        (self.layers() > self.most_layers).then(|| layers_too_large(self.most_layers))
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
