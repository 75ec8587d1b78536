//! WAL, snapshots, archive, consensus, transport and the Store handle.
