//! The replicated state: records, commands, `apply`, indexes, queries.
//!
//! A pure library. [`State::apply`] takes one log entry and is total and deterministic: every replica computes the same
//! records, the same outcomes and the same [digest](State::digest) from the same log. A bad command is a rejected
//! outcome and changes nothing. A clone of [`State`] shares everything with the original and is an immutable view.
//!
//! One module per record kind holds the record's key, its indexes, the functions of its commands and its queries. An
//! index follows from the records alone, so that a snapshot holds only records; the cost of a command or query does not
//! grow with the number of records, except where a name says that it lists them.
//!
//! What never stands here: I/O, consensus, async, clocks, randomness, floats, hash maps, parsing, decompression.

mod agents;
mod alarms;
mod anew;
mod apply;
mod archive;
pub mod archive_keys;
mod audits;
mod blobs;
mod change;
mod config_pages;
mod configs;
mod cursors;
mod deliveries;
mod delivery_filter;
mod digest;
mod effects;
mod growth;
mod id_index;
pub mod ids;
mod intents;
mod invariants;
mod jobs;
mod level;
pub mod limits;
mod office;
mod plans;
mod pools;
mod pulls;
mod quotas;
mod reject;
mod reports;
mod requests;
mod snapshot;
mod state;
mod table;
mod timers;
mod tokens;

pub use apply::{Applied, ArchiveOp};
pub use archive::run_summary;
pub use change::{Change, RecordKey, change_batch};
pub use config_pages::{config_file_count, config_pages};
pub use configs::{CONFIG_ROLES, FIRST_CONFIG_ROLES, is_config_role};
pub use deliveries::arrival;
pub use delivery_filter::{DeliveryFilter, DeliveryPage, is_dead, redrivable};
pub use digest::Digest;
pub use growth::grows;
pub use jobs::{BUILD_ID_MARK, GITHUB_REPORTER, JobFilter, is_complete, seq_of, state_name};
pub use level::{
    BASE_LEVEL, EFFECTS_LEVEL, FEATURE_LEVEL, HISTORY_LEVEL, PAGES_LEVEL, ROLES_LEVEL, is_known,
    min_level_at, min_level_of,
};
pub use plans::{is_committed, next_effect};
pub use quotas::Quota;
pub use reports::is_owed;
pub use snapshot::SnapshotError;
pub use state::{Counts, State};
pub use table::Seq;
pub use tokens::TokenHash;
