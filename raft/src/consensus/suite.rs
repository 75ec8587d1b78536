//! openraft's own storage suite against our log and state machine.

use std::sync::Arc;

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};

use super::{log_storage::LogStore, state_machine::Machine, types::Types};
use crate::{
    archive::{Archive, ArchiveOptions, MemoryHome},
    disk::{MemoryDisk, RealDisk},
    fatal::FatalCell,
    feed::{Feed, FeedOptions},
    snapshot::Snapshots,
    view::Published,
    wal::{Wal, WalOptions},
};

/// On the real disk, in a directory that goes with the test.
struct OnDisk;

impl StoreBuilder<Types, LogStore, Machine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let options = WalOptions {
            segment_bytes: 32 << 10,
            cache_bytes: 512,
            ..WalOptions::default()
        };
        let wal = Wal::open(
            Arc::new(RealDisk),
            dir.path(),
            crate::wal::Owner {
                cluster_id: "suite".to_owned(),
                node_id: 1,
            },
            &options,
        )
        .unwrap();
        let disk = Arc::new(MemoryDisk::new());
        let snapshots = Snapshots::open(disk, "/snapshots".as_ref()).unwrap();
        let archive =
            Archive::open(Arc::new(MemoryHome::default()), &ArchiveOptions::default()).unwrap();
        let machine = Machine::new(
            "suite".to_owned(),
            None,
            snapshots,
            Arc::new(archive),
            FatalCell::default(),
            Arc::new(Published::new(Feed::new(0, FeedOptions::default()))),
        )
        .unwrap();
        Ok((dir, LogStore(Arc::new(wal)), machine))
    }
}

#[tokio::test]
async fn the_log_and_the_state_machine_keep_openrafts_contract() {
    Box::pin(Suite::test_all(OnDisk)).await.unwrap();
}
