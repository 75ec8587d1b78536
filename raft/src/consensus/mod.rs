//! The only module that names openraft's types: its API moves between pre-releases.
//!
//! [`Ring`] is a running node in our own terms; what peers send arrives at its `receive_` functions.

mod commits;
mod log_storage;
mod network;
mod receive;
mod ring;
mod state_machine;
#[cfg(test)]
mod suite;
mod types;
#[cfg(test)]
mod unknown;

pub(crate) use network::{
    Links, Pages, SNAPSHOT_CHUNKS_AHEAD, WITHOUT_ARCHIVE_LEVEL, feed_snapshot,
};
pub(crate) use receive::{Sink, begin_receiving};
pub use ring::Role;
pub(crate) use ring::{ChangeError, Pulse, ReadIndexError, Ring, Written};
pub(crate) use state_machine::Machine;
