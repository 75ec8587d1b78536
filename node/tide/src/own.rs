//! Jobs that stand in the repository itself, at the pool's base with some heads merged into it (TIDE-022, TIDE-024).

use std::sync::Arc;
use std::time::Duration;

use trireme_config::in_repo::InRepoJobs;
use trireme_in_repo::{Commits, InRepoError};

use crate::{
    merge::Outcome,
    pool::Member,
    session::{Session, Trouble},
    sync::Scene,
};

/// After git failed in a way that says nothing about the files.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// Why own jobs are not known. Nothing merges without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// Ends the text `Not mergeable.`.
    pub(crate) why: String,
    /// When another look may help though nothing changed.
    pub(crate) again: Option<Duration>,
}

impl From<InRepoError> for Unusable {
    fn from(error: InRepoError) -> Self {
        let (why, again) = match error {
            InRepoError::Conflict { .. } => ("PR has a merge conflict.".to_owned(), None),
            broken @ InRepoError::Broken { .. } => {
                (format!("In-repo configuration: {broken}"), None)
            }
            error => (
                format!("In-repo configuration cannot be read: {error}"),
                Some(READ_AGAIN),
            ),
        };
        Self { why, again }
    }
}

impl From<Unusable> for Outcome {
    fn from(unusable: Unusable) -> Self {
        Self {
            error: unusable.why,
            ..Self::default()
        }
    }
}

impl Session {
    /// The own jobs with these heads, in this order. Where in-repo configuration is off there are none.
    ///
    /// # Errors
    /// An outage, which concerns more than these pull requests.
    pub(crate) async fn own_jobs(
        &self,
        scene: &Scene<'_>,
        heads: &[&str],
    ) -> Result<Result<Arc<InRepoJobs>, Unusable>, Trouble> {
        let base = &scene.pool.base_sha;
        let config = &scene.rules.running.config;
        let at = Commits { base, heads };
        match self.in_repo.jobs(config, scene.rules.repo(), at).await {
            Ok(own) => Ok(Ok(own.jobs)),
            Err(InRepoError::Git(error)) if error.is_outage() => Err(error.into()),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// The same for members of the pool.
    pub(crate) async fn own_jobs_of(
        &self,
        scene: &Scene<'_>,
        numbers: &[u64],
    ) -> Result<Result<Arc<InRepoJobs>, Unusable>, Trouble> {
        let members: Vec<&Member> = numbers
            .iter()
            .filter_map(|number| scene.pool.member(*number))
            .collect();
        let heads: Vec<&str> = members
            .iter()
            .map(|member| member.pull.head_sha.as_str())
            .collect();
        self.own_jobs(scene, &heads).await
    }
}
