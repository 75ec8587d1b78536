//! `snapshot`: a cluster's state and history as one file, and a new cluster from it.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use trireme_proto::api::{SaveSnapshotRequest, SavedSnapshot};
use trireme_raft::{
    offline::{self, Founded, Inspection, OfflineError, RestoreOptions},
    snapshot::SnapshotError,
};

use super::connect;
use crate::{
    cli::{SnapshotCommand, Target},
    exit::{CORRUPT, TOO_OLD, coded},
    output::{Format, Progress, print, print_json, table},
};

/// # Errors
/// When no node answers, a file is damaged or in the way, or a directory is not empty.
pub async fn run(command: SnapshotCommand) -> anyhow::Result<()> {
    match command {
        SnapshotCommand::Save { file, target } => save(&file, &target).await,
        SnapshotCommand::Inspect { file, output } => {
            let path = file.clone();
            let found = tokio::task::spawn_blocking(move || offline::inspect(&path)).await?;
            let found = found.map_err(|why| coded(snapshot_code(&why), why.to_string()))?;
            match output {
                Format::Json => print_json(&inspection_json(&file, &found)),
                Format::Text => Ok(print(&inspection_text(&file, &found))?),
            }
        }
        SnapshotCommand::Restore {
            file,
            data_dir,
            node_id,
            peer,
            api,
            output,
        } => {
            let options = RestoreOptions {
                file,
                data_dir: data_dir.clone(),
                node_id,
                peer_address: peer,
                api_address: api,
            };
            let restored = tokio::task::spawn_blocking(move || offline::restore(&options)).await?;
            founded(restored.map_err(offline_error)?, &data_dir, output)
        }
    }
}

async fn save(file: &Path, target: &Target) -> anyhow::Result<()> {
    let in_the_way = || {
        coded(
            1,
            format!(
                "{} is there already: a snapshot never replaces a file; name another",
                file.display()
            ),
        )
    };
    if file.symlink_metadata().is_ok() {
        return Err(in_the_way());
    }
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Aside, on the same file system; gone if this ends before it is whole.
    let mut part = tempfile::Builder::new()
        .prefix(".trireme-snapshot-")
        .suffix(".part")
        .tempfile_in(parent)
        .with_context(|| format!("{}: no file can be made there", parent.display()))?;
    let mut cluster = connect(target).await?.cluster();
    let mut pieces = cluster
        .save_snapshot(SaveSnapshotRequest {})
        .await?
        .into_inner();
    let mut what = None;
    let (mut progress, mut bytes) = (Progress::new(), 0);
    while let Some(piece) = pieces.message().await? {
        what = piece.snapshot.or(what);
        part.write_all(&piece.data)
            .with_context(|| part.path().display().to_string())?;
        bytes += piece.data.len() as u64;
        progress.tell(|| format!("saving: {}", size(bytes)));
    }
    progress.end();
    let Some(what) = what else {
        bail!("the node sent nothing");
    };
    part.as_file()
        .sync_all()
        .with_context(|| part.path().display().to_string())?;
    // What was read back is what will be found when it is needed.
    let path = part.path().to_owned();
    let found = tokio::task::spawn_blocking(move || offline::inspect(&path))
        .await?
        .map_err(|why| coded(1, format!("the snapshot did not arrive whole: {why}")))?;
    part.persist_noclobber(file).map_err(|why| {
        if why.error.kind() == io::ErrorKind::AlreadyExists {
            in_the_way()
        } else {
            anyhow::Error::from(why.error).context(file.display().to_string())
        }
    })?;
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .with_context(|| parent.display().to_string())?;
    report_saved(file, &what, &found, target.output)
}

fn report_saved(
    file: &Path,
    what: &SavedSnapshot,
    found: &Inspection,
    output: Format,
) -> anyhow::Result<()> {
    match output {
        Format::Json => {
            let mut value = inspection_json(file, found);
            value["current"] = what.current.into();
            print_json(&value)
        }
        Format::Text => {
            let (records, archive): (u64, u64) =
                (found.records.values().sum(), found.archive.values().sum());
            let mut text = format!(
                "saved {}: revision {} of cluster {}, {records} records, {archive} rows of history, {}\n",
                file.display(),
                found.revision,
                what.cluster_id,
                size(found.bytes)
            );
            if !what.current {
                writeln!(
                    text,
                    "CAUTION no quorum answered: this is what node {} had; others may have more",
                    what.node_id
                )?;
            }
            Ok(print(&text)?)
        }
    }
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / (1024 * 1024)),
    }
}

fn snapshot_code(why: &SnapshotError) -> u8 {
    match why {
        SnapshotError::Damaged { .. } | SnapshotError::OtherCluster { .. } => CORRUPT,
        SnapshotError::Format { .. } => TOO_OLD,
        SnapshotError::Io { .. } => 1,
    }
}

pub(super) fn offline_error(why: OfflineError) -> anyhow::Error {
    use trireme_raft::{FatalKind, OpenError};
    let code = match &why {
        OfflineError::Open(OpenError::Snapshot(why)) => snapshot_code(why),
        OfflineError::Open(OpenError::Stopped(fatal))
            if fatal.kind == FatalKind::UnknownCommand =>
        {
            TOO_OLD
        }
        OfflineError::Open(_) => CORRUPT,
        OfflineError::TooNew(_) => TOO_OLD,
        OfflineError::Refused(_) | OfflineError::Io { .. } => 1,
    };
    coded(code, why.to_string())
}

/// The time of a header, as people write it.
fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| ms.to_string(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

fn inspection_json(file: &Path, found: &Inspection) -> Value {
    let header = &found.header;
    json!({
        "file": file.display().to_string(), "bytes": found.bytes, "saved": found.saved,
        "format": header.format, "cluster": header.cluster_id,
        "node": (header.node_id > 0).then_some(header.node_id), "revision": found.revision,
        "digest": found.digest, "created_ms": (header.created_ms > 0).then_some(header.created_ms),
        "written_by": header.written_by,
        "feature_level": (header.feature_level > 0).then_some(header.feature_level),
        "used_node_ids": header.used_node_ids,
        "members": members(found).iter().map(|(id, voter, peer)| json!({
            "id": id, "voter": voter, "peer": peer,
        })).collect::<Vec<_>>(),
        "records": found.records, "archive": found.archive,
    })
}

/// Id, whether it votes, peer address.
fn members(found: &Inspection) -> Vec<(u64, bool, String)> {
    let stored = found.header.meta.as_ref();
    let membership = stored
        .and_then(|meta| meta.last_membership.as_ref())
        .and_then(|stored| stored.membership.as_ref());
    let Some(membership) = membership else {
        return Vec::new();
    };
    let votes = |id: u64| {
        membership
            .configs
            .iter()
            .any(|voters| voters.node_ids.contains(&id))
    };
    membership
        .nodes
        .iter()
        .map(|node| (node.id, votes(node.id), node.peer_address.clone()))
        .collect()
}

fn inspection_text(file: &Path, found: &Inspection) -> String {
    let header = &found.header;
    let used: Vec<String> = header.used_node_ids.iter().map(u64::to_string).collect();
    let members: Vec<String> = members(found)
        .iter()
        .map(|(id, voter, peer)| {
            let learner = if *voter { "" } else { ", learner" };
            format!("{id} ({peer}{learner})")
        })
        .collect();
    let made = if found.saved {
        format!(
            "{} by node {}, version {}, feature level {}",
            time(header.created_ms),
            header.node_id,
            header.written_by,
            header.feature_level
        )
    } else {
        format!(
            "by a node for itself, version {}: state alone, no history",
            header.written_by
        )
    };
    let mut text = format!(
        "file      {}: {}, whole\ncluster   {}\nrevision  {}\ndigest    {}\nmade      {made}\nmembers   {}\nused ids  {}\n\n",
        file.display(),
        size(found.bytes),
        header.cluster_id,
        found.revision,
        found.digest,
        members.join(", "),
        used.join(", "),
    );
    let rows = |counts: &std::collections::BTreeMap<&str, u64>| -> Vec<Vec<String>> {
        counts
            .iter()
            .map(|(kind, count)| vec![(*kind).to_owned(), count.to_string()])
            .collect()
    };
    text.push_str(&table(&["RECORDS", "COUNT"], &rows(&found.records)));
    if found.saved {
        text.push('\n');
        text.push_str(&table(&["HISTORY", "ROWS"], &rows(&found.archive)));
    }
    text
}

/// Says what was made and what to do with it.
pub(super) fn founded(made: Founded, data_dir: &Path, output: Format) -> anyhow::Result<()> {
    match output {
        Format::Json => print_json(&json!({
            "cluster": made.cluster_id, "former_cluster": made.former_cluster_id, "node": made.node.id,
            "data_dir": data_dir.display().to_string(), "former_revision": made.former_revision,
            "revision": made.revision, "archive_rows": made.archive_rows, "used_node_ids": made.used_node_ids,
            "kept": made.kept.as_ref().map(|kept| kept.display().to_string()),
        })),
        Format::Text => Ok(print(&founded_text(&made, data_dir))?),
    }
}

fn founded_text(made: &Founded, data_dir: &Path) -> String {
    let node = &made.node;
    let next = made.used_node_ids.last().map_or(1, |last| last + 1);
    let kept = made.kept.as_ref().map_or(String::new(), |kept: &PathBuf| {
        format!("kept      {}\n", kept.display())
    });
    format!(
        "cluster   {cluster}, with the state of revision {former} of cluster {former_cluster}\n\
         node      {id}, its only member, in {dir}\n\
         begins    at revision {revision}, with {rows} rows of history\n\
         {kept}\n\
         Next:\n\
         1. In this node's settings: node_id = {id}, data_dir = \"{dir}\", and no cluster.bootstrap.\n\
         2. Start it: trireme serve --config <settings>\n\
         3. Other machines join with an empty data directory and an id from {next} on:\n\
         \x20  cluster.join = [\"{peer}\"], then trireme cluster promote <id>\n\
         Nodes of the former cluster cannot join with the directories that they have.\n",
        cluster = made.cluster_id,
        former = made.former_revision,
        former_cluster = made.former_cluster_id,
        id = node.id,
        dir = data_dir.display(),
        revision = made.revision,
        rows = made.archive_rows,
        peer = node.peer_address,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use trireme_raft::Node;

    use super::*;

    #[test]
    fn an_inspection_reads_well() {
        let found = Inspection {
            saved: true,
            header: trireme_proto::raft::SnapshotHeader {
                cluster_id: "c".into(),
                node_id: 2,
                created_ms: 1_767_323_045_000,
                written_by: "0.1.0".into(),
                feature_level: 1,
                used_node_ids: vec![1, 2],
                meta: Some(trireme_proto::raft::SnapshotMeta {
                    last_membership: Some(trireme_proto::raft::StoredMembership {
                        membership: Some(trireme_proto::raft::Membership {
                            configs: vec![trireme_proto::raft::VoterSet { node_ids: vec![1] }],
                            nodes: [1, 2]
                                .map(|id| Node {
                                    id,
                                    peer_address: format!("peer-{id}"),
                                    ..Node::default()
                                })
                                .to_vec(),
                        }),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            },
            bytes: 20_480,
            revision: 12,
            digest: "00ff".into(),
            records: BTreeMap::from([("counters", 1), ("jobs", 30)]),
            archive: BTreeMap::from([("jobs", 7)]),
        };
        insta::assert_snapshot!(inspection_text(Path::new("a.snapshot"), &found), @r"
        file      a.snapshot: 20 KiB, whole
        cluster   c
        revision  12
        digest    00ff
        made      2026-01-02 03:04:05 UTC by node 2, version 0.1.0, feature level 1
        members   1 (peer-1), 2 (peer-2, learner)
        used ids  1, 2

        RECORDS   COUNT
        counters  1
        jobs      30

        HISTORY  ROWS
        jobs     7
        ");
    }

    #[test]
    fn what_comes_next_is_told() {
        let made = Founded {
            cluster_id: "new".into(),
            former_cluster_id: "old".into(),
            node: Node {
                id: 4,
                peer_address: "10.0.0.14:8889".into(),
                ..Node::default()
            },
            former_revision: 12,
            revision: 1012,
            archive_rows: 7,
            used_node_ids: vec![1, 2, 3, 4],
            kept: None,
        };
        insta::assert_snapshot!(founded_text(&made, Path::new("/d/data")), @r#"
        cluster   new, with the state of revision 12 of cluster old
        node      4, its only member, in /d/data
        begins    at revision 1012, with 7 rows of history

        Next:
        1. In this node's settings: node_id = 4, data_dir = "/d/data", and no cluster.bootstrap.
        2. Start it: trireme serve --config <settings>
        3. Other machines join with an empty data directory and an id from 5 on:
           cluster.join = ["10.0.0.14:8889"], then trireme cluster promote <id>
        Nodes of the former cluster cannot join with the directories that they have.
        "#);
    }
}
