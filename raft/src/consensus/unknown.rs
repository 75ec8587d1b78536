//! A committed command that this version does not know stops the node before anything of its entry is applied.

use std::sync::Arc;

use openraft::{
    EntryPayload,
    storage::{EntryResponder, RaftStateMachine as _},
};
use prost::Message as _;
use trireme_proto::state::{Batch, Command, Cursor, PutCursor, command::Body};

use super::{
    state_machine::Machine,
    types::{Commands, Entry, Types, log_id_from_wal},
};
use crate::{
    archive::{Archive, ArchiveOptions, MemoryHome},
    disk::MemoryDisk,
    fatal::{FatalCell, FatalKind},
    feed::{Feed, FeedOptions},
    snapshot::Snapshots,
    view::Published,
    wal::LogId,
};

fn command(min_level: u32) -> Command {
    Command {
        min_level,
        principal: "test".to_owned(),
        body: Some(Body::PutCursor(PutCursor {
            cursors: vec![Cursor {
                key: "key".to_owned(),
                value: "1".to_owned(),
                ..Cursor::default()
            }],
        })),
        ..Command::default()
    }
}

fn entry(index: u64, commands: Vec<Command>) -> EntryResponder<Types> {
    let batch = Batch {
        stamp_ms: 1,
        commands,
    };
    let entry = Entry {
        log_id: log_id_from_wal(LogId {
            term: 1,
            node_id: 1,
            index,
        }),
        payload: EntryPayload::Normal(Commands(batch.encode_to_vec().into())),
    };
    (entry, None)
}

#[tokio::test]
async fn an_unknown_command_stops_the_node_before_it_is_applied() {
    let fatal = FatalCell::default();
    let archive =
        Archive::open(Arc::new(MemoryHome::default()), &ArchiveOptions::default()).unwrap();
    let published = Arc::new(Published::new(Feed::new(0, FeedOptions::default())));
    let mut machine = Machine::new(
        "c".to_owned(),
        None,
        Snapshots::open(Arc::new(MemoryDisk::new()), "/s".as_ref()).unwrap(),
        Arc::new(archive),
        fatal.clone(),
        Arc::clone(&published),
        Arc::default(),
    )
    .unwrap();
    let known = entry(1, vec![command(0)]);
    machine
        .apply(futures::stream::iter([Ok(known)]))
        .await
        .unwrap();
    let before = published.view();
    assert_eq!(before.revision, 1);

    let unknown = entry(2, vec![command(0), command(1000)]);
    machine
        .apply(futures::stream::iter([Ok(unknown)]))
        .await
        .unwrap_err();
    let reason = fatal.get().unwrap();
    assert_eq!(reason.kind, FatalKind::UnknownCommand);
    insta::assert_snapshot!(reason, @"committed entry 2 holds a command (number 1) that this version does not know: it was proposed by a newer version. Nothing of it was applied; start that version on this data directory");
    assert_eq!(published.view().digest(), before.digest());
    assert_eq!(machine.state.last_index(), 1);
}
