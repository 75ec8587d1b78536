//! What a reporter is: it tells one place about jobs that belong together there.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use trireme_office::Office;
use trireme_proto::state::{Job, Report};
use trireme_prowjob::ProwJob;

/// A row of the outbox with the job it is about, both of one view.
#[derive(Debug, Clone)]
pub struct Owed {
    pub report: Arc<Report>,
    pub record: Arc<Job>,
    /// The record as Prow's object, with the status that is owed.
    pub job: ProwJob,
}

/// What became of telling one job's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Done, or nothing was to be told; 0 = no comment.
    Delivered { comment_id: u64 },
    /// Not yet: look again after this long. Nothing failed.
    Later(Duration),
    /// The place is away; nothing is wrong with what was to be told.
    Outage {
        why: String,
        retry_after: Option<Duration>,
    },
    /// It was refused: counted, and given up after [`MAX_TRIES`](crate::MAX_TRIES).
    Refused(String),
}

/// Tells a place about jobs. Called for one [`Lane`](crate::Lane) at a time, so that what concerns one pull request
/// comes in order.
#[async_trait]
pub trait Reporter: Send + Sync + 'static {
    /// As it stands in [`Job::reporters`].
    fn name(&self) -> &'static str;

    /// Tells all of `owed`, owed longest first, and says for each what became of it, in the same order. Asks
    /// [`Office::assert_held`] before each write; what is left out when the office is over, the next holder tells.
    async fn tell(&self, office: &Office, owed: &[Owed]) -> Vec<Told>;
}
