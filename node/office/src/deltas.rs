//! What changed in the configuration since a consumer last looked: derived from the stored versions and from a cursor in the
//! log, so that nothing is lost while nobody looks, and a new holder of the office goes on where the former one stopped
//! (CFG-093, CFG-094).

use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use trireme_proto::state::{Alarm, Cursor, PutCursor, SetAlarm, command::Body};

use crate::{ConfigFeed, Office, OfficeError, RunningConfig};

/// Begins the keys of the cursors.
const CURSOR_PREFIX: &str = "config/";

/// Why a version that is not in force cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It is not there any more, or this build reads it no more: asking again does not help.
    #[error("{0}")]
    Lost(String),
    /// It cannot be read now.
    #[error("{0}")]
    Away(String),
}

/// Versions that are not in force, parsed. The node gives it: they lie in the state or in its archive.
#[async_trait]
pub trait ConfigVersions: Send + Sync {
    /// # Errors
    /// When it cannot be had, now or ever.
    async fn version(&self, number: u64) -> Result<Arc<RunningConfig>, VersionError>;
}

/// How far one delta may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// From each version to the next.
    Each,
    /// From where the consumer stands to the newest, whatever was between.
    Newest,
}

/// From one version to a later one.
#[derive(Debug, Clone)]
pub struct ConfigDelta {
    /// None for the very first, and where what the cursor names cannot be had any more.
    pub before: Option<Arc<RunningConfig>>,
    pub after: Arc<RunningConfig>,
    /// Why there is no `before` where there should be one.
    pub lost: Option<String>,
}

/// Why there is no delta.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    #[error(transparent)]
    Office(#[from] OfficeError),
    /// To be asked again after a while.
    #[error("{0}")]
    Away(String),
    #[error("the cursor {key} is not a version: {value:?}")]
    Cursor { key: String, value: String },
}

/// The deltas of one consumer, for one term of office.
pub struct ConfigDeltas {
    office: Office,
    feed: ConfigFeed,
    versions: Arc<dyn ConfigVersions>,
    consumer: &'static str,
    pace: Pace,
    /// Old versions that somebody still looks at.
    loaded: Mutex<Vec<Weak<RunningConfig>>>,
    loading: tokio::sync::Mutex<()>,
}

impl ConfigDeltas {
    /// `consumer` names the cursor.
    #[must_use]
    pub fn new(
        office: Office,
        feed: ConfigFeed,
        versions: Arc<dyn ConfigVersions>,
        consumer: &'static str,
        pace: Pace,
    ) -> Self {
        Self {
            office,
            feed,
            versions,
            consumer,
            pace,
            loaded: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
        }
    }

    fn key(&self) -> String {
        format!("{CURSOR_PREFIX}{}", self.consumer)
    }

    /// The version that was handled last; none before the first.
    ///
    /// # Errors
    /// When the cursor holds something else.
    pub fn handled(&self) -> Result<Option<u64>, DeltaError> {
        let key = self.key();
        let view = self.office.view();
        let Some(cursor) = view.cursor(&key) else {
            return Ok(None);
        };
        let value = &cursor.value;
        let number = value.parse().map_err(|_| DeltaError::Cursor {
            key,
            value: value.clone(),
        })?;
        Ok(Some(number))
    }

    /// The cursor at the version that a delta leads to: commit it once the delta is handled, best in one command with what
    /// was done.
    #[must_use]
    pub fn cursor(&self, delta: &ConfigDelta) -> Cursor {
        Cursor {
            key: self.key(),
            at_ms: self.office.now_ms(),
            value: delta.after.version.to_string(),
            ..Cursor::default()
        }
    }

    /// Commits that the delta is handled.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub async fn commit(&self, delta: &ConfigDelta) -> Result<(), OfficeError> {
        let cursors = vec![self.cursor(delta)];
        let put = Body::PutCursor(PutCursor { cursors });
        self.office.propose(put).await.map(drop)
    }

    /// The version in force, once this node has parsed it.
    ///
    /// # Errors
    /// [`OfficeError::Left`] when the office is over before.
    pub async fn current(&self) -> Result<Arc<RunningConfig>, DeltaError> {
        let mut feed = self.feed.clone();
        let resigned = self.office.resigned();
        loop {
            let parsed = feed.borrow_and_update().clone();
            if let Some(running) = parsed {
                // A former holder may have handled one that this node has yet to parse.
                let handled = self.handled()?.unwrap_or_default();
                let named = self.office.view().config().map(|version| version.number);
                if running.version >= handled && Some(running.version) == named {
                    return Ok(running);
                }
            }
            tokio::select! {
                () = resigned.cancelled() => return Err(self.left()),
                changed = feed.changed() => if changed.is_err() {
                    return Err(self.left());
                },
            }
        }
    }

    fn left(&self) -> DeltaError {
        let epoch = self.office.epoch();
        OfficeError::Left { epoch }.into()
    }

    /// Waits until the version in force is not the one that was handled last, and gives what changed. The same again until
    /// it is committed.
    ///
    /// # Errors
    /// [`OfficeError::Left`] when the office is over; [`DeltaError::Away`] when a version cannot be read now.
    pub async fn next(&self) -> Result<ConfigDelta, DeltaError> {
        let mut feed = self.feed.clone();
        let resigned = self.office.resigned();
        loop {
            feed.mark_unchanged();
            let current = self.current().await?;
            let handled = self.handled()?;
            match handled {
                None => {
                    return Ok(ConfigDelta {
                        before: None,
                        after: current,
                        lost: None,
                    });
                }
                Some(number) if number < current.version => {
                    return self.since(number, current).await;
                }
                Some(_) => {}
            }
            tokio::select! {
                () = resigned.cancelled() => return Err(self.left()),
                changed = feed.changed() => if changed.is_err() {
                    return Err(self.left());
                },
            }
        }
    }

    async fn since(
        &self,
        handled: u64,
        current: Arc<RunningConfig>,
    ) -> Result<ConfigDelta, DeltaError> {
        let mut lost = None;
        let before = match self.version(handled).await {
            Ok(before) => Some(before),
            Err(VersionError::Away(why)) => return Err(DeltaError::Away(why)),
            Err(VersionError::Lost(why)) => {
                lost = Some(why);
                None
            }
        };
        let next = handled.saturating_add(1);
        let mut after = current;
        if self.pace == Pace::Each && before.is_some() && next < after.version {
            match self.version(next).await {
                Ok(next) => after = next,
                Err(VersionError::Away(why)) => return Err(DeltaError::Away(why)),
                // The step is a larger one then.
                Err(VersionError::Lost(why)) => {
                    tracing::warn!(consumer = self.consumer, version = next, %why, "a version of the configuration is passed over");
                }
            }
        }
        self.tell(handled, &after, lost.as_deref()).await?;
        Ok(ConfigDelta {
            before,
            after,
            lost,
        })
    }

    /// A version, parsed; from memory while somebody else looks at it.
    ///
    /// # Errors
    /// When it cannot be had, now or ever.
    pub async fn version(&self, number: u64) -> Result<Arc<RunningConfig>, VersionError> {
        if let Some(current) = self.feed.borrow().clone()
            && current.version == number
        {
            return Ok(current);
        }
        // Loading one takes seconds and much memory: whoever comes meanwhile waits for it.
        let _one = self.loading.lock().await;
        let held = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.retain(|version| version.strong_count() > 0);
            let held = loaded.iter().filter_map(Weak::upgrade);
            held.into_iter().find(|version| version.version == number)
        };
        if let Some(held) = held {
            return Ok(held);
        }
        let version = self.versions.version(number).await?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.push(Arc::downgrade(&version));
        Ok(version)
    }

    /// What was lost stays an alarm until a delta is whole again.
    async fn tell(
        &self,
        handled: u64,
        after: &RunningConfig,
        lost: Option<&str>,
    ) -> Result<(), OfficeError> {
        let key = self.key();
        let raised = self.office.view().alarm(&key).is_some();
        let message = match lost {
            Some(why) => {
                let message = format!(
                    "{}: configuration {handled}, which it handled last, cannot be read any more ({why}); what changed up to \
                     configuration {} is not looked at: look at `trireme config diff` and do by hand what is needed",
                    self.consumer, after.version
                );
                tracing::error!(consumer = self.consumer, handled, %message, "changes of the configuration are lost");
                message
            }
            None if !raised => return Ok(()),
            None => String::new(),
        };
        let alarm = Alarm {
            key,
            message,
            node_id: self.office.node_id(),
            ..Alarm::default()
        };
        let clear = lost.is_none();
        let set = Body::SetAlarm(SetAlarm {
            alarm: Some(alarm),
            clear,
        });
        match self.office.propose(set).await {
            // Where no more alarms are taken there are enough to look at; the log has it.
            Ok(_) | Err(OfficeError::Rejected { .. }) => Ok(()),
            Err(why) => Err(why),
        }
    }
}
