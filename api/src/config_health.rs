//! How loading the configuration went on this node (CFG-095): told by what loads it, shown by metrics, status and pages.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use trireme_proto::api::{ConfigLoad, ConfigStatus};

/// Characters of an error that are kept; the log has the whole of it.
const MAX_ERROR: usize = 1000;

/// One load, good or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// When it ended, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    pub took: Duration,
    /// `None` if it was good.
    pub error: Option<String>,
    /// When one was good last, in milliseconds since the Unix epoch; 0 = none was since this node began to load from there
    /// (HOOK-052).
    pub good_ms: i64,
    /// How many were not, since then.
    pub failures: u64,
}

impl Load {
    fn ended(took: Duration, error: Option<&str>, before: Option<&Self>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at_ms = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        let (good_ms, failures) = before.map_or((0, 0), |before| (before.good_ms, before.failures));
        Self {
            at_ms,
            took,
            error: error.map(|error| error.chars().take(MAX_ERROR).collect()),
            good_ms: if error.is_none() { at_ms } else { good_ms },
            failures: failures.saturating_add(u64::from(error.is_some())),
        }
    }

    fn to_proto(&self) -> ConfigLoad {
        ConfigLoad {
            at_ms: self.at_ms,
            took_micros: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            error: self.error.clone().unwrap_or_default(),
            good_ms: self.good_ms,
            failures: self.failures,
        }
    }
}

/// What is in force on this node, and how it got there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigState {
    /// The version that controllers of this node plan with; 0 = none yet.
    pub version: u64,
    /// Its `config_version_sha` (CFG-013).
    pub version_sha: String,
    /// The last time that a committed version was parsed here.
    pub parsed: Option<Load>,
    /// The last time that what is followed was loaded; `None` while another node follows it, or none does.
    pub followed: Option<Load>,
}

impl ConfigState {
    pub(crate) fn to_proto(&self) -> ConfigStatus {
        ConfigStatus {
            version: self.version,
            version_sha: self.version_sha.clone(),
            parsed: self.parsed.as_ref().map(Load::to_proto),
            followed: self.followed.as_ref().map(Load::to_proto),
        }
    }
}

/// Clones share what they tell.
#[derive(Debug, Clone, Default)]
pub struct ConfigHealth(Arc<Mutex<ConfigState>>);

impl ConfigHealth {
    fn state(&self) -> MutexGuard<'_, ConfigState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn get(&self) -> ConfigState {
        self.state().clone()
    }

    /// A committed version was parsed and is in force here.
    pub fn in_force(&self, version: u64, version_sha: &str, took: Duration) {
        let mut state = self.state();
        state.version = version;
        version_sha.clone_into(&mut state.version_sha);
        state.parsed = Some(Load::ended(took, None, state.parsed.as_ref()));
    }

    /// A committed version could not be parsed; the former one stays in force.
    pub fn not_parsed(&self, why: &str, took: Duration) {
        let mut state = self.state();
        state.parsed = Some(Load::ended(took, Some(why), state.parsed.as_ref()));
    }

    /// What is followed was loaded: it is in force or was before, or `error` says why not.
    pub fn followed(&self, error: Option<&str>, took: Duration) {
        let mut state = self.state();
        state.followed = Some(Load::ended(took, error, state.followed.as_ref()));
    }

    /// This node follows no directory any more.
    pub fn follows_nothing(&self) {
        self.state().followed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CFG-090, CFG-095: what fails changes nothing of what is in force.
    #[test]
    fn cfg_095_a_failed_load_is_told_beside_what_stays_in_force() {
        let health = ConfigHealth::default();
        health.in_force(3, "abc\n", Duration::from_millis(5));
        health.not_parsed(&"x".repeat(MAX_ERROR + 1), Duration::from_millis(7));
        health.followed(Some("half"), Duration::ZERO);
        let state = health.get();
        assert_eq!((state.version, state.version_sha.as_str()), (3, "abc\n"));
        let told = state.to_proto();
        let parsed = told.parsed.unwrap();
        assert_eq!((parsed.error.len(), parsed.took_micros), (MAX_ERROR, 7000));
        assert!(parsed.at_ms > 0);
        assert_eq!(told.followed.unwrap().error, "half");
        health.follows_nothing();
        assert_eq!(health.get().followed, None);
    }

    /// HOOK-052
    #[test]
    fn hook_052_the_last_good_load_and_the_failures_since_are_told() {
        let health = ConfigHealth::default();
        health.followed(Some("half"), Duration::ZERO);
        let followed = || health.get().followed.unwrap();
        assert_eq!((followed().good_ms, followed().failures), (0, 1));
        health.followed(None, Duration::ZERO);
        let good = followed();
        assert_eq!((good.good_ms, good.failures), (good.at_ms, 1));
        health.followed(Some("half"), Duration::ZERO);
        health.followed(Some("half"), Duration::ZERO);
        let told = health.get().to_proto().followed.unwrap();
        assert_eq!((told.good_ms, told.failures), (good.good_ms, 3));
        assert!(told.at_ms >= told.good_ms);
        // Each source by itself.
        health.in_force(1, "", Duration::ZERO);
        assert_eq!(health.get().parsed.unwrap().failures, 0);
    }
}
