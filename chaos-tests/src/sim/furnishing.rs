//! What the nodes of a simulation run, and how large things are there.

use std::{sync::Arc, time::Duration};

use trireme_jobs::{Leases, Periodics, Scheduler, Sinker};
use trireme_office::{ConfigFeed, Controller};
use trireme_raft::{StoreConfig, Timing, wal::WalOptions};
use trireme_report::Outbox;

use super::{Plant, clerk::Clerk, forge::Forge, merger::Merger, reporter::Teller, world::Life};

/// Twice as slow as a node's own: half of what an undisturbed cluster does is to say that it is there.
const HEARTBEAT: Duration = Duration::from_millis(150);
/// Small, so that segments are begun and removed often.
const SEGMENT_BYTES: u64 = 16 << 10;
/// Small, so that snapshots are written, sent and installed often.
const COMPACT_ENTRIES: u64 = 150;
const KEEP_ENTRIES: u64 = 40;
/// Short, so that replicas are compared and files read again several times in a run.
const AUDIT_EVERY: Duration = Duration::from_secs(5);
const SCRUB_EVERY: Duration = Duration::from_secs(10);
/// Set aside on every disk.
const RESERVE_BYTES: u64 = 64 << 10;
/// Between two looks at whether a state holds together. A look walks all of it.
const LOOK: Duration = Duration::from_secs(2);

/// The controllers of one life of a node.
type Crew = dyn Fn(&Arc<Life>, Leases) -> Vec<Arc<dyn Controller>> + Send + Sync;

pub(crate) struct Furnishing {
    pub(crate) crew: Box<Crew>,
    pub(crate) tune: fn(&mut StoreConfig),
    /// Between two looks at whether a state holds together.
    pub(crate) look: Duration,
    /// Whether every change that a node shows is kept to be judged.
    pub(crate) keeps_changes: bool,
    pub(crate) plant: Option<Plant>,
}

impl Furnishing {
    /// Everything that needs no git and no forge's API, in small sizes: much happens in little time.
    pub(crate) fn small(feed: ConfigFeed, forge: Forge, plant: Option<Plant>) -> Self {
        Self {
            crew: Box::new(move |_, leases| {
                vec![
                    Arc::new(Scheduler::new(leases, feed.clone())),
                    Arc::new(Periodics::new(feed.clone())),
                    Arc::new(Sinker::new(feed.clone()).with_least_age(Duration::ZERO)),
                    Arc::new(Clerk),
                    Arc::new(Merger(forge.clone())),
                    Arc::new(Outbox::new(vec![Arc::new(Teller {
                        forge: forge.clone(),
                        forgets: plant == Some(Plant::ForgottenReports),
                    })])),
                ]
            }),
            tune: small,
            look: LOOK,
            keeps_changes: true,
            plant,
        }
    }
}

/// Elections in proportion to the heartbeat.
pub(crate) fn timing(heartbeat: Duration) -> Timing {
    Timing {
        heartbeat,
        election_min: heartbeat * 3,
        election_max: heartbeat * 5,
        ..Timing::default()
    }
}

fn small(config: &mut StoreConfig) {
    config.timing = timing(HEARTBEAT);
    config.limits.wal = WalOptions {
        segment_bytes: SEGMENT_BYTES,
        ..WalOptions::default()
    };
    config.limits.compact_entries = COMPACT_ENTRIES;
    config.limits.keep_entries = KEEP_ENTRIES;
    config.limits.audit_every = AUDIT_EVERY;
    config.limits.scrub_every = SCRUB_EVERY;
    config.limits.space.reserve_bytes = RESERVE_BYTES;
}
