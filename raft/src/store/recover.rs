//! From what is on disk to a state: the newest snapshot that is whole, then the log.

use std::path::Path;

use trireme_state::{FEATURE_LEVEL, State};

use super::OpenError;
use crate::{
    disk::Disk,
    fatal::{Fatal, FatalKind},
    snapshot::{SnapshotError, SnapshotFile, Snapshots},
    wal::{LogState, Wal, WalError},
};

/// Refuses a log that was begun and is gone: one begun anew would have forgotten a vote, and what was acknowledged since
/// the snapshot. Blocks.
pub(crate) fn check_log(
    disk: &dyn Disk,
    dir: &Path,
    had_log: bool,
    snapshots: &Snapshots,
) -> Result<(), OpenError> {
    if Wal::is_in(disk, dir)? || (!had_log && snapshots.list()?.is_empty()) {
        return Ok(());
    }
    let dir = dir.to_owned();
    Err(WalError::Gone { dir }.into())
}

/// Why this build cannot go on with a state, if it cannot: it would apply commands otherwise than the builds that made it.
pub(crate) fn too_new(state: &State) -> Option<Fatal> {
    let level = state.feature_level();
    (level > FEATURE_LEVEL).then(|| Fatal {
        kind: FatalKind::UnknownCommand,
        message: format!(
            "the state is at feature level {level}, this version knows {FEATURE_LEVEL}. Nothing was changed: start the newer \
             version on this data directory"
        ),
    })
}

/// The newest usable snapshot, loaded; None if the log begins with the first entry. Blocks.
///
/// A damaged file is set aside. The one before it serves only if the log still reaches back to it.
pub(crate) fn newest_snapshot(
    snapshots: &Snapshots,
    cluster_id: &str,
    log: &LogState,
) -> Result<Option<(SnapshotFile, State)>, OpenError> {
    let mut damaged = Vec::new();
    for path in snapshots.list()? {
        let loaded = snapshots
            .open_file(&path)
            .and_then(|file| Ok((file.load()?, file)));
        let (state, file) = match loaded {
            Ok(loaded) => loaded,
            Err(error @ SnapshotError::Damaged { .. }) => {
                tracing::error!(%error, "a snapshot is damaged: setting it aside");
                damaged.push(error.to_string());
                snapshots.set_aside(&path)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if file.header().cluster_id != cluster_id {
            return Err(SnapshotError::OtherCluster {
                found: file.header().cluster_id.clone(),
                expected: cluster_id.to_owned(),
                path,
            }
            .into());
        }
        if let Some(fatal) = too_new(&state) {
            return Err(OpenError::Stopped(fatal));
        }
        let index = file.last().map_or(0, |last| last.index);
        if let Some(purged) = log.purged
            && purged.index > index
        {
            return Err(unreachable(index, purged.index, &damaged));
        }
        return Ok(Some((file, state)));
    }
    match log.purged {
        None => {
            if !damaged.is_empty() {
                tracing::warn!("no snapshot is left: replaying the whole log");
            }
            Ok(None)
        }
        Some(purged) => Err(unreachable(0, purged.index, &damaged)),
    }
}

fn unreachable(snapshot: u64, purged: u64, damaged: &[String]) -> OpenError {
    let mut reason = match snapshot {
        0 => format!("there is no usable snapshot, and the log begins only after entry {purged}"),
        snapshot => format!(
            "the newest usable snapshot ends with entry {snapshot}, and the log begins only after entry {purged}"
        ),
    };
    for damage in damaged {
        reason.push_str("; ");
        reason.push_str(damage);
    }
    OpenError::Unrecoverable { reason }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use trireme_proto::{
        raft as proto,
        state::{Batch, Command, RaiseFeatureLevel, command::Body},
    };

    use super::*;
    use crate::{disk::MemoryDisk, snapshot::SNAPSHOT_FORMAT};

    /// What a cluster of a newer version leaves behind.
    pub(crate) fn newer_state() -> State {
        let mut state = State::new();
        let raise = Command {
            body: Some(Body::RaiseFeatureLevel(RaiseFeatureLevel {
                level: FEATURE_LEVEL + 1,
            })),
            ..Command::default()
        };
        state.apply(
            1,
            Batch {
                commands: vec![raise],
                ..Batch::default()
            },
        );
        state
    }

    /// The entry that raised the level may be gone from the log.
    #[test]
    fn a_snapshot_of_a_newer_version_is_not_gone_on_with() {
        let state = newer_state();
        let snapshots = Snapshots::open(Arc::new(MemoryDisk::new()), Path::new("/s")).unwrap();
        let header = proto::SnapshotHeader {
            format: SNAPSHOT_FORMAT,
            cluster_id: "c".to_owned(),
            ..proto::SnapshotHeader::default()
        };
        let written = snapshots.write(&header, state.snapshot_rows(), &state.digest());
        written.unwrap();
        match newest_snapshot(&snapshots, "c", &LogState::default()).unwrap_err() {
            OpenError::Stopped(fatal) => {
                assert_eq!(fatal.kind, FatalKind::UnknownCommand);
                insta::assert_snapshot!(fatal, @"the state is at feature level 7, this version knows 6. Nothing was changed: start the newer version on this data directory");
            }
            other => panic!("{other}"),
        }
        // It is good, and stays.
        assert_eq!(snapshots.list().unwrap().len(), 1);
    }
}
