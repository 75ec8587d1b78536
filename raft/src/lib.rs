//! WAL, snapshots, archive, consensus, transport and the Store handle.

pub mod archive;
mod consensus;
pub mod directory;
pub mod disk;
mod fatal;
mod feed;
pub mod snapshot;
mod view;
pub mod wal;
