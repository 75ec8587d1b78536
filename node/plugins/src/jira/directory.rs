//! Which projects a Jira server has: asked for seldom, because every text could name one (PLG-JIRA-001, PLG-JIRA-004).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use trireme_outside::jira::Jira;
use trireme_outside::service::ServiceError;

/// How long the list is believed.
const FRESH: Duration = Duration::from_secs(3600);
/// An unknown project makes it be asked for again, but not more often than this.
const AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// A Jira server and its projects.
pub(crate) struct JiraDirectory {
    client: Jira,
    known: Mutex<Option<Known>>,
}

struct Known {
    /// In lower case.
    keys: BTreeSet<String>,
    at: Instant,
}

impl JiraDirectory {
    pub(crate) fn new(client: Jira) -> Self {
        Self {
            client,
            known: Mutex::new(None),
        }
    }

    pub(crate) fn client(&self) -> &Jira {
        &self.client
    }

    /// Whether there is a project of that key, in lower case.
    ///
    /// # Errors
    /// The list was needed and could not be had.
    pub(crate) async fn has_project(&self, key: &str) -> Result<bool, ServiceError> {
        let mut known = self.known.lock().await;
        let age = known.as_ref().map(|known| known.at.elapsed());
        let listed = known.as_ref().is_some_and(|known| known.keys.contains(key));
        if age.is_none_or(|age| is_due(age, listed)) {
            let keys = self.client.project_keys().await?;
            *known = Some(Known {
                keys: keys.iter().map(|key| key.to_lowercase()).collect(),
                at: Instant::now(),
            });
        }
        Ok(known.as_ref().is_some_and(|known| known.keys.contains(key)))
    }
}

fn is_due(age: Duration, listed: bool) -> bool {
    age >= FRESH || (!listed && age >= AT_MOST_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PLG-JIRA-004
    #[test]
    fn plg_jira_004_the_list_is_read_again_hourly_and_for_what_it_lacks() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        assert!(!is_due(minutes(59), true));
        assert!(is_due(minutes(60), true));
        assert!(is_due(minutes(1), false));
        assert!(!is_due(Duration::from_secs(59), false));
    }
}
