//! WAL, snapshots, archive, consensus, transport and the Store handle.

pub mod disk;
pub mod wal;
