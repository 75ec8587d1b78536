//! From what is on disk to a state: the newest snapshot that is whole, then the log.

use trireme_state::State;

use super::OpenError;
use crate::{
    snapshot::{SnapshotError, SnapshotFile, Snapshots},
    wal::LogState,
};

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
